"""The tree of one workspace's leaves, as it is stored: tiles, frontier, and how far it has come.

    audit_tree        size | built_seq | frontier            one row per workspace; `built_seq` is compared and swapped
    audit_tile        (level, position) -> 1-256 hashes      see keyturn.kernel.merkle
    audit_checkpoint  size | seq | root | note               the signed states

`plan` reads and hashes in a read-only transaction; `Growth.store` only writes.  Between the two another leader may
have built the same leaves: the swap of `built_seq` then finds another value, and nothing of the growth is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, insert, select, update

from keyturn.audit.checkpoint import number_of
from keyturn.errors import ConflictError, IntegrityError
from keyturn.kernel.merkle import (
    HASH_BYTES,
    TILE_HEIGHT,
    TILE_WIDTH,
    Frontier,
    Subtree,
    leaf_hash,
    subtree_from_tiles,
    tile_root,
)
from keyturn.storage.schema import audit_checkpoint, audit_leaf, audit_tile, audit_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sqlalchemy import Connection, Row

LEAVES_PER_STEP = 1024


@dataclass(frozen=True, slots=True)
class TreeState:
    """How far a workspace's tree has been built: `size` leaves, the last of them numbered `built_seq`."""

    size: int
    built_seq: int


@dataclass(frozen=True, slots=True)
class StoredCheckpoint:
    """A signed state of the tree."""

    size: int
    seq: int
    root: bytes
    note: str
    signed_at: float


@dataclass(frozen=True, slots=True)
class TileWrite:
    """One tile as it is after a growth; `new` tells whether the row is there already."""

    level: int
    position: int
    hashes: bytes
    new: bool


@dataclass(frozen=True, slots=True)
class Growth:
    """Leaves to be added to a tree: what it was before, and what it will be."""

    workspace: str
    before: TreeState | None
    after: TreeState
    frontier: Frontier
    tiles: tuple[TileWrite, ...]
    checkpoint_number: int
    """The number of the checkpoint that is to be signed over it."""
    is_last: bool
    """Whether there were no more leaves to add."""

    @property
    def root(self) -> bytes:
        """The root of the grown tree."""
        return self.frontier.root()

    def store(self, connection: Connection) -> None:
        """Write the growth; raises ConflictError when the tree is no longer what it was planned from."""
        row = {"size": self.after.size, "built_seq": self.after.built_seq, "frontier": self.frontier.to_bytes()}
        if self.before is None:
            connection.execute(insert(audit_tree).values(workspace=self.workspace, **row))
        else:
            swapped = connection.execute(
                update(audit_tree)
                .where(audit_tree.c.workspace == self.workspace, audit_tree.c.built_seq == self.before.built_seq)
                .values(row)
            )
            if swapped.rowcount != 1:
                raise ConflictError("another leader has built these leaves already")
        for tile in self.tiles:
            self._store_tile(connection, tile)

    def _store_tile(self, connection: Connection, tile: TileWrite) -> None:
        key = {"workspace": self.workspace, "level": tile.level, "position": tile.position}
        if tile.new:
            connection.execute(insert(audit_tile).values(**key, hashes=tile.hashes))
            return
        connection.execute(
            update(audit_tile)
            .where(
                audit_tile.c.workspace == self.workspace,
                audit_tile.c.level == tile.level,
                audit_tile.c.position == tile.position,
            )
            .values(hashes=tile.hashes)
        )


def read_state(connection: Connection, workspace: str) -> TreeState:
    """Return how far the tree has been built; a tree not begun has no leaves."""
    row = connection.execute(
        select(audit_tree.c.size, audit_tree.c.built_seq).where(audit_tree.c.workspace == workspace)
    ).first()
    return TreeState(0, 0) if row is None else TreeState(row.size, row.built_seq)


def plan(connection: Connection, workspace: str, *, limit: int = LEAVES_PER_STEP) -> Growth | None:
    """Read the leaves behind the tree and hash them; None when there are none.

    Raises IntegrityError when what is stored does not fit together: such a tree must not be signed again.
    """
    row = connection.execute(select(audit_tree).where(audit_tree.c.workspace == workspace)).first()
    before = None if row is None else TreeState(row.size, row.built_seq)
    leaves = connection.execute(
        select(audit_leaf.c.seq, audit_leaf.c.id, audit_leaf.c.body)
        .where(audit_leaf.c.workspace == workspace, audit_leaf.c.seq > (0 if before is None else before.built_seq))
        .order_by(audit_leaf.c.seq)
        .limit(limit)
    ).all()
    if not leaves:
        return None
    frontier, signed = (Frontier(), 0) if row is None else _signed_tree(connection, workspace, row.size, row.frontier)
    hashes: list[bytes] = []
    for leaf in leaves:
        if leaf.body is None:
            raise IntegrityError(f"audit leaf {leaf.id} lost its content before it was in the tree")
        hashes.append(leaf_hash(leaf.body))
    size = frontier.size
    for one in hashes:
        frontier.append(one)
    tiles = tuple(_grown_tiles(connection, workspace, size, hashes))
    after = TreeState(frontier.size, leaves[-1].seq)
    return Growth(workspace, before, after, frontier, tiles, signed + 1, len(leaves) < limit)


def _signed_tree(connection: Connection, workspace: str, size: int, stored: bytes) -> tuple[Frontier, int]:
    """Return the frontier and the number of the checkpoint over it, or raise: a tree not signed is not built on."""
    try:
        frontier = Frontier.from_bytes(stored)
    except ValueError as error:
        raise IntegrityError(f"the audit tree of {workspace} has no readable frontier") from error
    signed = read_checkpoint(connection, workspace, size)
    if signed is None or frontier.size != size or signed.root != frontier.root():
        raise IntegrityError(
            f"the audit tree of {workspace} is not the one that was signed at size {size}",
            hint="run `keyturn audit verify`, and keep a copy of the database as it is",
        )
    return frontier, number_of(signed.note)


def _grown_tiles(connection: Connection, workspace: str, size: int, hashes: list[bytes]) -> Iterable[TileWrite]:
    """Yield every tile that changes, level by level; a tile that gets full adds its root to the level above."""
    level = 0
    while hashes:
        position, fill = divmod(size >> (TILE_HEIGHT * level), TILE_WIDTH)
        content = read_tile(connection, workspace, level, position) if fill else b""
        if len(content) != fill * HASH_BYTES:
            raise IntegrityError(f"audit tile {level}/{position} of {workspace} does not have {fill} hashes")
        above: list[bytes] = []
        taken = 0
        while taken < len(hashes):
            room = TILE_WIDTH - fill
            content += b"".join(hashes[taken : taken + room])
            taken += room
            yield TileWrite(level, position, content, new=fill == 0)
            if len(content) == TILE_WIDTH * HASH_BYTES:
                above.append(tile_root(content))
            position, fill, content = position + 1, 0, b""
        level, hashes = level + 1, above


def read_checkpoint(connection: Connection, workspace: str, size: int | None = None) -> StoredCheckpoint | None:
    """Return the checkpoint of that size, or the latest."""
    query = select(audit_checkpoint).where(audit_checkpoint.c.workspace == workspace)
    if size is not None:
        query = query.where(audit_checkpoint.c.size == size)
    row = connection.execute(query.order_by(audit_checkpoint.c.size.desc()).limit(1)).first()
    return None if row is None else _checkpoint(row)


def store_checkpoint(connection: Connection, workspace: str, checkpoint: StoredCheckpoint) -> None:
    """Add a checkpoint; it belongs into the transaction that stores the growth it is over."""
    connection.execute(
        insert(audit_checkpoint).values(
            workspace=workspace,
            size=checkpoint.size,
            seq=checkpoint.seq,
            root=checkpoint.root,
            note=checkpoint.note,
            signed_at=checkpoint.signed_at,
        )
    )


def read_tile(connection: Connection, workspace: str, level: int, position: int) -> bytes:
    """Return the hashes of a tile, empty when there is none."""
    found = connection.execute(
        select(audit_tile.c.hashes).where(
            audit_tile.c.workspace == workspace, audit_tile.c.level == level, audit_tile.c.position == position
        )
    ).scalar()
    return b"" if found is None else found


def subtree_reader(connection: Connection, workspace: str) -> Subtree:
    """Return what proofs ask for subtrees with; a tile is read once."""
    read: dict[tuple[int, int], bytes] = {}

    def tile(level: int, position: int) -> bytes:
        if (level, position) not in read:
            read[level, position] = read_tile(connection, workspace, level, position)
        return read[level, position]

    return subtree_from_tiles(tile)


def frontier_at(connection: Connection, workspace: str, size: int) -> Frontier:
    """Return the frontier the tree had at `size` leaves; raises IntegrityError when tiles are missing."""
    subtree = subtree_reader(connection, workspace)
    hashes: list[bytes] = []
    start = 0
    for level in reversed(range(size.bit_length())):
        if size >> level & 1:
            try:
                hashes.append(subtree(level, start >> level))
            except ValueError as error:
                raise IntegrityError(f"the audit tree of {workspace} lacks tiles below size {size}") from error
            start += 1 << level
    return Frontier(size, hashes)


def last_checkpoint(
    connection: Connection, workspace: str, holds: Callable[[StoredCheckpoint], bool]
) -> StoredCheckpoint | None:
    """Return the last checkpoint for which `holds`, given that it holds up to some size and never after.

    Takes a number of point queries that is the logarithm of the tree's size.
    """
    found: StoredCheckpoint | None = None
    left, right = 0, read_state(connection, workspace).size
    while left < right:
        middle = (left + right + 1) // 2
        one = nearest_checkpoint(connection, workspace, left, middle)
        if one is not None and not holds(one):
            right = one.size - 1
            continue
        found = one or found
        left = middle
    return found


def nearest_checkpoint(connection: Connection, workspace: str, above: int, up_to: int) -> StoredCheckpoint | None:
    """Return the largest checkpoint of more than `above` and at most `up_to` leaves."""
    row = connection.execute(
        select(audit_checkpoint)
        .where(
            audit_checkpoint.c.workspace == workspace,
            audit_checkpoint.c.size > above,
            audit_checkpoint.c.size <= up_to,
        )
        .order_by(audit_checkpoint.c.size.desc())
        .limit(1)
    ).first()
    return None if row is None else _checkpoint(row)


def checkpoints_after(
    connection: Connection, workspace: str, above: int, up_to: int, limit: int
) -> list[StoredCheckpoint]:
    """Return checkpoints of more than `above` and at most `up_to` leaves, smallest first."""
    rows = connection.execute(
        select(audit_checkpoint)
        .where(
            audit_checkpoint.c.workspace == workspace,
            audit_checkpoint.c.size > above,
            audit_checkpoint.c.size <= up_to,
        )
        .order_by(audit_checkpoint.c.size)
        .limit(limit)
    ).all()
    return [_checkpoint(row) for row in rows]


def checkpoints_before(connection: Connection, workspace: str, below: int | None, limit: int) -> list[StoredCheckpoint]:
    """Return checkpoints of less than `below` leaves, biggest first."""
    query = select(audit_checkpoint).where(audit_checkpoint.c.workspace == workspace)
    if below is not None:
        query = query.where(audit_checkpoint.c.size < below)
    return [_checkpoint(row) for row in connection.execute(query.order_by(audit_checkpoint.c.size.desc()).limit(limit))]


def stored_hash(connection: Connection, workspace: str, index: int) -> bytes:
    """Return the hash the tree has for a leaf; raises IntegrityError when its tile lacks it."""
    position, place = divmod(index, TILE_WIDTH)
    found = read_tile(connection, workspace, 0, position)[place * HASH_BYTES : (place + 1) * HASH_BYTES]
    if len(found) != HASH_BYTES:
        raise IntegrityError(f"the audit tree of {workspace} lacks the hash of leaf {index}")
    return found


def leaf_index(connection: Connection, workspace: str, seq: int) -> int:
    """Return how many leaves of the workspace come before number `seq`: the index of the leaf of that number.

    Counts from the nearest checkpoint before it, so the cost does not grow with the log.
    """
    base = last_checkpoint(connection, workspace, lambda one: one.seq < seq)
    between = connection.execute(
        select(func.count())
        .select_from(audit_leaf)
        .where(
            audit_leaf.c.workspace == workspace,
            audit_leaf.c.seq > (0 if base is None else base.seq),
            audit_leaf.c.seq < seq,
        )
    ).scalar_one()
    return (0 if base is None else base.size) + between


def _checkpoint(row: Row[Any]) -> StoredCheckpoint:
    return StoredCheckpoint(row.size, row.seq, row.root, row.note, row.signed_at)
