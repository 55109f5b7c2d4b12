"""What the detections of a document mean for each other."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from itertools import accumulate
from operator import attrgetter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from keyturn.scanner.model import Bytes, Detection
    from keyturn.scanner.ruleset.model import Required

_START = attrgetter("secret_start", "secret_end", "start")


def composed(detections: list[Detection], data: Bytes) -> list[Detection]:
    """Return the detections that stand beside the others, by the place of their secrets.

    One whose rule requires another stays only near a detection of that rule, whatever becomes of that one.
    One of a generic rule goes where a more specific one has the same secret, or a part of it.
    """
    if len(detections) < 2:
        return [one for one in detections if not (one.rule.requires or one.rule.component)]
    if any(one.rule.requires for one in detections):
        detections = _with_company(detections, data)
    if any(one.rule.generic for one in detections):
        detections = _without_shadows(detections)
    return sorted((one for one in detections if not one.rule.component), key=_START)


class _Positions:
    """Where the detections of a rule start: their lines in order, and the column of each."""

    __slots__ = ("columns", "lines")

    def __init__(self, places: Iterable[tuple[int, int]]) -> None:
        ordered = sorted(places)
        self.lines = [line for line, _ in ordered]
        self.columns = [column for _, column in ordered]

    def near(self, place: tuple[int, int], required: Required) -> bool:
        line, column = place
        low, high = 0, len(self.lines)
        if required.within_lines is not None:
            low = bisect_left(self.lines, line - required.within_lines)
            high = bisect_right(self.lines, line + required.within_lines)
        if required.within_columns is None:
            return low < high
        return any(abs(self.columns[at] - column) <= required.within_columns for at in range(low, high))


def _with_company(detections: list[Detection], data: Bytes) -> list[Detection]:
    places = _places(sorted({one.start for one in detections}), data)
    by_rule: dict[str, list[tuple[int, int]]] = {}
    for one in detections:
        by_rule.setdefault(one.rule.id, []).append(places[one.start])
    positions = {name: _Positions(found) for name, found in by_rule.items()}

    def has_company(one: Detection) -> bool:
        return all(
            required.rule in positions and positions[required.rule].near(places[one.start], required)
            for required in one.rule.requires
        )

    return [one for one in detections if has_company(one)]


def _places(starts: Sequence[int], data: Bytes) -> dict[int, tuple[int, int]]:
    """Return line and column of offsets that are in order."""
    places = {}
    line, column, last = 0, 0, 0
    for start in starts:
        between = bytes(data[last:start])
        line += between.count(b"\n")
        newline = between.rfind(b"\n")
        column = column + len(between) if newline < 0 else len(between) - newline - 1
        places[start] = (line, column)
        last = start
    return places


def _without_shadows(detections: list[Detection]) -> list[Detection]:
    specific = sorted((one.secret_start, one.secret_end) for one in detections if not one.rule.generic)
    starts = [start for start, _ in specific]
    reach = list(accumulate((end for _, end in specific), max))

    def is_shadowed(one: Detection) -> bool:
        before = bisect_left(starts, one.secret_end)
        return before > 0 and reach[before - 1] > one.secret_start

    return [one for one in detections if not one.rule.generic or not is_shadowed(one)]
