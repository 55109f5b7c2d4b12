"""Bring the leaves of the log and the hashes of the tree side by side, when the two may not fit together.

    hashes  h0 h1 h2 h3 …          h0  h1  h2  h3 …
    leaves  a0 a1 a3 …      ->     a0  a1  -   a3 …      (a2 was cut out of the log)

Where the next leaf does not have the next hash, one of the two is looked for further on, within `LOOK_AHEAD`.
Nothing here is trusted: a verifier computes everything again from the lines that come of it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

LOOK_AHEAD = 512


@dataclass(frozen=True, slots=True)
class StoredLeaf:
    """A row of the log; `computed` is the hash of its content, None when that was erased."""

    seq: int
    id: str
    content: bytes | None
    computed: bytes | None
    columns_differ: bool = False


@dataclass(frozen=True, slots=True)
class Pair:
    """A place of the tree and a leaf of the log; either may be missing."""

    index: int | None
    stated: bytes | None
    leaf: StoredLeaf | None


@dataclass(slots=True)
class Pairing:
    """Takes hashes and leaves in order and gives pairs; feed it before it runs dry."""

    next_index: int
    hashes: deque[bytes] = field(default_factory=deque)
    leaves: deque[StoredLeaf] = field(default_factory=deque)
    hashes_end: bool = False
    leaves_end: bool = False

    @property
    def wants_hashes(self) -> bool:
        """Whether more hashes are needed before `pairs` may go on."""
        return not self.hashes_end and len(self.hashes) <= LOOK_AHEAD

    @property
    def wants_leaves(self) -> bool:
        """Whether more leaves are needed before `pairs` may go on."""
        return not self.leaves_end and len(self.leaves) <= LOOK_AHEAD

    def pairs(self) -> Iterator[Pair]:
        """Yield pairs until more is wanted, or everything was paired."""
        while (self.hashes or self.leaves) and not self.wants_hashes and not self.wants_leaves:
            yield from self._step()

    def _step(self) -> Iterable[Pair]:
        if not self.leaves:
            return [self._hash_alone()]
        if not self.hashes:
            return [Pair(None, None, self.leaves.popleft())]
        computed = self.leaves[0].computed
        if computed is None or computed == self.hashes[0]:
            return [self._both()]
        leaf_ahead = _find(computed, self.hashes)
        hash_ahead = _find(self.hashes[0], (leaf.computed for leaf in self.leaves))
        if leaf_ahead and not hash_ahead:
            return [self._hash_alone() for _ in range(leaf_ahead)]
        if hash_ahead and not leaf_ahead:
            return [Pair(None, None, self.leaves.popleft()) for _ in range(hash_ahead)]
        # Both further on: two leaves in each other's places.  Neither: altered, unless one side has more left.
        if not leaf_ahead and self.leaves_end and self.hashes_end and len(self.leaves) != len(self.hashes):
            surplus = len(self.leaves) > len(self.hashes)
            return [Pair(None, None, self.leaves.popleft())] if surplus else [self._hash_alone()]
        return [self._both()]

    def _both(self) -> Pair:
        self.next_index += 1
        return Pair(self.next_index - 1, self.hashes.popleft(), self.leaves.popleft())

    def _hash_alone(self) -> Pair:
        self.next_index += 1
        return Pair(self.next_index - 1, self.hashes.popleft(), None)


def _find(wanted: bytes, among: Iterable[bytes | None]) -> int:
    """Return how far on it is, 0 when it is not within reach."""
    for distance, one in enumerate(among):
        if distance > LOOK_AHEAD:
            break
        if one == wanted:
            return distance
    return 0
