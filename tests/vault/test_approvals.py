"""Four eyes: what a guard holds back happens only after a second principal approved it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable

import msgspec
import pytest

from keyturn.access.caller import Credentials
from keyturn.errors import CapError, ConflictError, ForbiddenError, InputError, KeyturnError, NotFoundError
from keyturn.vault import guards
from keyturn.vault.paths import parse_path
from keyturn.wire.access import GrantFilter
from keyturn.wire.actions import Action
from keyturn.wire.approvals import GUARDED_BY_DEFAULT, CreateGuard, DecideApproval, RequestApproval
from keyturn.wire.secrets import Describe, PutSecret
from tests.vault.room import STRIPE, Room, opened_room

RESOURCE = f"secret/{STRIPE}"
PAYMENTS = "secret/production/payments/*"


@pytest.fixture
async def room(migrated_database_url: str) -> AsyncIterator[Room]:
    """The test runs on both databases."""
    async with opened_room(migrated_database_url) as one:
        yield one


@pytest.fixture
async def asker(room: Room) -> Credentials:
    """A person who may reveal and write what is below payments."""
    return (await room.hire("ana", ("secret.*", PAYMENTS), kind="user"))[1]


@pytest.fixture
async def second(room: Room) -> Credentials:
    """A person who may decide there, and nothing else."""
    return (await room.hire("ben", ("approval.decide", PAYMENTS), kind="user"))[1]


async def refused(running: Awaitable[object]) -> KeyturnError:
    """Return the error that a call ends in."""
    with pytest.raises(KeyturnError) as caught:
        await running
    return caught.value


# --- patterns --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "path", "covered"),
    [
        ("production/payments/*", "production/payments/stripe", True),
        ("production/payments/*", "production/payments/eu/stripe", True),
        ("production/payments/*", "production/payments-old/stripe", False),
        ("production/payments/*", "staging/payments/stripe", False),
        ("production/*/stripe", "production/payments/stripe", True),
        ("production/*/stripe", "production/payments/eu/stripe", False),
        ("production/api.example/*", "production/api.example/key", True),
        ("production/api.example/*", "production/apiXexample/key", False),
        ("production/payments/stripe", "production/payments/stripe", True),
        ("production/payments/stripe", "production/payments/stripe/old", False),
        ("*/payments/*", "staging/payments/stripe", True),
        ("*", "staging/a", True),
    ],
)
def test_what_a_pattern_covers(pattern: str, path: str, covered: bool) -> None:  # noqa: FBT001 -- a table
    guard = guards.Guard("grd_1", "w", pattern, guards.pattern_resource(pattern), ("secret.put",), "", 60, 0, "p", None)
    assert bool(guards.covering([guard], Action.SECRET_PUT, parse_path(path))) is covered
    assert not guards.covering([guard], Action.SECRET_READ, parse_path(path))


@pytest.mark.parametrize(
    "pattern",
    ["production", "production/", "/production/x", "production/pay*", "production/../x", "production/páy/*", "sys/*"],
)
async def test_a_pattern_that_covers_nothing_is_refused(room: Room, pattern: str) -> None:
    """A guard with a typing error would leave open what it was meant to hold back."""
    error = await refused(room.guard(pattern))
    assert isinstance(error, InputError)


async def test_a_guard_holds_back_only_actions_on_secrets(room: Room) -> None:
    error = await refused(room.guard(actions=["key.issue"]))
    assert (type(error), error.field) == (InputError, "actions")


def test_what_takes_the_place_of_a_write_is_guarded_with_it() -> None:
    """A roll-back and a promotion write too: a guard by default lets neither be the way around it."""
    assert {Action.SECRET_PUT, Action.SECRET_ROLLBACK, Action.SECRET_PROMOTE} <= set(GUARDED_BY_DEFAULT)
    assert set(GUARDED_BY_DEFAULT) <= guards.GUARDABLE


# --- holding back ----------------------------------------------------------------------------------------------------


async def test_a_guarded_value_needs_somebody_elses_approval(
    room: Room, asker: Credentials, second: Credentials
) -> None:
    await room.guard()
    error = await refused(room.reader.read(asker, STRIPE))
    assert (type(error), error.code) == (ForbiddenError, "approval_required")
    assert STRIPE in str(error.hint)

    asked = await room.ask(asker)
    assert (asked.state, asked.path, asked.uses) == ("pending", STRIPE, 0)
    assert (await refused(room.reader.read(asker, STRIPE))).code == "approval_required"
    decided = await room.decide(second, asked.id)
    assert (decided.state, decided.decision_reason) == ("approved", "seen")
    await room.reader.read(asker, STRIPE)
    await room.reader.read(asker, STRIPE)
    assert (await room.approvals.show(asker, asked.id)).uses == 2


async def test_an_approval_is_for_one_requester_action_and_path(
    room: Room, asker: Credentials, second: Credentials
) -> None:
    other = (await room.hire("cleo", ("secret.*", PAYMENTS), kind="user"))[1]
    await room.guard()
    await room.decide(second, (await room.ask(asker)).id)
    await room.reader.read(asker, STRIPE)
    assert (await refused(room.reader.read(other, STRIPE))).code == "approval_required"
    assert (await refused(room.reader.read(asker, f"{STRIPE}-eu"))).code == "approval_required"
    assert (await refused(room.put(by=asker))).code == "approval_required"


async def test_an_approval_ends_by_itself(room: Room, asker: Credentials, second: Credentials) -> None:
    await room.guard(valid_seconds=60)
    await room.guard("production/*", valid_seconds=3600)
    asked = await room.ask(asker)
    await room.decide(second, asked.id)
    room.desk.clock.advance(59)
    await room.reader.read(asker, STRIPE)
    room.desk.clock.advance(1)
    assert (await refused(room.reader.read(asker, STRIPE))).code == "approval_required"
    assert (await room.approvals.show(asker, asked.id)).state == "expired"


async def test_an_approval_says_nothing_of_a_guard_that_is_made_later(
    room: Room, asker: Credentials, second: Credentials
) -> None:
    """Whoever marks a path again, or more strictly, is not bypassed by what was approved before."""
    await room.guard(valid_seconds=3600)
    await room.decide(second, (await room.ask(asker)).id)
    await room.reader.read(asker, STRIPE)
    room.desk.clock.advance(1)
    await room.guard("production/*", valid_seconds=60)
    assert (await refused(room.reader.read(asker, STRIPE))).code == "approval_required"
    await room.decide(second, (await room.ask(asker)).id)
    await room.reader.read(asker, STRIPE)


async def test_writing_destroys_nothing_where_destroying_is_guarded(room: Room) -> None:
    """A bound on versions would else be a way to destroy them alone."""
    await room.guard(actions=(Action.SECRET_DESTROY,))
    request = PutSecret(fields={"token": "held"}, describe=Describe(versions_max=1))
    await room.vault.put(room.desk.admin, STRIPE, request)
    for _ in range(3):
        await room.put()
    versions = (await room.vault.show(room.desk.admin, STRIPE)).versions
    assert [one.destroyed_at for one in versions] == [None] * len(versions)
    assert len(versions) >= 4


async def test_a_request_that_nobody_decides_expires(room: Room, asker: Credentials, second: Credentials) -> None:
    await room.guard()
    asked = await room.ask(asker)
    room.desk.clock.advance(guards.PENDING_SECONDS)
    error = await refused(room.decide(second, asked.id))
    assert (type(error), error.code) == (ConflictError, "not_pending")
    assert (await room.ask(asker)).id != asked.id


async def test_what_was_approved_can_be_taken_back(room: Room, asker: Credentials, second: Credentials) -> None:
    await room.guard()
    asked = await room.ask(asker)
    await room.decide(second, asked.id)
    assert (await room.decide(second, asked.id, approve=False)).state == "denied"
    assert (await refused(room.reader.read(asker, STRIPE))).code == "approval_required"
    assert (await refused(room.decide(second, asked.id))).code == "not_pending"


async def test_writes_are_held_back_too_and_change_nothing(room: Room, asker: Credentials, second: Credentials) -> None:
    await room.put()
    await room.guard()
    before = (await room.vault.show(asker, STRIPE)).revision
    assert (await refused(room.put(by=asker))).code == "approval_required"
    assert (await refused(room.vault.remove(asker, STRIPE))).code == "approval_required"
    assert (await room.vault.show(asker, STRIPE)).revision == before
    await room.decide(second, (await room.ask(asker, "secret.put")).id)
    await room.put(by=asker)


async def test_without_a_guard_nothing_needs_approval(room: Room, asker: Credentials) -> None:
    await room.put(by=asker)
    await room.reader.read(asker, STRIPE)
    error = await refused(room.ask(asker))
    assert (type(error), error.code) == (ConflictError, "not_guarded")


async def test_a_guard_is_of_its_workspace(room: Room) -> None:
    """A tenant's guard holds nothing back elsewhere."""
    await room.guard("*")
    tenant = await room.desk.tenant("acme")
    await room.put(by=tenant)
    assert (await room.approvals.list_guards(tenant)).items == ()


# --- who decides -----------------------------------------------------------------------------------------------------


async def test_nobody_decides_their_own_request(room: Room, second: Credentials) -> None:
    """Not even with every right, and not with another token either."""
    identity, own = await room.hire("ana", ("*", "*"), kind="user")
    another = await room.token(identity)
    await room.guard()
    asked = await room.ask(own)
    for credentials in (own, another):
        error = await refused(room.decide(credentials, asked.id))
        assert (type(error), error.code) == (ForbiddenError, "own_request")
    assert (await room.decide(second, asked.id)).state == "approved"


async def test_only_who_may_decide_there_does(room: Room, asker: Credentials) -> None:
    reader = (await room.hire("rea", ("secret.list", PAYMENTS)))[1]
    stranger = (await room.hire("sue", ("approval.decide", "secret/staging/*")))[1]
    await room.guard()
    asked = await room.ask(asker)
    assert type(await refused(room.decide(reader, asked.id))) is ForbiddenError
    hidden = await refused(room.decide(stranger, asked.id))
    absent = await refused(room.decide(stranger, "apr_" + "0" * 22))
    assert type(hidden) is type(absent) is NotFoundError
    assert hidden.message.replace(asked.id, "X") == absent.message.replace("apr_" + "0" * 22, "X")


async def test_an_approval_adds_no_right(room: Room) -> None:
    """Who may not do the action cannot have it approved, and who may not know of the path learns nothing of it."""
    lister = (await room.hire("lis", ("secret.list", PAYMENTS)))[1]
    stranger = (await room.hire("sue", ("secret.*", "secret/staging/*")))[1]
    await room.guard()
    assert type(await refused(room.ask(lister))) is ForbiddenError
    error = await refused(room.ask(stranger))
    assert type(error) is NotFoundError
    assert error.message == (await refused(room.vault.show(stranger, STRIPE))).message


async def test_a_right_that_was_taken_back_is_not_given_by_an_old_approval(room: Room, second: Credentials) -> None:
    identity, asker = await room.hire("ana", ("secret.reveal", PAYMENTS), kind="user")
    await room.guard()
    await room.decide(second, (await room.ask(asker)).id)
    (grant,) = (await room.desk.access.grants.list(room.desk.admin, GrantFilter(principal=identity))).items
    await room.desk.access.grants.revoke(room.desk.admin, grant.id)
    assert type(await refused(room.reader.read(asker, STRIPE))) is NotFoundError


async def test_requests_are_seen_by_those_concerned(room: Room, asker: Credentials, second: Credentials) -> None:
    stranger = (await room.hire("sue", ("approval.read", "secret/staging/*")))[1]
    await room.guard()
    asked = await room.ask(asker)
    for credentials in (asker, second):
        assert [one.id for one in (await room.approvals.list(credentials, state="pending")).items] == [asked.id]
    assert (await room.approvals.list(stranger)).items == ()
    assert type(await refused(room.approvals.show(stranger, asked.id))) is NotFoundError
    await room.decide(second, asked.id, approve=False)
    assert (await room.approvals.list(asker, state="pending")).items == ()
    assert (await room.approvals.list(asker, state="denied")).items[0].id == asked.id


# --- asking ----------------------------------------------------------------------------------------------------------


async def test_asking_again_while_it_waits_is_the_same_request(room: Room, asker: Credentials) -> None:
    await room.guard()
    assert (await room.ask(asker)).id == (await room.ask(asker)).id
    assert len(await room.desk.leaves("approval.request")) == 1


async def test_requests_that_wait_are_bounded(room: Room, asker: Credentials) -> None:
    await room.guard()
    for number in range(guards.PENDING_MAX):
        await room.ask(asker, path=f"production/payments/p{number}")
    assert type(await refused(room.ask(asker))) is CapError


async def test_a_request_names_one_thing(room: Room, asker: Credentials) -> None:
    both = RequestApproval(action=Action.SECRET_PUT, path=STRIPE, guard="grd_1", reason="x")
    neither = RequestApproval(action=Action.SECRET_PUT, reason="x")
    other = RequestApproval(action=Action.GUARD_CREATE, guard="grd_1", reason="x")
    for request in (both, neither, other):
        assert isinstance(await refused(room.approvals.request(asker, request)), InputError)


# --- revoking a guard ------------------------------------------------------------------------------------------------


async def test_taking_a_guard_away_needs_approval_too(room: Room, asker: Credentials) -> None:
    """Otherwise whoever may revoke guards would need no second person for anything."""
    admin = room.desk.admin
    guard = await room.guard()
    error = await refused(room.approvals.revoke_guard(admin, guard.id))
    assert (error.code, guard.id in str(error.hint)) == ("approval_required", True)
    wanted = RequestApproval(action=Action.GUARD_REVOKE, guard=guard.id, reason="moved")
    asked = await room.approvals.request(admin, wanted)
    assert (await refused(room.decide(admin, asked.id))).code == "own_request"
    other = (await room.hire("dan", ("approval.decide", "guard/*"), kind="user"))[1]
    await room.decide(other, asked.id)
    assert (await room.approvals.revoke_guard(admin, guard.id)).revoked_at is not None
    await room.reader.read(asker, STRIPE)
    assert (await room.approvals.revoke_guard(admin, guard.id)).revoked_at is not None
    assert (await refused(room.approvals.request(admin, wanted))).code == "not_guarded"


async def test_a_request_under_a_guard_that_is_gone_cannot_be_approved(
    room: Room, asker: Credentials, second: Credentials
) -> None:
    guard = await room.guard()
    asked = await room.ask(asker)
    wanted = RequestApproval(action=Action.GUARD_REVOKE, guard=guard.id, reason="moved")
    other = (await room.hire("dan", ("*", "*"), kind="user"))[1]
    await room.decide(other, (await room.approvals.request(room.desk.admin, wanted)).id)
    await room.approvals.revoke_guard(room.desk.admin, guard.id)
    assert (await refused(room.decide(second, asked.id))).code == "not_guarded"
    assert (await room.decide(second, asked.id, approve=False)).state == "denied"


# --- records ---------------------------------------------------------------------------------------------------------


async def test_every_step_is_on_record(room: Room, asker: Credentials, second: Credentials) -> None:
    await room.guard()
    await refused(room.reader.read(asker, STRIPE))
    asked = await room.ask(asker)
    await room.decide(second, asked.id)
    await room.reader.read(asker, STRIPE)
    outcomes = [(leaf["outcome"], leaf["resource"]) for leaf in await room.desk.leaves("secret.reveal")]
    assert outcomes == [("denied", RESOURCE), ("allowed", RESOURCE)]
    (request,) = await room.desk.leaves("approval.request")
    assert (request["detail"]["approval"], request["detail"]["reason"]) == (asked.id, "an incident")
    (decision,) = await room.desk.leaves("approval.decide")
    assert (decision["detail"]["decision"], decision["detail"]["requester"]) == ("approved", asked.requester)
    assert (await room.desk.leaves("guard.create"))[0]["detail"]["pattern"] == "production/payments/*"
    kinds = [kind for kind, _ in await room.desk.news()]
    assert kinds.count("guard") == 3


async def test_a_guard_is_created_once_per_key(room: Room) -> None:
    request = CreateGuard(pattern="production/*")
    first = await room.approvals.create_guard(room.desk.admin, request, idempotency="one")
    assert await room.approvals.create_guard(room.desk.admin, request, idempotency="one") == first
    assert [one.id for one in (await room.approvals.list_guards(room.desk.admin)).items] == [first.id]
    assert await room.approvals.show_guard(room.desk.admin, first.id) == first


async def test_guards_are_for_those_who_may_read_them(room: Room, asker: Credentials) -> None:
    guard = await room.guard()
    assert type(await refused(room.approvals.show_guard(asker, guard.id))) is NotFoundError
    assert (await room.approvals.list_guards(asker)).items == ()
    assert type(await refused(room.approvals.create_guard(asker, CreateGuard(pattern="*")))) is ForbiddenError


async def test_a_use_in_a_read_is_left_to_be_counted(room: Room, asker: Credentials, second: Credentials) -> None:
    """A reader that batches counts with its own commit."""
    await room.guard()
    asked = await room.ask(asker)
    await room.decide(second, asked.id)
    path = parse_path(STRIPE)
    used = await room.desk.door.read(asker, lambda op: room.approvals.require(op, Action.SECRET_REVEAL, path))
    assert used == asked.id
    assert (await room.approvals.show(asker, asked.id)).uses == 0
    await room.desk.database.write(lambda t: room.approvals.count_uses(t.connection, [used, used]))
    assert (await room.approvals.show(asker, asked.id)).uses == 2


def test_reasons_are_bounded_text() -> None:
    for reason in ("", "a\nb", "x" * 513):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert({"approve": True, "reason": reason}, type=DecideApproval)
