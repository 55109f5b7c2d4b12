r"""`.env` files: read, written and compared.  Nothing in them is ever executed or expanded.

    NAME=value              up to the end of the line or a ` #`; white space around it is dropped
    NAME='value'            as it stands, over several lines
    NAME="value"            with \n \r \t \\ \" \$, over several lines
    export NAME=value       the same
    NAME                    refused, as is every other line that is no comment
    # comment               skipped

`$NAME`, `${NAME}`, `$(command)` and backquotes stay the characters that they are; `notes` says which names hold them,
because other programs would have put something else in their place.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgspec

from keyturn.delivery.selection import content_of
from keyturn.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

FILE_BYTES_MAX: Final = 1_048_576
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_SHELL_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_EXPORT: Final = re.compile(r"export[ \t]+")
_BLANK: Final = re.compile(r"[ \t]*")
_COMMENT: Final = re.compile(r"[ \t]+#.*")
_EXPANDED: Final = re.compile(r"\$[A-Za-z_{(]|`")
_PLAIN: Final = re.compile(r"[A-Za-z0-9_./:@%+,=-]+")
_ESCAPES: Final = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"', "$": "$", "`": "`", "'": "'"}


@dataclass(frozen=True, slots=True)
class Dotenv:
    """What a file says; its repr shows names only."""

    values: dict[str, str] = field(repr=False)
    lines: dict[str, int]
    """On which line each name stands."""
    repeated: tuple[str, ...] = ()
    """Names that stand more than once: the last one counts."""
    expanded: tuple[str, ...] = ()
    """Names whose value other programs would expand."""

    def __repr__(self) -> str:
        return f"Dotenv({', '.join(self.values)})"


def parse(content: bytes) -> Dotenv:
    """Read a file; raises InputError that names line and column, and never the text there."""
    if len(content) > FILE_BYTES_MAX:
        raise InputError(f"the file has {len(content)} bytes; expected at most {FILE_BYTES_MAX}", field="file")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"line {line} is not UTF-8", field="file") from None
    return _Reader(text.replace("\r\n", "\n").replace("\r", "\n")).read()


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._values: dict[str, str] = {}
        self._lines: dict[str, int] = {}
        self._repeated: dict[str, None] = {}
        self._expanded: dict[str, None] = {}

    def read(self) -> Dotenv:
        while self._at < len(self._text):
            self._skip(_BLANK)
            if self._next() in {"", "\n", "#"}:
                self._end_line()
            else:
                self._assignment()
        return Dotenv(self._values, self._lines, tuple(self._repeated), tuple(self._expanded))

    def _assignment(self) -> None:
        start = self._at
        # `export=1` is a variable of that name.
        self._skip(_EXPORT)
        found = _NAME.match(self._text, self._at)
        if found is None:
            raise self._error("expected a name", self._at)
        name = found[0]
        self._at = found.end()
        self._skip(_BLANK)
        if self._next() != "=":
            raise self._error(f"expected `=` after {name[:64]!r}", self._at)
        self._at += 1
        self._skip(_BLANK)
        opening = self._next()
        value = self._quoted(opening) if opening in {"'", '"'} else self._plain()
        if "\0" in value:
            raise self._error(f"{name[:64]!r} holds a NUL", start)
        if opening != "'" and _EXPANDED.search(value):
            self._expanded[name] = None
        if name in self._values:
            self._repeated[name] = None
        self._values[name] = value
        self._lines[name] = self._line(start)

    def _plain(self) -> str:
        end = self._text.find("\n", self._at)
        line = self._text[self._at : end if end >= 0 else len(self._text)]
        self._at += len(line) + 1
        # After `=` and white space, a `#` begins a comment as it does after a value.
        if line.startswith("#") and self._text[self._at - len(line) - 2 : self._at - len(line) - 1] in {" ", "\t"}:
            return ""
        return _COMMENT.sub("", line, count=1).rstrip(" \t")

    def _quoted(self, quote: str) -> str:
        start = self._at
        self._at += 1
        parts: list[str] = []
        while (character := self._next()) != quote:
            if not character:
                raise self._error("this quote is never closed", start)
            self._at += 1
            if character == "\\" and quote == '"':
                escaped = self._next()
                self._at += 1
                # As shells have it: a backslash before anything else is a backslash, before a line's end it is nothing.
                parts.append("" if escaped == "\n" else _ESCAPES.get(escaped, "\\" + escaped))
            else:
                parts.append(character)
        self._at += 1
        after = self._at
        self._skip(_BLANK)
        if self._next() not in {"", "\n", "#"}:
            raise self._error("expected the end of the line after the closing quote", after)
        self._end_line()
        return "".join(parts)

    def _next(self) -> str:
        return self._text[self._at : self._at + 1]

    def _skip(self, what: re.Pattern[str]) -> None:
        found = what.match(self._text, self._at)
        self._at = self._at if found is None else found.end()

    def _end_line(self) -> None:
        end = self._text.find("\n", self._at)
        self._at = len(self._text) if end < 0 else end + 1

    def _line(self, at: int) -> int:
        return self._text.count("\n", 0, at) + 1

    def _error(self, what: str, at: int) -> InputError:
        column = at - self._text.rfind("\n", 0, at)
        return InputError(f"line {self._line(at)}, column {column}: {what}", field="file")


# --- writing -----------------------------------------------------------------------------------------------------


def text_of(content: Any, name: str = "") -> str:  # noqa: ANN401 -- JSON
    """Return a field as text: text as it is, other JSON as JSON; raises InputError for bytes that are no text."""
    try:
        text = content_of(content).decode()
    except UnicodeDecodeError:
        message = f"field {name[:64]!r} holds bytes that are no text"
        raise InputError(message, hint="use --format json, or `keyturn secrets get --field`") from None
    if "\0" in text:
        raise InputError(f"field {name[:64]!r} holds a NUL", hint="use --format json")
    return text


def write_dotenv(fields: Mapping[str, Any]) -> str:
    """Return fields as a `.env` file that `parse` reads back."""
    return "".join(f"{_checked(name, _NAME)}={_dotenv_value(text_of(value, name))}\n" for name, value in fields.items())


def write_shell(fields: Mapping[str, Any]) -> str:
    """Return fields as `export` lines for a POSIX shell."""
    lines = ((_checked(name, _SHELL_NAME), text_of(value, name)) for name, value in fields.items())
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in lines)


def write_json(fields: Mapping[str, Any]) -> str:
    """Return fields as one JSON object."""
    return msgspec.json.format(msgspec.json.encode(dict(fields)), indent=2).decode() + "\n"


def write_yaml(fields: Mapping[str, Any]) -> str:
    """Return fields as YAML: one name a line, names and values as JSON, which YAML 1.2 contains."""

    def encoded(value: Any) -> str:  # noqa: ANN401 -- JSON
        # YAML takes these for line ends, and DEL and its kin for unprintable.
        text = msgspec.json.encode(value).decode()
        return re.sub("[\x7f-\x9f\u2028\u2029\ufeff]", lambda found: f"\\u{ord(found[0]):04x}", text)

    return "".join(f"{encoded(name)}: {encoded(value)}\n" for name, value in fields.items()) or "{}\n"


WRITERS: Final = {"dotenv": write_dotenv, "json": write_json, "shell": write_shell, "yaml": write_yaml}


def _dotenv_value(value: str) -> str:
    if _PLAIN.fullmatch(value) is not None:
        return value
    if "'" not in value and "\r" not in value:
        return f"'{value}'"
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$").replace("`", "\\`")
    return '"' + escaped.replace("\n", "\\n").replace("\r", "\\r") + '"'


def _checked(name: str, pattern: re.Pattern[str]) -> str:
    if pattern.fullmatch(name) is None:
        raise InputError(f"field {name[:64]!r} cannot be the name of a variable", hint="use --format json")
    return name


# --- comparing ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Difference:
    """Names, never values."""

    added: tuple[str, ...]
    """In the file and not in the secret."""
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    same: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)


def compare(file: Mapping[str, str], held: Mapping[str, Any]) -> Difference:
    """Compare a file with a secret's fields; a field that is no text is compared as its JSON."""
    both = [name for name in file if name in held]
    changed = tuple(sorted(name for name in both if file[name].encode() != content_of(held[name])))
    return Difference(
        added=tuple(sorted(set(file) - set(held))),
        removed=tuple(sorted(set(held) - set(file))),
        changed=changed,
        same=tuple(sorted(set(both) - set(changed))),
    )
