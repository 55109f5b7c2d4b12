import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyturn.kernel import merkle
from keyturn.kernel.merkle import Frontier

Case: TypeAlias = dict[str, Any]
VECTORS: Case = json.loads((Path(__file__).parents[1] / "vectors" / "merkle.json").read_text())

LEAVES = [merkle.leaf_hash(index.to_bytes(2, "big")) for index in range(600)]


def by_definition(leaves: Sequence[bytes]) -> bytes:
    """The recursive definition of RFC 6962 §2.1, as slow as it stands there."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    left = 1
    while left * 2 < len(leaves):
        left *= 2
    return hashlib.sha256(b"\x01" + by_definition(leaves[:left]) + by_definition(leaves[left:])).digest()


def subtree(level: int, index: int) -> bytes:
    start, end = index << level, (index + 1) << level
    assert end <= len(LEAVES), "a proof asked for a subtree that is not complete"
    return merkle.root(LEAVES[start:end])


def hashes(case: Case) -> list[bytes]:
    return [bytes.fromhex(one) for one in case["proof"]]


def test_roots_are_those_of_the_reference_tree() -> None:
    leaves = [merkle.leaf_hash(bytes.fromhex(body)) for body in VECTORS["leaves_hex"]]
    roots = [merkle.root(leaves[:size]).hex() for size in range(len(leaves) + 1)]
    assert roots == VECTORS["roots_by_size"]
    assert merkle.EMPTY_ROOT.hex() == roots[0]


@pytest.mark.parametrize("case", VECTORS["inclusion"], ids=lambda case: case["reason"])
def test_inclusion_is_verified_as_its_vector_says(case: Case) -> None:
    """A proof that is accepted for another leaf, place or tree would prove nothing."""
    leaf, root = bytes.fromhex(case["leaf_hash"]), bytes.fromhex(case["root"])
    assert merkle.verify_inclusion(leaf, case["index"], case["size"], hashes(case), root) is case["verifies"]


@pytest.mark.parametrize("case", VECTORS["consistency"], ids=lambda case: case["reason"])
def test_consistency_is_verified_as_its_vector_says(case: Case) -> None:
    """A log that rewrote its past must not find a proof that it only grew."""
    first, second = bytes.fromhex(case["first_root"]), bytes.fromhex(case["second_root"])
    verified = merkle.verify_consistency(case["first"], case["second"], first, second, hashes(case))
    assert verified is case["verifies"]


@pytest.mark.parametrize("case", VECTORS["frontiers"], ids=lambda case: case["reason"])
def test_a_frontier_is_read_as_its_vector_says(case: Case) -> None:
    data = bytes.fromhex(case["bytes_hex"])
    if case["size"] is None:
        with pytest.raises(ValueError, match="expected"):
            Frontier.from_bytes(data)
    else:
        frontier = Frontier.from_bytes(data)
        assert frontier.size == case["size"]
        assert frontier.root().hex() == case["root"]
        assert frontier.to_bytes() == data


@given(st.integers(0, len(LEAVES)))
def test_the_root_is_the_one_of_the_definition(size: int) -> None:
    assert merkle.root(LEAVES[:size]) == by_definition(LEAVES[:size])


@given(st.data())
def test_every_leaf_is_proven_and_no_other(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, len(LEAVES)))
    index = data.draw(st.integers(0, size - 1))
    other = data.draw(st.integers(0, size - 1))
    root = merkle.root(LEAVES[:size])
    proof = merkle.inclusion_proof(index, size, subtree)
    assert merkle.verify_inclusion(LEAVES[index], index, size, proof, root)
    assert merkle.verify_inclusion(LEAVES[other], index, size, proof, root) is (other == index)
    assert merkle.verify_inclusion(LEAVES[index], other, size, proof, root) is (other == index)


@given(st.data())
def test_every_prefix_is_proven_and_no_other(data: st.DataObject) -> None:
    second = data.draw(st.integers(0, len(LEAVES)))
    first = data.draw(st.integers(0, second))
    other = data.draw(st.integers(0, second))
    first_root, second_root = merkle.root(LEAVES[:first]), merkle.root(LEAVES[:second])
    proof = merkle.consistency_proof(first, second, subtree)
    assert merkle.verify_consistency(first, second, first_root, second_root, proof)
    forged = merkle.root(LEAVES[:other])
    assert merkle.verify_consistency(first, second, forged, second_root, proof) is (other == first)


@given(st.data())
def test_an_altered_past_finds_no_proof(data: st.DataObject) -> None:
    second = data.draw(st.integers(2, 64))
    first = data.draw(st.integers(1, second - 1))
    changed = data.draw(st.integers(0, first - 1))
    altered = LEAVES[:second]
    altered[changed] = merkle.leaf_hash(b"altered")
    proof = merkle.consistency_proof(
        first, second, lambda level, at: merkle.root(altered[at << level : at + 1 << level])
    )
    assert not merkle.verify_consistency(first, second, merkle.root(LEAVES[:first]), merkle.root(altered), proof)


@given(st.integers(-2, 20), st.integers(-2, 20), st.lists(st.binary(min_size=31, max_size=33), max_size=6))
def test_no_proof_makes_verification_raise(one: int, other: int, proof: list[bytes]) -> None:
    """Proofs come from outside; what is senseless is false."""
    assert merkle.verify_inclusion(LEAVES[0], one, other, proof, LEAVES[1]) is False
    assert merkle.verify_consistency(one, other, LEAVES[0], LEAVES[1], proof) is False


@given(st.binary(max_size=200))
def test_any_bytes_are_a_frontier_or_raise_value_error(data: bytes) -> None:
    for candidate in (data, b"KTMF\x01" + data):
        try:
            frontier = Frontier.from_bytes(candidate)
        except ValueError:
            continue
        assert frontier.to_bytes() == candidate


@given(st.integers(0, 300), st.integers(0, 300))
def test_a_frontier_goes_on_where_it_was_stored(before: int, after: int) -> None:
    frontier = Frontier()
    for leaf in LEAVES[:before]:
        frontier.append(leaf)
    restored = Frontier.from_bytes(frontier.to_bytes())
    for leaf in LEAVES[before : before + after]:
        restored.append(leaf)
    assert restored.size == before + after
    assert restored.root() == merkle.root(LEAVES[: before + after])
    assert Frontier(restored.size, restored.hashes).root() == restored.root()


def test_a_leaf_that_is_no_hash_is_refused_and_changes_nothing() -> None:
    frontier = Frontier(1, [LEAVES[0]])
    with pytest.raises(ValueError, match="expected a hash of 32 bytes"):
        frontier.append(b"short")
    assert (frontier.size, frontier.hashes) == (1, (LEAVES[0],))


@pytest.mark.parametrize(("size", "count"), [(-1, 0), (0, 1), (1, 0), (3, 1), (2**64, 1)])
def test_a_frontier_that_does_not_fit_its_size_is_refused(size: int, count: int) -> None:
    with pytest.raises(ValueError, match="expected"):
        Frontier(size, LEAVES[:count])


def test_a_full_tree_takes_no_leaf() -> None:
    frontier = Frontier(2**64 - 1, LEAVES[:64])
    with pytest.raises(ValueError, match="full"):
        frontier.append(LEAVES[0])
    assert Frontier.from_bytes(frontier.to_bytes()).size == 2**64 - 1


@pytest.mark.parametrize(("index", "size"), [(-1, 1), (1, 1), (0, 0)])
def test_a_leaf_outside_the_tree_has_no_proof(index: int, size: int) -> None:
    with pytest.raises(ValueError, match="expected a leaf index"):
        merkle.inclusion_proof(index, size, subtree)


@pytest.mark.parametrize(("first", "second"), [(-1, 1), (2, 1)])
def test_a_tree_that_shrinks_has_no_proof(first: int, second: int) -> None:
    with pytest.raises(ValueError, match="expected a first size"):
        merkle.consistency_proof(first, second, subtree)


def tiles_of(leaves: list[bytes]) -> dict[tuple[int, int], bytes]:
    """Write tiles as the sequencer does: level by level, a full tile giving one hash to the next."""
    tiles: dict[tuple[int, int], bytes] = {}
    level, row = 0, leaves
    while row:
        cut = [row[at : at + merkle.TILE_WIDTH] for at in range(0, len(row), merkle.TILE_WIDTH)]
        for index, part in enumerate(cut):
            tiles[level, index] = b"".join(part)
        row = [merkle.tile_root(b"".join(part)) for part in cut if len(part) == merkle.TILE_WIDTH]
        level += 1
    return tiles


@given(st.data())
def test_proofs_from_tiles_are_those_from_leaves(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, len(LEAVES)))
    index = data.draw(st.integers(0, size - 1))
    tiles = tiles_of(LEAVES[:size])
    from_tiles = merkle.subtree_from_tiles(lambda level, at: tiles[level, at])
    assert merkle.inclusion_proof(index, size, from_tiles) == merkle.inclusion_proof(index, size, subtree)
    assert merkle.consistency_proof(index, size, from_tiles) == merkle.consistency_proof(index, size, subtree)


def test_a_short_tile_raises_value_error() -> None:
    with pytest.raises(ValueError, match="expected 64 bytes in tile 0/0"):
        merkle.subtree_from_tiles(lambda _level, _index: bytes(32))(1, 0)
    with pytest.raises(ValueError, match="expected a full tile"):
        merkle.tile_root(bytes(32))
