import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
from sqlalchemy import update

from keyturn.access.door import Door
from keyturn.audit import ports
from keyturn.audit.service import AuditService
from keyturn.audit.verification import verify_export
from keyturn.errors import ConflictError, ForbiddenError, InputError, NotFoundError, UnavailableError
from keyturn.kernel import merkle
from keyturn.kernel.note import parse_verifier_key, verify
from keyturn.storage.schema import audit_leaf, audit_tile
from keyturn.wire.audit import AuditFilter, EraseLeaves
from tests.audit.log import OTHER_WORKSPACE, Log

NOWHERE = "evt_0000000000000000000000"


async def listed(log: Log, limit: int = 200, **wanted: Any) -> list[str]:
    """Every id that a filter lists, page by page."""
    found: list[str] = []
    cursor: str | None = None
    while True:
        page = await log.service().list(None, msgspec.convert(wanted, AuditFilter), cursor=cursor, limit=limit)
        found.extend(item.id for item in page.items)
        cursor = page.next_cursor
        if cursor is None:
            return found


async def test_pages_hold_every_leaf_once_newest_first(log: Log) -> None:
    ids = await log.append(7)
    await log.append(2, workspace=OTHER_WORKSPACE)
    ids += await log.append(3)

    for limit in (1, 3, 10, 50):
        assert await listed(log, limit) == ids[::-1]


async def test_filters_narrow_by_segment_and_never_widen(log: Log) -> None:
    issued = await log.append(3)
    revoked = await log.append(2, action="key.revoke", outcome="denied")
    other = await log.append(1, action="keyspace.create")

    assert set(await listed(log, action="key.*")) == {*issued, *revoked}
    assert await listed(log, action="keyspace.create") == other
    assert await listed(log, action="KEY.revoke") == []
    assert await listed(log, outcome="denied") == revoked[::-1]
    assert await listed(log, actor="prn_admin", action="key.issue") == issued[::-1]
    assert await listed(log, actor="prn_other") == []
    assert len(await listed(log, resource="key/orders/key_0")) == 3
    assert len(await listed(log, resource="key/*/key_1")) == 2
    assert await listed(log, resource="key/*") == [*other, *revoked[::-1], *issued[::-1]]
    assert await listed(log, resource_prefix="key/ord") == await listed(log)
    assert await listed(log, resource_prefix="KEY/") == []
    assert await listed(log, resource_prefix="key_%") == []


async def test_times_bound_the_list_from_both_sides(log: Log) -> None:
    await log.grow(2, 2)
    now = log.database.clock.now()

    assert len(await listed(log, since=now - 600, until=now + 600)) == 4
    assert await listed(log, since=now + 1) == []
    assert await listed(log, until=now - 600) == []


@pytest.mark.parametrize(
    "wanted", [{"action": "key.*.x*"}, {"resource": "key//x"}, {"actor": "a\0b"}, {"resource_prefix": "a\nb"}]
)
async def test_malformed_filters_name_their_field(file_log: Log, wanted: dict[str, Any]) -> None:
    with pytest.raises(InputError) as raised:
        await listed(file_log, **wanted)

    assert raised.value.field == next(iter(wanted))


@pytest.mark.parametrize("cursor", ["", "x", "~~~", "ZXZ0Xw", "aGVsbG8"])
async def test_cursor_that_no_list_returned_is_refused(file_log: Log, cursor: str) -> None:
    with pytest.raises(InputError):
        await file_log.service().list(None, cursor=cursor)


async def test_leaf_shows_the_text_its_hash_is_of(log: Log) -> None:
    (leaf_id,) = await log.append(1)
    before = await log.service().show(None, leaf_id)
    await log.builder.build_once()
    after = await log.service().show(None, leaf_id)

    assert (before.index, before.hash) == (None, None)
    assert after.index == 0
    assert after.body is not None
    assert after.hash == merkle.leaf_hash(after.body.encode()).hex()
    assert (after.actor.name, after.detail, after.erased) == ("admin", {"number": 0}, False)


async def test_leaf_of_another_workspace_answers_like_one_that_is_not_there(log: Log) -> None:
    """Masking: a tenant must not learn that a leaf of another exists."""
    (theirs,) = await log.append(1, workspace=OTHER_WORKSPACE)
    service = log.service()

    answers = []
    for leaf_id in (theirs, NOWHERE, "x"):
        with pytest.raises(NotFoundError) as raised:
            await service.show(None, leaf_id)
        answers.append(raised.value.message.replace(leaf_id, "…"))
    assert len(set(answers)) == 1


async def test_every_operation_asks_for_its_own_right(file_log: Log) -> None:
    """Who may read the log may not export or erase it, and nobody may anything without a grant."""
    (leaf_id,) = await file_log.append(1)
    await file_log.builder.build_once()
    erase = EraseLeaves(ids=(leaf_id,), reason="x")
    calls: dict[str, list[Callable[[AuditService], Awaitable[object]]]] = {
        "audit.read": [
            lambda s: s.list(None),
            lambda s: s.show(None, leaf_id),
            lambda s: s.latest(None),
            lambda s: s.checkpoints(None),
            lambda s: s.inclusion(None, leaf_id),
            lambda s: s.consistency(None, 0),
            lambda s: s.public_key(None),
        ],
        "audit.export": [lambda s: s.export(None)],
        "audit.erase": [lambda s: s.erase(None, erase)],
    }
    for right in (*calls, ""):
        service = file_log.service(frozenset({right}))
        for needed, operations in calls.items():
            for operation in operations:
                if needed != right:
                    with pytest.raises(ForbiddenError):
                        await operation(service)


async def test_inclusion_proof_leads_to_a_signed_root(log: Log) -> None:
    await log.grow(3, 300)
    ids = (await listed(log))[::-1]
    key = parse_verifier_key(await log.verifier_key())

    for place in (0, 2, 3, 255, 256, 302):
        proof = await log.service().inclusion(None, ids[place])
        assert proof.note is not None
        signed = verify(proof.note, key.name, key.public_key)
        path = [bytes.fromhex(one) for one in proof.proof]
        assert merkle.verify_inclusion(bytes.fromhex(proof.hash), proof.index, proof.size, path, signed.root)


async def test_consistency_proof_holds_between_every_two_sizes(log: Log) -> None:
    await log.grow(3, 4, 300)

    for first in (0, 1, 3, 7, 256, 307):
        proof = await log.service().consistency(None, first)
        assert merkle.verify_consistency(
            proof.first_size,
            proof.second_size,
            bytes.fromhex(proof.first_root),
            bytes.fromhex(proof.second_root),
            [bytes.fromhex(one) for one in proof.proof],
        )


async def test_sizes_that_are_not_signed_have_no_proof(file_log: Log) -> None:
    (first,) = await file_log.append(1)
    service = file_log.service()
    with pytest.raises(ConflictError, match="not in the signed tree yet"):
        await service.inclusion(None, first)
    await file_log.builder.build_once()
    (second,) = await file_log.append(1)
    await file_log.builder.build_once()

    for impossible in (
        service.inclusion(None, first, 3),
        service.inclusion(None, second, 1),
        service.consistency(None, 3),
        service.consistency(None, 2, 1),
    ):
        with pytest.raises(InputError):
            await impossible


async def test_broken_tree_gives_no_proof_but_an_answer(log: Log) -> None:
    """A proof out of altered tiles would accuse an honest log, so none is handed out."""
    await log.grow(5)
    ids = await listed(log)
    await log.alter(update(audit_tile).values(hashes=bytes(5 * 32)))

    with pytest.raises(UnavailableError) as raised:
        await log.service().inclusion(None, ids[0])
    assert raised.value.code == "audit_tree_broken"


async def test_checkpoints_are_listed_newest_first(log: Log) -> None:
    await log.grow(1, 1, 1, 1)
    service = log.service()
    first = await service.checkpoints(None, limit=3)
    second = await service.checkpoints(None, cursor=first.next_cursor, limit=3)

    assert [(one.number, one.size) for one in (*first.items, *second.items)] == [(4, 4), (3, 3), (2, 2), (1, 1)]
    assert second.next_cursor is None
    assert (await service.latest(None)).note == first.items[0].note


async def test_log_without_leaves_has_an_empty_tree_and_a_key(log: Log) -> None:
    latest = await log.service().latest(None)

    assert (latest.size, latest.note, latest.root) == (0, None, merkle.EMPTY_ROOT.hex())
    assert await log.verifier_key() == await log.verifier_key()


async def test_erased_leaf_keeps_its_hash_and_says_nothing_more(log: Log) -> None:
    await log.grow(3)
    ids = await listed(log)
    before = await log.service().show(None, ids[1])
    done = await log.service().erase(None, EraseLeaves(ids=(ids[1], ids[1]), reason="asked for"))
    again = await log.service().erase(None, EraseLeaves(ids=(ids[1],), reason="asked for"))
    after = await log.service().show(None, ids[1])

    assert (done.erased, done.already) == ((ids[1],), ())
    assert (again.erased, again.already) == ((), (ids[1],))
    assert (after.hash, after.index) == (before.hash, before.index)
    assert (after.erased, after.body, after.detail, after.actor.name, after.ip) == (True, None, {}, None, None)
    assert len(await listed(log, action="audit.erase")) == 1


async def test_what_must_stay_cannot_be_erased(file_log: Log) -> None:
    """Neither a leaf the tree has not taken in, nor the record of an erasure, nor evidence of tampering."""
    log = file_log
    await log.grow(3)
    ids = await listed(log)
    (fresh,) = await log.append(1)
    await log.service().erase(None, EraseLeaves(ids=(ids[0],), reason="x"))
    (record,) = await listed(log, action="audit.erase")
    await log.alter(update(audit_leaf).where(audit_leaf.c.id == ids[2]).values(body=b"{}"))

    for kept in (fresh, record, ids[2], NOWHERE):
        with pytest.raises((ConflictError, NotFoundError)):
            await log.service().erase(None, EraseLeaves(ids=(ids[1], kept), reason="x"))
        # All or nothing.
        assert not (await log.service().show(None, ids[1])).erased


async def test_export_is_on_record(log: Log) -> None:
    await log.grow(2)
    await log.export()

    assert len(await listed(log, action="audit.export")) == 1


async def test_export_waits_for_what_was_committed_before_it(log: Log) -> None:
    """An export made right after a revocation holds it, so a restore can do the revocation again."""
    (revoked,) = await log.append(action="key.revoke")

    async def build_later() -> None:
        await asyncio.sleep(0.1)
        await log.builder.build_once()

    building = asyncio.create_task(build_later())
    chunks = [chunk async for chunk in await log.service(build_wait_seconds=60).export(None)]
    await building
    assert revoked in b"".join(chunks).decode()


async def test_rights_withdrawn_during_an_export_end_it(file_log: Log) -> None:
    """A long export must not outlive the right to it."""
    await file_log.grow(5)
    service = file_log.service()
    chunks = await service.export(None)
    assert await anext(chunks)
    service._door.allowed = frozenset()  # type: ignore[attr-defined]  # noqa: SLF001 -- the fake door

    with pytest.raises(ForbiddenError):
        await anext(chunks)


async def test_export_of_a_growing_log_is_consistent(log: Log) -> None:
    """Leaves and checkpoints that come while an export runs are not in it, and do not disturb it."""
    await log.grow(600, 700)
    chunks = await log.service().export(None)
    lines: list[str] = []
    async for chunk in chunks:
        lines += chunk.decode().splitlines()
        await log.grow(50)

    report = verify_export(lines, await log.verifier_key())
    assert (report.ok, report.size) == (True, 1300)


def test_real_door_fits_the_port() -> None:
    """Checked by mypy: what stands in for the door in these tests has the shape of the door."""

    def typed(door: Door) -> ports.Door:
        return door

    assert typed.__annotations__["return"]
