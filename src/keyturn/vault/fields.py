"""What a version holds: a JSON object, checked, encoded and merged.

    any JSON value              a float is kept as it is; there is no NaN and no infinity
    bytes                       by convention {"$binary": "<base64>"}, which the command line writes and reads back
    a name that stands twice    the later one counts

A value is refused where no reader could take it: deeper than `DEPTH_MAX`, larger than `VALUE_BYTES_MAX`, or with text
that is not Unicode or holds NUL.  An error names the field, never what it holds.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import msgspec

from keyturn.errors import InputError, TooLargeError
from keyturn.kernel.redact import scrub
from keyturn.wire.secrets import DEPTH_MAX, FIELDS_MAX, VALUE_BYTES_MAX

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

NAME_CHARACTERS_MAX: Final = 256

_OBJECT: Final = msgspec.json.Decoder(dict[str, Any])


def check_fields(fields: Mapping[str, Any]) -> None:
    """Raise InputError for fields that could not be read back; call it before anything else walks them."""
    for name, value in fields.items():
        _check_name(name)
        fault = _fault(value)
        if fault is not None:
            raise InputError(f"field {shown(name)} {fault}", field="fields")


def encode_fields(fields: Mapping[str, Any]) -> bytes:
    """Return checked fields as JSON; raises InputError or TooLargeError when they are too many or too large."""
    if len(fields) > FIELDS_MAX:
        raise InputError(f"there are {len(fields)} fields; expected at most {FIELDS_MAX}", field="fields")
    encoded = msgspec.json.encode(fields)
    if len(encoded) > VALUE_BYTES_MAX:
        raise TooLargeError(
            f"the fields are {len(encoded)} bytes as JSON; expected at most {VALUE_BYTES_MAX}",
            field="fields",
            hint="keep large data elsewhere, and the key to it here",
        )
    return encoded


def decode_fields(encoded: bytes) -> dict[str, Any]:
    """Return fields from what `encode_fields` returned."""
    return _OBJECT.decode(encoded)


def merge_fields(held: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields with the patch applied as RFC 7396 says; both must have been checked."""
    merged = dict(held)
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, dict):
            below = merged.get(name)
            merged[name] = merge_fields(below if isinstance(below, dict) else {}, value)
        else:
            merged[name] = value
    return merged


def shown(name: str) -> str:
    """Return the name of a field as an error may repeat it."""
    return scrub("".join(character if character.isprintable() else "?" for character in name[:64]))


def _check_name(name: str) -> None:
    if not 1 <= len(name) <= NAME_CHARACTERS_MAX:
        raise InputError(
            f"the name of a field has {len(name)} characters; expected 1 to {NAME_CHARACTERS_MAX}", field="fields"
        )
    fault = _text_fault(name)
    if fault is not None:
        raise InputError(f"the name {shown(name)} of a field {fault}", field="fields")


def _fault(value: object) -> str | None:
    """Return why nobody could read the value back, or None.  Walks without recursion: depth is what is checked."""
    waiting: list[tuple[object, int]] = [(value, 1)]
    while waiting:
        found, depth = waiting.pop()
        if isinstance(found, str):
            fault = _text_fault(found)
            if fault is not None:
                return fault
        elif isinstance(found, dict | list | tuple):
            if depth >= DEPTH_MAX:
                return f"is nested deeper than {DEPTH_MAX} levels"
            if isinstance(found, dict) and not all(isinstance(name, str) for name in found):
                return "holds a name that is no text"
            waiting.extend((below, depth + 1) for below in _below(found))
        elif isinstance(found, float) and not math.isfinite(found):
            return "holds a number that JSON has none of"
        elif found is not None and not isinstance(found, bool | int | float):
            return f"holds a {type(found).__name__}, which JSON has none of"
    return None


def _below(container: dict[Any, Any] | list[Any] | tuple[Any, ...]) -> Iterator[object]:
    if isinstance(container, dict):
        yield from container.keys()
        yield from container.values()
    else:
        yield from container


def _text_fault(text: str) -> str | None:
    if "\0" in text:
        return "holds the character NUL"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "holds half of a surrogate pair, which is no text"
    return None
