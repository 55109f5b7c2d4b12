"""Claims against patterns: pure.

    pattern                     matches
    acme/payments               that text alone, code point for code point
    repo:acme/payments:*        every text that begins with `repo:acme/payments:`; `*` stands at the end alone

A claim that holds a list matches when one of its items does.  Numbers and booleans match as JSON writes them.
A claim whose name begins with `/` is a JSON pointer (RFC 6901) to one inside others: `/kubernetes.io/namespace`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keyturn.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_ITEMS_MAX = 256


def check_pattern(pattern: str, field: str) -> None:
    """Refuse a pattern with a `*` anywhere but at its end; raises InputError."""
    if "*" in pattern[:-1]:
        raise InputError(
            "expected a `*` at the end of a pattern alone", field=field, hint="list several patterns instead"
        )


def matches(pattern: str, text: str) -> bool:
    """Tell whether a text has a pattern."""
    return text.startswith(pattern[:-1]) if pattern.endswith("*") else text == pattern


def any_matches(patterns: Iterable[str], text: str) -> bool:
    """Tell whether a text has one of the patterns."""
    return any(matches(pattern, text) for pattern in patterns)


def as_patterns(given: str | tuple[str, ...]) -> tuple[str, ...]:
    """Return one pattern, or several, as several."""
    return (given,) if isinstance(given, str) else given


def texts_of(claims: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """Return what a claim holds as texts; empty when there is no such claim."""
    value = _pointed(claims, name) if name.startswith("/") else claims.get(name)
    items = value[:_ITEMS_MAX] if isinstance(value, list) else [value]
    return tuple(text for text in map(_text, items) if text is not None)


def unbound(claims: Mapping[str, Any], bound: Mapping[str, str | tuple[str, ...]]) -> str | None:
    """Return the first bound claim that has none of its patterns, None when all have one."""
    for name, given in bound.items():
        if not any(any_matches(as_patterns(given), text) for text in texts_of(claims, name)):
            return name
    return None


def _pointed(claims: Mapping[str, Any], pointer: str) -> Any:  # noqa: ANN401 -- JSON
    value: Any = claims
    for part in pointer.split("/")[1:]:
        if not isinstance(value, dict):
            return None
        value = value.get(part.replace("~1", "/").replace("~0", "~"))
    return value


def _text(value: Any) -> str | None:  # noqa: ANN401 -- JSON
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value) if abs(value) < 10**18 else None
    return value if isinstance(value, str) else None
