"""Request bodies: read with bounds, decoded strictly, refused with the name of the field.

Nothing is coerced: `"5"` is not a number, and a field that is not known is an error.  A body that is not UTF-8, holds
half a surrogate pair, or holds NUL (which no database stores) is refused here, once, for every route.
"""

from __future__ import annotations

import asyncio
import re
from functools import cache
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from keyturn.errors import InputError, TooLargeError, UnsupportedError
from keyturn.http.patterns import in_words
from keyturn.kernel.redact import scrub
from keyturn.wire.choices import choices_at

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

T = TypeVar("T")

BODY_BYTES_MAX: Final = 1024 * 1024
BULK_BYTES_MAX: Final = 4 * 1024 * 1024
BODY_READ_SECONDS: Final = 15.0

_AT: Final = re.compile(r"^(?P<what>.*?)(?: - at `\$(?P<path>[^`]*)`)?$", re.DOTALL)
_UNKNOWN: Final = "Object contains unknown field"
_PATTERN: Final = "Expected `str` matching regex '"
_NAMED: Final = re.compile(r"^Object (?:contains unknown|missing required) field `(?P<name>.*)`", re.DOTALL)
_ESCAPED_NUL: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_FIELD_CHARACTERS_MAX: Final = 200


@cache
def decoder_for(annotation: Any) -> msgspec.json.Decoder[Any]:  # noqa: ANN401 -- any type a route declares
    """Return the one strict decoder of a type."""
    return msgspec.json.Decoder(annotation)


def decode(decoder: msgspec.json.Decoder[T], raw: bytes) -> T:
    """Decode a JSON body; raises InputError that names the field and never repeats a credential."""
    try:
        value = decoder.decode(raw)
    except msgspec.ValidationError as error:
        raise _invalid(str(error), decoder.type) from None
    except UnicodeDecodeError:
        raise InputError("the body is not UTF-8", hint="encode the JSON text as UTF-8") from None
    except (msgspec.DecodeError, RecursionError):
        raise InputError("the body is not well-formed JSON", hint="send one JSON object") from None
    if b"\\u0000" in raw and _ESCAPED_NUL.search(raw):
        raise InputError("the body holds the character NUL", field=_field_with_nul(raw), hint="remove it")
    return value


def require_json(content_type: str) -> None:
    """Raise UnsupportedError unless a Content-Type header says `application/json` (in UTF-8)."""
    essence, _, parameters = content_type.partition(";")
    if essence.strip().lower() != "application/json":
        shown = scrub(essence.strip())[:64]
        raise UnsupportedError(
            f"the body is declared as {shown!r}; expected application/json",
            hint="set the header Content-Type: application/json",
        )
    _, found, charset = parameters.lower().partition("charset=")
    if found and charset.partition(";")[0].strip(' "') not in {"utf-8", "utf8"}:
        raise UnsupportedError("the body is declared in another charset than UTF-8", hint="send UTF-8")


def require_length_within(declared: str | None, bytes_max: int) -> None:
    """Refuse a declared Content-Length beyond the bound, before anything is read."""
    if declared is not None and declared.isascii() and declared.isdigit() and int(declared[:20]) > bytes_max:
        raise too_large(bytes_max)


async def read_within(chunks: AsyncIterator[bytes], bytes_max: int) -> bytes:
    """Join a body's chunks; raises TooLargeError past the bound and InputError when it does not arrive in time."""
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_READ_SECONDS):
            async for chunk in chunks:
                size += len(chunk)
                if size > bytes_max:
                    raise too_large(bytes_max)
                parts.append(chunk)
    except TimeoutError:
        raise InputError(
            f"the body did not arrive within {BODY_READ_SECONDS:g} s", code="body_timeout", hint="send it again"
        ) from None
    return b"".join(parts)


def too_large(bytes_max: int) -> TooLargeError:
    """Build the one refusal of a body that is too large."""
    return TooLargeError(f"the body is larger than {bytes_max} bytes", hint="send less at a time")


def _invalid(text: str, wanted: object) -> InputError:
    found = _AT.match(text)
    what, path = (found["what"], found["path"] or "") if found else (text, "")
    field = path.removeprefix(".")
    if named := _NAMED.match(what):
        field = f"{field}.{named['name']}" if field else named["name"]
    hint = choices_at(wanted, what, field)
    field = printable(field)
    # The end of our patterns refuses a newline where `$` alone would not; who reads a message takes `$` for that.
    message = _in_words(what) or printable(what.replace(r"(?!\\n)$", "$")).replace("`", "")
    if what.startswith(_UNKNOWN) and not path:
        hint = _known_fields(wanted)
    return InputError(f"{field}: {message}" if field else message, field=field or None, hint=hint)


def _in_words(what: str) -> str | None:
    pattern = what.removeprefix(_PATTERN)
    said = None if pattern == what else in_words(pattern.replace("\\\\", "\\"))
    return said and f"expected {said}"


def _known_fields(wanted: object) -> str | None:
    if not (isinstance(wanted, type) and issubclass(wanted, msgspec.Struct)):
        return None
    names = sorted(one.encode_name for one in msgspec.structs.fields(wanted))
    return f"known here: {', '.join(names)}" if names else "send an empty object"


def printable(text: str) -> str:
    """Return text from a request as an error may repeat it: short, one line, without credentials."""
    shown = "".join(character if character.isprintable() else "?" for character in text)
    return scrub(shown)[:_FIELD_CHARACTERS_MAX]


def _field_with_nul(raw: bytes) -> str | None:
    try:
        return _find_nul(msgspec.json.decode(raw), "")
    except RecursionError:  # nested deeper than anything that is wanted
        return None


def _find_nul(value: object, at: str) -> str | None:
    if isinstance(value, str):
        return printable(at) if "\0" in value else None
    if isinstance(value, list):
        pairs = [(f"{at}[{index}]", item) for index, item in enumerate(value)]
    elif isinstance(value, dict):
        pairs = [(f"{at}.{name}" if at else name, item) for name, item in value.items()]
        if any("\0" in name for name in value):
            return printable(at) or None
    else:
        return None
    return next((found for name, item in pairs if (found := _find_nul(item, name)) is not None), None)
