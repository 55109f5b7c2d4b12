from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from keyturn.access.caps import check_caps
from keyturn.access.founding import BREAK_GLASS, Founded, rescue
from keyturn.access.paging import decode_cursor, encode_cursor
from keyturn.errors import CapError, ConflictError, ForbiddenError, InputError, NotFoundError, PreconditionError
from keyturn.storage.schema import access_grant, issued_key, keyspace
from keyturn.storage.transaction import ChangeKind, Entry, Transaction
from keyturn.testing.clock import START
from keyturn.wire.access import (
    AssignRole,
    CreateGrant,
    CreatePrincipal,
    CreateRole,
    CreateWorkspace,
    ExplainAccess,
    GrantConditions,
    GrantFilter,
    PrincipalFilter,
    UpdatePrincipal,
    UpdateWorkspace,
)
from keyturn.wire.actions import Action
from tests.access.house import OFFICE, House

NOW = datetime.fromtimestamp(START, UTC)


# --- principals ----------------------------------------------------------------------------------


async def test_a_new_principal_may_do_nothing(house: House) -> None:
    """Empty means deny."""
    principal, credentials = await house.hire("new")
    assert (await house.access.whoami(credentials)).grants == ()
    for action in Action:
        answer = await house.access.explain(
            credentials, ExplainAccess(action=action, resource=f"principal/{principal}")
        )
        assert not answer.allowed


async def test_a_principal_is_changed_under_its_revision(house: House) -> None:
    made = await house.access.principals.create(
        house.admin, CreatePrincipal(kind="user", name="ann", metadata={"team": "pay"})
    )
    changed = await house.access.principals.update(
        house.admin, made.id, UpdatePrincipal(name="anna"), if_match=made.revision
    )
    assert (changed.name, changed.metadata, changed.revision) == ("anna", {"team": "pay"}, 2)
    with pytest.raises(PreconditionError):
        await house.access.principals.update(house.admin, made.id, UpdatePrincipal(name="x"), if_match=1)
    before = await house.news()
    same = await house.access.principals.update(house.admin, made.id, UpdatePrincipal(name="anna"), if_match=2)
    assert same.revision == 2
    assert await house.news() == before
    with pytest.raises(ConflictError, match="named 'admin'"):
        await house.access.principals.update(house.admin, made.id, UpdatePrincipal(name="admin"))


async def test_principals_are_listed_by_filter_and_page(house: House) -> None:
    for name, kind in (("a", "user"), ("b", "agent"), ("c", "agent")):
        await house.access.principals.create(house.admin, CreatePrincipal(kind=kind, name=name))  # type: ignore[arg-type]
    agents = await house.access.principals.list(house.admin, PrincipalFilter(kind="agent"), limit=1)
    assert len(agents.items) == 1
    rest = await house.access.principals.list(house.admin, PrincipalFilter(kind="agent"), cursor=agents.next_cursor)
    assert {one.name for one in agents.items + rest.items} == {"b", "c"}
    assert rest.next_cursor is None
    found = await house.access.principals.list(house.admin, PrincipalFilter(name="a", state="active"))
    assert [one.name for one in found.items] == ["a"]


@pytest.mark.parametrize("cursor", ["", "!", "AA", encode_cursor("a b"), encode_cursor("x" * 200), "ä"])
async def test_a_cursor_of_nobody_is_refused(house: House, cursor: str) -> None:
    with pytest.raises(InputError) as caught:
        await house.access.principals.list(house.admin, cursor=cursor)
    assert caught.value.field == "cursor"


def test_a_cursor_leads_back_to_its_id() -> None:
    assert decode_cursor(encode_cursor("prn_0123")) == "prn_0123"
    assert decode_cursor(None) == ""


# --- grants and roles ----------------------------------------------------------------------------


async def test_a_grant_gives_the_right_and_its_revocation_takes_it_at_once(house: House) -> None:
    principal, credentials = await house.hire("clerk")
    create = CreatePrincipal(kind="user", name="ann")
    with pytest.raises(ForbiddenError):
        await house.access.principals.create(credentials, create)
    grant = await house.hire_into(house.admin, principal, "principal.create")
    await house.access.principals.create(credentials, create)
    revoked = await house.access.grants.revoke(house.admin, grant)
    assert (revoked.state, revoked.effective, revoked.laggards) == ("revoked", True, ())
    assert revoked.effective_by > (revoked.revoked_at or "")
    with pytest.raises(ForbiddenError):
        await house.access.principals.create(credentials, CreatePrincipal(kind="user", name="bob"))
    again = await house.access.grants.revoke(house.admin, grant)
    assert again.revoked_at == revoked.revoked_at


async def test_a_grant_reads_back_as_it_was_made(house: House) -> None:
    principal, _ = await house.hire("clerk")
    made = await house.access.grants.create(
        house.admin,
        CreateGrant(
            principal=principal,
            actions=("key.*", "keyspace.read"),
            resource="key/orders/*",
            conditions=GrantConditions(
                environments=("production",),
                cidrs=("10.0.0.0/8",),
                not_before=NOW,
                not_after=NOW + timedelta(hours=1),
            ),
        ),
    )
    assert await house.access.grants.read(house.admin, made.id) == made
    assert made.conditions.not_after == "2026-01-01T01:00:00.000Z"
    listed = await house.access.grants.list(house.admin, GrantFilter(principal=principal))
    assert listed.items == (made,)
    leaf = (await house.leaves())[-1]
    assert leaf["detail"]["actions"] == ["key.*", "keyspace.read"]
    assert leaf["detail"]["conditions"]["environments"] == ["production"]


async def test_conditions_bind_the_caller_that_uses_the_grant(house: House) -> None:
    here = GrantConditions(cidrs=(f"{OFFICE}/32",), not_after=NOW + timedelta(seconds=60))
    _, inside = await house.hire("inside", ("principal.read", "*"), conditions=here)
    _, outside = await house.hire("outside", ("principal.read", "*"), conditions=here, ip="198.51.100.1")
    _, unknown = await house.hire("unknown", ("principal.read", "*"), conditions=here, ip=None)
    target = house.founded.principal.id
    await house.access.principals.read(inside, target)
    for credentials in (outside, unknown):
        with pytest.raises(NotFoundError):
            await house.access.principals.read(credentials, target)
    house.clock.advance(60)
    with pytest.raises(NotFoundError):
        await house.access.principals.read(inside, target)


async def test_nobody_grants_more_than_they_hold(house: House) -> None:
    """Neither a wider action or resource, nor the same without the condition, nor through a bounded token."""
    target, _ = await house.hire("target")
    _, lead = await house.hire("lead", ((("grant.create", "principal.read", "key.issue")), "*"))
    await house.hire_into(lead, target, "key.issue", "key/orders/*")
    for action, resource in (("key.revoke", "*"), ("key.*", "key/orders/*"), ("*", "*"), ("key.issue", "~instance/*")):
        with pytest.raises(ForbiddenError) as caught:
            await house.hire_into(lead, target, action, resource)
        assert caught.value.code == "exceeds_own_rights"
    owner = house.tokens.owners[lead.token.reveal()][0]
    bounded = house.tokens.credentials(owner.workspace, owner.principal, scopes=("grant.create", "principal.read"))
    with pytest.raises(ForbiddenError):
        await house.hire_into(bounded, target, "key.issue", "key/orders/*")


async def test_members_of_a_role_hold_what_it_is_granted(house: House) -> None:
    principal, credentials = await house.hire("member")
    await house.access.roles.create(house.admin, CreateRole(name="readers", description="may look"))
    grant = CreateGrant(role="readers", actions=("role.read",), resource="role/*")
    made = await house.access.grants.create(house.admin, grant)
    assert (made.role, made.principal) == ("readers", None)
    with pytest.raises(NotFoundError):
        await house.access.roles.read(credentials, "readers")
    role = await house.access.roles.assign(house.admin, "readers", AssignRole(principal=principal))
    assert [one.principal for one in role.members] == [principal]
    assert (await house.access.roles.assign(house.admin, "readers", AssignRole(principal=principal))) == role
    await house.access.roles.read(credentials, "readers")
    assert (await house.access.grants.list(house.admin, GrantFilter(principal=principal))).items == (made,)
    left = await house.access.roles.unassign(house.admin, "readers", principal)
    assert (left.members, left.effective) == ((), True)
    with pytest.raises(NotFoundError):
        await house.access.roles.read(credentials, "readers")
    with pytest.raises(ConflictError):
        await house.access.roles.create(house.admin, CreateRole(name="readers"))


async def test_nobody_assigns_a_role_that_holds_more_than_they_do(house: House) -> None:
    """Else role.assign would be every right of every role."""
    principal, credentials = await house.hire("climber", (("role.assign", "principal.read"), "*"))
    await house.access.roles.create(house.admin, CreateRole(name="admins"))
    await house.access.grants.create(house.admin, CreateGrant(role="admins", actions=("*",), resource="*"))
    with pytest.raises(ForbiddenError) as caught:
        await house.access.roles.assign(credentials, "admins", AssignRole(principal=principal))
    assert caught.value.code == "exceeds_own_rights"


@pytest.mark.parametrize(("principal", "role"), [(None, None), ("prn_x", "ops")])
async def test_a_grant_is_to_one_of_principal_and_role(house: House, principal: str | None, role: str | None) -> None:
    with pytest.raises(InputError) as caught:
        await house.access.grants.create(
            house.admin, CreateGrant(principal=principal, role=role, actions=("*",), resource="*")
        )
    assert caught.value.field == "principal"


async def test_a_stored_condition_that_is_not_known_denies(house: House) -> None:
    """A grant written by a newer release does not lose its condition in this one."""
    principal, credentials = await house.hire("clerk", ("principal.read", "*"))

    def newer(transaction: Transaction) -> None:
        transaction.connection.execute(
            access_grant.update()
            .where(access_grant.c.subject == principal)
            .values(conditions_json='{"hardware_key":true}')
        )
        transaction.append(Entry(house.founded.workspace.id, ChangeKind.GRANT, principal))

    await house.database.write(newer)
    with pytest.raises(NotFoundError):
        await house.access.principals.read(credentials, principal)
    (grant,) = (await house.access.grants.list(house.admin, GrantFilter(principal=principal))).items
    assert grant.conditions.unknown


# --- decisions -----------------------------------------------------------------------------------


async def test_an_explanation_names_each_grant_and_why(house: House) -> None:
    principal, credentials = await house.hire("clerk", ("key.issue", "key/orders/*"), ("key.read", "*"))
    question = ExplainAccess(
        action=Action.KEY_ISSUE, resource="key/orders/key_1", principal=principal, environment="production"
    )
    answer = await house.access.explain(house.admin, question)
    assert answer.allowed
    assert {one.reason: one.applies for one in answer.considered} == {
        "applies": True,
        "its actions do not include key.issue": False,
    }
    assert answer.reason == "granted by " + next(one.source for one in answer.considered if one.applies)
    with pytest.raises(ForbiddenError):
        await house.access.explain(
            (await house.hire("peeker", ("principal.read", "*")))[1],
            ExplainAccess(action=Action.KEY_ISSUE, resource="key/orders/key_1", principal=principal),
        )
    own = await house.access.explain(credentials, ExplainAccess(action=Action.KEY_REVOKE, resource="key/orders/key_1"))
    assert (own.allowed, own.principal, own.reason) == (False, principal, "no grant applies")
    await house.access.principals.disable(house.admin, principal)
    gone = await house.access.explain(house.admin, question)
    assert (gone.allowed, gone.reason) == (False, "the principal is disabled")


async def test_an_explanation_takes_address_and_time_as_asked(house: House) -> None:
    later = GrantConditions(cidrs=("10.0.0.0/8",), not_before=NOW + timedelta(hours=1))
    principal, _ = await house.hire("clerk", ("key.read", "*"), conditions=later)

    async def allowed(ip: str | None, at: datetime | None) -> bool:
        question = ExplainAccess(action=Action.KEY_READ, resource="key/a/b", principal=principal, ip=ip, at=at)
        return (await house.access.explain(house.admin, question)).allowed

    assert await allowed("10.1.1.1", NOW + timedelta(hours=1))
    assert not await allowed("10.1.1.1", None)
    assert not await allowed(None, NOW + timedelta(hours=1))
    assert not await allowed("192.0.2.1", NOW + timedelta(hours=1))


@pytest.mark.parametrize(
    ("resource", "ip", "at", "field"),
    [
        ("key/*", None, None, "resource"),
        ("key//a", None, None, "resource"),
        ("key/a", "10.0.0.0/8", None, "ip"),
        ("key/a", "nowhere", None, "ip"),
        ("key/a", None, datetime(1, 1, 1, tzinfo=UTC), "at"),
    ],
)
async def test_a_question_that_has_no_answer_names_the_field(
    house: House, resource: str, ip: str | None, at: datetime | None, field: str
) -> None:
    with pytest.raises(InputError) as caught:
        await house.access.explain(house.admin, ExplainAccess(action=Action.KEY_READ, resource=resource, ip=ip, at=at))
    assert caught.value.field == field


async def test_whoami_says_what_the_token_leaves_of_the_grants(house: House) -> None:
    principal, _ = await house.hire("clerk", ("key.*", "*"))
    bounded = house.tokens.credentials(
        house.founded.workspace.id, principal, scopes=("key.read",), resources=("key/*",)
    )
    who = await house.access.whoami(bounded)
    assert (who.principal, who.name, who.workspace_name) == (principal, "clerk", "default")
    assert (who.scopes, who.resources) == (("key.read",), ("key/*",))
    assert [grant.actions for grant in who.grants] == [("key.*",)]


# --- workspaces ----------------------------------------------------------------------------------


async def test_a_new_workspace_is_usable_with_its_first_token(house: House) -> None:
    made = await house.access.workspaces.create(house.admin, CreateWorkspace(name="acme", keys_max=5, admin="root"))
    assert made.token is not None
    assert made.token not in repr(made)
    owner = house.tokens.owners[made.token][0]
    assert (owner.workspace, owner.principal) == (made.id, made.principal)
    tenant = await house.new_tenant("other")
    assert (await house.access.workspaces.read(tenant, "other")).name == "other"
    with pytest.raises(ConflictError):
        await house.access.workspaces.create(house.admin, CreateWorkspace(name="acme"))
    names = [one.name for one in (await house.access.workspaces.list(house.admin)).items]
    assert sorted(names) == ["acme", "default", "other"]


async def test_a_workspace_is_changed_under_its_revision_and_cannot_disable_itself(house: House) -> None:
    await house.new_tenant("acme")
    changed = await house.access.workspaces.update(house.admin, "acme", UpdateWorkspace(keys_max=2), if_match=1)
    assert (changed.keys_max, changed.revision, changed.effective) == (2, 2, True)
    with pytest.raises(PreconditionError):
        await house.access.workspaces.update(house.admin, "acme", UpdateWorkspace(keys_max=None), if_match=1)
    lifted = await house.access.workspaces.update(house.admin, "acme", UpdateWorkspace(keys_max=None))
    assert (lifted.keys_max, lifted.revision) == (None, 3)
    with pytest.raises(ConflictError, match="disable itself"):
        await house.access.workspaces.update(house.admin, "default", UpdateWorkspace(state="disabled"))


async def test_break_glass_lets_somebody_in_when_nobody_can(house: House) -> None:
    """Every right may be revoked, so no operation has to guard a last administrator."""
    for grant in (await house.access.grants.list(house.admin)).items:
        await house.access.grants.revoke(house.admin, grant.id) if grant.resource == "~instance/*" else None
    await house.access.principals.disable(house.admin, house.founded.principal.id)

    def save(transaction: Transaction) -> Founded:
        found = rescue(transaction, house.tokens, name="default", expires_at=None, created_by="system")
        transaction.append(Entry(found.workspace.id, ChangeKind.AUDIT, ""))
        return found

    for _ in range(2):
        saved = (await house.database.write(save)).value
        credentials = house.tokens.credentials(saved.workspace.id, saved.principal.id)
        who = await house.access.whoami(credentials)
        assert who.name == BREAK_GLASS
        assert {grant.resource for grant in who.grants} == {"*", "~instance/*"}
        await house.access.principals.disable(credentials, saved.principal.id)


# --- caps ----------------------------------------------------------------------------------------


def insert_keys(transaction: Transaction, workspace: str, owner: str, count: int, *, system: bool = False) -> None:
    """Store bare keys, enough to be counted."""
    space = f"ksp_{workspace}_{system}"
    if transaction.connection.execute(keyspace.select().where(keyspace.c.id == space)).first() is None:
        transaction.connection.execute(
            keyspace.insert().values(
                id=space,
                workspace=workspace,
                name="~system" if system else "orders",
                prefix="kt",
                tag="live",
                environment="production",
                state="active",
                system=system,
                stale_after_seconds=60.0,
                accepts_foreign=False,
                description="",
                created_at=0.0,
                created_by="",
                revision=1,
            )
        )
    for number in range(count):
        transaction.connection.execute(
            issued_key.insert().values(
                id=f"key_{owner}_{system}_{number}",
                workspace=workspace,
                keyspace=space,
                environment="production",
                owner=owner,
                purpose="",
                state="active",
                scopes_json="[]",
                metadata_json="{}",
                tags_json="[]",
                created_at=0.0,
                created_by="",
                updated_at=0.0,
                revision=1,
            )
        )
    transaction.append(Entry(workspace, ChangeKind.KEYSPACE, space))


async def test_a_workspace_has_a_default_environment_that_can_be_changed(house: House) -> None:
    made = await house.access.workspaces.create(house.admin, CreateWorkspace(name="acme"))
    assert made.default_environment == "production"
    request = UpdateWorkspace(default_environment="staging")
    assert (await house.access.workspaces.update(house.admin, "acme", request)).default_environment == "staging"
    assert (await house.access.workspaces.read(house.admin, "acme")).default_environment == "staging"


@pytest.mark.parametrize("name", ["secret", "sys", "auth", "Prod", "a/b", "staging\n"])
def test_a_default_environment_is_a_name_that_paths_can_begin_with(name: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"default_environment": name}, UpdateWorkspace)
    assert msgspec.convert({"default_environment": "secrets"}, UpdateWorkspace).default_environment == "secrets"


async def test_caps_of_owner_and_workspace_hold(house: House) -> None:
    made = await house.access.workspaces.create(
        house.admin, CreateWorkspace(name="acme", keys_max=4, keys_per_owner_max=3)
    )

    def issue(owner: str, count: int) -> object:
        def work(transaction: Transaction) -> None:
            check_caps(transaction.connection, made.id, owner, count)
            insert_keys(transaction, made.id, owner, count)

        return work

    def tokens(transaction: Transaction) -> None:
        insert_keys(transaction, made.id, "ann", 5, system=True)

    def revoke(transaction: Transaction) -> None:
        transaction.connection.execute(
            issued_key.update().where(issued_key.c.id == "key_ann_False_0").values(state="revoked")
        )

    async def write(work: object) -> None:
        await house.database.write(work)  # type: ignore[arg-type]

    await write(tokens)
    with pytest.raises(CapError, match="owner 'ann' may hold 3 keys"):
        await write(issue("ann", 4))
    await write(issue("ann", 3))
    with pytest.raises(CapError, match="owner 'ann'"):
        await write(issue("ann", 1))
    with pytest.raises(CapError, match="the workspace may hold 4 keys, holds 3, and 2 more"):
        await write(issue("bob", 2))
    await write(revoke)
    await write(issue("bob", 2))


async def test_without_caps_nothing_is_counted(house: House) -> None:
    def work(transaction: Transaction) -> None:
        check_caps(transaction.connection, house.founded.workspace.id, "ann", 10**9)

    await house.database.write(work)
