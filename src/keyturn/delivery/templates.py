r"""Text with references to held secrets, filled in.

    {{ secret "production/payments/stripe" "key" }}            a field as it is
    {{ secret "production/payments/stripe" "key" | json }}     through a filter: json, base64, url
    {{ secret "production/payments/stripe" }}                  all fields, as JSON
    {{ "{{" }}                                                 two braces

    reference  = "secret" path [ field ] { "|" filter } | text
    path, field, text = '"' characters '"'        with \" and \\

No logic, no expressions, nothing else between `{{` and `}}`: a template that is not understood is refused whole, with
line and column.  A value is put in as it is unless a filter says otherwise: choose the one of the format around it.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import msgspec

from keyturn.delivery.selection import content_of
from keyturn.errors import InputError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

TEMPLATE_BYTES_MAX: Final = 4_194_304
_STRING: Final = re.compile(r'"((?:[^"\\\n]|\\["\\])*)"')
_WORD: Final = re.compile(r"[a-z0-9_]+")
_SPACE: Final = re.compile(r"\s*")


def _json(content: bytes) -> bytes:
    return msgspec.json.encode(_text(content))


def _url(content: bytes) -> bytes:
    return quote(content, safe="").encode()


FILTERS: Final[dict[str, Callable[[bytes], bytes]]] = {"json": _json, "base64": base64.b64encode, "url": _url}


@dataclass(frozen=True, slots=True)
class Place:
    """A reference in a template and where it stands."""

    path: str
    field: str | None
    filters: tuple[str, ...]
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Template:
    """A template that was understood."""

    parts: tuple[str | Place, ...]

    @property
    def paths(self) -> tuple[str, ...]:
        """Every secret it refers to, once."""
        return tuple(dict.fromkeys(part.path for part in self.parts if isinstance(part, Place)))

    def render(self, values: Mapping[str, Mapping[str, Any]]) -> bytes:
        """Fill in the fields of each path; raises NotFoundError with line and column for a field that is not there."""
        return b"".join(
            part.encode("utf-8", "surrogateescape") if isinstance(part, str) else _filled(part, values[part.path])
            for part in self.parts
        )


def parse(content: bytes) -> Template:
    """Read a template; raises InputError with line and column."""
    if len(content) > TEMPLATE_BYTES_MAX:
        raise InputError(f"the template has {len(content)} bytes; expected at most {TEMPLATE_BYTES_MAX}")
    text = content.decode("utf-8", "surrogateescape")
    parts: list[str | Place] = []
    at = 0
    while (start := text.find("{{", at)) >= 0:
        parts.append(text[at:start])
        part, at = _Action(text, start).read()
        parts.append(part)
    return Template((*parts, text[at:]))


class _Action:
    """What stands between `{{` and `}}`."""

    def __init__(self, text: str, start: int) -> None:
        self._text = text
        self._start = start
        self._at = start + 2

    def read(self) -> tuple[str | Place, int]:
        literal = self._string()
        if literal is not None:
            self._expect("}}")
            return literal, self._at
        if self._word() != "secret":
            raise self._error('expected `secret "path" "field"`')
        path = self._string()
        if not path:
            raise self._error("expected the path of a secret in double quotes")
        of_field = self._string()
        filters: list[str] = []
        while self._take("|"):
            name = self._word()
            if name not in FILTERS:
                raise self._error(f"expected a filter: {', '.join(FILTERS)}")
            filters.append(name)
        self._expect("}}")
        line, column = _position(self._text, self._start)
        return Place(path, of_field, tuple(filters), line, column), self._at

    def _string(self) -> str | None:
        self._space()
        found = _STRING.match(self._text, self._at)
        if found is None:
            return None
        self._at = found.end()
        return re.sub(r"\\(.)", r"\1", found[1])

    def _word(self) -> str:
        self._space()
        found = _WORD.match(self._text, self._at)
        return "" if found is None else self._advance(found)

    def _advance(self, found: re.Match[str]) -> str:
        self._at = found.end()
        return found[0]

    def _take(self, what: str) -> bool:
        self._space()
        if not self._text.startswith(what, self._at):
            return False
        self._at += len(what)
        return True

    def _expect(self, what: str) -> None:
        if not self._take(what):
            raise self._error(f"expected `{what}`")

    def _space(self) -> None:
        found = _SPACE.match(self._text, self._at)
        self._at = self._at if found is None else found.end()

    def _error(self, what: str) -> InputError:
        line, column = _position(self._text, self._at)
        return InputError(f"line {line}, column {column}: {what}", field="template")


def _filled(place: Place, fields: Mapping[str, Any]) -> bytes:
    if place.field is not None and place.field not in fields:
        raise NotFoundError(
            f"line {place.line}, column {place.column}: {place.path} has no field {place.field[:64]!r}",
            hint=f"it has: {', '.join(sorted(fields)) or 'none'}",
        )
    content = content_of(dict(fields) if place.field is None else fields[place.field])
    for name in place.filters:
        try:
            content = FILTERS[name](content)
        except UnicodeDecodeError:
            message = f"line {place.line}, column {place.column}: the value is not UTF-8, which `{name}` needs"
            raise InputError(message, field="template") from None
    return content


def _text(content: bytes) -> str:
    return content.decode()


def _position(text: str, at: int) -> tuple[int, int]:
    return text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)
