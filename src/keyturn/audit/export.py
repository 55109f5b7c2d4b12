"""Export a log up to one checkpoint, a page at a time.

Leaves, tiles and checkpoints up to the one it ends with never change, so pages read in transactions of their own
make one consistent export.  Only an erasure may happen meanwhile; then the export goes on to the record of it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from keyturn.audit import checkpoint, export_lines
from keyturn.audit.export_lines import Line, encode
from keyturn.audit.pairing import Pair, Pairing
from keyturn.audit.signing import handovers
from keyturn.audit.store import leaves_after, seq_before
from keyturn.audit.tree import StoredCheckpoint, checkpoints_after, frontier_at, read_checkpoint, read_tile
from keyturn.errors import IntegrityError
from keyturn.kernel.merkle import HASH_BYTES, TILE_WIDTH, Frontier
from keyturn.wire.actions import Action

if TYPE_CHECKING:
    from sqlalchemy import Connection

PAGE = 512
ANCHOR_EVERY = 256
"""After so many leaves a checkpoint carries its frontier."""

NO_LIMIT = 2**62


class Extension(Enum):
    """What became of an attempt to extend an export."""

    NOT_NEEDED = 0
    NOT_SIGNED_YET = 1
    DONE = 2


@dataclass(slots=True)
class Export:
    """An export in progress of the leaves of one workspace."""

    workspace: str
    verifier_key: str
    first: int
    to: int
    last_seq: int
    """The number of the last leaf."""
    extended: bool = False
    _met_erased: bool = False
    _tree: Frontier = field(default_factory=Frontier)
    _pairing: Pairing = field(default_factory=lambda: Pairing(0))
    _hashed: int = 0
    _read_seq: int = 0
    _checkpoints: deque[StoredCheckpoint] = field(default_factory=deque)
    _checkpoints_read: int = 0
    _since_anchor: int = 0

    @classmethod
    def begin(cls, connection: Connection, workspace: str, key: bytes, since: int) -> Export:
        """Fix the range: from `since` leaves to the newest checkpoint, which `key` signed."""
        latest = read_checkpoint(connection, workspace)
        to, last_seq = (0, 0) if latest is None else (latest.size, latest.seq)
        first = min(since, to)
        export = cls(workspace, checkpoint.verifier_key(workspace, key), first, to, last_seq)
        export._tree = frontier_at(connection, workspace, first)
        export._pairing = Pairing(first)
        export._hashed = export._checkpoints_read = first
        export._read_seq = seq_before(connection, workspace, first)
        return export

    def opening(self, connection: Connection) -> bytes:
        """Return the first lines: the header, and the checkpoint over what comes before the range."""
        passed = handovers(connection, self.workspace, self.to)
        header = export_lines.header(self.workspace, self.verifier_key, self.first, self.to, self._tree, passed)
        before = read_checkpoint(connection, self.workspace, self.first)
        return encode(header) + (b"" if before is None else encode(Line(checkpoint=before.note)))

    def page(self, connection: Connection) -> bytes:
        """Return the next lines; b"" when there are no more."""
        self._fill(connection)
        lines: list[bytes] = []
        for pair in self._pairing.pairs():
            lines.append(encode(_line_of(pair)))
            if pair.leaf is not None and pair.leaf.content is None:
                self._met_erased = True
            if pair.index is not None and pair.stated is not None:
                self._tree.append(pair.stated)
                self._since_anchor += 1
                self._add_checkpoint(connection, pair.index + 1, lines)
        return b"".join(lines)

    def extend(self, connection: Connection) -> Extension:
        """Go on when the record of an erasure met on the way may come after the end; call when `page` is done."""
        if not self._met_erased:
            return Extension.NOT_NEEDED
        latest = leaves_after(connection, self.workspace, self.last_seq, NO_LIMIT, PAGE, action=Action.AUDIT_ERASE)
        if not latest:
            return Extension.NOT_NEEDED
        signed = read_checkpoint(connection, self.workspace)
        if signed is None or signed.seq < latest[-1].seq:
            return Extension.NOT_SIGNED_YET
        self.to, self.last_seq, self.extended, self._met_erased = signed.size, signed.seq, True, False
        self._pairing.hashes_end = self._pairing.leaves_end = False
        return Extension.DONE

    def closing(self) -> bytes:
        """Return the last line."""
        return encode(Line(end=True, to=self.to if self.extended else None))

    def _fill(self, connection: Connection) -> None:
        pairing = self._pairing
        while pairing.wants_hashes:
            position, start = divmod(self._hashed, TILE_WIDTH)
            tile = read_tile(connection, self.workspace, 0, position)
            end = min(TILE_WIDTH, self.to - position * TILE_WIDTH)
            # What the tile lacks cannot be any leaf's hash.
            tile = tile[: end * HASH_BYTES].ljust(end * HASH_BYTES, b"\0")
            pairing.hashes.extend(tile[at * HASH_BYTES : (at + 1) * HASH_BYTES] for at in range(start, end))
            self._hashed = position * TILE_WIDTH + max(end, start)
            pairing.hashes_end = self._hashed >= self.to
        while pairing.wants_leaves:
            leaves = leaves_after(connection, self.workspace, self._read_seq, self.last_seq, PAGE)
            pairing.leaves.extend(leaves)
            pairing.leaves_end = len(leaves) < PAGE
            self._read_seq = leaves[-1].seq if leaves else self._read_seq

    def _add_checkpoint(self, connection: Connection, size: int, lines: list[bytes]) -> None:
        if not self._checkpoints and self._checkpoints_read < self.to:
            found = checkpoints_after(connection, self.workspace, self._checkpoints_read, self.to, PAGE)
            self._checkpoints.extend(found)
            self._checkpoints_read = found[-1].size if found else self.to
        while self._checkpoints and self._checkpoints[0].size <= size:
            one = self._checkpoints.popleft()
            lines.append(encode(Line(checkpoint=one.note, frontier=self._anchor(connection, one))))

    def _anchor(self, connection: Connection, one: StoredCheckpoint) -> str | None:
        """Return the frontier a checkpoint is to carry: now and then, and after damage as soon as there is one."""
        if self._since_anchor < ANCHOR_EVERY and self._tree.root() == one.root:
            return None
        try:
            tree = frontier_at(connection, self.workspace, one.size)
        except IntegrityError:
            return None
        if tree.root() != one.root:
            return None
        self._tree, self._since_anchor = tree, 0
        return export_lines.frontier_text(tree)


def _line_of(pair: Pair) -> Line:
    if pair.leaf is None:
        return export_lines.missing(pair.index or 0, pair.stated or b"")
    return export_lines.leaf(
        pair.index,
        pair.stated,
        seq=pair.leaf.seq,
        leaf_id=pair.leaf.id,
        content=pair.leaf.content,
        columns_differ=pair.leaf.columns_differ and pair.leaf.computed == pair.stated,
    )
