"""Proofs out of the stored tiles.

Each is verified before it is handed out: a wrong proof would accuse an honest log.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyturn.audit.tree import frontier_at, read_checkpoint, stored_hash, subtree_reader
from keyturn.errors import InputError, IntegrityError
from keyturn.kernel import merkle
from keyturn.wire.audit import ConsistencyProof, InclusionProof

if TYPE_CHECKING:
    from sqlalchemy import Connection


def prove_inclusion(
    connection: Connection, workspace: str, leaf_id: str, index: int, size: int | None
) -> InclusionProof:
    """Prove that the leaf at `index` is in the tree of `size` leaves.

    Raises InputError for a size that is not signed or does not reach the leaf, IntegrityError for a broken tree.
    """
    size = _signed_size(connection, workspace, size, "size")
    if index >= size:
        raise InputError(f"the leaf has index {index}, so it is not among the first {size}", field="size")
    root = frontier_at(connection, workspace, size).root()
    stated = stored_hash(connection, workspace, index)
    try:
        proof = merkle.inclusion_proof(index, size, subtree_reader(connection, workspace))
    except ValueError as error:
        raise IntegrityError(f"the audit tree of {workspace} lacks tiles") from error
    signed = read_checkpoint(connection, workspace, size)
    if not merkle.verify_inclusion(stated, index, size, proof, root) or (signed is not None and signed.root != root):
        raise IntegrityError(f"the audit tree of {workspace} is not the one that was signed at size {size}")
    return InclusionProof(
        leaf=leaf_id,
        index=index,
        hash=stated.hex(),
        size=size,
        root=root.hex(),
        proof=tuple(one.hex() for one in proof),
        note=None if signed is None else signed.note,
    )


def prove_consistency(connection: Connection, workspace: str, first: int, second: int | None) -> ConsistencyProof:
    """Prove that the tree of `second` leaves begins with that of `first`.

    Raises InputError for sizes that are not signed or not in order, IntegrityError for a broken tree.
    """
    second = _signed_size(connection, workspace, second, "to")
    if first > second:
        raise InputError(f"from is {first}; expected at most {second}", field="from")
    first_root = frontier_at(connection, workspace, first).root()
    second_root = frontier_at(connection, workspace, second).root()
    try:
        proof = merkle.consistency_proof(first, second, subtree_reader(connection, workspace))
    except ValueError as error:
        raise IntegrityError(f"the audit tree of {workspace} lacks tiles") from error
    if not merkle.verify_consistency(first, second, first_root, second_root, proof):
        raise IntegrityError(f"the audit tree of {workspace} does not fit together below size {second}")
    return ConsistencyProof(
        first_size=first,
        first_root=first_root.hex(),
        second_size=second,
        second_root=second_root.hex(),
        proof=tuple(one.hex() for one in proof),
    )


def _signed_size(connection: Connection, workspace: str, asked: int | None, field: str) -> int:
    latest = read_checkpoint(connection, workspace)
    signed = 0 if latest is None else latest.size
    if asked is not None and asked > signed:
        raise InputError(f"{field} is {asked}; the newest signed tree has {signed} leaves", field=field)
    return signed if asked is None else asked
