import asyncio
from typing import TYPE_CHECKING

import pytest

from keyturn.errors import InputError
from keyturn.kernel.tokenformat import mint
from keyturn.keys import lookup, read_slots
from keyturn.storage.nodes import Confirmation
from keyturn.wire.policy import Restrictions
from tests.verification.world import World

if TYPE_CHECKING:
    from keyturn.access.caller import Credentials
    from keyturn.keys.callers import ProvenCaller
    from keyturn.verify.model import Request
    from keyturn.verify.replica import Replica


def unknown_key() -> str:
    return mint("acme", "live").key.reveal()


async def test_a_valid_key_is_admitted_and_described(world: World) -> None:
    issued = await world.issue(await world.create_keyspace(), scopes=("orders:*",))
    await world.follow()
    answer = await world.verify(issued.key, scopes="orders:read")
    assert (answer.valid, answer.code) == (True, "VALID")
    assert (answer.key_id, answer.version_id, answer.keyspace) == (issued.id, issued.version_id, "orders")
    assert (answer.owner, answer.environment, answer.metadata) == ("team-a", "production", {"plan": "gold"})
    assert world.sink.used == [(issued.version_id, "VALID")]


async def test_a_warm_verification_needs_no_database(world: World) -> None:
    issued = await world.issue(await world.create_keyspace())
    await world.follow()
    assert (await world.verify(issued.key)).valid
    world.take_database_away()
    answer = world.verify_now(issued.key)
    assert answer is not None
    assert answer.valid
    denied = world.verify_now("nothing that looks like a key")
    assert denied is not None
    assert denied.code == "NOT_FOUND"


@pytest.mark.parametrize(("state", "code"), [("disabled", "DISABLED"), ("revoked", "REVOKED")])
async def test_a_key_that_lost_its_state_is_denied_once_the_change_is_applied(
    world: World, state: str, code: str
) -> None:
    issued = await world.issue(await world.create_keyspace())
    await world.follow()
    assert (await world.verify(issued.key)).valid
    await world.set_key_state(issued, state)
    await world.follow()
    answer = world.verify_now(issued.key)
    assert answer is not None
    assert (answer.valid, answer.code) == (False, code)


async def test_a_disabled_keyspace_denies_all_its_keys(world: World) -> None:
    keyspace = await world.create_keyspace()
    issued = await world.issue(keyspace)
    await world.follow()
    assert (await world.verify(issued.key)).valid
    await world.set_keyspace_state(keyspace, "disabled")
    await world.follow()
    assert (await world.verify(issued.key)).code == "DISABLED"


async def test_a_key_of_another_secret_is_not_found_and_not_counted(world: World) -> None:
    """Nobody learns from the answer that the id exists, nor spoils the usage of a key that is not theirs."""
    issued = await world.issue(await world.create_keyspace())
    await world.follow()
    forged = issued.key[:-50] + unknown_key()[-50:]
    assert (await world.verify(forged)).code == "NOT_FOUND"
    assert world.sink.used == []


async def test_a_denied_key_whose_secret_was_proven_is_counted(world: World) -> None:
    issued = await world.issue(await world.create_keyspace(), restrictions=Restrictions(cidrs=("10.0.0.0/8",)))
    await world.follow()
    answer = await world.verify(issued.key, ip="192.0.2.1")
    assert (answer.code, answer.key_id) == ("FORBIDDEN", issued.id)
    assert world.sink.used == [(issued.version_id, "FORBIDDEN")]


async def test_explain_tells_every_check_and_nothing_before_the_secret_is_proven(world: World) -> None:
    issued = await world.issue(await world.create_keyspace(), scopes=("orders:read",))
    await world.follow()
    answer = await world.verify(issued.key, scopes="orders:write", explain=True)
    assert answer.checks is not None
    assert {check.check: check.verdict for check in answer.checks}["scopes"] == "fail"
    hidden = await world.verify(unknown_key(), scopes="orders:write", explain=True)
    assert hidden.checks is not None
    assert {check.verdict for check in hidden.checks} <= {"pass", "fail", "skipped"}
    assert {check.check for check in hidden.checks if check.verdict == "fail"} == {"secret"}


async def test_a_malformed_scope_query_is_an_error_whatever_the_key(world: World) -> None:
    issued = await world.issue(await world.create_keyspace())
    await world.follow()
    for key in (issued.key, unknown_key(), "junk"):
        with pytest.raises(InputError):
            await world.verify(key, scopes="orders:read AND")


# --- keys this node does not know ----------------------------------------------------------------------------------


async def test_a_key_this_node_has_not_heard_of_is_looked_up_at_once(world: World) -> None:
    keyspace = await world.create_keyspace()
    await world.follow()
    await world.verify("junk")
    issued = await world.issue(keyspace)
    assert world.verify_now(issued.key) is None
    assert (await world.verify(issued.key)).valid
    assert world.lookup.lookups == 1


async def test_junk_is_refused_without_a_look_up(world: World) -> None:
    """What is no key by shape or check costs the database nothing."""
    await world.create_keyspace()
    await world.follow()
    await world.verify("junk")
    world.take_database_away()
    good = unknown_key()
    for junk in ("", "junk", good[:-1], good[:-1] + "~", good + "0", good.upper(), "\x00", "a" * 100_000):
        assert (await world.verify(junk)).code == "NOT_FOUND"
    assert world.lookup.lookups == 0


async def test_an_unknown_key_is_not_found_and_not_remembered(world: World) -> None:
    await world.create_keyspace()
    await world.follow()
    key = unknown_key()
    for _ in range(2):
        answer = await world.verify(key)
        assert (answer.valid, answer.code, answer.key_id) == (False, "NOT_FOUND", None)
    assert world.lookup.lookups == 2


async def test_everybody_who_asks_for_an_unknown_key_shares_one_look_up(world: World) -> None:
    keyspace = await world.create_keyspace()
    await world.follow()
    await world.verify("junk")
    issued = await world.issue(keyspace)
    answers = await asyncio.gather(*(world.verify(issued.key) for _ in range(50)))
    assert all(answer.valid for answer in answers)
    assert world.lookup.lookups == 1


async def test_a_flood_of_unknown_keys_does_not_reach_the_database(world: World) -> None:
    """Well-formed keys are easily invented; past the bucket they are answered from the change log alone."""
    keyspace = await world.create_keyspace()
    await world.follow()
    await world.verify("junk")
    async with world.following():
        flood = [world.verify(unknown_key()) for _ in range(int(lookup.LOOKUPS_BURST) + 300)]
        answers = await asyncio.gather(*flood)
        assert {answer.code for answer in answers} == {"NOT_FOUND"}
        assert 0 < world.lookup.lookups <= lookup.LOOKUPS_BURST
        issued = await world.issue(keyspace)
        assert (await world.verify(issued.key)).valid


async def test_an_unknown_key_is_unavailable_when_neither_look_up_nor_log_can_tell(world: World) -> None:
    """A key that may exist is never called unknown."""
    await world.create_keyspace()
    await world.follow()
    await world.verify("junk")
    world.take_database_away()
    answer = await world.verify(unknown_key())
    assert (answer.valid, answer.code) == (False, "UNAVAILABLE")


# --- freshness -----------------------------------------------------------------------------------------------------


async def test_a_stale_node_reads_through_and_sees_what_it_has_not_applied(world: World) -> None:
    """A node that hears no news must not admit from memory what was revoked meanwhile."""
    keyspace = await world.create_keyspace()
    issued, kept = await world.issue(keyspace), await world.issue(keyspace)
    await world.follow()
    assert (await world.verify(issued.key)).valid
    await world.set_key_state(issued, "revoked")
    world.go_stale()
    assert world.verify_now(issued.key) is None
    assert (await world.verify(issued.key)).code == "REVOKED"
    assert (await world.verify(kept.key)).valid
    assert world.lookup.read_throughs == 2


async def test_a_stale_node_without_database_answers_unavailable(world: World) -> None:
    issued = await world.issue(await world.create_keyspace())
    await world.follow()
    assert (await world.verify(issued.key)).valid
    world.go_stale()
    world.take_database_away()
    answer = await world.verify(issued.key)
    assert (answer.valid, answer.code, answer.key_id) == (False, "UNAVAILABLE", None)


async def test_a_confirm_makes_a_stale_node_fresh_again(world: World) -> None:
    issued = await world.issue(await world.create_keyspace())
    await world.follow()
    assert (await world.verify(issued.key)).valid
    world.go_stale()
    assert world.verify_now(issued.key) is None
    await world.confirm()
    answer = world.verify_now(issued.key)
    assert answer is not None
    assert answer.valid


async def test_a_confirm_does_not_count_before_its_head_is_applied(world: World) -> None:
    """A node that confirms but cannot follow must not stay fresh."""
    issued = await world.issue(await world.create_keyspace())
    await world.follow()
    assert (await world.verify(issued.key)).valid
    await world.set_key_state(issued, "revoked")
    world.go_stale()
    await world.confirm()
    assert world.verify_now(issued.key) is None
    await world.follower.tick()
    answer = world.verify_now(issued.key)
    assert answer is not None
    assert answer.code == "REVOKED"


async def test_each_keyspace_has_its_own_bound(world: World) -> None:
    strict = await world.issue(await world.create_keyspace("strict", stale_after_seconds=2.0))
    usual = await world.issue(await world.create_keyspace("usual"))
    await world.follow()
    assert (await world.verify(strict.key)).valid
    world.go_stale(3)
    assert world.verify_now(strict.key) is None
    assert world.verify_now(usual.key) is not None
    assert (await world.verify(strict.key)).valid
    assert world.lookup.read_throughs == 1


async def test_a_pause_at_any_moment_of_a_decision_keeps_it_from_admitting(world: World) -> None:
    """A process may be stopped anywhere; freshness that ran out before the last step is noticed."""
    issued = await world.issue(await world.create_keyspace())
    await world.follow()
    assert (await world.verify(issued.key)).valid
    looks = 0
    pause_at = 0

    def boottime() -> float:
        nonlocal looks
        looks += 1
        return world.clock.elapsed() + (100.0 if pause_at and looks >= pause_at else 0.0)

    world.clock._boottime = boottime  # noqa: SLF001 -- the only way into the middle of a decision
    assert world.verify_now(issued.key) is not None
    for pause_at in range(1, looks + 1):  # noqa: B007 -- read by `boottime`
        looks = 0
        assert world.verify_now(issued.key) is None


async def test_a_pause_after_reading_through_keeps_it_from_admitting(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read before a process was stopped says nothing about what was revoked while it was."""
    keyspace = await world.create_keyspace("strict", stale_after_seconds=2.0)
    issued = await world.issue(keyspace)
    await world.follow()
    read = world.lookup.read_through
    paused = 0.0

    async def read_and_pause(credentials: "Credentials", request: "Request") -> "tuple[ProvenCaller, Replica]":
        found = await read(credentials, request)
        world.go_stale(paused)
        return found

    monkeypatch.setattr(world.lookup, "read_through", read_and_pause)
    for paused, code in ((100.0, "UNAVAILABLE"), (2.0, "UNAVAILABLE"), (1.0, "VALID")):  # noqa: B007 -- read above
        world.go_stale()
        assert (await world.verify(issued.key)).code == code


async def test_a_node_that_lost_the_log_serves_nothing_from_memory(world: World) -> None:
    issued = await world.issue(await world.create_keyspace())
    await world.follow()
    assert (await world.verify(issued.key)).valid
    world.follower.resync()
    assert world.verify_now(issued.key) is None
    assert (await world.verify(issued.key)).valid
    assert world.lookup.read_throughs == 1
    await world.follow()
    assert world.verify_now(issued.key) is None
    assert (await world.verify(issued.key)).valid
    assert world.verify_now(issued.key) is not None


async def test_a_confirm_of_another_log_takes_freshness_away_until_the_log_is_loaded(world: World) -> None:
    """Neither may a restored database be answered for from before, nor a late answer leave a node stale for good."""
    issued = await world.issue(await world.create_keyspace())
    await world.follow()
    assert (await world.verify(issued.key)).valid
    late = Confirmation(
        known=True, log_id="log_other", head=0, database_time=world.clock.now(), wrote_log_id="", wrote_applied=-1
    )
    world.replication.confirmed(world.clock.boottime(), world.clock.boottime(), late)
    await asyncio.sleep(0)
    assert world.verify_now(issued.key) is None
    await world.follow()
    assert (await world.verify(issued.key)).valid
    assert world.verify_now(issued.key) is not None


async def test_read_throughs_are_bounded(world: World) -> None:
    """A stale node must not bury a database that is in trouble already."""
    issued = await world.issue(await world.create_keyspace())
    await world.follow()
    assert (await world.verify(issued.key)).valid
    world.go_stale()
    read, running, most = world.database.read, 0, 0

    async def slow(work: object, **given: object) -> object:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        try:
            return await read(work, **given)  # type: ignore[arg-type]
        finally:
            running -= 1

    world.database.read = slow  # type: ignore[method-assign,assignment]
    answers = await asyncio.gather(*(world.verify(issued.key) for _ in range(400)))
    assert most <= read_slots.AT_ONCE
    assert {answer.code for answer in answers} == {"VALID", "UNAVAILABLE"}
