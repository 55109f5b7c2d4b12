"""Units that share a write transaction share what they know of callers: none goes by what one before it has changed."""

from typing import Any

import pytest

from keyturn.access.caller import Credentials, Resource
from keyturn.access.door import Operation
from keyturn.errors import ForbiddenError, UnauthenticatedError
from keyturn.keys.authority import SystemTokens
from keyturn.storage.transaction import ChangeKind
from keyturn.wire.access import AssignRole, CreateGrant, CreateRole, GrantFilter
from keyturn.wire.actions import Action
from tests.keys.desk import Desk
from tests.storage.ledger import together

STRIPE = Resource("secret/production/stripe")


async def act(desk: Desk, credentials: Credentials, *, fail: bool = False) -> str:
    """Do what needs `secret.read`; return who did it."""

    def work(op: Operation) -> str:
        op.authorise(Action.SECRET_READ, STRIPE)
        op.record(Action.SECRET_READ, STRIPE.name, kind=ChangeKind.AUDIT, entity="")
        if fail:
            raise ValueError("a bug")
        return op.caller.principal

    return (await desk.door.write(credentials, work)).value


async def grant_of(desk: Desk, principal: str) -> str:
    return (await desk.access.grants.list(desk.admin, GrantFilter(principal=principal))).items[0].id


async def test_a_grant_that_is_revoked_gives_nothing_to_the_units_after(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A revocation holds from its own unit on, not from the next transaction on."""
    principal, credentials = await desk.hire("ci", ("secret.read", "secret/*"))
    grant = await grant_of(desk, principal)

    found = await together(
        desk.database,
        monkeypatch,
        act(desk, credentials),
        act(desk, credentials),
        desk.access.grants.revoke(desk.admin, grant),
        act(desk, credentials),
    )

    assert found[:2] == [principal, principal]
    assert isinstance(found[3], ForbiddenError)


async def test_a_grant_and_a_role_hold_for_the_units_after(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    principal, credentials = await desk.hire("ci")
    role = await desk.access.roles.create(desk.admin, CreateRole(name="readers"))
    request = CreateGrant(role=role.name, actions=("secret.read",), resource="secret/*")
    await desk.access.grants.create(desk.admin, request)

    found = await together(
        desk.database,
        monkeypatch,
        act(desk, credentials),
        desk.access.roles.assign(desk.admin, role.name, AssignRole(principal=principal)),
        act(desk, credentials),
        desk.access.roles.unassign(desk.admin, role.name, principal),
        act(desk, credentials),
    )

    assert isinstance(found[0], ForbiddenError)
    assert found[2] == principal
    assert isinstance(found[4], ForbiddenError)


async def test_a_token_that_is_revoked_is_refused_to_the_units_after(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A revoked token gets nothing done, however soon its next request comes."""
    principal, credentials = await desk.hire("ci", ("secret.read", "secret/*"))
    (token,) = (await desk.tokens.list(desk.admin, principal)).items

    found = await together(
        desk.database,
        monkeypatch,
        act(desk, credentials),
        desk.tokens.revoke(desk.admin, principal, token.id),
        act(desk, credentials),
    )

    assert found[0] == principal
    assert isinstance(found[2], UnauthenticatedError)


async def test_a_principal_that_is_disabled_is_refused_to_the_units_after(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same for all tokens of a principal."""
    principal, credentials = await desk.hire("ci", ("secret.read", "secret/*"))

    found = await together(
        desk.database,
        monkeypatch,
        act(desk, credentials),
        desk.access.principals.disable(desk.admin, principal),
        act(desk, credentials),
        desk.access.principals.enable(desk.admin, principal),
        act(desk, credentials),
    )

    assert found[0] == found[4] == principal
    assert isinstance(found[2], UnauthenticatedError)


async def test_a_revocation_that_is_undone_takes_nothing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    principal, credentials = await desk.hire("ci", ("secret.read", "secret/*"))
    grant = await grant_of(desk, principal)

    def fails(op: Operation) -> None:
        op.authorise(Action.GRANT_REVOKE, Resource(f"grant/{grant}"))
        raise ValueError("a bug")

    found = await together(
        desk.database,
        monkeypatch,
        act(desk, credentials, fail=True),
        desk.door.write(desk.admin, fails),
        act(desk, credentials),
    )

    assert isinstance(found[0], ValueError)
    assert isinstance(found[1], ValueError)
    assert found[2] == principal


async def test_a_caller_is_looked_up_once_in_a_transaction(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    principal, credentials = await desk.hire("ci", ("secret.read", "secret/*"))
    asked: list[str] = []
    prove = SystemTokens.prove

    def counted(self: SystemTokens, *given: Any) -> Any:
        asked.append(given[1])
        return prove(self, *given)

    monkeypatch.setattr(SystemTokens, "prove", counted)

    found = await together(desk.database, monkeypatch, *(act(desk, credentials) for _ in range(8)))
    await act(desk, credentials)

    assert found == [principal] * 8
    assert len(asked) == 2
