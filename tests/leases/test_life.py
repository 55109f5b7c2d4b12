"""The life of a lease, against a system in memory and both databases."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import insert

from keyturn.access.caller import Credentials, TokenOwner
from keyturn.access.door import Door
from keyturn.errors import (
    CapError,
    ConflictError,
    ForbiddenError,
    InputError,
    KeyturnError,
    NotFoundError,
    UnavailableError,
)
from keyturn.leases.dispatcher import ELECTION
from keyturn.leases.rules import Timing
from keyturn.leases.service import LeaseService
from keyturn.storage import election
from keyturn.storage.schema import login_role
from keyturn.testing.access import CountedFailures, FakeTokenAuthority
from keyturn.wire.leases import CreateSource, LeaseState, UpdateSource
from tests.leases.bench import Bench, opened_bench


async def test_a_lease_is_an_account_that_ends_when_its_time_is_over(bench: Bench) -> None:
    await bench.source()
    made = await bench.lease(ttl=60)
    assert set(made.fields) == {"username", "password"}
    assert list(bench.town.accounts) == [made.fields["username"]]
    assert len(made.fields["username"]) <= 32
    assert made.lease_id == f"app/creds/reader/{made.id}"
    assert made.ttl_seconds == 60
    await bench.pass_time(59)
    assert await bench.states() == ["active"]
    await bench.pass_time(1)
    assert await bench.states() == ["revoked"]
    assert bench.town.accounts == {}


async def test_the_password_is_in_no_row_leaf_or_repr(bench: Bench) -> None:
    """What is answered once is kept nowhere."""
    await bench.source(password="".join(("connection-", "password")))
    made = await bench.lease()
    password = made.fields["password"]
    assert password == bench.town.passwords[0].reveal()
    rows = repr(await bench.rows())
    leaves = b"".join(await bench.desk.leaf_bytes()).decode()
    for text in (rows, leaves, repr(made), str(made)):
        assert password not in text
        assert "connection-password" not in text
    shown = await bench.sources.show(bench.desk.admin, "app")
    assert shown.secrets == ("password",)
    assert "connection-password" not in repr(shown)


async def test_the_intent_is_committed_before_the_account_is_made(bench: Bench) -> None:
    await bench.source()
    bench.town.gates["create"] = asyncio.Event()
    making = asyncio.create_task(bench.lease())
    await bench.until("create")
    (row,) = await bench.rows()
    assert row.state == "intent"
    assert row.account == bench.town.calls[-1][1]
    assert bench.town.accounts == {}
    bench.town.gates["create"].set()
    assert (await making).fields["username"] == row.account


async def test_a_creation_that_fails_leaves_no_account_and_says_why(bench: Bench) -> None:
    await bench.source()
    bench.town.down = {"created"}
    with pytest.raises(UnavailableError, match="the town is closed for created"):
        await bench.lease()
    assert len(bench.town.accounts) == 1
    await bench.round()
    assert bench.town.accounts == {}
    assert await bench.states() == ["lingering"]
    await bench.pass_time(bench.endings.timing.linger)
    assert await bench.states() == ["failed"]
    (failed,) = await bench.desk.leaves("lease.create")
    assert failed["outcome"] == "failed"


async def test_an_intent_whose_process_was_killed_is_dropped_twice(bench: Bench) -> None:
    """A killed process leaves an intent, and perhaps an account, and perhaps one that arrives late."""
    await bench.source()
    bench.town.gates["created"] = asyncio.Event()
    making = asyncio.create_task(bench.lease())
    await bench.until("created")
    (account,) = bench.town.accounts
    await bench.pass_time(bench.endings.timing.grace - 1)
    assert await bench.states() == ["intent"]
    await bench.pass_time(1)
    assert await bench.states() == ["lingering"]
    assert bench.town.accounts == {}
    bench.town.accounts[account] = 0.0  # it arrives late
    await bench.pass_time(bench.endings.timing.linger)
    assert await bench.states() == ["failed"]
    assert bench.town.accounts == {}
    making.cancel()
    await asyncio.gather(making, return_exceptions=True)


async def test_a_creation_that_comes_back_too_late_drops_what_it_made(bench: Bench) -> None:
    """A process that was stopped goes on when its intent was given up and cleaned up long ago."""
    await bench.source()
    bench.town.gates["created"] = asyncio.Event()
    making = asyncio.create_task(bench.lease())
    await bench.until("created")
    (account,) = bench.town.accounts
    await bench.pass_time(bench.endings.timing.grace)
    await bench.pass_time(bench.endings.timing.linger)
    assert await bench.states() == ["failed"]
    bench.town.accounts[account] = 0.0
    bench.town.gates["created"].set()
    with pytest.raises(ConflictError, match="was ended while its account was being created"):
        await making
    await bench.round()
    assert bench.town.accounts == {}
    await bench.pass_time(bench.endings.timing.linger)
    assert await bench.states() == ["failed"]


async def test_a_renewal_counts_from_now_and_stops_at_the_most(bench: Bench) -> None:
    await bench.source()
    await bench.role("brief", ttl_seconds=100, max_ttl_seconds=150)
    made = await bench.lease(role="brief")
    account = made.fields["username"]
    bench.desk.clock.advance(40)
    now = bench.desk.clock.now()
    renewed = await bench.leases.renew(bench.desk.admin, made.lease_id, 50)
    assert renewed.ttl_seconds == 50
    assert bench.town.accounts[account] == now + 50
    renewed = await bench.leases.renew(bench.desk.admin, made.id)
    assert renewed.ttl_seconds == 100
    renewed = await bench.leases.renew(bench.desk.admin, made.id, 500)
    assert renewed.ttl_seconds == 110
    await bench.pass_time(110)
    assert await bench.states() == ["revoked"]
    with pytest.raises(ConflictError, match="cannot be renewed"):
        await bench.leases.renew(bench.desk.admin, made.id)


async def test_an_account_that_cannot_be_prolonged_keeps_its_end(bench: Bench) -> None:
    await bench.source()
    made = await bench.lease(ttl=60)
    bench.town.down = {"extend"}
    with pytest.raises(UnavailableError, match="closed for extend"):
        await bench.leases.renew(bench.desk.admin, made.id, 600)
    assert (await bench.leases.lookup(bench.desk.admin, made.id)).ttl_seconds == 60


async def test_a_revocation_is_done_when_it_answers_and_may_be_repeated(bench: Bench) -> None:
    await bench.source()
    made = await bench.lease()
    assert (await bench.leases.revoke(bench.desk.admin, made.lease_id)).state is LeaseState.REVOKED
    assert bench.town.accounts == {}
    assert (await bench.leases.revoke(bench.desk.admin, made.id)).state is LeaseState.REVOKED
    assert len(await bench.desk.leaves("lease.revoke")) == 1


async def test_attempts_go_on_with_pauses_until_a_person_has_to_act(bench: Bench) -> None:
    await bench.source()
    made = await bench.lease()
    bench.town.down = {"drop"}
    first = await bench.leases.revoke(bench.desk.admin, made.id)
    assert (first.state, first.attempts) == (LeaseState.REVOKING, 1)
    assert first.last_error == "the town is closed for drop"
    for pause in (10, 20, 40, 80):
        await bench.pass_time(pause)
    assert await bench.states() == ["revoking"]
    await bench.pass_time(160)
    assert await bench.states() == ["irrevocable"]
    (listed,) = (await bench.leases.list(bench.desk.admin, state=LeaseState.IRREVOCABLE)).items
    assert (listed.id, listed.attempts, listed.last_error) == (made.id, 6, "the town is closed for drop")
    (told,) = await bench.desk.leaves("system.lease")
    assert told["outcome"] == "failed"
    assert (await bench.leases.retry(bench.desk.admin, made.id)).state is LeaseState.REVOKING
    bench.town.down = set()
    await bench.pass_time(10)
    assert await bench.states() == ["revoked"]


async def test_a_person_states_that_an_account_is_gone_with_a_reason(bench: Bench) -> None:
    await bench.source()
    made = await bench.lease()
    with pytest.raises(ConflictError, match="not irrevocable"):
        await bench.leases.resolve(bench.desk.admin, made.id, "looked")
    bench.town.down = {"open"}
    await bench.leases.revoke(bench.desk.admin, made.id)
    for _ in range(5):
        await bench.pass_time(400)
    assert await bench.states() == ["irrevocable"]
    resolved = await bench.leases.resolve(bench.desk.admin, made.id, "the server was scrapped")
    assert resolved.state is LeaseState.REVOKED
    (told,) = await bench.desk.leaves("lease.resolve")
    assert told["detail"]["reason"] == "the server was scrapped"


async def test_a_prefix_and_an_owner_end_many_at_once(bench: Bench) -> None:
    await bench.source()
    await bench.source("other", "other")
    await bench.role("reader-two")
    for role in ("reader", "reader", "reader-two"):
        await bench.lease(role=role)
    await bench.lease("other")
    found = await bench.leases.revoke_prefix(bench.desk.admin, "app/creds/reader/")
    assert (found.count, found.more) == (2, False)
    await bench.round()
    assert sorted(await bench.states()) == ["active", "active", "revoked", "revoked"]
    principal = (await bench.leases.list(bench.desk.admin)).items[0].principal
    assert (await bench.leases.revoke_by_owner(bench.desk.admin, principal)).count == 2
    await bench.round()
    assert set(await bench.states()) == {"revoked"}
    assert bench.town.accounts == bench.other.accounts == {}
    assert (await bench.leases.revoke_prefix(bench.desk.admin, "app")).count == 0
    with pytest.raises(InputError):
        await bench.leases.revoke_prefix(bench.desk.admin, "app/reader")


async def test_what_nothing_takes_back_says_so_and_ends_by_itself(bench: Bench) -> None:
    await bench.source("cloud", "river")
    made = await bench.lease("cloud", ttl=60)
    assert not made.revocable
    with pytest.raises(ConflictError, match="nothing takes the credential"):
        await bench.leases.revoke(bench.desk.admin, made.id)
    with pytest.raises(ConflictError, match="cannot be renewed"):
        await bench.leases.renew(bench.desk.admin, made.id)
    found = await bench.leases.revoke_prefix(bench.desk.admin, "cloud")
    assert (found.count, found.not_revocable) == (0, 1)
    await bench.pass_time(60)
    assert await bench.states() == ["revoked"]


async def test_a_role_has_no_more_leases_than_it_may(bench: Bench) -> None:
    """A client that asks in a loop fills its role and nothing else."""
    await bench.source()
    await bench.role("few", leases_max=2)
    one = await bench.lease(role="few")
    await bench.lease(role="few")
    with pytest.raises(CapError, match="may have 2 leases"):
        await bench.lease(role="few")
    await bench.lease()
    await bench.leases.revoke(bench.desk.admin, one.id)
    await bench.lease(role="few")


async def test_a_time_beyond_the_most_is_refused(bench: Bench) -> None:
    await bench.source()
    with pytest.raises(InputError, match="at most 86400"):
        await bench.lease(ttl=86_401)


async def test_a_source_that_hangs_delays_no_other(bench: Bench) -> None:
    await bench.source()
    await bench.source("other", "other")
    for _ in range(3):
        await bench.lease(ttl=10)
        await bench.lease("other", ttl=10)
    bench.town.gates["open"] = asyncio.Event()
    bench.desk.clock.advance(10)
    while bench.other.accounts:
        await bench.dispatcher.dispatch_once()
        await asyncio.sleep(0.01)
    assert len(bench.town.accounts) == 3
    bench.town.gates["open"].set()
    await bench.dispatcher.settled()
    await bench.round()
    assert bench.town.accounts == {}


async def test_two_workers_share_a_database_and_one_of_them_ends_leases(bench: Bench) -> None:
    await bench.source()
    second = bench.another("nod_second")
    for _ in range(5):
        await bench.lease(ttl=10)
    bench.desk.clock.advance(10)
    await asyncio.gather(bench.round(), bench.round(second))
    assert set(await bench.states()) == {"revoked"}
    assert sorted(name for what, name in bench.town.calls if what == "drop") == sorted(
        row.account for row in await bench.rows()
    )


async def test_another_worker_goes_on_where_a_killed_one_stopped(bench: Bench) -> None:
    await bench.source()
    await bench.lease(ttl=10)
    bench.town.gates["drop"] = asyncio.Event()
    bench.desk.clock.advance(10)
    await bench.dispatcher.dispatch_once()
    await bench.until("drop")
    bench.desk.clock.advance(6)
    # The lead of the first is over, which on PostgreSQL is counted in the time of the database.
    await bench.desk.database.write(lambda t: election.resign(t.connection, ELECTION, "nod_first"))
    bench.town.gates.clear()
    second = bench.another("nod_second")
    await bench.round(second)
    assert await bench.states() == ["revoked"]


@pytest.mark.parametrize("step", [-3600.0, 3600.0])
async def test_a_stepped_clock_ends_leases_by_the_stored_time(bench: Bench, step: float) -> None:
    await bench.source()
    await bench.lease(ttl=600)
    bench.desk.clock.step(step)
    await bench.round()
    assert await bench.states() == (["revoked"] if step > 0 else ["active"])
    if step < 0:
        await bench.pass_time(-step + 600)
        assert await bench.states() == ["revoked"]


async def test_who_may_not_know_of_leases_learns_nothing(bench: Bench) -> None:
    """A lease, a role and a source of others answer like ones that do not exist."""
    await bench.source()
    made = await bench.lease()
    _, nobody = await bench.desk.hire("nobody")
    for asked in (made.id, made.lease_id, "app/creds/reader/" + "lea_" + "0" * 22, "junk"):
        with pytest.raises(NotFoundError):
            await bench.leases.lookup(nobody, asked)
        with pytest.raises(NotFoundError):
            await bench.leases.revoke(nobody, asked)
    for source, role in (("app", "reader"), ("app", "none"), ("none", "none")):
        with pytest.raises(NotFoundError):
            await bench.leases.create(nobody, source, role)
    with pytest.raises(NotFoundError):
        await bench.leases.revoke_prefix(nobody, "app")
    assert (await bench.leases.list(nobody)).items == ()
    assert len(bench.town.accounts) == 1


async def test_a_right_over_one_role_is_no_right_over_its_source(bench: Bench) -> None:
    await bench.source()
    await bench.role("writer")
    _, app = await bench.desk.hire(
        "app", ("lease.create", "credential_role/app/reader"), ("lease.revoke", "lease/app/reader/*")
    )
    made = await bench.leases.create(app, "app", "reader")
    with pytest.raises(NotFoundError):
        await bench.leases.create(app, "app", "writer")
    with pytest.raises(NotFoundError):
        await bench.leases.revoke_prefix(app, "app")
    assert (await bench.leases.revoke_prefix(app, "app/creds/reader")).count == 1
    await bench.round()
    assert (await bench.leases.lookup(bench.desk.admin, made.id)).state is LeaseState.REVOKED


async def test_a_lease_of_another_workspace_is_not_found(bench: Bench) -> None:
    await bench.source()
    made = await bench.lease()
    tenant = await bench.desk.tenant("tenant")
    with pytest.raises(NotFoundError):
        await bench.leases.lookup(tenant, made.id)
    assert (await bench.leases.revoke_prefix(tenant, "app")).count == 0
    assert await bench.states() == ["active"]


async def test_leases_that_expire_together_share_a_leaf(bench: Bench) -> None:
    await bench.source()
    made = [await bench.lease(ttl=10) for _ in range(7)]
    await bench.pass_time(10)
    (told,) = await bench.desk.leaves("system.lease")
    assert sorted(told["detail"]["leases"]) == sorted(one.id for one in made)
    assert told["detail"]["reason"] == "expired"
    assert told["resource"] == "lease/app/reader/*"


async def test_a_source_with_living_leases_is_not_deleted(bench: Bench) -> None:
    await bench.source()
    made = await bench.lease()
    with pytest.raises(ConflictError, match="accounts may exist"):
        await bench.sources.delete(bench.desk.admin, "app")
    await bench.leases.revoke(bench.desk.admin, made.id)
    await bench.sources.delete(bench.desk.admin, "app")
    with pytest.raises(NotFoundError):
        await bench.sources.show(bench.desk.admin, "app")


async def test_what_is_over_is_forgotten_after_a_month(bench: Bench) -> None:
    await bench.source()
    await bench.lease(ttl=10)
    await bench.pass_time(10)
    await bench.pass_time(31 * 86_400)
    assert await bench.rows() == []


async def test_logins_of_a_role_hold_no_more_leases_than_it_may(bench: Bench) -> None:
    """A login role bounds its workloads over all sources, whatever the sources allow."""
    await bench.source()
    await bench.source("other", "other")
    desk = bench.desk
    principal = (await desk.access.principals.list(desk.admin)).items[0].id
    tokens = FakeTokenAuthority()
    owner = TokenOwner(desk.founded.workspace.id, principal, "tok_1", (), (), subject="ci", login_role="lro_1")
    login = Credentials(tokens.add(owner))
    door = Door(desk.database, tokens, CountedFailures())
    leases = LeaseService(door, desk.keyring, bench.kinds, bench.endings)
    values = {
        "id": "lro_1",
        "workspace": desk.founded.workspace.id,
        "method": "lme_1",
        "name": "ci",
        "role_id": "one",
        "principal": principal,
        "config_json": "{}",
        "scopes_json": "[]",
        "resources_json": "[]",
        "ttl_seconds": 60,
        "max_ttl_seconds": 60,
        "tokens_max": 10,
        "leases_max": 2,
        "created_at": 0.0,
        "created_by": principal,
        "updated_at": 0.0,
        "deleted_at": 0.0,
        "revision": 1,
    }
    await desk.database.write(lambda t: t.connection.execute(insert(login_role).values(values)))
    await leases.create(login, "app", "reader")
    made = await leases.create(login, "other", "reader")
    with pytest.raises(CapError, match="logins of the role ci may hold 2 leases"):
        await leases.create(login, "app", "reader")
    await bench.lease()
    assert (await bench.leases.revoke_by_owner(desk.admin, principal, "ci")).count == 2
    await bench.round()
    assert (await bench.leases.lookup(desk.admin, made.id)).state is LeaseState.REVOKED
    assert sorted(await bench.states()) == ["active", "revoked", "revoked"]
    await leases.create(login, "app", "reader")


async def test_a_right_that_went_while_the_account_was_made_gives_no_credential(bench: Bench) -> None:
    """The right is asked for again before anything is answered."""
    await bench.source()
    principal, app = await bench.desk.hire("app", ("lease.create", "credential_role/app/reader"))
    bench.town.gates["created"] = asyncio.Event()
    making = asyncio.create_task(bench.leases.create(app, "app", "reader"))
    await bench.until("created")
    await bench.desk.access.principals.disable(bench.desk.admin, principal)
    bench.town.gates["created"].set()
    with pytest.raises(KeyturnError):
        await making
    await bench.round()
    assert bench.town.accounts == {}


async def test_a_prefix_ends_what_is_being_made_too(bench: Bench) -> None:
    """In an incident nothing slips through because it was not there yet."""
    await bench.source()
    bench.town.gates["created"] = asyncio.Event()
    making = asyncio.create_task(bench.lease())
    await bench.until("created")
    assert (await bench.leases.revoke_prefix(bench.desk.admin, "app")).count == 1
    bench.town.gates["created"].set()
    with pytest.raises(ConflictError):
        await making
    await bench.round()
    assert bench.town.accounts == {}


async def test_a_request_that_is_broken_off_leaves_no_account(bench: Bench) -> None:
    await bench.source()
    bench.town.gates["created"] = asyncio.Event()
    making = asyncio.create_task(bench.lease())
    await bench.until("created")
    making.cancel()
    await asyncio.gather(making, return_exceptions=True)
    await bench.round()
    assert bench.town.accounts == {}


async def test_two_workers_that_end_the_same_lease_do_no_harm(bench: Bench) -> None:
    """A worker that was stopped goes on after another has finished its work."""
    await bench.source()
    made = await bench.lease()
    bench.town.gates["drop"] = asyncio.Event()
    first = asyncio.create_task(bench.leases.revoke(bench.desk.admin, made.id))
    await bench.until("drop")
    bench.desk.clock.advance(bench.endings.timing.claim)
    second = bench.another("nod_second")
    await second.dispatch_once()
    while sum(what == "drop" for what, _ in bench.town.calls) < 2:  # noqa: ASYNC110 -- it is a list
        await asyncio.sleep(0)
    bench.town.gates["drop"].set()
    await second.settled()
    assert (await first).state is LeaseState.REVOKED
    assert await bench.states() == ["revoked"]
    assert len(await bench.desk.leaves("system.lease")) == 1


async def test_the_rights_of_the_machine_are_for_who_runs_the_installation(bench: Bench) -> None:
    """A workspace's own administrator must not act as the server, which may reach root keys and other workspaces."""
    _, owner = await bench.desk.hire(
        "owner",
        ("credential_source.create", "credential_source/*"),
        ("credential_source.update", "credential_source/*"),
    )
    borrowed = CreateSource(name="aws", kind="town", connection={"as": "machine"})
    given = CreateSource(name="aws", kind="town", connection={"as": "me"})

    with pytest.raises(ForbiddenError):
        await bench.sources.create(owner, borrowed)
    assert bench.town.calls == []
    await bench.sources.create(owner, given)
    with pytest.raises(ForbiddenError):
        await bench.sources.update(owner, "aws", UpdateSource(connection={"as": "machine"}))
    await bench.sources.update(bench.desk.admin, "aws", UpdateSource(connection={"as": "machine"}))


async def test_a_kept_secret_goes_to_the_place_that_it_was_given_for_alone(bench: Bench) -> None:
    """Whatever a connector calls the place: a setting that is not known to be harmless may say where it is sent."""
    await bench.source(password="".join(("kept", "-", "secret")), url="one.internal")

    moves: tuple[dict[str, Any], ...] = (
        {"url": "two.internal"},
        {"url": "one.internal", "proxy": "two.internal"},
        {},
    )
    for moved in moves:
        with pytest.raises(InputError, match="expected password again"):
            await bench.sources.update(bench.desk.admin, "app", UpdateSource(connection=moved))
    same: dict[str, Any] = {"url": "one.internal", "username": "another"}
    assert (await bench.sources.update(bench.desk.admin, "app", UpdateSource(connection=same))).revision == 2


async def test_a_connector_that_breaks_is_an_answer(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    await bench.source()
    made = await bench.lease()

    async def breaks(*_: Any) -> None:
        raise UnicodeError("label too long: " + "secret")

    for step in ("extend", "check"):
        monkeypatch.setattr(bench.town, step, breaks)
    with pytest.raises(UnavailableError, match="the connector failed: UnicodeError") as caught:
        await bench.leases.renew(bench.desk.admin, made.id, 600)
    assert "secret" not in str(caught.value)
    assert (await bench.sources.check(bench.desk.admin, "app")).error == "the connector failed: UnicodeError"


async def test_a_renewal_at_a_source_that_hangs_ends_in_time(migrated_database_url: str) -> None:
    async with opened_bench(migrated_database_url, Timing(create=0.05)) as bench:
        await bench.source()
        made = await bench.lease()
        bench.town.gates["extend"] = asyncio.Event()
        with pytest.raises(UnavailableError, match="did not answer in time"):
            await bench.leases.renew(bench.desk.admin, made.id, 600)
