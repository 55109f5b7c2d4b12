"""Login tokens: their bounds, their end, and what hangs on them."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import Connection, insert, select

from keyturn.access.caller import Credentials
from keyturn.access.door import Operation
from keyturn.errors import CapError, ConflictError, ForbiddenError, NotFoundError, UnauthenticatedError
from keyturn.kernel.secret import Secret
from keyturn.storage.retention import run_retention
from keyturn.storage.schema import login_token
from keyturn.wire.logins import IssueLoginToken, LoginTokenIssued, RenewLoginToken, UpdateLoginMethod, UpdateLoginRole
from tests.logins.gate import OFFICE, Gate, bearing
from tests.logins.issuer import AUDIENCE
from tests.storage.ledger import together


async def test_the_same_assertion_gets_the_same_live_token(gate: Gate) -> None:
    """A client that logs in for each call does not fill the table, and nothing stored opens the token."""
    issuer = gate.issuer()
    await gate.ready(issuer)
    token = issuer.token()
    first = await gate.by_jwt(token)
    again = [await gate.by_jwt(token) for _ in range(5)]
    other = await gate.by_jwt(issuer.token(jti="two"))

    assert {one.token for one in again} == {first.token}
    assert all(one.again for one in again)
    assert other.token != first.token
    assert await gate.count_tokens() == 2

    def read(connection: Connection) -> list[Any]:
        return list(connection.execute(select(login_token)).all())

    stored = repr(await gate.database.read(read))
    assert first.token not in stored
    assert token not in stored
    assert len(await gate.leaves("auth.login")) == 7


async def test_many_at_once_with_one_assertion_get_one_token(gate: Gate) -> None:
    issuer = gate.issuer()
    await gate.ready(issuer)
    token = issuer.token()

    answers = await asyncio.gather(*(gate.by_jwt(token) for _ in range(12)))

    assert len({one.token for one in answers}) == 1
    assert await gate.count_tokens() == 1


async def test_a_login_leaves_one_leaf_that_names_who_it_was(gate: Gate) -> None:
    issuer = gate.issuer()
    role = await gate.ready(issuer)
    answer = await gate.by_jwt(issuer.token())

    [leaf] = await gate.leaves("auth.login")

    assert leaf["actor"] == {"id": role.principal, "kind": "service", "name": "deployer", "token": answer.token_id}
    assert leaf["resource"] == "login_role/ci/deploy"
    assert leaf["detail"]["subject"] == "repo:acme/payments:ref:refs/heads/main"
    assert leaf["request"] == {"id": "req_1", "ip": OFFICE}


async def test_a_role_has_no_more_live_tokens_than_it_may(gate: Gate) -> None:
    issuer = gate.issuer()
    await gate.ready(issuer, tokens_max=3)
    assertions = [issuer.token(jti=str(number)) for number in range(3)]
    for one in assertions:
        await gate.by_jwt(one)

    with pytest.raises(CapError) as caught:
        await gate.by_jwt(issuer.token(jti="4"))
    assert caught.value.code == "tokens_cap_reached"
    assert caught.value.hint
    assert (await gate.by_jwt(assertions[2])).again

    gate.clock.advance(901)
    issuer.now = gate.clock.now()
    await gate.by_jwt(issuer.token(jti="5"))


async def test_a_token_ends_and_is_renewed_up_to_its_maximum(gate: Gate) -> None:
    issuer = gate.issuer()
    await gate.ready(issuer, ttl_seconds=100, max_ttl_seconds=250)
    answer = await gate.by_jwt(issuer.token())
    gate.clock.advance(90)
    renewed = await gate.logins.tokens.renew_self(bearing(answer), RenewLoginToken())
    assert renewed.ttl_seconds == 100
    gate.clock.advance(90)
    assert (await gate.logins.tokens.renew_self(bearing(answer), RenewLoginToken())).ttl_seconds == 70
    gate.clock.advance(71)

    with pytest.raises(UnauthenticatedError):
        await gate.whoami(answer)
    with pytest.raises(UnauthenticatedError):
        await gate.logins.tokens.renew_self(bearing(answer), RenewLoginToken())


async def test_a_token_that_cannot_be_renewed_says_so(gate: Gate) -> None:
    issuer = gate.issuer()
    await gate.ready(issuer, ttl_seconds=100, max_ttl_seconds=100)
    answer = await gate.by_jwt(issuer.token())

    assert not answer.renewable
    with pytest.raises(ConflictError) as caught:
        await gate.logins.tokens.renew_self(bearing(answer), RenewLoginToken())
    assert caught.value.code == "not_renewable"


@pytest.mark.parametrize("what", ["principal", "role", "method", "method_off", "token", "self"])
async def test_a_token_ends_at_once_with_what_it_rests_on(gate: Gate, what: str) -> None:
    issuer = gate.issuer()
    role = await gate.ready(issuer)
    answer = await gate.by_jwt(issuer.token())
    await gate.whoami(answer)

    if what == "principal":
        await gate.access.principals.disable(gate.admin, role.principal)
    elif what == "role":
        await gate.logins.roles.delete(gate.admin, "ci", "deploy")
    elif what == "method":
        await gate.logins.methods.delete(gate.admin, "ci")
    elif what == "method_off":
        await gate.logins.methods.update(gate.admin, "ci", UpdateLoginMethod(state="disabled"))
    elif what == "token":
        assert (await gate.logins.tokens.revoke(gate.admin, answer.token_id)).revoked == 1
    else:
        assert (await gate.logins.tokens.revoke_self(bearing(answer))).revoked == 1

    with pytest.raises(UnauthenticatedError):
        await gate.whoami(answer)
    if what not in ("token", "self"):
        with pytest.raises(UnauthenticatedError):
            await gate.by_jwt(issuer.token())


async def test_a_revoked_token_is_not_handed_out_again(gate: Gate) -> None:
    issuer = gate.issuer()
    await gate.ready(issuer)
    first = await gate.by_jwt(issuer.token())
    await gate.logins.tokens.revoke(gate.admin, first.token_id)

    second = await gate.by_jwt(issuer.token())

    assert second.token != first.token
    await gate.whoami(second)


async def test_a_revoked_token_is_refused_within_the_transaction_that_revokes_it(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Login tokens are proven anew by each unit: nothing in the change log tells of their end."""
    issuer = gate.issuer()
    await gate.ready(issuer)
    credentials = bearing(await gate.by_jwt(issuer.token()))

    def work(op: Operation) -> str:
        op.unchanged()
        return op.caller.subject

    found = await together(
        gate.database,
        monkeypatch,
        gate.door.write(credentials, work),
        gate.logins.tokens.revoke_self(credentials),
        gate.door.write(credentials, work),
    )

    assert found[0].value == "repo:acme/payments:ref:refs/heads/main"
    assert isinstance(found[2], UnauthenticatedError)


async def below(gate: Gate, above: Credentials, **given: Any) -> LoginTokenIssued:
    return await gate.logins.tokens.issue(above, IssueLoginToken(**given))


async def test_tokens_below_end_with_the_one_above(gate: Gate) -> None:
    issuer = gate.issuer()
    await gate.ready(issuer, ttl_seconds=1000)
    await gate.access.grants.create(
        gate.admin, _grant((await gate.access.principals.list(gate.admin, _named("deployer"))).items[0].id)
    )
    top = bearing(await gate.by_jwt(issuer.token()))
    child = await below(gate, top, ttl_seconds=5000, scopes=("keyspace.read", "login_token.issue"), subject="step 1")
    child_credentials = Credentials(Secret(child.token), ip=OFFICE)
    grandchild = await below(gate, child_credentials, ttl_seconds=10)
    below_all = Credentials(Secret(grandchild.token), ip=OFFICE)

    assert child.info.ttl_seconds == 1000
    assert child.info.subject == "repo:acme/payments:ref:refs/heads/main/step 1"
    assert grandchild.info.scopes == ("keyspace.read", "login_token.issue")
    with pytest.raises(ForbiddenError):
        await below(gate, child_credentials, scopes=("*",))
    await gate.access.whoami(below_all)

    assert (await gate.logins.tokens.revoke_self(top)).revoked == 3
    for gone in (top, child_credentials, below_all):
        with pytest.raises(UnauthenticatedError):
            await gate.access.whoami(gone)


async def test_a_token_below_a_management_token_ends_with_it(gate: Gate) -> None:
    someone = await gate.hire("orchestrator", ("login_token.issue", "login_token/*"))
    made = await below(gate, someone, ttl_seconds=600)
    child = Credentials(Secret(made.token), ip=OFFICE)
    who = await gate.access.whoami(child)
    own = await gate.access.whoami(someone)
    assert own.token_id is not None

    await gate.tokens.revoke(gate.admin, who.principal, own.token_id)

    with pytest.raises(UnauthenticatedError):
        await gate.access.whoami(child)


async def test_a_token_is_used_from_its_networks_alone(gate: Gate) -> None:
    issuer = gate.issuer()
    await gate.ready(issuer, cidrs=["192.0.2.0/24"])
    answer = await gate.by_jwt(issuer.token())

    await gate.whoami(answer, ip="192.0.2.99")
    with pytest.raises(UnauthenticatedError):
        await gate.whoami(answer, ip="198.51.100.1")
    with pytest.raises(UnauthenticatedError):
        await gate.by_jwt(issuer.token(), ip="198.51.100.1")


async def test_nobody_lets_others_in_with_more_than_they_hold(gate: Gate) -> None:
    issuer = gate.issuer()
    await gate.ready(issuer)
    some = [("login_role.*", "login_role/*"), ("login_method.*", "login_method/*"), ("principal.read", "principal/*")]
    small = await gate.hire("small", *some)
    binding = {"audiences": [AUDIENCE], "claims": {"sub": "x"}}

    with pytest.raises(ForbiddenError) as caught:
        await gate.role(name="mine", by=small, jwt=binding)
    assert caught.value.code == "exceeds_own_rights"
    await gate.role(name="mine", by=small, jwt=binding, scopes=["key.read"])
    with pytest.raises(ForbiddenError):
        await gate.logins.roles.update(small, "ci", "mine", UpdateLoginRole(scopes=("keyspace.read",)))
    keys = {"issuer": issuer.url, "jwks": gate.issuer().key_set()}
    with pytest.raises(ForbiddenError):
        await gate.logins.methods.update(small, "ci", _options(keys))
    assert [leaf["outcome"] for leaf in await gate.leaves("login_method.update")] == ["denied"]


async def test_another_workspace_knows_nothing_of_it(gate: Gate) -> None:
    from keyturn.wire.access import CreateWorkspace

    issuer = gate.issuer()
    await gate.ready(issuer)
    answer = await gate.by_jwt(issuer.token())
    made = await gate.access.workspaces.create(gate.admin, CreateWorkspace(name="tenant"))
    assert made.token is not None
    tenant = Credentials(Secret(made.token), ip=OFFICE)

    assert (await gate.logins.methods.list(tenant)).items == ()
    assert (await gate.logins.tokens.list(tenant)).items == ()
    for asked in (
        gate.logins.methods.read(tenant, "ci"),
        gate.logins.roles.read(tenant, "ci", "deploy"),
        gate.logins.tokens.read(tenant, answer.token_id),
        gate.logins.tokens.revoke(tenant, answer.token_id),
        gate.logins.tokens.find(tenant, answer.token),
    ):
        with pytest.raises(NotFoundError):
            await asked


async def test_ended_tokens_are_purged_and_live_ones_stay(gate: Gate) -> None:
    issuer = gate.issuer()
    await gate.ready(issuer)
    await gate.by_jwt(issuer.token())
    gate.clock.advance(86_400 + 901)
    issuer.now = gate.clock.now()
    live = await gate.by_jwt(issuer.token())

    done = await run_retention(gate.database, "nod_test")

    assert done.login_tokens == 1
    assert await gate.count_tokens() == 1
    await gate.whoami(live)


async def test_a_management_token_is_shown_as_what_it_is(gate: Gate) -> None:
    info = await gate.logins.tokens.read_self(gate.admin)

    assert (info.kind, info.ttl_seconds, info.expires_at) == ("management", 0, None)
    with pytest.raises(ConflictError) as caught:
        await gate.logins.tokens.revoke_self(gate.admin)
    assert caught.value.code == "not_a_login_token"


@pytest.mark.parametrize("text", ["kt_login_", "kt_login_x", "", "kt_mgmt_x", "kt_login_" + "A" * 60])
async def test_what_is_no_token_is_none(gate: Gate, text: str) -> None:
    with pytest.raises(UnauthenticatedError):
        await gate.access.whoami(Credentials(Secret(text), ip=OFFICE))


def _grant(principal: str) -> Any:
    from keyturn.wire.access import CreateGrant

    return CreateGrant(principal=principal, actions=("login_token.issue",), resource="login_token/*")


def _named(name: str) -> Any:
    from keyturn.wire.access import PrincipalFilter

    return PrincipalFilter(name=name)


def _options(keys: dict[str, Any]) -> UpdateLoginMethod:
    import msgspec

    return msgspec.convert({"jwt": keys}, type=UpdateLoginMethod)


@pytest.mark.slow
async def test_a_token_with_more_below_it_than_one_statement_can_name_is_revoked(gate: Gate) -> None:
    """A workload that makes tokens without end below its own cannot keep it from being taken back."""
    issuer = gate.issuer()
    role = await gate.ready(issuer)
    await gate.access.grants.create(gate.admin, _grant(role.principal))
    answer = await gate.by_jwt(issuer.token())
    await gate.logins.tokens.issue(bearing(answer), IssueLoginToken(ttl_seconds=60))

    def double(connection: Connection, mark: str) -> None:
        copied = [column + mark if column.name in ("id", "lookup") else column for column in login_token.c]
        below = select(*copied).where(login_token.c.parent == answer.token_id)
        connection.execute(insert(login_token).from_select([column.name for column in login_token.c], below))

    for mark in "abcdefghijklmno":
        await gate.database.write(lambda transaction, mark=mark: double(transaction.connection, mark))  # type: ignore[misc]

    revoked = await gate.logins.tokens.revoke(gate.admin, answer.token_id)

    assert revoked.revoked == 2**15 + 1
    with pytest.raises(UnauthenticatedError):
        await gate.whoami(answer)
