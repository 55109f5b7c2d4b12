"""Requests that are repeated, that meet, that may not know, and what must never be in an answer's shadow."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from keyturn.access.door import Door
from keyturn.errors import (
    ConflictError,
    ForbiddenError,
    IdempotencyError,
    InFlightError,
    KeyturnError,
    NotFoundError,
    PreconditionError,
)
from keyturn.kernel import envelope
from keyturn.keys import records
from keyturn.keys.service import KeyService
from keyturn.storage.engine import make_database
from keyturn.wire.keys import (
    IssuedKey,
    IssueKeys,
    IssueToken,
    RetireKey,
    RetirePepper,
    RevokeKey,
    RotateKey,
    UpdateKey,
    UpdateKeyspace,
)
from tests.keys.desk import Desk, opened_desk, wanted

AN_HOUR = RotateKey(overlap_seconds=3600)


# --- repeated ---


async def test_a_repeated_issue_is_one_key_with_the_same_secret(desk: Desk) -> None:
    await desk.keyspace()
    first, second = [await desk.keys.issue(desk.admin, wanted(), idempotency="a-key") for _ in range(2)]
    assert (first.id, first.key) == (second.id, second.key)
    assert len((await desk.keys.list(desk.admin)).items) == 1
    assert len(await desk.leaves("key.issue")) == 1
    with pytest.raises(IdempotencyError):
        await desk.keys.issue(desk.admin, wanted(owner="other"), idempotency="a-key")


async def test_a_repeated_rotation_is_one_version_and_tells_its_effect_again(desk: Desk) -> None:
    await desk.keyspace()
    issued = await desk.key()
    first, second = [await desk.keys.rotate(desk.admin, issued.id, AN_HOUR, idempotency="a-key") for _ in range(2)]
    assert (first.version_id, first.key) == (second.version_id, second.key)
    assert second.effective
    assert len((await desk.keys.show(desk.admin, issued.id)).versions) == 2


async def test_a_late_repetition_answers_without_the_secret(desk: Desk) -> None:
    """The response is kept for ten minutes; afterwards a stolen Idempotency-Key opens nothing."""
    await desk.keyspace()
    first = await desk.keys.issue(desk.admin, wanted(), idempotency="a-key")
    bulk = await desk.keys.issue_bulk(desk.admin, IssueKeys(keys=(wanted(), wanted())), idempotency="b-key")
    desk.clock.advance(601)
    late = await desk.keys.issue(desk.admin, wanted(), idempotency="a-key")
    assert (late.id, late.version_id, late.key) == (first.id, first.version_id, None)
    late_bulk = await desk.keys.issue_bulk(desk.admin, IssueKeys(keys=(wanted(), wanted())), idempotency="b-key")
    assert [(one.id, one.key) for one in late_bulk.items] == [(one.id, None) for one in bulk.items]


async def test_a_refused_issue_may_be_tried_again_under_its_key(desk: Desk) -> None:
    with pytest.raises(NotFoundError):
        await desk.keys.issue(desk.admin, wanted(), idempotency="a-key")
    await desk.keyspace()
    assert (await desk.keys.issue(desk.admin, wanted(), idempotency="a-key")).key is not None


async def test_tokens_keyspaces_and_peppers_are_made_once(desk: Desk) -> None:
    owner = desk.founded.principal.id
    tokens = [await desk.tokens.issue(desk.admin, owner, IssueToken(name="x"), idempotency="k") for _ in range(2)]
    assert tokens[0] == tokens[1]
    await desk.keyspace()
    peppers = [await desk.keyspaces.rotate_pepper(desk.admin, "orders", idempotency="k") for _ in range(2)]
    assert [len(one.peppers) for one in peppers] == [2, 2]
    assert len(await desk.leaves("pepper.rotate")) == 1


# --- meeting ---


async def test_two_rotations_of_one_revision_at_once_make_one_version(desk: Desk) -> None:
    await desk.keyspace()
    issued = await desk.key()
    done = await asyncio.gather(
        *(desk.keys.rotate(desk.admin, issued.id, AN_HOUR, if_match=1) for _ in range(4)), return_exceptions=True
    )
    assert sum(isinstance(one, PreconditionError) for one in done) == 3
    assert len((await desk.keys.show(desk.admin, issued.id)).versions) == 2


async def test_two_rotations_under_one_key_at_once_make_one_version(desk: Desk) -> None:
    await desk.keyspace()
    issued = await desk.key()
    done = await asyncio.gather(
        *(desk.keys.rotate(desk.admin, issued.id, AN_HOUR, idempotency="a-key") for _ in range(4)),
        return_exceptions=True,
    )
    answered = [one for one in done if not isinstance(one, BaseException)]
    assert len({one.key for one in answered}) == 1
    assert all(isinstance(one, InFlightError) for one in done if isinstance(one, BaseException))
    assert len((await desk.keys.show(desk.admin, issued.id)).versions) == 2


async def test_rotations_without_conditions_each_make_a_version(desk: Desk) -> None:
    await desk.keyspace()
    issued = await desk.key()
    done = await asyncio.gather(*(desk.keys.rotate(desk.admin, issued.id, AN_HOUR) for _ in range(4)))
    shown = await desk.keys.show(desk.admin, issued.id)
    assert sorted(version.number for version in shown.versions) == [1, 2, 3, 4, 5]
    assert [version.state for version in shown.versions].count("current") == 1
    assert {one.version_id for one in done} < {version.id for version in shown.versions}


async def test_a_revocation_that_meets_a_rotation_leaves_nothing_valid(desk: Desk) -> None:
    """Whichever goes first, no secret of a revoked key is admitted afterwards."""
    await desk.keyspace()
    for _ in range(5):
        issued = await desk.key()
        rotated, revoked = await asyncio.gather(
            desk.keys.rotate(desk.admin, issued.id, AN_HOUR),
            desk.keys.revoke(desk.admin, issued.id, RevokeKey()),
            return_exceptions=True,
        )
        assert not isinstance(revoked, BaseException)
        secrets = [issued.key] if isinstance(rotated, ConflictError) else [issued.key, getattr(rotated, "key", None)]
        assert {await desk.verdict(secret) for secret in secrets} == {"REVOKED"}


# --- not to be known ---


def attempts(desk: Desk, who: Any, key_id: str, keyspace: str) -> dict[str, Any]:
    """Return every operation on a key and a keyspace, by name."""
    keys, keyspaces = desk.keys, desk.keyspaces
    return {
        "show": keys.show(who, key_id),
        "update": keys.update(who, key_id, UpdateKey(owner="x")),
        "rotate": keys.rotate(who, key_id, RotateKey()),
        "retire": keys.retire(who, key_id, RetireKey()),
        "disable": keys.disable(who, key_id),
        "enable": keys.enable(who, key_id),
        "revoke": keys.revoke(who, key_id, RevokeKey()),
        "issue": keys.issue(who, wanted(keyspace=keyspace)),
        "keyspace show": keyspaces.show(who, keyspace),
        "keyspace update": keyspaces.update(who, keyspace, UpdateKeyspace(description="x")),
        "keyspace disable": keyspaces.disable(who, keyspace),
        "keyspace enable": keyspaces.enable(who, keyspace),
        "pepper rotate": keyspaces.rotate_pepper(who, keyspace),
        "pepper retire": keyspaces.retire_pepper(who, keyspace, RetirePepper()),
    }


async def refusals(desk: Desk, who: Any, key_id: str, keyspace: str) -> dict[str, tuple[type, str, str | None]]:
    """Return how every operation is refused, with the names that were asked for taken out."""
    found = {}
    for name, attempt in attempts(desk, who, key_id, keyspace).items():
        with pytest.raises(KeyturnError) as caught:
            await attempt
        error = caught.value
        found[name] = (type(error), str(error).replace(key_id, "K").replace(keyspace, "S"), error.hint)
    return found


async def test_what_one_may_not_know_answers_exactly_like_what_does_not_exist(desk: Desk) -> None:
    """Neither another tenant nor a caller without grants can tell a key that exists from one that does not."""
    await desk.keyspace()
    issued = await desk.key()
    _, nobody = await desk.hire("nobody", ("keyspace.read", "keyspace/mine"))
    stranger = await desk.tenant("other")
    missing = "key_" + "0" * 22
    for who in (nobody, stranger):
        real = await refusals(desk, who, issued.id, "orders")
        fake = await refusals(desk, who, missing, "unheard-of")
        assert real == fake
        assert {kind for kind, _, _ in real.values()} == {NotFoundError}
    assert await desk.verdict(issued.key) == "VALID"


async def test_who_may_read_is_told_that_more_is_forbidden_and_that_is_on_record(desk: Desk) -> None:
    await desk.keyspace()
    issued = await desk.key()
    _, reader = await desk.hire("reader", ("key.read", "key/orders/*"))
    await desk.keys.show(reader, issued.id)
    with pytest.raises(ForbiddenError):
        await desk.keys.revoke(reader, issued.id, RevokeKey())
    (leaf,) = await desk.leaves("key.revoke")
    assert (leaf["outcome"], leaf["resource"]) == ("denied", f"key/orders/{issued.id}")
    assert await desk.verdict(issued.key) == "VALID"


# --- not to be told ---


async def test_a_secret_is_in_the_answer_and_nowhere_else(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    """No secret reaches an audit leaf, a log line, a representation or an error."""
    caplog.set_level(logging.DEBUG)
    await desk.keyspace()
    issued = await desk.keys.issue(desk.admin, wanted(), idempotency="a-key")
    rotated = await desk.keys.rotate(desk.admin, issued.id, AN_HOUR, idempotency="b-key")
    bulk = await desk.keys.issue_bulk(desk.admin, IssueKeys(keys=(wanted(),)))
    token = await desk.tokens.issue(desk.admin, desk.founded.principal.id, IssueToken(name="t"))
    secrets = [issued.key, rotated.key, bulk.items[0].key, token.token, desk.admin.token.reveal()]
    shown = [
        *(repr(one) for one in (issued, rotated, bulk, token)),
        repr(await desk.keys.show(desk.admin, issued.id)),
        repr(await desk.keys.list(desk.admin)),
        repr(await desk.tokens.list(desk.admin, desk.founded.principal.id)),
        *(body.decode() for body in await desk.leaf_bytes()),
        caplog.text,
    ]
    for secret in secrets:
        assert secret is not None
        assert not any(secret in text or secret[-49:] in text for text in shown)


async def test_a_secret_is_in_no_row_of_the_database(desk: Desk) -> None:
    """Whoever steals the database gets digests and sealed responses, and no key that could be presented."""
    await desk.keyspace()
    issued = await desk.keys.issue(desk.admin, wanted(), idempotency="a-key")
    assert issued.key is not None

    def dump(connection: Any) -> str:
        from keyturn.storage.schema import metadata

        return "".join(
            repr(tuple(row)) for table in metadata.sorted_tables for row in connection.execute(table.select())
        )

    stored = await desk.database.read(dump)
    assert issued.id in stored
    assert issued.key[-49:] not in stored


async def test_peppers_are_sealed_under_the_root_key(desk: Desk) -> None:
    """With the database alone, digests cannot even be tried."""
    made = await desk.keyspace()
    record = await desk.database.read(
        lambda connection: records.load_keyspace_record(connection, desk.keyring, made.id)
    )
    assert record is not None
    pepper = record.peppers[0].value
    assert len(pepper) == len(envelope.new_key())

    def sealed(connection: Any) -> list[bytes]:
        from keyturn.storage.schema import sealed_key, workspace_key

        return [
            *connection.execute(sealed_key.select().with_only_columns(sealed_key.c.sealed)).scalars(),
            *connection.execute(workspace_key.select().with_only_columns(workspace_key.c.wrapped)).scalars(),
        ]

    assert not any(pepper in blob for blob in await desk.database.read(sealed))


def test_an_answer_with_a_secret_has_no_secret_in_its_repr() -> None:
    fields = dict.fromkeys(IssuedKey.__struct_fields__) | {"key": "k" * 40}
    assert "k" * 40 not in repr(IssuedKey(**fields))  # type: ignore[arg-type]


# --- two servers ---


@pytest.mark.postgres
async def test_two_servers_make_one_version_of_rotations_that_meet(migrated_postgres_url: str) -> None:
    """Row locks and the idempotency record hold between processes, not only within one."""
    async with opened_desk(migrated_postgres_url) as desk:
        other = make_database(migrated_postgres_url, desk.clock)
        await other.open()
        try:
            second = KeyService(Door(other, desk.system, desk.failures), desk.keyring, desk.usage)
            await desk.keyspace()
            for key in ("a-key", "b-key", "c-key"):
                issued = await desk.key()
                done = await asyncio.gather(
                    *(one.rotate(desk.admin, issued.id, AN_HOUR, idempotency=key) for one in (desk.keys, second))
                )
                assert done[0].key == done[1].key
                refused = await asyncio.gather(
                    *(one.rotate(desk.admin, issued.id, AN_HOUR, if_match=2) for one in (desk.keys, second)),
                    return_exceptions=True,
                )
                assert [isinstance(one, PreconditionError) for one in refused].count(True) == 1
                shown = await desk.keys.show(desk.admin, issued.id)
                assert [version.number for version in shown.versions] == [3, 2, 1]
        finally:
            await other.close()
