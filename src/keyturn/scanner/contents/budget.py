"""How much a document may unfold into: what is small on disk must not be huge in memory or take for ever.

A `Budget` is the bounds; a `Spending` counts what one root document has used of them.
Nothing here raises: who hits a bound stops, and the bound becomes a `Notice` of the problem `bound`.
"""

from __future__ import annotations

from typing import Final

import msgspec

MIB: Final = 1 << 20


class Budget(msgspec.Struct, frozen=True):
    """The bounds of one root document.

    depth        how many archives and compressions stand in each other
    bytes        unpacked bytes in all; a root document may unfold to `growth` times its own size, if that is more
    ratio        unpacked bytes for each packed one, within one stream, after the first `ratio_free`
    members      members of archives in all
    name         most bytes of a member's name that are kept
    held         most bytes of a nested archive that has to be held in memory, because its directory is at its end
    piece        a member larger than that is handed on in pieces of that size
    overlap      bytes that a piece shows of each of its neighbours
    window_log   base-two logarithm of the largest window that zstandard may ask for
    xz_memory    most bytes that xz may ask for
    layers       encoded runs that are decoded in a document, for each MiB that it has
    """

    depth: int = 5
    bytes: int = 1 << 30
    growth: int = 8
    ratio: int = 200
    ratio_free: int = 16 * MIB
    members: int = 250_000
    name: int = 1024
    held: int = 256 * MIB
    piece: int = 16 * MIB
    overlap: int = 64 << 10
    window_log: int = 27
    xz_memory: int = 128 * MIB
    layers: int = 20_000


class Spending(msgspec.Struct):
    """What one root document has used of its budget."""

    budget: Budget
    allowed: int
    unpacked: int = 0
    members: int = 0
    hit: str = ""

    @classmethod
    def of(cls, budget: Budget, root_bytes: int) -> Spending:
        """Begin with nothing used."""
        return cls(budget, max(budget.bytes, budget.growth * root_bytes))

    def unpack(self, count: int) -> bool:
        """Count unpacked bytes; False when that is more than there may be."""
        self.unpacked += count
        if self.unpacked > self.allowed and not self.hit:
            self.hit = f"unfolds to more than {self.allowed} bytes; what comes after them was not scanned"
        return not self.hit

    def open_member(self) -> bool:
        """Count a member; False when there are more than there may be."""
        self.members += 1
        if self.members > self.budget.members and not self.hit:
            self.hit = f"has more than {self.budget.members} members; what comes after them was not scanned"
        return not self.hit
