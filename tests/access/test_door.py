import pytest

from keyturn.access.caller import Credentials, Resource
from keyturn.access.door import Operation
from keyturn.errors import BrokenInvariantError, ForbiddenError, NotFoundError, UnauthenticatedError
from keyturn.kernel.secret import Secret
from keyturn.wire.access import CreatePrincipal, UpdateWorkspace
from keyturn.wire.actions import Action
from tests.access.house import House


async def test_an_allowed_write_leaves_one_leaf_that_names_who_what_and_from_where(house: House) -> None:
    before = len(await house.leaves())
    made = await house.access.principals.create(house.admin, CreatePrincipal(kind="agent", name="bot"))
    (leaf,) = (await house.leaves())[before:]
    assert leaf["action"] == "principal.create"
    assert leaf["outcome"] == "allowed"
    assert leaf["resource"] == f"principal/{made.id}"
    assert leaf["actor"]["id"] == house.founded.principal.id
    assert leaf["actor"]["token"] == house.founded.token.token_id
    assert leaf["request"] == {"id": "req_admin", "ip": house.admin.ip}
    assert leaf["workspace"] == house.founded.workspace.id


async def test_the_denial_of_a_known_principal_is_a_leaf_and_changes_nothing(house: House) -> None:
    """Whoever tries what it may not is on record, by name."""
    reader, credentials = await house.hire("reader", ("principal.read", "principal/*"))
    before = len(await house.leaves())
    with pytest.raises(ForbiddenError):
        await house.access.principals.disable(credentials, house.founded.principal.id)
    (leaf,) = (await house.leaves())[before:]
    assert (leaf["outcome"], leaf["action"], leaf["actor"]["id"]) == ("denied", "principal.disable", reader)
    assert leaf["resource"] == f"principal/{house.founded.principal.id}"
    assert (await house.access.principals.read(house.admin, house.founded.principal.id)).state == "active"


async def test_a_read_that_is_denied_is_a_leaf_too(house: House) -> None:
    _, credentials = await house.hire("nobody")
    before = len(await house.leaves())
    with pytest.raises(NotFoundError):
        await house.access.principals.read(credentials, house.founded.principal.id)
    (leaf,) = (await house.leaves())[before:]
    assert (leaf["outcome"], leaf["action"]) == ("denied", "principal.read")


async def test_a_refused_attenuation_is_a_leaf(house: House) -> None:
    _, credentials = await house.hire("granter", (("grant.create", "principal.read"), "*"))
    before = len(await house.leaves())
    with pytest.raises(ForbiddenError, match="does not itself hold"):
        await house.hire_into(credentials, house.founded.principal.id, "key.issue")
    (leaf,) = (await house.leaves())[before:]
    assert (leaf["outcome"], leaf["action"]) == ("denied", "grant.create")


async def test_a_bad_token_is_counted_and_leaves_nothing(house: House) -> None:
    """Nobody buys a commit with a bad token."""
    before = await house.news()
    wrong = Credentials(Secret("nonsense"), ip="203.0.113.9")
    with pytest.raises(UnauthenticatedError):
        await house.access.whoami(wrong)
    with pytest.raises(UnauthenticatedError):
        await house.access.principals.create(wrong, CreatePrincipal(kind="user", name="x"))
    assert [ip for ip, _ in house.failures.seen] == ["203.0.113.9", "203.0.113.9"]
    assert await house.news() == before


async def test_every_kind_of_bad_token_gets_the_same_answer(house: House) -> None:
    """Unknown, revoked, of a disabled principal, of a disabled workspace: the caller learns nothing."""
    principal, credentials = await house.hire("gone", ("*", "*"))
    await house.access.principals.disable(house.admin, principal)
    _, revoked = await house.hire("revoked", ("*", "*"))
    house.tokens.revoke(revoked.token)
    tenant = await house.new_tenant("acme")
    await house.access.workspaces.update(house.admin, "acme", UpdateWorkspace(state="disabled"))
    answers = []
    for one in (Credentials(Secret("nonsense")), credentials, revoked, tenant):
        with pytest.raises(UnauthenticatedError) as caught:
            await house.access.whoami(one)
        answers.append((str(caught.value), caught.value.code, caught.value.hint))
    assert len(set(answers)) == 1


async def test_a_principal_that_is_enabled_again_may_act_again(house: House) -> None:
    principal, credentials = await house.hire("back", ("principal.read", "*"))
    disabled = await house.access.principals.disable(house.admin, principal)
    assert (disabled.state, disabled.effective, disabled.laggards) == ("disabled", True, ())
    enabled = await house.access.principals.enable(house.admin, principal)
    assert (enabled.state, enabled.revision) == ("active", 3)
    assert (await house.access.whoami(credentials)).principal == principal


async def test_a_workspace_that_is_enabled_again_lets_its_own_in_again(house: House) -> None:
    tenant = await house.new_tenant("acme")
    await house.access.workspaces.update(house.admin, "acme", UpdateWorkspace(state="disabled"))
    await house.access.workspaces.update(house.admin, "acme", UpdateWorkspace(state="active"))
    assert (await house.access.whoami(tenant)).workspace_name == "acme"


async def test_a_write_without_a_leaf_is_rolled_back(house: House) -> None:
    """An operation cannot leave unlogged, not even by our own mistake."""

    def forgetful(op: Operation) -> None:
        op.authorise(Action.PRINCIPAL_READ, Resource("principal/prn_1"))

    with pytest.raises(BrokenInvariantError, match="no audit leaf"):
        await house.door.write(house.admin, forgetful)


async def test_a_read_cannot_record(house: House) -> None:
    def sly(op: Operation) -> None:
        op.unchanged()
        _ = op.transaction

    with pytest.raises(BrokenInvariantError, match="a read tried to write"):
        await house.door.read(house.admin, sly)


async def test_an_expired_token_is_refused_from_its_end_on(house: House) -> None:
    owner = house.tokens.owners[house.admin.token.reveal()][0]
    token = house.tokens.add(owner, expires_at=house.clock.now() + 60)
    credentials = Credentials(token)
    await house.access.whoami(credentials)
    house.clock.advance(60)
    with pytest.raises(UnauthenticatedError):
        await house.access.whoami(credentials)
