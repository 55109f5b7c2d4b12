"""References between secrets: a field's text may take in a field of another secret.

    ${secret:production/database/main#password}        the current value of that field
    $${secret:…}                                       the text `${secret:…}` itself

A text may hold several, among other text.  References are looked for in every text of a version's fields, in lists and
objects too, but not in the names of fields.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from keyturn.errors import InputError
from keyturn.vault.paths import parse_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

REFERENCES_MAX: Final = 64
"""Bound of different references in one version."""

_FIELD_CHARACTERS_MAX: Final = 256
_OPENING: Final = re.compile(r"\$?\$\{secret:")


@dataclass(frozen=True, slots=True, order=True)
class Reference:
    """A field of the secret at a path."""

    path: str
    field: str


def found(fields: Mapping[str, object]) -> list[Reference]:
    """Return the different references that fields hold, in order; raises InputError naming the field at fault."""
    references: set[Reference] = set()
    for name, value in fields.items():
        try:
            for text in _texts(value):
                references.update(part for part in parts(text) if isinstance(part, Reference))
        except ValueError as error:
            raise InputError(
                f"field {_shown(name)} holds a reference that is none: {error}",
                field="fields",
                hint="write ${secret:<path>#<field>}, or $${secret: for the text itself",
            ) from None
    if len(references) > REFERENCES_MAX:
        raise InputError(
            f"the fields hold {len(references)} references; expected at most {REFERENCES_MAX}", field="fields"
        )
    return sorted(references)


def parts(text: str) -> list[str | Reference]:
    """Split a text into what stands as it is and what is referred to; raises ValueError that never repeats the text."""
    split: list[str | Reference] = []
    at = 0
    while (opening := _OPENING.search(text, at)) is not None:
        if opening[0].startswith("$$"):
            split.append(text[at : opening.start()] + opening[0][1:])
            at = opening.end()
            continue
        end = text.find("}", opening.end())
        if end < 0:
            raise ValueError("expected a `}` at its end")
        if opening.start() > at:
            split.append(text[at : opening.start()])
        split.append(_reference(text[opening.end() : end]))
        at = end + 1
    if at < len(text):
        split.append(text[at:])
    return split


def _reference(text: str) -> Reference:
    path, hash_sign, field = text.partition("#")
    if not hash_sign or not field:
        raise ValueError("expected a path, `#` and the name of a field")
    if len(field) > _FIELD_CHARACTERS_MAX:
        raise ValueError("the name of its field is too long")
    try:
        return Reference(parse_path(path).text, field)
    except InputError:
        raise ValueError("its path is not the path of a secret") from None


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)


def _shown(name: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in name)[:64]
