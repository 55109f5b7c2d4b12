"""Finders: which rules are worth confirming, and where.

A window is a rule's index, and from where to where its expression is searched; windows of a rule never overlap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from keyturn.scanner.engine.plans import Plan, Way

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from keyturn.scanner.model import Bytes

PIECE: Final = 4 << 20
"""Hyperscan gets so much at once: what it tells of has to fit into memory, however much there is to tell."""
_RULE: Final = 48
"""An end and its rule in one number: the rule above so many bits."""
_END: Final = (1 << _RULE) - 1

EDGE: Final = 4 << 10
"""So much of a run that is passed is given to hyperscan on both sides: no expression asks for more to match."""

Window: TypeAlias = tuple[int, int, int]
Runs: TypeAlias = "Sequence[tuple[int, int]]"
MayBegin: TypeAlias = "Callable[[int], bool]"


class Finder(Protocol):
    """Finds windows; one serves one thread."""

    @property
    def plans(self) -> Sequence[Plan]:
        """Return how each rule is looked for."""
        ...

    def windows(self, data: Bytes, may_begin: MayBegin | None = None, passed: Runs = ()) -> Sequence[Window]:
        """Return the windows in which matches can be, ordered by rule and place.

        `may_begin` tells of a place whether a value that is weighed can begin there.
        Inside of the runs of `passed`, which are long and in order, nothing has to be found.
        """
        ...

    def clone(self) -> Finder:
        """Return one for another thread."""
        ...


class HyperscanFinder:
    """Finds windows around the ends of matches."""

    __slots__ = ("_always", "_database", "_hits", "_on_match", "_overlap", "_piece", "_scratch", "_values", "plans")

    def __init__(self, database: bytes, plans: Sequence[Plan], *, piece: int = PIECE) -> None:
        """Load a serialised database; raises `hyperscan.error` when it is of another machine or version."""
        import hyperscan

        self.plans = plans
        self._piece = piece
        self._always = [at for at, plan in enumerate(plans) if plan.way is Way.ALWAYS]
        self._values = {at: plan.value for at, plan in enumerate(plans) if plan.value and plan.way is Way.WINDOWS}
        self._overlap = max((plan.before for plan in plans), default=0) + 1
        self._database = hyperscan.loadb(database, mode=hyperscan.HS_MODE_BLOCK) if database else None
        self._scratch = hyperscan.Scratch(self._database) if database else None
        self._prepare()

    def _prepare(self) -> None:
        self._hits: list[int] = []
        append = self._hits.append

        def on_match(rule: int, _start: int, end: int, _flags: int, _context: object) -> None:
            append(rule << _RULE | end)

        self._on_match = on_match

    def clone(self) -> HyperscanFinder:
        """Return one for another thread: the database is shared."""
        other = object.__new__(HyperscanFinder)
        other.plans, other._piece, other._always = self.plans, self._piece, self._always
        other._overlap, other._database, other._values = self._overlap, self._database, self._values
        other._scratch = self._scratch.clone() if self._scratch is not None else None
        other._prepare()
        return other

    def windows(self, data: Bytes, may_begin: MayBegin | None = None, passed: Runs = ()) -> Sequence[Window]:
        """Return the windows in which matches can be, ordered by rule and place."""
        size = len(data)
        found: list[Window] = []
        if self._database is not None:
            if size <= self._piece and not passed:
                self._scan(data)
                if self._hits:
                    self._collect(found, 0, size, may_begin)
            else:
                self._scan_pieces(memoryview(data), size, found, may_begin, passed)
        if self._always:
            found.extend((rule, 0, size) for rule in self._always)
        return found

    def _scan(self, data: Any) -> None:  # noqa: ANN401 -- the library takes any buffer, and says that it takes text
        assert self._database is not None  # noqa: S101 -- its caller looked
        self._database.scan(data, self._on_match, 0, None, self._scratch)  # by name it takes longer than small files

    def _scan_pieces(
        self, data: memoryview, size: int, found: list[Window], may_begin: MayBegin | None = None, passed: Runs = ()
    ) -> None:
        for low, high in _around(passed, size):
            for start in range(low, high, self._piece):
                base = max(low, start - self._overlap)
                self._scan(data[base : min(start + self._piece, high)])
                self._collect(found, base, size, may_begin)
        found[:] = _merged(found)

    def _collect(self, found: list[Window], base: int, size: int, may_begin: MayBegin | None) -> None:
        """Turn what was told into windows, merging those that touch."""
        hits = self._hits
        hits.sort()
        plans, values = self.plans, self._values
        rule, low, high = -1, 0, 0
        for hit in hits:
            at = hit >> _RULE
            plan = plans[at]
            end = (hit & _END) + base
            if may_begin is not None and at in values and not may_begin(end - values[at]):
                continue
            begin = end - plan.before if plan.way is Way.WINDOWS else 0
            if at == rule and begin <= high:
                high = end + plan.after
                continue
            if rule >= 0:
                found.append((rule, low, min(high, size)))
            rule, low = at, max(begin, 0)
            high = end + plan.after if plan.way is Way.WINDOWS else size
        if rule >= 0:
            found.append((rule, low, min(high, size)))
        hits.clear()


class KeywordFinder:
    """Finds by literals alone: a rule of which one is there is searched everywhere."""

    __slots__ = ("_always", "_automaton", "_rules", "plans")

    def __init__(self, plans: Sequence[Plan]) -> None:
        """Make the automaton of all literals."""
        import ahocorasick_rs

        self.plans = plans
        rules: dict[bytes, list[int]] = {}
        self._always: list[int] = []
        for at, plan in enumerate(plans):
            if plan.way in {Way.NEVER, Way.PATH}:
                continue
            if not plan.literals:
                self._always.append(at)
            for word in plan.literals:
                rules.setdefault(word, []).append(at)
        self._rules = list(rules.values())
        self._automaton = ahocorasick_rs.BytesAhoCorasick(list(rules)) if rules else None

    def clone(self) -> KeywordFinder:
        """Return itself: it holds nothing of what is scanned."""
        return self

    def windows(
        self,
        data: Bytes,
        may_begin: MayBegin | None = None,  # noqa: ARG002 -- as it is told
        passed: Runs = (),  # noqa: ARG002 -- as it is told
    ) -> Sequence[Window]:
        """Return a window over everything for each rule that may be there."""
        found = set(self._always)
        if self._automaton is not None:
            seen = {hit[0] for hit in self._automaton.find_matches_as_indexes(bytes(data).lower(), overlapping=True)}
            for word in seen:
                found.update(self._rules[word])
        return [(rule, 0, len(data)) for rule in sorted(found)]


def _around(passed: Runs, size: int) -> Iterator[tuple[int, int]]:
    """Yield what is not in the middle of a run that is passed."""
    at = 0
    for low, high in passed:
        if high - low > 2 * EDGE:
            yield at, low + EDGE
            at = high - EDGE
    yield at, size


def _merged(windows: list[Window]) -> list[Window]:
    merged: list[Window] = []
    for rule, low, high in sorted(windows):
        if merged and merged[-1][0] == rule and low <= merged[-1][2]:
            merged[-1] = (rule, merged[-1][1], max(high, merged[-1][2]))
        else:
            merged.append((rule, low, high))
    return merged
