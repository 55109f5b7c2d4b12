"""What verification gathers on its way, and how it is judged at the end.  Pure; needs the base install only.

Contents that do not fit and hashes that have no content are matched with each other: a content that has the hash of
another place was moved; one that has none was altered or inserted; a hash that found none was cut.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from typing import TYPE_CHECKING, Final

import msgspec

from keyturn.audit.findings import Finding, FindingKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

FINDINGS_MAX: Final = 1000
GATHERED_MAX: Final = 100_000


class Seen(msgspec.Struct, frozen=True, gc=False):
    """A leaf as its line has it: the hash stated for it, and the one computed of its content."""

    place: int
    """Its index in the tree, -1 when it has none."""
    id: str
    stated: bytes
    """Empty when there is none."""
    computed: bytes | None
    missing: bool
    line: int


class _Erased(msgspec.Struct):
    index: int
    hash: str


class _EraseDetail(msgspec.Struct):
    leaves: list[_Erased] = []


class _EraseLeaf(msgspec.Struct):
    detail: _EraseDetail


_erase_decoder = msgspec.json.Decoder(_EraseLeaf)


class Evidence:
    """Gathers, bounded, and judges."""

    def __init__(self) -> None:
        """Begin without a suspicion."""
        self._findings: list[Finding] = []
        self._left_out = 0
        self._mismatched: list[Seen] = []
        self._lost: list[Seen] = []
        self._surplus: list[Seen] = []
        self._proven_content: set[int] = set()
        self._erased: list[Seen] = []
        self._recorded: dict[int, str] = {}
        self._unproven: list[tuple[int, int]] = []
        self.erased = 0

    @property
    def unproven_ranges(self) -> tuple[tuple[int, int], ...]:
        """Leaves nothing could be proven about."""
        return tuple(self._unproven)

    def add(
        self,
        kind: FindingKind,
        message: str,
        *,
        first: int | None = None,
        last: int | None = None,
        ids: tuple[str, ...] = (),
        line: int | None = None,
    ) -> None:
        """Add a finding; past the bound it is only counted."""
        if len(self._findings) >= FINDINGS_MAX:
            self._left_out += 1
            return
        self._findings.append(Finding(kind, message, first, last, ids, line))

    def about(self, kind: FindingKind, message: str, seen: Seen) -> None:
        """Add a finding about one leaf."""
        place = None if seen.place < 0 else seen.place
        self.add(kind, message, first=place, last=place, ids=(seen.id,) if seen.id else (), line=seen.line)

    def unproven(self, first: int, last: int) -> None:
        """State that nothing can be said about these leaves."""
        if first <= last:
            self._unproven.append((first, last))

    def mismatch(self, seen: Seen) -> None:
        """The content of a leaf has not the hash stated for it."""
        self._gather(self._mismatched, seen)

    def lost(self, seen: Seen) -> None:
        """A leaf of the tree has no content and no row."""
        self._gather(self._lost, seen)

    def surplus(self, seen: Seen) -> None:
        """A leaf has no place in the tree."""
        self._gather(self._surplus, seen)

    def erasure(self, seen: Seen) -> None:
        """The content of a leaf was erased."""
        # Not bounded: one that was left out here would go unseen.
        self._erased.append(seen)

    def columns(self, seen: Seen) -> None:
        """The columns of a leaf do not say what it says."""
        self.about(
            FindingKind.COLUMNS_ALTERED,
            f"the columns of leaf {seen.place} ({seen.id}) do not say what the leaf says",
            seen,
        )

    def content_proven(self, segment: Iterable[Seen]) -> None:
        """The contents of a segment were proven, hence its stated hashes are what was altered."""
        self._proven_content.update(
            seen.place for seen in segment if seen.computed is not None and seen.computed != seen.stated
        )

    def note_erasures(self, content: bytes | None) -> None:
        """Take note of the leaves that an `audit.erase` accounts for."""
        try:
            leaf = _erase_decoder.decode(content or b"")
        except (msgspec.DecodeError, UnicodeError):
            return
        self._recorded.update((one.index, one.hash) for one in leaf.detail.leaves)

    def cut(self, gaps: Iterable[tuple[int, int]]) -> None:
        """Leaves are missing; both ends of a gap are included."""
        for first, last in gaps:
            which = f"leaf {first} is" if first == last else f"leaves {first} to {last} are"
            self.add(FindingKind.CUT, f"{which} missing", first=first, last=last)

    def doubled(self, seen: Seen) -> None:
        """A line claims a place that another has."""
        self.about(FindingKind.INSERTED, f"line {seen.line} claims the place of leaf {seen.place} once more", seen)

    def unsigned(self, seen: Seen) -> None:
        """A leaf stands after the last checkpoint."""
        self.about(FindingKind.INSERTED, f"leaf {seen.id} stands after the last signed one", seen)

    def unreadable(self, at: int, place: int | None) -> None:
        """A line cannot be read; `place` is the leaf it should be, if that is known."""
        which = "" if place is None else f", which should be leaf {place},"
        self.add(FindingKind.UNREADABLE, f"line {at}{which} cannot be read", first=place, last=place, line=at)

    def disorder(self, segment: Sequence[Seen]) -> None:
        """Name the lines that do not stand in the order of their places."""
        moved = displaced([seen.place for seen in segment])
        for at in moved:
            before = segment[at - 1].place if at else None
            where = "first" if before is None else f"after that of leaf {before}"
            seen = segment[at]
            self.about(FindingKind.REORDERED, f"the line of leaf {seen.place} ({seen.id}) stands {where}", seen)

    def judged(self) -> tuple[tuple[Finding, ...], int]:
        """Return every finding, in the order of the leaves, and how many there was no room for."""
        self._judge_hashes()
        self._judge_places()
        self._judge_erasures()
        ordered = sorted(self._findings, key=lambda one: (one.first is None, one.first or 0, one.line or 0))
        return tuple(ordered), self._left_out

    def _gather(self, kind: list[Seen], seen: Seen) -> None:
        if len(kind) >= GATHERED_MAX:
            self._left_out += 1
        else:
            kind.append(seen)

    def _judge_hashes(self) -> None:
        for seen in self._mismatched:
            if seen.place in self._proven_content:
                self.about(
                    FindingKind.HASH_ALTERED,
                    f"the stored hash of leaf {seen.place} ({seen.id}) was altered; its content is what was signed",
                    seen,
                )
        self._mismatched = [seen for seen in self._mismatched if seen.place not in self._proven_content]

    def _judge_places(self) -> None:
        wanted = {seen.stated: seen for seen in (*self._mismatched, *self._lost)}
        found: set[bytes] = set()
        moved: set[int] = set()
        for seen in (*self._mismatched, *self._surplus):
            home = None if seen.computed is None else wanted.get(seen.computed)
            if home is None:
                continue
            found.add(home.stated)
            moved.add(id(seen))
            where = "stands where the tree has no place" if seen.place < 0 else f"stands at {seen.place}"
            self.add(
                FindingKind.REORDERED,
                f"leaf {home.place} ({seen.id}) {where}",
                first=home.place,
                last=home.place if seen.place < 0 else seen.place,
                ids=(seen.id,),
                line=seen.line,
            )
        for seen in self._mismatched:
            at_home, was_moved = seen.stated in found, id(seen) in moved
            if not at_home and not was_moved:
                self.about(
                    FindingKind.ALTERED, f"the content of leaf {seen.place} ({seen.id}) is not what was signed", seen
                )
            elif not was_moved:
                self._inserted(seen)
        for seen in self._surplus:
            if id(seen) not in moved:
                self._inserted(seen)
        gone = [seen for seen in self._lost if seen.stated not in found]
        gone += [seen for seen in self._mismatched if id(seen) in moved and seen.stated not in found]
        self.cut(runs(sorted(seen.place for seen in gone)))

    def _inserted(self, seen: Seen) -> None:
        self.about(FindingKind.INSERTED, f"leaf {seen.id} was never signed", seen)

    def _judge_erasures(self) -> None:
        for seen in self._erased:
            if self._recorded.get(seen.place) == seen.stated.hex():
                self.erased += 1
            else:
                self.about(
                    FindingKind.ERASED_UNRECORDED,
                    f"the content of leaf {seen.place} ({seen.id}) is gone, and no audit.erase accounts for it",
                    seen,
                )


def runs(places: Sequence[int]) -> list[tuple[int, int]]:
    """Return the runs of consecutive numbers in an ordered sequence."""
    found: list[tuple[int, int]] = []
    for place in places:
        if found and found[-1][1] == place - 1:
            found[-1] = (found[-1][0], place)
        else:
            found.append((place, place))
    return found


def gaps_between(places: Sequence[int], start: int, end: int) -> list[tuple[int, int]]:
    """Return what is missing of `start` to `end` - 1 in ordered numbers, both ends of a gap included.

    Its cost does not grow with `end`, which may be anything a file claims.
    """
    found: list[tuple[int, int]] = []
    following = start
    for place in places:
        if place >= end:
            break
        if place > following:
            found.append((following, place - 1))
        following = max(following, place + 1)
    if following < end:
        found.append((following, end - 1))
    return found


def displaced(places: Sequence[int]) -> list[int]:
    """Return the positions of what has to be moved, as little as possible, to bring the numbers into order."""
    tails: list[int] = []
    at_tail: list[int] = []
    before: list[int] = []
    for position, place in enumerate(places):
        length = bisect_left(tails, place)
        before.append(at_tail[length - 1] if length else -1)
        tails[length : length + 1] = [place]
        at_tail[length : length + 1] = [position]
    kept: set[int] = set()
    position = at_tail[-1] if at_tail else -1
    while position >= 0:
        kept.add(position)
        position = before[position]
    # What has the place of another is doubled, not displaced.
    claims = Counter(places)
    return [at for at, place in enumerate(places) if at not in kept and claims[place] == 1]
