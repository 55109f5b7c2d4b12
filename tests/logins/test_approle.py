"""AppRole: role-ids, secret-ids, and how often each lets in."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import Connection, select

from keyturn.errors import ConflictError, InputError, UnauthenticatedError
from keyturn.storage.schema import login_secret
from keyturn.wire.logins import UpdateLoginRole
from tests.logins.gate import Gate


async def test_a_role_id_and_a_secret_id_let_in(gate: Gate) -> None:
    role = await gate.approle()
    secret = await gate.secret_id(metadata={"host": "web-1"})
    answer = await gate.by_secret(role, secret.secret_id)

    assert (await gate.whoami(answer)).principal == role.principal
    assert answer.metadata == {"role_name": "app", "host": "web-1"}
    assert (await gate.by_secret(role, secret.secret_id)).token == answer.token

    def read(connection: Connection) -> list[Any]:
        return list(connection.execute(select(login_secret)).all())

    assert str(secret.secret_id) not in repr(await gate.database.read(read))
    assert str(secret.secret_id) not in repr(await gate.leaves("secret_id.issue"))
    assert "[redacted]" in repr(secret)


@pytest.mark.parametrize("uses", [1, 3])
async def test_a_secret_id_lets_in_exactly_as_often_as_it_says(gate: Gate, uses: int) -> None:
    """However many try at once: the use and the token are one commit."""
    role = await gate.approle()
    secret = await gate.secret_id(uses=uses)

    async def attempt() -> str | None:
        try:
            return (await gate.by_secret(role, secret.secret_id)).token
        except UnauthenticatedError:
            return None

    tokens = [one for one in await asyncio.gather(*(attempt() for _ in range(15))) if one is not None]

    assert len(tokens) == len(set(tokens)) == uses
    left = await gate.logins.secret_ids.read(gate.admin, "approle", "app", secret.id)
    assert left.uses_left == 0


async def test_a_secret_id_ends_is_revoked_and_keeps_to_its_networks(gate: Gate) -> None:
    role = await gate.approle()
    short = await gate.secret_id(ttl_seconds=60)
    bound = await gate.secret_id(cidrs=["198.51.100.0/24"])
    revoked = await gate.secret_id()
    await gate.by_secret(role, short.secret_id)
    await gate.by_secret(role, bound.secret_id, ip="198.51.100.7")
    await gate.by_secret(role, revoked.secret_id)

    gate.clock.advance(61)
    assert (await gate.logins.secret_ids.revoke(gate.admin, "approle", "app", revoked.id)).state == "revoked"

    for secret in (short, bound, revoked):
        with pytest.raises(UnauthenticatedError) as caught:
            await gate.by_secret(role, secret.secret_id)
        assert str(caught.value) == "the login was refused"
    listed = await gate.logins.secret_ids.list(gate.admin, "approle", "app")
    assert {one.id for one in listed.items} == {short.id, bound.id}


async def test_a_secret_id_of_one_role_is_none_of_another(gate: Gate) -> None:
    await gate.approle()
    other = await gate.role("approle", "other")
    secret = await gate.secret_id()

    with pytest.raises(UnauthenticatedError):
        await gate.by_secret(other, secret.secret_id)
    assert (await gate.logins.secret_ids.find(gate.admin, "approle", "app", str(secret.secret_id))).id == secret.id


async def test_a_role_can_have_the_role_id_that_clients_know(gate: Gate) -> None:
    role = await gate.approle(approle={"role_id": "payments-app-role"})
    secret = await gate.secret_id()

    assert role.role_id == "payments-app-role"
    await gate.by_secret(role, secret.secret_id)
    with pytest.raises(ConflictError):
        await gate.role("approle", "second", approle={"role_id": "payments-app-role"})


async def test_a_secret_id_keeps_within_what_the_role_says(gate: Gate) -> None:
    await gate.approle(approle={"secret_id_ttl_seconds": 100, "secret_id_uses": 5})

    made = await gate.secret_id()
    assert (made.ttl_seconds, made.uses) == (100, 5)
    for given in ({"ttl_seconds": 101}, {"ttl_seconds": None}, {"uses": 6}, {"uses": None}):
        with pytest.raises(InputError):
            await gate.secret_id(**given)


async def test_a_narrowed_role_gives_a_new_token_with_the_new_bounds(gate: Gate) -> None:
    role = await gate.approle()
    secret = await gate.secret_id()
    before = await gate.by_secret(role, secret.secret_id)
    await gate.logins.roles.update(gate.admin, "approle", "app", UpdateLoginRole(scopes=("keyspace.read",)))

    after = await gate.by_secret(role, secret.secret_id)

    assert after.token != before.token
    assert after.scopes == ("keyspace.read",)


async def test_a_client_that_logs_in_for_each_call_lives_on_without_end(gate: Gate) -> None:
    role = await gate.approle(ttl_seconds=100, max_ttl_seconds=300)
    secret = await gate.secret_id()
    tokens = set()
    for _ in range(20):
        answer = await gate.by_secret(role, secret.secret_id)
        assert answer.ttl_seconds >= 50
        tokens.add(answer.token)
        gate.clock.advance(40)

    assert 2 <= len(tokens) <= 4
