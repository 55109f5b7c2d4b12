"""The Merkle tree over audit leaves, as RFC 6962 §2.1 and RFC 9162 §2.1 define it, and its tiles.

    leaf_hash(body)   = SHA-256(0x00 || body)
    node_hash(l, r)   = SHA-256(0x01 || l || r)
    EMPTY_ROOT        = SHA-256("")
    root of n leaves  = node_hash(root of the first k, root of the rest), k the largest power of two below n

A *perfect subtree* is named (level, index): the 2**level leaves from index * 2**level on.
It never changes once its leaves exist, so proofs ask for those only, through a callable.

Frontier, format 1, enough to append and to know the root:

    offset  size    field
    0       4       magic "KTMF"
    4       1       format version, 1
    5       8       size: how many leaves, big-endian
    13      32 * b  the perfect subtrees, biggest first, b = number of 1 bits in size

Tile (as C2SP tlog-tiles): 1-256 hashes of 32 bytes, side by side; tile (t, i) holds the perfect subtrees of level
8 * t from index 256 * i on.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Self, TypeAlias

HASH_BYTES: Final = 32
TILE_HEIGHT: Final = 8
TILE_WIDTH: Final = 2**TILE_HEIGHT
EMPTY_ROOT: Final = hashlib.sha256(b"").digest()

Subtree: TypeAlias = Callable[[int, int], bytes]
ReadTile: TypeAlias = Callable[[int, int], bytes]

_MAGIC: Final = b"KTMF"
_FORMAT: Final = 1
_FIXED_BYTES: Final = 13
_SIZE_END: Final = 2**64


def leaf_hash(body: bytes) -> bytes:
    """Return the hash of a leaf with this body."""
    return hashlib.sha256(b"\x00" + body).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of the node above two hashes."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def root(leaf_hashes: Sequence[bytes]) -> bytes:
    """Return the root over all leaf hashes, in order."""
    frontier = Frontier()
    for one in leaf_hashes:
        frontier.append(one)
    return frontier.root()


class Frontier:
    """The right edge of a growing tree: its size and the roots of its perfect subtrees, biggest first."""

    __slots__ = ("_hashes", "_size")

    def __init__(self, size: int = 0, hashes: Iterable[bytes] = ()) -> None:
        """Start empty, or from a known edge; raises ValueError when size and hashes do not belong together."""
        self._size = size
        self._hashes = list(hashes)
        if not 0 <= size < _SIZE_END:
            raise ValueError(f"expected a size between 0 and 2**64 - 1, found {size}")
        if len(self._hashes) != size.bit_count():
            raise ValueError(f"expected {size.bit_count()} subtrees for size {size}, found {len(self._hashes)}")
        for one in self._hashes:
            _require_hash(one)

    @property
    def size(self) -> int:
        """How many leaves the tree has."""
        return self._size

    @property
    def hashes(self) -> tuple[bytes, ...]:
        """The roots of the perfect subtrees, biggest first."""
        return tuple(self._hashes)

    def append(self, leaf: bytes) -> None:
        """Add the hash of the next leaf; raises ValueError, and changes nothing, when it is not 32 bytes."""
        _require_hash(leaf)
        if self._size + 1 == _SIZE_END:
            raise ValueError("expected room for another leaf, found the tree full")
        carried = leaf
        # Every trailing 1 bit of the size is a subtree that the new leaf completes to one twice as big.
        size = self._size
        while size & 1:
            carried = node_hash(self._hashes.pop(), carried)
            size >>= 1
        self._hashes.append(carried)
        self._size += 1

    def root(self) -> bytes:
        """Return the root of the tree as it is now."""
        if not self._hashes:
            return EMPTY_ROOT
        result = self._hashes[-1]
        for one in reversed(self._hashes[:-1]):
            result = node_hash(one, result)
        return result

    def to_bytes(self) -> bytes:
        """Write the frontier in its stored format."""
        return _MAGIC + bytes((_FORMAT,)) + struct.pack(">Q", self._size) + b"".join(self._hashes)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read the stored format; raises ValueError when the bytes are not exactly one frontier."""
        if len(data) < _FIXED_BYTES or not data.startswith(_MAGIC):
            raise ValueError("expected a stored frontier, found other bytes")
        if data[4] != _FORMAT:
            raise ValueError(f"expected frontier format {_FORMAT}, found {data[4]}")
        (size,) = struct.unpack_from(">Q", data, 5)
        if len(data) != _FIXED_BYTES + HASH_BYTES * size.bit_count():
            found = len(data) - _FIXED_BYTES
            raise ValueError(f"expected {size.bit_count()} subtrees for size {size}, found {found} bytes")
        return cls(size, _split(data[_FIXED_BYTES:]))


def inclusion_proof(index: int, size: int, subtree: Subtree) -> list[bytes]:
    """Return the path that proves leaf `index` in the tree of `size` leaves (RFC 9162 §2.1.3.1)."""
    if not 0 <= index < size:
        raise ValueError(f"expected a leaf index below {size}, found {index}")
    path: list[bytes] = []
    start, count = 0, size
    while count > 1:
        left = _left_size(count)
        if index - start < left:
            path.append(_range_root(start + left, count - left, subtree))
            count = left
        else:
            path.append(_range_root(start, left, subtree))
            start, count = start + left, count - left
    path.reverse()
    return path


def consistency_proof(first: int, second: int, subtree: Subtree) -> list[bytes]:
    """Return the proof that the tree of `second` leaves begins with that of `first` (RFC 9162 §2.1.4.1).

    It is empty when `first` is 0 or equals `second`.
    """
    if not 0 <= first <= second:
        raise ValueError(f"expected a first size up to {second}, found {first}")
    if first in {0, second}:
        return []
    proof: list[bytes] = []
    start, count = 0, second
    while first != start + count:
        left = _left_size(count)
        if first - start <= left:
            proof.append(_range_root(start + left, count - left, subtree))
            count = left
        else:
            proof.append(_range_root(start, left, subtree))
            start, count = start + left, count - left
    if start != 0:
        # At 0 the subtree is the whole first tree, whose root the verifier has already.
        proof.append(_range_root(start, count, subtree))
    proof.reverse()
    return proof


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], expected_root: bytes) -> bool:
    """Tell whether the proof leads from the leaf hash at `index` to the root (RFC 9162 §2.1.3.2)."""
    if not 0 <= index < size or not _are_hashes((leaf, expected_root, *proof)):
        return False
    node, last, result = index, size - 1, leaf
    for one in proof:
        if last == 0:
            return False
        if node & 1 or node == last:
            result = node_hash(one, result)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            result = node_hash(result, one)
        node, last = node >> 1, last >> 1
    return last == 0 and result == expected_root


def verify_consistency(
    first: int,
    second: int,
    first_root: bytes,
    second_root: bytes,
    proof: Sequence[bytes],
) -> bool:
    """Tell whether the proof shows the first tree to be a prefix of the second (RFC 9162 §2.1.4.2)."""
    if not 0 <= first <= second or not _are_hashes((first_root, second_root, *proof)):
        return False
    if first == second:
        return not proof and first_root == second_root and (first > 0 or first_root == EMPTY_ROOT)
    if first == 0:
        return not proof and first_root == EMPTY_ROOT
    if not proof:
        return False
    path = [first_root, *proof] if first.bit_count() == 1 else list(proof)
    node, last = first - 1, second - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    old = new = path[0]
    for one in path[1:]:
        if last == 0:
            return False
        if node & 1 or node == last:
            old, new = node_hash(one, old), node_hash(one, new)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            new = node_hash(new, one)
        node, last = node >> 1, last >> 1
    return last == 0 and old == first_root and new == second_root


def tile_root(tile: bytes) -> bytes:
    """Return the root of a full tile: the next hash in the tile level above."""
    if len(tile) != TILE_WIDTH * HASH_BYTES:
        raise ValueError(f"expected a full tile of {TILE_WIDTH * HASH_BYTES} bytes, found {len(tile)}")
    return root(_split(tile))


def subtree_from_tiles(read_tile: ReadTile) -> Subtree:
    """Return a callable for proofs that finds perfect subtrees in tiles.

    `read_tile(tile level, tile index)` returns the hashes of the tile there are, side by side.
    The callable raises ValueError when the tile is too short to hold the subtree.
    """

    def subtree(level: int, index: int) -> bytes:
        tile_level, height = divmod(level, TILE_HEIGHT)
        tile_index, offset = divmod(index << height, TILE_WIDTH)
        start, end = offset * HASH_BYTES, (offset + (1 << height)) * HASH_BYTES
        tile = read_tile(tile_level, tile_index)
        if len(tile) < end:
            raise ValueError(f"expected {end} bytes in tile {tile_level}/{tile_index}, found {len(tile)}")
        return root(_split(tile[start:end]))

    return subtree


def _range_root(start: int, count: int, subtree: Subtree) -> bytes:
    """Return the root over `count` leaves from `start`, a multiple of the largest power of two up to `count`."""
    parts: list[bytes] = []
    while count:
        level = count.bit_length() - 1
        parts.append(subtree(level, start >> level))
        start, count = start + (1 << level), count - (1 << level)
    result = parts[-1]
    for one in reversed(parts[:-1]):
        result = node_hash(one, result)
    return result


def _left_size(count: int) -> int:
    """Return the largest power of two below `count`, which is above 1."""
    return 1 << (count - 1).bit_length() - 1


def _split(hashes: bytes) -> list[bytes]:
    return [hashes[at : at + HASH_BYTES] for at in range(0, len(hashes), HASH_BYTES)]


def _are_hashes(values: Iterable[bytes]) -> bool:
    return all(len(one) == HASH_BYTES for one in values)


def _require_hash(value: bytes) -> None:
    if len(value) != HASH_BYTES:
        raise ValueError(f"expected a hash of {HASH_BYTES} bytes, found {len(value)}")
