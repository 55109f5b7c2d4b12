"""The signing key of a log is replaced: whoever holds any of its keys can follow, and no other key gets in."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from sqlalchemy import select

from keyturn.access.audit_keys import AuditKeyService
from keyturn.audit import checkpoint, signing
from keyturn.audit.builder import Builder
from keyturn.audit.findings import FindingKind, Report
from keyturn.audit.signers import Signers
from keyturn.audit.verification import verify_export
from keyturn.errors import ConflictError, ForbiddenError
from keyturn.kernel.note import NoteError, new_signing_key, parse_verifier_key
from keyturn.storage.keyring import Keyring
from keyturn.storage.schema import sealed_key
from tests.access.house import House, opened_house
from tests.audit.log import WORKSPACE, Log, new_keyring


async def rotate(log: Log) -> str:
    """Make a new key, let it take over, and return what it is verified with."""
    await log.database.write(
        lambda t: log.keyring.create(t.connection, log.workspace, signing.PURPOSE, signing.PATH, t.now)
    )
    await log.grow(2)
    return await log.verifier_key()


@dataclass
class Rotated:
    """A log with three keys, and what verifies it."""

    log: Log
    keys: tuple[str, str, str]

    async def verify(self, key: int, since: str | None = None, *, first: int = 0) -> Report:
        return verify_export(await self.log.export(first), self.keys[key], since)


@pytest.fixture
async def rotated(log: Log) -> Rotated:
    await log.grow(3, 4)
    first = await log.verifier_key()
    second = await rotate(log)
    await log.grow(3)
    third = await rotate(log)
    await log.grow(1)
    return Rotated(log, (first, second, third))


@pytest.mark.parametrize("held", [0, 1, 2])
async def test_every_key_a_log_ever_had_verifies_all_of_it(rotated: Rotated, held: int) -> None:
    """SECURITY: a verifier that pinned a key before a rotation neither alarms nor has to trust the server anew."""
    report = await rotated.verify(held)

    assert (report.ok, report.size, report.checkpoints) == (True, 15, 6)
    assert report.verifier_key == rotated.keys[2]
    assert len(set(rotated.keys)) == 3


async def test_part_of_a_log_after_a_rotation_verifies_with_a_checkpoint_and_key_from_before(rotated: Rotated) -> None:
    lines = await rotated.log.export()
    old = next(json.loads(line)["checkpoint"] for line in lines if line.startswith('{"checkpoint"'))

    report = await rotated.verify(0, old, first=checkpoint.size_of(old))

    assert (report.ok, report.first, report.size) == (True, 3, 15)


@pytest.mark.parametrize("held", [0, 1, 2])
async def test_handover_left_out_or_forged_is_named(rotated: Rotated, held: int) -> None:
    """SECURITY: a key takes over only by the signature of the one before; everything else is a replaced key."""
    header, *rest = await rotated.log.export()
    opened = json.loads(header)
    forged = checkpoint.sign(WORKSPACE, 9, b"\0" * 32, 3, new_signing_key(), outgoing=new_signing_key())
    for presented in ([], opened["handovers"][::-1], [forged, opened["handovers"][1]], [opened["handovers"][0]]):
        report = verify_export([json.dumps(opened | {"handovers": presented}), *rest], rotated.keys[held])
        if held < 2 or presented:
            assert FindingKind.KEY_REPLACED in [one.kind for one in report.findings]
        assert not report.ok


async def test_foreign_key_does_not_verify_a_log_that_rotated(rotated: Rotated) -> None:
    foreign = checkpoint.verifier_key(WORKSPACE, new_signing_key())

    report = verify_export(await rotated.log.export(), foreign)

    assert report.findings[0].kind is FindingKind.KEY_REPLACED
    assert report.verifier_key == foreign


def test_key_signs_nothing_after_its_handover_and_nothing_before() -> None:
    """SECURITY: a key that was stolen and replaced cannot add to the log of its successor, nor that to its past."""
    old, new = new_signing_key(), new_signing_key()
    handover = checkpoint.sign(WORKSPACE, 9, bytes(32), 4, new, outgoing=old)
    signers = Signers.known_to(parse_verifier_key(checkpoint.verifier_key(WORKSPACE, new)), [handover])

    for number, key, proves in [(3, old, True), (3, new, False), (5, new, True), (5, old, False)]:
        note = checkpoint.sign(WORKSPACE, 5 + number, bytes(32), number, key)
        if proves:
            assert signers.read(note).number == number
        else:
            with pytest.raises(NoteError):
                signers.read(note)
    assert signers.read(handover).number == 4


def test_handover_needs_the_signatures_of_both_keys() -> None:
    """SECURITY: neither can a stolen key name a successor that does not agree, nor anybody name themselves."""
    old, new = new_signing_key(), new_signing_key()
    handover = checkpoint.sign(WORKSPACE, 9, bytes(32), 4, new, outgoing=old)
    body, _, signatures = handover.rpartition("\n\n")
    first, second = signatures.splitlines()

    assert checkpoint.read_handover(handover) is not None
    for one in (first, second):
        with pytest.raises(NoteError):
            checkpoint.read_handover(f"{body}\n\n{one}\n")


# --- the service -----------------------------------------------------------------------------------------------------


@dataclass
class Keeper:
    """The service over the real door, and the builder that hands over."""

    house: House
    keyring: Keyring
    builder: Builder
    service: AuditKeyService

    async def states(self) -> list[tuple[int, str, bool]]:
        query = select(sealed_key).where(sealed_key.c.purpose == signing.PURPOSE).order_by(sealed_key.c.number)
        return await self.house.database.read(
            lambda c: [(row.number, row.state, bool(row.sealed)) for row in c.execute(query).all()]
        )


@pytest.fixture
async def keeper(migrated_database_url: str) -> AsyncIterator[Keeper]:
    async with opened_house(migrated_database_url) as house:
        keyring = new_keyring()
        builder = Builder(house.database, keyring, "nod_test")
        yield Keeper(house, keyring, builder, AuditKeyService(house.door, keyring, wait_seconds=0))


async def test_old_key_is_kept_until_the_handover_and_then_destroyed(keeper: Keeper) -> None:
    admin = keeper.house.admin
    await keeper.house.hire("somebody")
    await keeper.builder.build_once()
    rotated = await keeper.service.rotate(admin, idempotency="once")
    again = await keeper.service.rotate(admin, idempotency="once")

    assert [(one.number, one.state) for one in again.keys] == [(2, "current"), (1, "previous")]
    with pytest.raises(ConflictError) as early:
        await keeper.service.retire(admin)
    assert early.value.code == "audit_key_in_use"
    assert rotated.handovers == ()

    await keeper.builder.build_once()
    retired = await keeper.service.retire(admin)

    assert await keeper.states() == [(1, "retired", False), (2, "current", True)]
    assert len(retired.handovers) == 1
    assert retired.verifier_key != rotated.verifier_key
    assert await keeper.service.retire(admin) == retired


@pytest.mark.parametrize("is_shown", [False, True])
async def test_nothing_is_rotated_before_anything_was_signed(keeper: Keeper, *, is_shown: bool) -> None:
    """SECURITY: a key that was shown, and may be pinned, is never replaced without a handover."""
    house = keeper.house
    if is_shown:
        workspace = house.founded.workspace.id
        await house.database.write(lambda t: signing.present_key(t.connection, keeper.keyring, workspace, t.now))

    with pytest.raises(ConflictError) as refused:
        await keeper.service.rotate(house.admin)

    assert refused.value.code == "audit_not_built"
    assert [number for number, _, _ in await keeper.states()] == ([1] if is_shown else [])


async def test_who_reads_the_log_may_not_change_its_key(keeper: Keeper) -> None:
    """SECURITY: rights on the log (`audit.*` on `audit/log`) are none on its key."""
    _, reader = await keeper.house.hire("reader", ("audit.*", "audit/*"))
    await keeper.builder.build_once()

    with pytest.raises(ForbiddenError):
        await keeper.service.rotate(reader)
    with pytest.raises(ForbiddenError):
        await keeper.service.retire(reader)
