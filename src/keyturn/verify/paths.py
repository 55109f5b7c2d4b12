"""Methods and paths against a list of allowed endpoints.

    GET           /orders              exactly this path
    GET, POST     /carts/*/items       `*` is one segment that is not empty
    *             /files/*             `*` at the end is one segment or more; `**` there says the same

As everywhere in Keyturn, a `*` at the end takes in one segment or more; it never takes in none, so `/files/*`
does not allow `/files`.  A trailing slash is part of the path, except after a `*` at the end.  Paths compare with
case, methods without; GET does not imply HEAD.

The path is percent-decoded once before it is compared, and a query string is ignored.  A path over which two
servers could disagree is denied: dot segments (also `..;`), `//`, encoded slashes, backslashes, NUL and other
control characters, bytes that are not UTF-8, a broken `%`, a fragment, no leading slash, and what would turn into
one of these if a careless server decoded it again.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_to_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable

PATH_CHARS_MAX: Final = 8192
PATTERN_CHARS_MAX: Final = 1024

_PLAIN: Final = re.compile(r"(?:/[A-Za-z0-9_~@:=,+-][A-Za-z0-9._~@:=,+-]*+)++/?|/")
_BROKEN_PERCENT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_ENCODED: Final = re.compile(r"%[0-9A-Fa-f]{2}")
_ENCODED_SLASH: Final = re.compile(r"%(?:2f|5c)", re.IGNORECASE)
_FORBIDDEN: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\\#]")
_FORBIDDEN_DECODED: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\\]")
_METHOD: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,31}|\*")


def normal_path(path: str) -> str | None:
    """Return the path decoded once and without its query string, or None when it is not safe to compare."""
    if len(path) > PATH_CHARS_MAX:
        return None
    path = path.partition("?")[0]
    if _PLAIN.fullmatch(path) is not None:
        return path
    if _FORBIDDEN.search(path) is not None:
        return None
    return _decoded(path)


def _decoded(path: str) -> str | None:
    if not path.startswith("/") or _BROKEN_PERCENT.search(path) or _ENCODED_SLASH.search(path):
        return None
    once = _decode_once(path)
    if once is None or not _safe(once):
        return None
    if _ENCODED.search(once) is not None:
        twice = None if _ENCODED_SLASH.search(once) else _decode_once(once)
        if twice is None or not _safe(twice):
            return None
    return once


def _decode_once(path: str) -> str | None:
    try:
        return unquote_to_bytes(path).decode()
    except UnicodeError:
        return None


def _safe(path: str) -> bool:
    if _FORBIDDEN_DECODED.search(path) is not None or "//" in path:
        return False
    return all(segment.partition(";")[0] not in {".", ".."} for segment in path.split("/"))


def parse_path(pattern: str) -> str:
    """Return the regular expression for a path pattern; raises ValueError that says what was expected."""
    if not pattern.startswith("/") or len(pattern) > PATTERN_CHARS_MAX:
        raise ValueError(f"expected a path that starts with /, of at most {PATTERN_CHARS_MAX} characters")
    if "?" in pattern or "#" in pattern:
        raise ValueError("expected a path without ? and #; write %3F or %23 for the character itself")
    segments = pattern[1:].split("/")
    end = ""
    if segments[-1] in {"*", "**"}:
        segments.pop()
        end = "/[^/]+(?:/[^/]+)*/?"
    if "" in (segments if end else segments[:-1]):
        raise ValueError("expected no empty segment, found //")
    return "".join("/[^/]+" if segment == "*" else "/" + _literal(segment) for segment in segments) + end


def _literal(segment: str) -> str:
    if "*" in segment:
        raise ValueError("expected * as a whole segment and ** only at the end; write %2A for the character itself")
    normal = normal_path("/" + segment)
    if normal is None:
        raise ValueError("expected no dot segment, encoded slash, backslash, control character or broken %")
    return re.escape(normal[1:])


def parse_methods(methods: tuple[str, ...]) -> frozenset[str]:
    """Return the methods in upper case, `*` standing for any; raises ValueError that says what was expected."""
    if not methods or any(_METHOD.fullmatch(method) is None for method in methods):
        raise ValueError("expected one HTTP method or more, such as GET, or * for any")
    return frozenset(method.upper() for method in methods)


class Endpoints:
    """Allowed combinations of method and path, compiled from what `parse_methods` and `parse_path` returned."""

    __slots__ = ("_by_method",)

    def __init__(self, endpoints: Iterable[tuple[frozenset[str], str]]) -> None:
        """Join the paths of each method into one expression; an empty list contains nothing."""
        paths: dict[str, list[str]] = {}
        for methods, path in endpoints:
            for method in methods:
                paths.setdefault(method, []).append(path)
        self._by_method = {method: re.compile("|".join(joined)) for method, joined in paths.items()}

    def contain(self, method: str | None, path: str | None) -> bool:
        """Say whether a call of the method on the path is allowed."""
        if method is None or path is None or not method.isascii():
            return False
        normal = normal_path(path)
        if normal is None:
            return False
        for name in (method.upper(), "*"):
            paths = self._by_method.get(name)
            if paths is not None and paths.fullmatch(normal) is not None:
                return True
        return False
