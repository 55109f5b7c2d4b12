"""Who may do what to held secrets: capabilities on path patterns, as a table, and what outsiders can tell."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable

import pytest

from keyturn.access import rules
from keyturn.access.caller import Caller, Conditions, Credentials, Grant, Resource
from keyturn.errors import ForbiddenError, KeyturnError, NotFoundError
from keyturn.vault.paths import parse_path
from keyturn.wire.access import CreateGrant, ExplainAccess, GrantConditions
from keyturn.wire.actions import Action
from keyturn.wire.capabilities import CAPABILITIES, path_resource
from tests.vault.room import STRIPE, Room, opened_room

Held = tuple[str, str] | tuple[str, str, Conditions]

PRODUCTION_ONLY = Conditions(environments=("production",))
OFFICE_ONLY = Conditions(cidrs=("192.0.2.0/24",))
PAYMENTS = "production/payments/*"


@pytest.fixture
async def room(migrated_database_url: str) -> AsyncIterator[Room]:
    """The test runs on both databases."""
    async with opened_room(migrated_database_url) as one:
        yield one


async def refused(running: Awaitable[object]) -> KeyturnError:
    """Return the error that a call ends in."""
    with pytest.raises(KeyturnError) as caught:
        await running
    return caught.value


def allow(action: str, path: str, *held: Held) -> object:
    """Say that the grants give the action on the path."""
    return pytest.param(action, path, held, True, id=f"allow-{action}-{path}-by-{'+'.join(one[0] for one in held)}")


def deny(action: str, path: str, *held: Held) -> object:
    """Say that the grants do not."""
    return pytest.param(action, path, held, False, id=f"deny-{action}-{path}-by-{'+'.join(one[0] for one in held)}")


@pytest.mark.parametrize(
    ("action", "path", "held", "expected"),
    [
        # Nothing is granted by default.
        deny("secret.list", STRIPE),
        # Each capability gives what it says, and none gives another's.
        allow("secret.read", STRIPE, ("read", PAYMENTS)),
        deny("secret.reveal", STRIPE, ("read", PAYMENTS)),
        deny("secret.list", STRIPE, ("read", PAYMENTS)),
        deny("secret.put", STRIPE, ("read", PAYMENTS)),
        allow("secret.reveal", STRIPE, ("reveal", PAYMENTS)),
        deny("secret.read", STRIPE, ("reveal", PAYMENTS)),
        allow("secret.list", STRIPE, ("list", PAYMENTS)),
        deny("secret.read", STRIPE, ("list", PAYMENTS)),
        allow("secret.put", STRIPE, ("write", PAYMENTS)),
        allow("secret.rollback", STRIPE, ("write", PAYMENTS)),
        deny("secret.read", STRIPE, ("write", PAYMENTS)),
        deny("secret.destroy", STRIPE, ("write", PAYMENTS)),
        deny("secret.remove", STRIPE, ("write", PAYMENTS)),
        allow("secret.promote", STRIPE, ("rotate", PAYMENTS)),
        allow("secret.put", STRIPE, ("rotate", PAYMENTS)),
        deny("secret.delete", STRIPE, ("rotate", PAYMENTS)),
        allow("secret.share", STRIPE, ("share", PAYMENTS)),
        deny("secret.read", STRIPE, ("share", PAYMENTS)),
        allow("secret.destroy", STRIPE, ("admin", PAYMENTS)),
        allow("approval.decide", STRIPE, ("admin", PAYMENTS)),
        deny("grant.create", STRIPE, ("admin", PAYMENTS)),
        # Patterns: whole segments only, and no path beside or above.
        allow("secret.read", "production/payments/eu/stripe", ("read", PAYMENTS)),
        deny("secret.read", "production/payments", ("read", PAYMENTS)),
        deny("secret.read", "production/payments-old/stripe", ("read", PAYMENTS)),
        deny("secret.read", "production/billing/stripe", ("read", PAYMENTS)),
        allow("secret.read", STRIPE, ("read", "production/*/stripe")),
        deny("secret.read", "production/payments/eu/stripe", ("read", "production/*/stripe")),
        allow("secret.read", STRIPE, ("read", STRIPE)),
        deny("secret.read", f"{STRIPE}/old", ("read", STRIPE)),
        # Environments.
        deny("secret.read", "staging/payments/stripe", ("read", PAYMENTS)),
        allow("secret.read", STRIPE, ("read", "*", PRODUCTION_ONLY)),
        deny("secret.read", "staging/payments/stripe", ("read", "*", PRODUCTION_ONLY)),
        deny("secret.read", "production-eu/payments/stripe", ("read", "*", PRODUCTION_ONLY)),
        # Where the caller is.
        allow("secret.read", STRIPE, ("read", PAYMENTS, OFFICE_ONLY)),
        # Look-alikes: case, dots, and what is written like an encoded dot.
        deny("secret.read", "production/Payments/stripe", ("read", PAYMENTS)),
        allow("secret.read", "production/api.example/key", ("read", "production/api.example/*")),
        deny("secret.read", "production/api/example/key", ("read", "production/api.example/*")),
        deny("secret.read", "production/api=2Eexample/key", ("read", "production/api.example/*")),
        deny("secret.read", "production/api.example/key", ("read", "production/api=2Eexample/*")),
        allow("secret.read", "production/api=2Eexample/key", ("read", "production/api=2Eexample/*")),
    ],
)
def test_what_capabilities_on_paths_give(
    action: str,
    path: str,
    held: tuple[Held, ...],
    expected: bool,  # noqa: FBT001 -- a table
) -> None:
    grants = tuple(
        Grant(f"g{n}", "prn_1", CAPABILITIES[one[0]], path_resource(one[1]), one[2] if len(one) > 2 else Conditions())
        for n, one in enumerate(held)
    )
    caller = Caller("w", "prn_1", "service", "app", None, (), (), grants, ip="192.0.2.7")
    environment = path.partition("/")[0]
    resource = parse_path(path).resource
    assert resource == Resource(path_resource(path), environment)
    assert rules.may(caller, action, resource, 0.0) is expected


@pytest.mark.parametrize(
    "path", ["production/p\u0430yments/stripe", "production/payments\u200b/stripe", "production/..", "a/b%2fc", "A/b"]
)
def test_a_path_that_only_looks_right_is_none(path: str) -> None:
    """A Cyrillic letter, a character without width, dots, an encoded slash: refused by place, never granted."""
    with pytest.raises(KeyturnError) as caught:
        parse_path(path)
    assert caught.value.field == "path"


def test_every_action_on_secrets_belongs_to_a_capability() -> None:
    """A capability that forgot an action would leave it to be granted by nothing but `admin`."""
    named = {str(action) for name, actions in CAPABILITIES.items() if name != "admin" for action in actions}
    ours = {str(action) for action in Action if action.startswith("secret.")}
    assert named <= ours
    assert ours - named == {"secret.destroy", "secret.remove"}


async def test_an_app_sees_only_the_paths_of_its_tenant(room: Room) -> None:
    """Two tenants side by side in one workspace, and two workspaces."""
    for path in ("production/tenant-a/db", "production/tenant-b/db"):
        await room.put(path)
    app = (await room.hire("app-a", ("secret.*", "secret/production/tenant-a/*")))[1]
    assert [one.path for one in (await room.vault.list(app)).items] == ["production/tenant-a/db"]
    assert (await room.vault.names(app, "production/")).names == ("tenant-a/",)
    assert (await room.reader.read(app, "production/tenant-a/db")).fields
    other = await room.desk.tenant("acme")
    assert (await room.vault.list(other)).items == ()
    assert isinstance(await refused(room.vault.show(other, "production/tenant-a/db")), NotFoundError)


async def test_what_one_may_not_know_of_answers_like_what_is_not_there(room: Room) -> None:
    """Name by name: another tenant's path, one that never was, another workspace's."""
    await room.put("production/tenant-b/db")
    tenant = await room.desk.tenant("acme")
    await room.put("production/acme/db", by=tenant)
    app = (await room.hire("app-a", ("secret.*", "secret/production/tenant-a/*")))[1]
    answers = set()
    for path in ("production/tenant-b/db", "production/tenant-b/none", "production/acme/db"):
        for call in (room.vault.show, room.reader.read, room.vault.remove):
            error = await refused(call(app, path))
            answers.add((type(error), error.code, error.message.replace(path, "X"), error.hint, error.field))
    assert len(answers) == 1
    assert next(iter(answers))[0] is NotFoundError


async def test_a_person_needs_reveal_and_a_machine_read(room: Room) -> None:
    """The right of a service does not show a value to a person, nor the other way round."""
    await room.put()
    seen: dict[tuple[str, str], bool] = {}
    for kind in ("user", "service", "agent"):
        for action in ("secret.read", "secret.reveal"):
            caller = (await room.hire(f"{kind}-{action[7:]}", (action, f"secret/{STRIPE}"), kind=kind))[1]
            try:
                await room.reader.read(caller, STRIPE)
            except ForbiddenError:
                seen[kind, action] = False
            else:
                seen[kind, action] = True
    assert {pair for pair, allowed in seen.items() if allowed} == {
        ("user", "secret.reveal"),
        ("service", "secret.read"),
        ("agent", "secret.read"),
    }


async def test_a_token_of_narrower_bounds_reads_less(room: Room) -> None:
    identity, whole = await room.hire("app", ("secret.*", "secret/production/*"))
    narrow = await room.token(identity, resources=["secret/production/payments/*"])
    listing = await room.token(identity, scopes=["secret.list"])
    other = parse_path("production/billing/key").resource.name
    assert await room.may(whole, "secret.read", other, "production")
    assert not await room.may(narrow, "secret.read", other, "production")
    assert await room.may(narrow, "secret.read", f"secret/{STRIPE}", "production")
    assert not await room.may(listing, "secret.read", f"secret/{STRIPE}", "production")
    assert await room.may(listing, "secret.list", f"secret/{STRIPE}", "production")


async def test_nobody_hands_out_paths_that_they_do_not_hold(room: Room) -> None:
    lead = (
        await room.hire(
            "lead", ("secret.*", "secret/production/payments/*"), ("grant.create", "grant/*"), ("principal.read", "*")
        )
    )[1]
    app = (await room.hire("app"))[0]

    def grant(resource: str, *actions: str, environments: tuple[str, ...] = ()) -> Awaitable[object]:
        request = CreateGrant(
            principal=app, actions=actions, resource=resource, conditions=GrantConditions(environments=environments)
        )
        return room.desk.access.grants.create(lead, request)

    await grant("secret/production/payments/stripe", "secret.read")
    await grant("secret/production/payments/*", "secret.list", environments=("production",))
    for resource, action in (
        ("secret/production/*", "secret.read"),
        ("secret/*/payments/*", "secret.read"),
        ("secret/production/payments/*", "approval.decide"),
        ("secret/production/payments/*", "*"),
    ):
        assert (await refused(grant(resource, action))).code == "exceeds_own_rights"


async def test_an_explanation_names_the_grant_that_decides(room: Room) -> None:
    identity, _ = await room.hire("app", ("secret.read", "secret/production/payments/*"))
    for path, expected in ((STRIPE, True), ("staging/payments/stripe", False)):
        request = ExplainAccess(
            action=Action.SECRET_READ,
            resource=path_resource(path),
            environment=path.partition("/")[0],
            principal=identity,
        )
        answer = await room.desk.access.explain(room.desk.admin, request)
        assert answer.allowed is expected


async def test_denials_of_reads_are_on_record(room: Room) -> None:
    caller: Credentials = (await room.hire("app", ("secret.list", f"secret/{STRIPE}")))[1]
    await room.put()
    assert isinstance(await refused(room.reader.read(caller, STRIPE)), ForbiddenError)
    (leaf,) = await room.desk.leaves("secret.read")
    assert (leaf["outcome"], leaf["resource"]) == ("denied", f"secret/{STRIPE}")
