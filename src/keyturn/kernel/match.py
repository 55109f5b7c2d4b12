"""The one matcher, for scopes and for grants.

    pattern            matches                                  does not match
    orders:read        orders:read                              orders:write, orders.read
    orders:*           orders:read, orders:read:own             orders, orders.read, orders:~root
    orders:*:read      orders:own:read                          orders:read, orders:a:b:read
    production/*       production/stripe, production/a/b.c      staging/stripe
    *                  anything without a `~` segment           ~root

A name is segments of `A-Za-z0-9_-~@+=` between the separators `:`, `.` and `/`; no segment is empty.
A pattern is a name in which `*` may stand for whole segments: one in the middle, one or more at the end.
Separators have to agree with those of the pattern; those inside what the last `*` takes in may be any.
A segment that starts with `~` is matched by no `*`, only by itself.

What is not a name is matched by nothing, and what is not a pattern matches nothing: a typing error denies.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, final

LENGTH_MAX: Final = 512

_SEPARATOR: Final = re.compile(r"([:./])")
_CHARACTER: Final = re.compile(r"[A-Za-z0-9_~@+=-]")
_WILD_SEGMENT: Final = r"[A-Za-z0-9_@+=-][A-Za-z0-9_~@+=-]*+"
_WILD_END: Final = rf"{_WILD_SEGMENT}(?:[:./]{_WILD_SEGMENT})*+"


@final
class Matcher:
    """Several patterns at once: a name matches when one of them does."""

    __slots__ = ("_literals", "_wild")

    def __init__(self, patterns: Iterable[str]) -> None:
        """Prepare the patterns; those that are malformed match nothing."""
        valid = [pattern for pattern in patterns if _fault(pattern, wildcards=True) is None]
        self._literals = frozenset(pattern for pattern in valid if "*" not in pattern)
        wild = sorted({_regex(pattern) for pattern in valid if "*" in pattern})
        self._wild = re.compile("|".join(wild)).fullmatch if wild else None

    def matches(self, name: str) -> bool:
        """Tell whether any pattern matches the name; never raises."""
        if name in self._literals:
            return True
        wild = self._wild
        return wild is not None and len(name) <= LENGTH_MAX and wild(name) is not None


def compile_patterns(patterns: Iterable[str]) -> Matcher:
    """Return a matcher for the patterns; equal patterns share one, so that keys with equal scopes do."""
    return _compiled(tuple(patterns))


def matches(pattern: str, name: str) -> bool:
    """Tell whether the pattern matches the name; never raises."""
    return _compiled((pattern,)).matches(name)


def covers(wide: str, narrow: str) -> bool:
    """Tell whether the wide pattern matches every name that the narrow one does.

    This is the rule of attenuation: who holds `wide` may hand out `narrow`.
    A malformed pattern covers nothing and is covered by nothing.
    """
    if _fault(wide, wildcards=True) is not None or _fault(narrow, wildcards=True) is not None:
        return False
    # Segments are at even places, separators between them at odd ones.
    ours, theirs = _SEPARATOR.split(wide), _SEPARATOR.split(narrow)
    if len(theirs) < len(ours):
        return False
    if ours[-1] != "*":
        # No part of a literal end covers `*`, so a narrow pattern that goes on with "one or more" is refused here too.
        return len(theirs) == len(ours) and all(map(_covers_part, ours, theirs))
    fixed = len(ours) - 1
    rest = theirs[fixed::2]
    return all(map(_covers_part, ours[:fixed], theirs)) and not any(part.startswith("~") for part in rest)


def check_pattern(text: str) -> None:
    """Raise ValueError, naming position and reason, unless the text is a pattern."""
    _require(text, "pattern", wildcards=True)


def check_name(text: str) -> None:
    """Raise ValueError, naming position and reason, unless the text is a name."""
    _require(text, "name", wildcards=False)


@lru_cache(maxsize=4096)
def _compiled(patterns: tuple[str, ...]) -> Matcher:
    return Matcher(patterns)


def _regex(pattern: str) -> str:
    *start, last = _SEPARATOR.split(pattern)
    middle = "".join(_WILD_SEGMENT if part == "*" else re.escape(part) for part in start)
    return middle + (_WILD_END if last == "*" else re.escape(last))


def _covers_part(wide: str, narrow: str) -> bool:
    return wide == narrow or (wide == "*" and not narrow.startswith("~"))


def _require(text: str, kind: str, *, wildcards: bool) -> None:
    fault = _fault(text, wildcards=wildcards)
    if fault is not None:
        position, reason = fault
        raise ValueError(f"expected a {kind}: {reason} at position {position}")


def _fault(text: str, *, wildcards: bool) -> tuple[int, str] | None:
    """Return where and why the text is malformed, or None; positions count from 0."""
    if len(text) > LENGTH_MAX:
        return LENGTH_MAX, f"more than {LENGTH_MAX} characters"
    position = 0
    for place, part in enumerate(_SEPARATOR.split(text)):
        if place % 2 == 0 and not (wildcards and part == "*"):
            if not part:
                return position, "an empty segment"
            for offset, character in enumerate(part):
                if _CHARACTER.match(character) is None:
                    return position + offset, _reason(character, wildcards=wildcards)
        position += len(part)
    return None


def _reason(character: str, *, wildcards: bool) -> str:
    if character != "*":
        return f"the character {character!a} is not allowed"
    return "a * that is not a whole segment" if wildcards else "a * is for patterns only"
