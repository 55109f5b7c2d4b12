from typing import Any

import pytest

from keyturn.errors import KeyturnError
from keyturn.wire.access import AssignRole, CreateGrant, CreateRole, ExplainAccess, UpdatePrincipal, UpdateWorkspace
from keyturn.wire.actions import Action
from tests.access.house import House


async def test_nothing_crosses_a_workspace(house: House) -> None:
    """Another workspace's administrator, who holds everything in its own, finds nothing of ours by id or name."""
    tenant = await house.new_tenant("acme")
    member, _ = await house.hire("member", ("key.read", "*"))
    await house.access.roles.create(house.admin, CreateRole(name="ops"))
    grant = await house.access.grants.create(house.admin, CreateGrant(role="ops", actions=("key.read",), resource="*"))
    access = house.access
    question = ExplainAccess(action=Action.KEY_READ, resource="key/a/b", principal=member)
    attempts: list[Any] = [
        access.principals.read(tenant, member),
        access.principals.update(tenant, member, UpdatePrincipal(name="x")),
        access.principals.disable(tenant, member),
        access.roles.read(tenant, "ops"),
        access.roles.assign(tenant, "ops", AssignRole(principal=member)),
        access.grants.read(tenant, grant.id),
        access.grants.revoke(tenant, grant.id),
        access.grants.create(tenant, CreateGrant(principal=member, actions=("key.read",), resource="*")),
        access.explain(tenant, question),
        access.workspaces.read(tenant, "default"),
        access.workspaces.update(tenant, "default", UpdateWorkspace(state="disabled")),
    ]
    for attempt in attempts:
        with pytest.raises(KeyturnError) as caught:
            await attempt
        assert caught.value.code == "not_found"
    assert member not in {one.id for one in (await access.principals.list(tenant)).items}
    assert (await access.roles.list(tenant)).items == ()
    assert grant.id not in {one.id for one in (await access.grants.list(tenant)).items}
    assert [one.name for one in (await access.workspaces.list(tenant)).items] == ["acme"]


async def test_a_new_workspace_has_no_say_over_the_installation(house: House) -> None:
    """Its administrator holds everything in it, and `~instance` is not in it."""
    tenant = await house.new_tenant("acme")
    with pytest.raises(KeyturnError) as caught:
        await house.new_tenant("evil", by=tenant)
    assert caught.value.code == "forbidden"
    who = await house.access.whoami(tenant)
    with pytest.raises(KeyturnError) as caught:
        await house.access.grants.create(
            tenant, CreateGrant(principal=who.principal, actions=("*",), resource="~instance/*")
        )
    assert caught.value.code == "exceeds_own_rights"
    with pytest.raises(KeyturnError) as caught:
        await house.access.workspaces.update(tenant, "acme", UpdateWorkspace(keys_max=None))
    assert caught.value.code == "forbidden"


async def test_the_same_names_live_in_two_workspaces(house: House) -> None:
    tenant = await house.new_tenant("acme")
    for by in (house.admin, tenant):
        await house.hire("worker", by=by)
        await house.access.roles.create(by, CreateRole(name="ops"))


async def test_a_token_of_one_workspace_does_not_act_as_a_principal_of_another(house: House) -> None:
    """Even an authority that mixed the two up lets nobody in."""
    tenant = await house.new_tenant("acme")
    acme = house.tokens.owners[tenant.token.reveal()][0].workspace
    mixed = house.tokens.credentials(acme, house.founded.principal.id)
    with pytest.raises(KeyturnError) as caught:
        await house.access.whoami(mixed)
    assert caught.value.code == "unauthenticated"


async def test_creating_a_workspace_is_in_both_audit_logs(house: House) -> None:
    tenant = await house.new_tenant("acme")
    acme = house.tokens.owners[tenant.token.reveal()][0].workspace
    created = [leaf for leaf in await house.leaves() if leaf["action"] == "workspace.create"]
    assert {leaf["workspace"]: leaf["resource"] for leaf in created} == {
        acme: "workspace/acme",
        house.founded.workspace.id: "~instance/workspace/acme",
    }
    kinds = {kind for workspace, kind, _ in await house.news() if workspace == acme}
    assert kinds >= {"keyspace", "principal", "grant", "key"}
