"""What a field may be, where it is one of a few words: for the hint of an error that says that it is none of them."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from msgspec import inspect

if TYPE_CHECKING:
    from collections.abc import Iterator

_STEP: Final = re.compile(r"\[[^\]]*\]|[^.\[\]]+")
_NONE_OF_THEM: Final = "Invalid enum value"


def choices_at(kind: Any, message: str, path: str) -> str | None:  # noqa: ANN401 -- any type that is decoded
    """Return the words that a value may be which msgspec refused with `message` at `path`, such as `rule[0].verdict`.

    None when it was refused for something else, or what it may be is not known.
    """
    if not message.startswith(_NONE_OF_THEM):
        return None
    at = list(_alternatives(_known(kind)))
    for step in _STEP.findall(path):
        at = [found for one in at for found in _below(one, step)]
    words = [str(word) for one in at for word in _words(one)]
    return f"known here: {', '.join(dict.fromkeys(words))}" if words else None


@cache
def _known(kind: Any) -> inspect.Type:  # noqa: ANN401 -- see above
    return inspect.type_info(kind)


def _below(one: inspect.Type, step: str) -> Iterator[inspect.Type]:
    if isinstance(one, inspect.StructType):
        for field in one.fields:
            if field.encode_name == step:
                yield from _alternatives(field.type)
    elif isinstance(one, (inspect.CollectionType, inspect.VarTupleType)):
        yield from _alternatives(one.item_type)
    elif isinstance(one, inspect.DictType):
        yield from _alternatives(one.value_type)


def _alternatives(one: inspect.Type) -> Iterator[inspect.Type]:
    if isinstance(one, inspect.UnionType):
        yield from one.types
    elif isinstance(one, inspect.Metadata):
        yield from _alternatives(one.type)
    else:
        yield one


def _words(one: inspect.Type) -> list[Any]:
    if isinstance(one, inspect.CollectionType):
        return [word for item in _alternatives(one.item_type) for word in _words(item)]
    if isinstance(one, inspect.EnumType):
        return [member.value for member in one.cls]
    return list(one.values) if isinstance(one, inspect.LiteralType) else []
