"""Reading secrets: what is let out, to whom, and that every access is on record."""

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest
from sqlalchemy import select, update

from keyturn.access.caller import Credentials
from keyturn.errors import ForbiddenError, InputError, IntegrityError, NotFoundError, UnauthenticatedError
from keyturn.kernel.secret import Secret
from keyturn.storage.schema import secret_version
from keyturn.storage.transaction import Transaction
from keyturn.vault.gone import VersionGoneError
from keyturn.wire.access import CreateGrant, CreatePrincipal, GrantFilter
from keyturn.wire.keys import IssueToken
from keyturn.wire.secrets import Describe, PromoteSecret, PutSecret, SecretState, SelectVersions
from tests.vault.library import STRIPE, Library, opened_library


@pytest.fixture
async def library(migrated_database_url: str) -> AsyncIterator[Library]:
    """Secrets to read; the test runs on both databases."""
    async with opened_library(migrated_database_url) as one:
        yield one


async def test_a_read_gives_the_current_version_and_leaves_one_leaf(library: Library) -> None:
    await library.put(fields={"token": "first"})
    await library.put(fields={"token": "second"})
    app = await library.app()

    found = await library.read(by=app)

    assert (found.version, found.sequence, found.state, found.fields) == (
        2,
        2,
        SecretState.CURRENT,
        {"token": "second"},
    )
    assert await library.accesses() == [("allowed", f"secret/{STRIPE}", {"path": STRIPE, "version": 2, "sequence": 2})]


async def test_no_leaf_and_no_change_row_holds_a_value(library: Library) -> None:
    value = "-".join(("a", "value", "to", "look", "for"))
    await library.put(fields={"token": value})
    await library.read()

    assert value.encode() not in b"".join(await library.desk.leaf_bytes())


async def test_what_read_encoded_gives_is_what_read_gives(library: Library) -> None:
    await library.put(fields={"token": "t", "nested": {"a": [1, None, "b"]}, "é": "ü"})
    assert msgspec.json.decode(await library.reader.read_encoded(library.desk.admin, STRIPE)) == msgspec.to_builtins(
        await library.read()
    )


async def test_a_version_is_read_by_its_number_or_by_its_sequence(library: Library) -> None:
    await library.put(fields={"token": "first"})
    await library.put(fields={"token": "second"})
    await library.put(fields={"token": "third"}, pending=True)

    assert (await library.read(version=1)).fields == {"token": "first"}
    assert (await library.read(sequence=3)).fields == {"token": "third"}
    assert (await library.read(sequence=3)).version is None
    assert (await library.read()).version == 2
    with pytest.raises(NotFoundError, match="no such version"):
        await library.read(version=9)
    with pytest.raises(InputError):
        await library.read(version=1, sequence=1)


async def test_a_promoted_version_is_what_the_next_read_gives(library: Library) -> None:
    """What is kept between batches is dropped when it changes."""
    await library.put(fields={"token": "first"})
    assert (await library.read()).fields == {"token": "first"}
    await library.put(fields={"token": "second"}, pending=True)
    assert (await library.read()).fields == {"token": "first"}
    await library.vault.promote(library.desk.admin, STRIPE, PromoteSecret())

    assert (await library.read()).fields == {"token": "second"}
    assert (await library.read(version=1)).state is SecretState.PREVIOUS


async def test_deleted_and_destroyed_versions_say_so_to_who_may_read_them(library: Library) -> None:
    await library.put()
    assert (await library.read()).version == 1
    await library.vault.delete(library.desk.admin, STRIPE, SelectVersions())
    with pytest.raises(VersionGoneError) as deleted:
        await library.read()
    assert deleted.value.code == "version_deleted"
    assert deleted.value.info.deleted_at is not None

    await library.vault.destroy(library.desk.admin, STRIPE, SelectVersions(versions=(1,)))
    with pytest.raises(VersionGoneError) as destroyed:
        await library.read(version=1)
    assert destroyed.value.code == "version_destroyed"
    outcomes = [(outcome, detail.get("reason")) for outcome, _, detail in await library.accesses()]
    assert outcomes == [("allowed", None), ("failed", "version_deleted"), ("failed", "version_destroyed")]


async def test_a_version_counts_as_deleted_once_its_time_is_over_though_it_was_read_before(library: Library) -> None:
    await library.put(describe=Describe(delete_after_seconds=60))
    await library.read()
    library.desk.clock.advance(61)

    with pytest.raises(VersionGoneError):
        await library.read()


async def test_a_denied_read_is_on_record_and_answers_as_if_there_were_nothing(library: Library) -> None:
    """Who may not know of a secret cannot tell whether it is there."""
    await library.put()
    _, stranger = await library.desk.hire("stranger", ("key.read", "key/*"))

    errors = []
    for path in (STRIPE, "production/payments/absent"):
        with pytest.raises(NotFoundError) as refused:
            await library.read(path, stranger)
        errors.append((refused.value.code, str(refused.value).replace(path, "…")))

    assert errors[0] == errors[1]
    assert [(outcome, resource) for outcome, resource, _ in await library.accesses()] == [
        ("denied", f"secret/{STRIPE}"),
        ("denied", "secret/production/payments/absent"),
    ]


async def test_who_may_list_a_secret_is_told_that_it_may_not_read_it(library: Library) -> None:
    await library.put()
    _, lister = await library.desk.hire("lister", ("secret.list", "secret/production/*"))

    with pytest.raises(ForbiddenError):
        await library.read(by=lister)
    with pytest.raises(NotFoundError):
        await library.read("production/payments/absent", lister)


async def test_a_read_of_what_is_not_there_is_on_record(library: Library) -> None:
    app = await library.app()
    with pytest.raises(NotFoundError):
        await library.read(by=app)

    assert await library.accesses() == [("failed", f"secret/{STRIPE}", {"path": STRIPE, "reason": "not_found"})]


async def test_a_person_reveals_and_a_service_reads(library: Library) -> None:
    """The two are separate rights."""
    await library.put()
    made = await library.desk.access.principals.create(library.desk.admin, CreatePrincipal(kind="user", name="ann"))
    grant = CreateGrant(principal=made.id, actions=("secret.read",), resource="secret/production/*")
    await library.desk.access.grants.create(library.desk.admin, grant)
    issued = await library.desk.tokens.issue(library.desk.admin, made.id, IssueToken(name="ann"))
    assert issued.token is not None
    ann = Credentials(Secret(issued.token))

    with pytest.raises(ForbiddenError):
        await library.read(by=ann)
    grant = CreateGrant(principal=made.id, actions=("secret.reveal",), resource="secret/production/*")
    await library.desk.access.grants.create(library.desk.admin, grant)
    assert (await library.read(by=ann)).fields == {"token": "held"}
    assert [outcome for outcome, _, _ in await library.accesses("secret.reveal")] == ["denied", "allowed"]


async def test_a_token_that_is_not_valid_is_counted_and_gets_nothing(library: Library) -> None:
    await library.put()
    with pytest.raises(UnauthenticatedError):
        await library.read(by=Credentials(Secret("kt_mgmt_nothing"), ip="192.0.2.9"))

    assert len(library.desk.failures.seen) == 1
    assert await library.accesses() == []


async def test_reads_that_wait_together_share_a_commit_and_one_refusal_undoes_no_other(library: Library) -> None:
    await library.put()
    app = await library.app()
    _, stranger = await library.desk.hire("stranger", ("key.read", "key/*"))
    before = library.reader.meter.batches
    commits: list[int] = []
    library.desk.database.on_commit(commits.append)

    found = await asyncio.gather(
        *(library.read(by=stranger if number % 4 == 0 else app) for number in range(32)), return_exceptions=True
    )

    assert [isinstance(one, NotFoundError) for one in found] == [number % 4 == 0 for number in range(32)]
    assert library.reader.meter.batches - before <= 2
    assert len(commits) <= 2
    assert len(await library.accesses()) == 32


async def test_no_read_is_admitted_after_the_revocation_of_its_grant_returned(library: Library) -> None:
    """Rights are those of the transaction that puts the read on record, whatever was remembered."""
    await library.put()
    principal, app = await library.desk.hire("shop", ("secret.read", "secret/production/*"))
    page = await library.desk.access.grants.list(library.desk.admin, GrantFilter(principal=principal))
    admitted, refused_late = asyncio.Semaphore(0), asyncio.Semaphore(0)
    returned, admitted_late = asyncio.Event(), asyncio.Event()

    async def read_on() -> None:
        while True:
            late = returned.is_set()
            try:
                await library.read(by=app)
            except NotFoundError:
                if late:
                    refused_late.release()
            else:
                admitted.release()
                if late:
                    admitted_late.set()

    readers = [asyncio.create_task(read_on()) for _ in range(8)]
    for _ in range(50):
        await admitted.acquire()
    await library.desk.access.grants.revoke(library.desk.admin, page.items[0].id)
    returned.set()
    for _ in range(50):
        await refused_late.acquire()
    for reader in readers:
        reader.cancel()
    await asyncio.gather(*readers, return_exceptions=True)

    assert not admitted_late.is_set()


async def test_in_the_log_no_read_comes_after_the_revocation_of_its_grant(library: Library) -> None:
    """A read that shares a transaction with a revocation sees it."""
    await library.put()
    principal, app = await library.desk.hire("shop", ("secret.read", "secret/production/*"))
    page = await library.desk.access.grants.list(library.desk.admin, GrantFilter(principal=principal))
    await library.read(by=app)

    await asyncio.gather(
        library.desk.access.grants.revoke(library.desk.admin, page.items[0].id),
        *(library.read(by=app) for _ in range(8)),
        return_exceptions=True,
    )

    leaves = [msgspec.json.decode(body) for body in await library.desk.leaf_bytes()]
    revoked = next(place for place, leaf in enumerate(leaves) if leaf["action"] == "grant.revoke")
    after = [leaf["outcome"] for leaf in leaves[revoked:] if leaf["action"] == "secret.read"]
    assert "allowed" not in after


async def test_a_revoked_token_and_a_disabled_principal_read_nothing_though_they_are_remembered(
    library: Library,
) -> None:
    await library.put()
    first, one = await library.desk.hire("one", ("secret.read", "secret/production/*"))
    second, other = await library.desk.hire("other", ("secret.read", "secret/production/*"))
    await library.read(by=one)
    await library.read(by=other)
    tokens = await library.desk.tokens.list(library.desk.admin, first)
    await library.desk.tokens.revoke(library.desk.admin, first, tokens.items[0].id)
    await library.desk.access.principals.disable(library.desk.admin, second)

    for gone in (one, other):
        with pytest.raises(UnauthenticatedError):
            await library.read(by=gone)


async def test_a_value_that_was_altered_or_moved_does_not_open_and_the_failure_is_on_record(library: Library) -> None:
    await library.put("production/a/one", {"token": "first"})
    await library.put("production/a/two", {"token": "second"})
    one = (await library.read("production/a/one")).id
    two = (await library.read("production/a/two")).id

    def swap(transaction: Transaction) -> None:
        sealed = transaction.connection.execute(
            select(secret_version.c.sealed).where(secret_version.c.secret == one)
        ).scalar_one()
        transaction.connection.execute(
            update(secret_version).where(secret_version.c.secret == two).values(sealed=sealed)
        )

    await library.desk.database.write(swap)
    async with library.another_reader() as reader:
        with pytest.raises(IntegrityError):
            await reader.read(library.desk.admin, "production/a/two")
        assert (await reader.read(library.desk.admin, "production/a/one")).fields == {"token": "first"}
    assert [(outcome, detail.get("reason")) for outcome, _, detail in await library.accesses()][2:] == [
        ("failed", "integrity"),
        ("allowed", None),
    ]


async def test_another_workspace_sees_nothing(library: Library) -> None:
    await library.put()
    other = await library.desk.tenant("other")

    with pytest.raises(NotFoundError):
        await library.read(by=other)
    await library.vault.put(other, STRIPE, PutSecret(fields={"token": "theirs"}))
    assert (await library.read(by=other)).fields == {"token": "theirs"}
    assert (await library.read()).fields == {"token": "held"}


async def test_what_another_node_changed_is_seen(library: Library) -> None:
    """What one reader remembers is exact, whoever writes."""
    await library.put()
    async with library.another_reader() as reader:
        assert (await reader.read(library.desk.admin, STRIPE)).version == 1
        await library.put(fields={"token": "newer"})
        assert (await reader.read(library.desk.admin, STRIPE)).fields == {"token": "newer"}
        await library.vault.remove(library.desk.admin, STRIPE)
        with pytest.raises(NotFoundError):
            await reader.read(library.desk.admin, STRIPE)
        await library.put(fields={"token": "again"})
        assert (await reader.read(library.desk.admin, STRIPE)).fields == {"token": "again"}
