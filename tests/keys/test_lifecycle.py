"""The story of a key: what its services promise, on both databases."""

from typing import Any

import pytest

from keyturn.errors import ConflictError, InputError, PreconditionError
from keyturn.kernel.clock import parse_rfc3339, rfc3339
from keyturn.wire.keys import RetireKey, RevokeKey, RevokeReason, RotateKey, UpdateKey
from keyturn.wire.policy import Restrictions
from tests.keys.desk import Desk

NOW_CUT = RotateKey(overlap_seconds=0)
AN_HOUR = RotateKey(overlap_seconds=3600)


async def test_an_issued_key_is_admitted_and_shown_once(desk: Desk) -> None:
    await desk.keyspace()
    issued = await desk.key(scopes=["orders:read"], tags=["a", "b", "a"], metadata={"team": "x"}, name="nightly")
    assert issued.key is not None
    assert issued.key.startswith("acme_live_")
    assert issued.version_id in issued.key
    assert await desk.verdict(issued.key, scopes="orders:read") == "VALID"
    assert await desk.verdict(issued.key, scopes="orders:write") == "INSUFFICIENT_PERMISSIONS"
    shown = await desk.keys.show(desk.admin, issued.id)
    assert not hasattr(shown, "key")
    assert (shown.tags, shown.metadata, shown.name, shown.revision) == (("a", "b"), {"team": "x"}, "nightly", 1)
    (version,) = shown.versions
    assert (version.id, version.number, version.state) == (issued.version_id, 1, "current")


async def test_both_secrets_verify_during_the_overlap_and_only_the_new_one_after(desk: Desk) -> None:
    await desk.keyspace()
    issued = await desk.key()
    rotated = await desk.keys.rotate(desk.admin, issued.id, AN_HOUR)
    assert rotated.id == issued.id
    assert rotated.effective
    assert [(v.number, v.state) for v in rotated.versions] == [(2, "current"), (1, "previous")]
    assert rotated.versions[1].valid_until == rfc3339(desk.clock.now() + 3600)
    assert await desk.verdict(issued.key) == "VALID"
    assert await desk.verdict(rotated.key) == "VALID"
    desk.clock.advance(3600)
    assert await desk.verdict(issued.key) == "EXPIRED"
    assert await desk.verdict(rotated.key) == "VALID"


async def test_an_overlap_of_zero_cuts_every_older_secret_at_once(desk: Desk) -> None:
    await desk.keyspace()
    first = await desk.key()
    second = await desk.keys.rotate(desk.admin, first.id, AN_HOUR)
    third = await desk.keys.rotate(desk.admin, first.id, NOW_CUT)
    assert [await desk.verdict(one.key) for one in (first, second, third)] == ["REVOKED", "REVOKED", "VALID"]


async def test_a_ninth_valid_secret_is_refused(desk: Desk) -> None:
    await desk.keyspace()
    key = await desk.key()
    for _ in range(7):
        await desk.keys.rotate(desk.admin, key.id, AN_HOUR)
    with pytest.raises(ConflictError, match="8 is the most"):
        await desk.keys.rotate(desk.admin, key.id, AN_HOUR)
    desk.clock.advance(3600)
    await desk.keys.rotate(desk.admin, key.id, AN_HOUR)


async def test_an_old_secret_is_retired_only_once_it_was_silent_and_its_caller_is_named(desk: Desk) -> None:
    await desk.keyspace()
    issued = await desk.key()
    await desk.keys.rotate(desk.admin, issued.id, RotateKey(overlap_seconds=86_400))
    desk.usage.note(issued.version_id, desk.clock.now())
    desk.clock.advance(600)
    with pytest.raises(ConflictError, match=r"198\.51\.100\.0/24 by curl/8 at GET /orders") as caught:
        await desk.keys.retire(desk.admin, issued.id, RetireKey(silent_seconds=3600))
    assert caught.value.code == "version_in_use"
    assert await desk.verdict(issued.key) == "VALID"
    retired = await desk.keys.retire(desk.admin, issued.id, RetireKey(silent_seconds=300))
    assert retired.versions[1].state == "revoked"
    assert retired.versions[1].last_used is not None
    assert retired.versions[1].callers[0].user_agent == "curl/8"
    assert await desk.verdict(issued.key) == "REVOKED"


async def test_force_retires_a_secret_that_is_in_use(desk: Desk) -> None:
    await desk.keyspace()
    issued = await desk.key()
    rotated = await desk.keys.rotate(desk.admin, issued.id, AN_HOUR)
    desk.usage.note(issued.version_id, desk.clock.now())
    await desk.keys.retire(desk.admin, issued.id, RetireKey(force=True))
    assert await desk.verdict(issued.key) == "REVOKED"
    assert await desk.verdict(rotated.key) == "VALID"


async def test_retiring_never_takes_the_current_secret(desk: Desk) -> None:
    await desk.keyspace()
    issued = await desk.key()
    await desk.keys.retire(desk.admin, issued.id, RetireKey(force=True))
    assert await desk.verdict(issued.key) == "VALID"


async def test_disable_is_reversible_and_repeating_it_leaves_one_leaf(desk: Desk) -> None:
    await desk.keyspace()
    issued = await desk.key()
    for _ in range(2):
        disabled = await desk.keys.disable(desk.admin, issued.id)
        assert (disabled.state, disabled.effective, disabled.laggards) == ("disabled", True, ())
        assert parse_rfc3339(disabled.effective_by) > 0
    assert await desk.verdict(issued.key) == "DISABLED"
    assert len(await desk.leaves("key.disable")) == 1
    enabled = await desk.keys.enable(desk.admin, issued.id)
    assert (enabled.state, enabled.disabled_at, enabled.effective) == ("active", None, True)
    assert await desk.verdict(issued.key) == "VALID"


async def test_a_revoked_key_stays_revoked(desk: Desk) -> None:
    """Revocation is final: no operation brings a revoked key back, and its reason is kept."""
    await desk.keyspace()
    issued = await desk.key()
    revoked = await desk.keys.revoke(desk.admin, issued.id, RevokeKey(reason=RevokeReason.SUPERSEDED))
    assert (revoked.state, revoked.revoke_reason, revoked.effective) == ("revoked", "superseded", True)
    assert await desk.verdict(issued.key) == "REVOKED"
    keys, admin = desk.keys, desk.admin
    for attempt in (
        keys.enable(admin, issued.id),
        keys.disable(admin, issued.id),
        keys.rotate(admin, issued.id, AN_HOUR),
        keys.rotate(admin, issued.id, NOW_CUT),
        keys.update(admin, issued.id, UpdateKey(owner="other")),
        keys.revoke(admin, issued.id, RevokeKey(reason=RevokeReason.UNSPECIFIED)),
    ):
        with pytest.raises(ConflictError):
            await attempt
    again = await desk.keys.revoke(desk.admin, issued.id, RevokeKey(reason=RevokeReason.SUPERSEDED))
    assert again.revision == revoked.revision
    assert await desk.verdict(issued.key) == "REVOKED"


async def test_a_compromise_marks_every_secret_also_when_it_is_learned_later(desk: Desk) -> None:
    await desk.keyspace()
    issued = await desk.key()
    await desk.keys.rotate(desk.admin, issued.id, AN_HOUR)
    first = await desk.keys.revoke(desk.admin, issued.id, RevokeKey(reason=RevokeReason.SUPERSEDED))
    desk.clock.advance(60)
    compromised = await desk.keys.revoke(desk.admin, issued.id, RevokeKey(reason=RevokeReason.KEY_COMPROMISE))
    assert {version.state for version in compromised.versions} == {"compromised"}
    assert compromised.revoked_at == first.revoked_at
    assert compromised.revoke_reason == "key_compromise"


async def test_an_update_changes_what_it_names_and_nothing_else(desk: Desk) -> None:
    await desk.keyspace()
    issued = await desk.key(scopes=["a:read"], tags=["old"], name="n", restrictions={"cidrs": ["10.0.0.0/8"]})
    changed = await desk.keys.update(
        desk.admin, issued.id, UpdateKey(scopes=("b:*",), tags=("new",), restrictions=None, name=None)
    )
    assert (changed.scopes, changed.tags, changed.restrictions, changed.name) == (("b:*",), ("new",), None, None)
    assert (changed.owner, changed.purpose, changed.revision) == ("billing", "tests", 2)
    assert await desk.verdict(issued.key, scopes="b:write") == "VALID"
    (leaf,) = await desk.leaves("key.update")
    assert set(leaf["detail"]) == {"scopes", "tags", "restrictions", "name"}
    same = await desk.keys.update(desk.admin, issued.id, UpdateKey(scopes=("b:*",)))
    assert same.revision == 2
    assert len(await desk.leaves("key.update")) == 1


async def test_an_update_by_an_old_revision_is_refused(desk: Desk) -> None:
    await desk.keyspace()
    issued = await desk.key()
    await desk.keys.update(desk.admin, issued.id, UpdateKey(owner="a"), if_match=1)
    with pytest.raises(PreconditionError):
        await desk.keys.update(desk.admin, issued.id, UpdateKey(owner="b"), if_match=1)
    assert (await desk.keys.show(desk.admin, issued.id)).owner == "a"


async def test_not_before_and_expiry_bound_a_key(desk: Desk) -> None:
    await desk.keyspace()
    now = desk.clock.now()
    issued = await desk.key(not_before=rfc3339(now + 100), expires_at=rfc3339(now + 200))
    assert await desk.verdict(issued.key) == "NOT_YET_VALID"
    desk.clock.advance(100)
    assert await desk.verdict(issued.key) == "VALID"
    desk.clock.advance(100)
    assert await desk.verdict(issued.key) == "EXPIRED"


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"scopes": ["a", "a::b"]}, "scopes[1]"),
        ({"restrictions": {"cidrs": ["10.0.0.0/8", "10.0.0.0/99"]}}, "restrictions.cidrs[1]"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"expires_at": "9999-12-31T23:59:59-12:00"}, "expires_at"),
        ({"not_before": "1960-01-01T00:00:00Z"}, "not_before"),
        ({"not_before": "2030-01-01T00:00:00Z", "expires_in_seconds": 5}, "expires_at"),
        ({"expires_at": "2030-01-01T00:00:00Z", "expires_in_seconds": 5}, "expires_in_seconds"),
    ],
)
async def test_bad_input_is_named_by_its_field_and_stores_nothing(
    desk: Desk, given: dict[str, Any], field: str
) -> None:
    await desk.keyspace()
    with pytest.raises(InputError) as caught:
        await desk.key(**given)
    assert caught.value.field == field
    assert (await desk.keys.list(desk.admin)).items == ()


async def test_keys_of_a_disabled_keyspace_are_neither_issued_nor_admitted(desk: Desk) -> None:
    await desk.keyspace()
    issued = await desk.key()
    disabled = await desk.keyspaces.disable(desk.admin, "orders")
    assert (disabled.state, disabled.effective) == ("disabled", True)
    assert await desk.verdict(issued.key) == "DISABLED"
    with pytest.raises(ConflictError, match="orders is disabled"):
        await desk.key()
    with pytest.raises(ConflictError, match="orders is disabled"):
        await desk.keys.rotate(desk.admin, issued.id, NOW_CUT)
    await desk.keyspaces.enable(desk.admin, "orders")
    assert await desk.verdict(issued.key) == "VALID"


async def test_the_restrictions_of_keyspace_and_key_both_apply(desk: Desk) -> None:
    await desk.keyspace(restrictions={"cidrs": ["10.0.0.0/8"]})
    issued = await desk.key(restrictions=Restrictions(cidrs=("10.1.0.0/16",)))
    assert await desk.verdict(issued.key, ip="10.1.2.3") == "VALID"
    assert await desk.verdict(issued.key, ip="10.2.2.3") == "FORBIDDEN"
    assert await desk.verdict(issued.key) == "FORBIDDEN"


async def test_every_change_tells_replicas_of_its_key(desk: Desk) -> None:
    await desk.keyspace()
    issued = await desk.key()
    before = len(await desk.news())
    await desk.keys.rotate(desk.admin, issued.id, AN_HOUR)
    await desk.keys.retire(desk.admin, issued.id, RetireKey())
    await desk.keys.disable(desk.admin, issued.id)
    await desk.keys.enable(desk.admin, issued.id)
    await desk.keys.revoke(desk.admin, issued.id, RevokeKey())
    assert (await desk.news())[before:] == [("key", issued.id)] * 5
