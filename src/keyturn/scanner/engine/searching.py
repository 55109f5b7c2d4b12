r"""Searches a rule's expression in a window: the same matches as RE2's `finditer`, in less time.

An automaton of `[\w.]{0,40}key.{8,256}` has a state for nearly every way to count, and making them is what costs.
So a large expression is searched without its head and tail: that has a match exactly where the whole has one.
The head is then measured backwards, and the whole is matched from there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from keyturn.scanner.engine.plans import compiled, first_start

if TYPE_CHECKING:
    from collections.abc import Iterator

    import re2

    from keyturn.scanner.engine.plans import Plan
    from keyturn.scanner.model import Bytes

STEP: Final = 16 * 1024
"""A window is searched piece by piece, since RE2 may read to its end for every match, however short that is."""
STEP_DENSE: Final = 512
DENSE: Final = 64
"""So many matches in a piece make the next one small."""
PROGRAM_LARGE: Final = 400


class Search:
    """One expression, ready to be searched."""

    __slots__ = ("_core", "_head", "_head_max", "_reach", "_whole", "groups")

    def __init__(self, expression: str, plan: Plan, field: str) -> None:
        """Compile an expression that is known to be right."""
        self._whole: re2._Regexp = compiled(expression, field)
        self.groups: int = self._whole.groups
        self._reach = plan.before
        self._core: re2._Regexp | None = None
        self._head, self._head_max = b"", 0
        if plan.split is not None and self._whole.programsize > PROGRAM_LARGE:
            core = plan.split.core.decode("latin-1")
            self._core = compiled(core, field, latin=True, captures=False)
            self._head, self._head_max = plan.split.head, plan.split.most

    def matches(self, data: Bytes, low: int, high: int) -> Iterator[re2._Match]:
        """Yield the matches between two places, in order; what stands around them counts as context."""
        at, step = low, STEP
        while at < high:
            limit = min(high, at + step + self._reach)
            stop = high if limit == high else at + step
            start, at, dense = at, stop, False
            for number, match in enumerate(self._between(data, start, limit)):
                if match.start() >= stop:
                    break
                if number == DENSE:
                    at, dense = match.start(), True
                    break
                yield match
                at = max(stop, match.end())
            step = STEP_DENSE if dense else STEP

    def _between(self, data: Bytes, low: int, high: int) -> Iterator[re2._Match]:
        if self._core is None:
            return self._whole.finditer(data, low, high)  # type: ignore[no-any-return]
        return self._split_between(self._core, data, low, high)

    def _split_between(self, core: re2._Regexp, data: Bytes, low: int, high: int) -> Iterator[re2._Match]:
        head, most = self._head, self._head_max
        while low <= high and (start := first_start(core, data, low, high)) >= 0:
            first = max(low, start - most)
            while start > first and data[start - 1] in head:
                start -= 1
            match = self._whole.match(data, start, min(high, start + self._reach))
            if match is None:
                return
            yield match
            low = max(match.end(), start + 1)
