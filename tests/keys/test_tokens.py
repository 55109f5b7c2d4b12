from datetime import timedelta

import msgspec
import pytest

from keyturn.access.caller import Credentials
from keyturn.errors import ConflictError, ForbiddenError, InputError, NotFoundError, UnauthenticatedError
from keyturn.kernel import tokenformat
from keyturn.kernel.clock import rfc3339
from keyturn.kernel.secret import Secret
from keyturn.keys.tokens import issue_admin_token
from keyturn.storage.transaction import Transaction
from keyturn.wire.access import CreateGrant, CreatePrincipal, GrantConditions
from keyturn.wire.keys import IssueToken
from tests.keys.desk import OFFICE, Desk


def bearing(token: str | None) -> Credentials:
    """Return what a request with this token brings."""
    assert token is not None
    return Credentials(Secret(token), ip=OFFICE)


async def test_a_token_is_admitted_until_it_is_revoked(desk: Desk) -> None:
    owner, credentials = await desk.hire("ci", ("key.*", "*"))
    assert (await desk.access.whoami(credentials)).principal == owner
    (token,) = (await desk.tokens.list(desk.admin, owner)).items
    revoked = await desk.tokens.revoke(desk.admin, owner, token.id)
    assert (revoked.state, revoked.effective) == ("revoked", True)
    with pytest.raises(UnauthenticatedError):
        await desk.access.whoami(credentials)
    assert (await desk.tokens.revoke(desk.admin, owner, token.id)).state == "revoked"
    assert len(await desk.leaves("token.revoke")) == 1


async def test_a_token_ends_at_its_expiry(desk: Desk) -> None:
    made = await desk.access.principals.create(desk.admin, CreatePrincipal(kind="agent", name="a"))
    issued = await desk.tokens.issue(desk.admin, made.id, IssueToken(name="short", expires_in_seconds=60))
    assert issued.expires_at == rfc3339(desk.clock.now() + 60)
    desk.clock.advance(59)
    await desk.access.whoami(bearing(issued.token))
    desk.clock.advance(1)
    with pytest.raises(UnauthenticatedError):
        await desk.access.whoami(bearing(issued.token))


async def test_the_bounds_of_a_token_narrow_its_principal(desk: Desk) -> None:
    await desk.keyspace()
    admin = desk.founded.principal.id
    request = IssueToken(name="reader", scopes=("keyspace.read",), resources=("keyspace/orders",))
    issued = await desk.tokens.issue(desk.admin, admin, request)
    assert (issued.scopes, issued.resources) == (("keyspace.read",), ("keyspace/orders",))
    reader = bearing(issued.token)
    await desk.keyspaces.show(reader, "orders")
    with pytest.raises(ForbiddenError):
        await desk.keyspaces.disable(reader, "orders")
    who = await desk.access.whoami(reader)
    assert (who.token_id, who.scopes) == (issued.id, ("keyspace.read",))


async def test_nobody_issues_a_token_that_can_do_more_than_they_can(desk: Desk) -> None:
    """Attenuation: a token for a mightier principal would be a way around one's own grants."""
    _, clerk = await desk.hire("clerk", ("token.issue", "*"), ("key.read", "key/orders/*"))
    admin = desk.founded.principal.id
    with pytest.raises(ForbiddenError) as caught:
        await desk.tokens.issue(clerk, admin, IssueToken(name="mine"))
    assert caught.value.code == "exceeds_own_rights"
    (leaf,) = [one for one in await desk.leaves("token.issue") if one["outcome"] == "denied"]
    assert leaf["resource"] == f"principal/{admin}"
    narrow = IssueToken(name="mine", scopes=("key.read",), resources=("key/orders/*",))
    assert (await desk.tokens.issue(clerk, admin, narrow)).token is not None


async def test_a_narrow_token_does_not_make_itself_a_wide_one(desk: Desk) -> None:
    """A stolen narrow token must not be a way to the full rights of its principal."""
    admin = desk.founded.principal.id
    issued = await desk.tokens.issue(desk.admin, admin, IssueToken(name="narrow", scopes=("token.*",)))
    with pytest.raises(ForbiddenError):
        await desk.tokens.issue(bearing(issued.token), admin, IssueToken(name="wide"))


async def test_a_short_token_does_not_make_itself_a_lasting_one(desk: Desk) -> None:
    """A stolen token must end when it was meant to, with everything that was handed out by it."""
    admin = desk.founded.principal.id
    issued = await desk.tokens.issue(desk.admin, admin, IssueToken(name="hour", expires_in_seconds=3600))
    short = bearing(issued.token)
    for lasting in (IssueToken(name="ever"), IssueToken(name="longer", expires_in_seconds=3601)):
        with pytest.raises(ForbiddenError) as caught:
            await desk.tokens.issue(short, admin, lasting)
        assert (caught.value.code, str(issued.expires_at) in str(caught.value.hint)) == ("exceeds_own_rights", True)
    grant = CreateGrant(principal=admin, actions=("key.read",), resource="key/*")
    with pytest.raises(ForbiddenError):
        await desk.access.grants.create(short, grant)
    within = GrantConditions(not_after=desk.clock.now_utc() + timedelta(seconds=3600))
    await desk.access.grants.create(short, msgspec.structs.replace(grant, conditions=within))
    exact = IssueToken(name="as long", expires_in_seconds=3600)
    first = await desk.tokens.issue(short, admin, exact, idempotency="once")
    desk.clock.advance(60)
    assert await desk.tokens.issue(short, admin, exact, idempotency="once") == first


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (IssueToken(name="x", scopes=("key.misspelt",)), "scopes"),
        (IssueToken(name="x", scopes=("a b",)), "scopes"),
        (IssueToken(name="x", resources=("a//b",)), "resources"),
    ],
)
async def test_bounds_that_match_nothing_are_refused(desk: Desk, request_: IssueToken, field: str) -> None:
    with pytest.raises(InputError) as caught:
        await desk.tokens.issue(desk.admin, desk.founded.principal.id, request_)
    assert caught.value.field == field


async def test_a_disabled_principal_gets_no_token(desk: Desk) -> None:
    owner, _ = await desk.hire("ci")
    await desk.access.principals.disable(desk.admin, owner)
    with pytest.raises(ConflictError):
        await desk.tokens.issue(desk.admin, owner, IssueToken(name="x"))


async def test_tokens_of_other_principals_and_workspaces_are_not_found(desk: Desk) -> None:
    owner, _ = await desk.hire("ci")
    (token,) = (await desk.tokens.list(desk.admin, owner)).items
    stranger = await desk.tenant("other")
    for attempt in (
        desk.tokens.revoke(desk.admin, desk.founded.principal.id, token.id),
        desk.tokens.revoke(stranger, owner, token.id),
        desk.tokens.list(stranger, owner),
        desk.tokens.issue(stranger, owner, IssueToken(name="x")),
        desk.tokens.revoke(desk.admin, owner, "tok_nonsense\0"),
    ):
        with pytest.raises(NotFoundError):
            await attempt


@pytest.mark.parametrize("junk", ["", "x", "kt_mgmt_" + "0" * 61, "\0", "\ud800", "x" * 100_000])
async def test_junk_is_no_token(desk: Desk, junk: str) -> None:
    assert await desk.database.read(lambda c: desk.system.prove(c, junk, desk.clock.now())) is None


async def test_an_issued_key_is_no_management_token(desk: Desk) -> None:
    """A key of a user's keyspace proves nothing to the management API, even if it looks like a token of the admin."""
    await desk.keyspace(prefix="kt", tag="mgmt")
    issued = await desk.key(owner=desk.founded.principal.id)
    assert issued.key is not None
    with pytest.raises(UnauthenticatedError):
        await desk.access.whoami(bearing(issued.key))


async def test_a_token_with_another_secret_of_a_known_version_is_refused(desk: Desk) -> None:
    """The id in a token is public; only the digest of the whole proves it."""
    genuine = desk.admin.token.reveal()
    forged = None
    while forged is None:
        minted = tokenformat.mint("kt", "mgmt").key.reveal()
        body = genuine.split("_")[2][:12] + minted.split("_")[2][12:-6]
        unchecked = f"kt_mgmt_{body}"
        forged = next((one for one in _with_checks(unchecked) if tokenformat.version_id_of(one)), None)
    with pytest.raises(UnauthenticatedError):
        await desk.access.whoami(bearing(forged))


def _with_checks(unchecked: str) -> list[str]:
    return [unchecked + tokenformat._check_of(unchecked)]  # noqa: SLF001 -- the one way to forge a check


async def test_the_break_glass_token_opens_a_workspace_and_is_on_record(desk: Desk) -> None:
    def offline(transaction: Transaction) -> str:
        return issue_admin_token(transaction, desk.keyring, "default", transaction.now).token.reveal()

    token = (await desk.database.write(offline)).value
    who = await desk.access.whoami(bearing(token))
    assert who.name == "break-glass"
    await desk.keyspaces.list(bearing(token))
    (leaf,) = await desk.leaves("system.admin_token")
    assert leaf["detail"]["token"] == who.token_id
    with pytest.raises(NotFoundError):
        await desk.database.write(
            lambda transaction: issue_admin_token(transaction, desk.keyring, "unheard-of", transaction.now)
        )
