"""A resource the caller may not know answers exactly like one that does not exist; for every noun and operation."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from keyturn.access.caller import Credentials
from keyturn.errors import KeyturnError
from keyturn.kernel.ids import new_id
from keyturn.wire.access import (
    AssignRole,
    CreateGrant,
    CreateRole,
    CreateWorkspace,
    ExplainAccess,
    UpdatePrincipal,
    UpdateWorkspace,
)
from keyturn.wire.actions import Action
from tests.access.house import House

Attempt = Callable[[House, Credentials, str], Awaitable[Any]]


def explaining(principal: str) -> ExplainAccess:
    return ExplainAccess(action=Action.KEY_READ, resource="key/a/b", principal=principal)


def granting(principal: str | None = None, role: str | None = None) -> CreateGrant:
    return CreateGrant(actions=("principal.create",), resource="principal/*", principal=principal, role=role)


ATTEMPTS: dict[str, tuple[str, Attempt]] = {
    "workspace.read": ("workspace", lambda h, c, n: h.access.workspaces.read(c, n)),
    "workspace.update": ("workspace", lambda h, c, n: h.access.workspaces.update(c, n, UpdateWorkspace(keys_max=1))),
    "principal.read": ("principal", lambda h, c, n: h.access.principals.read(c, n)),
    "principal.update": ("principal", lambda h, c, n: h.access.principals.update(c, n, UpdatePrincipal(name="x"))),
    "principal.disable": ("principal", lambda h, c, n: h.access.principals.disable(c, n)),
    "principal.enable": ("principal", lambda h, c, n: h.access.principals.enable(c, n)),
    "grant.explain": ("principal", lambda h, c, n: h.access.explain(c, explaining(n))),
    "grant.create to a principal": ("principal", lambda h, c, n: h.access.grants.create(c, granting(principal=n))),
    "role.assign of a principal": (
        "principal",
        lambda h, c, n: h.access.roles.assign(c, "mine", AssignRole(principal=n)),
    ),
    "role.unassign of a principal": ("principal", lambda h, c, n: h.access.roles.unassign(c, "mine", n)),
    "role.read": ("role", lambda h, c, n: h.access.roles.read(c, n)),
    "role.assign": ("role", lambda h, c, n: h.access.roles.assign(c, n, AssignRole(principal="prn_x"))),
    "role.unassign": ("role", lambda h, c, n: h.access.roles.unassign(c, n, "prn_x")),
    "grant.create to a role": ("role", lambda h, c, n: h.access.grants.create(c, granting(role=n))),
    "grant.read": ("grant", lambda h, c, n: h.access.grants.read(c, n)),
    "grant.revoke": ("grant", lambda h, c, n: h.access.grants.revoke(c, n)),
}


async def refusal(attempt: Awaitable[Any], name: str) -> tuple[object, ...]:
    """Return everything an edge can show of the refusal, with the name taken out."""
    with pytest.raises(KeyturnError) as caught:
        await attempt
    error = caught.value
    return type(error), str(error).replace(name, "<name>"), error.code, error.field, error.hint, error.internal


@pytest.mark.parametrize("operation", ATTEMPTS)
async def test_what_may_not_be_known_answers_like_what_does_not_exist(house: House, operation: str) -> None:
    """No probe tells them apart: not by type, text, code, field or hint."""
    noun, attempt = ATTEMPTS[operation]
    _, stranger = await house.hire(
        "stranger", (("principal.create", "grant.create", "grant.explain", "role.assign", "role.unassign"), "role/mine")
    )
    granted = CreateGrant(
        principal=house.tokens.owners[stranger.token.reveal()][0].principal,
        actions=("principal.create", "grant.create"),
        resource="*",
    )
    grant = await house.access.grants.create(house.admin, granted)
    await house.access.roles.create(house.admin, CreateRole(name="mine"))
    await house.access.roles.create(house.admin, CreateRole(name="theirs"))
    await house.access.workspaces.create(house.admin, CreateWorkspace(name="acme"))
    there = {"workspace": "acme", "principal": house.founded.principal.id, "role": "theirs", "grant": grant.id}[noun]
    absent = {
        "workspace": "none",
        "principal": new_id("prn", house.clock.now()),
        "role": "absent",
        "grant": new_id("grt", house.clock.now()),
    }[noun]

    before = await house.news()
    masked = await refusal(attempt(house, stranger, there), there)
    between = await house.news()
    real = await refusal(attempt(house, stranger, absent), absent)
    assert masked == real
    assert masked[2] == "not_found"
    assert len(between) - len(before) == len(await house.news()) - len(between)  # a commit takes time that can be seen


async def test_looking_for_what_is_not_there_is_no_denial_for_who_may_look(house: House) -> None:
    before = await house.news()
    assert (await refusal(house.access.roles.read(house.admin, "absent"), "absent"))[2] == "not_found"
    assert await house.news() == before


@pytest.mark.parametrize("name", ["", "no such", "prn_", "a/b", "~system", "ü", "x" * 400, "x" * 5000])
async def test_names_that_cannot_be_are_simply_not_there(house: House, name: str) -> None:
    for noun in ("principals", "roles", "grants", "workspaces"):
        reading = getattr(house.access, noun).read(house.admin, name)
        assert (await refusal(reading, name))[2] == "not_found"


async def test_lists_hold_what_may_be_read_and_no_trace_of_the_rest(house: House) -> None:
    """Pages are filled past what is invisible, so not even their sizes tell of it."""
    hidden = [(await house.hire(f"hidden-{n}"))[0] for n in range(4)]
    shown = [(await house.hire(f"shown-{n}"))[0] for n in range(3)]
    _, reader = await house.hire("reader", *[("principal.read", f"principal/{one}") for one in shown])
    seen: list[str] = []
    cursor: str | None = None
    for _page in range(len(shown)):
        page = await house.access.principals.list(reader, cursor=cursor, limit=1)
        assert len(page.items) == 1
        seen += [one.id for one in page.items]
        cursor = page.next_cursor
    assert cursor is None
    assert sorted(seen) == sorted(shown)
    assert not set(hidden) & set(seen)
    _, nobody = await house.hire("nobody")
    for service in (house.access.principals, house.access.roles, house.access.grants, house.access.workspaces):
        empty: Any = await service.list(nobody)
        assert (empty.items, empty.next_cursor) == ((), None)


async def test_whoever_may_read_a_thing_is_told_what_it_may_not_do(house: House) -> None:
    _, reader = await house.hire("reader", ("*.read", "*"))
    name = house.founded.workspace.name
    for attempt in (
        house.access.principals.disable(reader, house.founded.principal.id),
        house.access.workspaces.update(reader, name, UpdateWorkspace(keys_max=1)),
    ):
        assert (await refusal(attempt, name))[2] == "forbidden"
