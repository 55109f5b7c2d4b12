"""Equal values at several paths are found, and never shown."""

from collections.abc import AsyncIterator

import msgspec
import pytest
from sqlalchemy import Connection, select

from keyturn.storage.schema import secret_fingerprint
from keyturn.wire.actions import Action
from keyturn.wire.approvals import CreateGuard
from keyturn.wire.secrets import PutSecret, SelectVersions
from tests.vault.library import Library, opened_library

SHARED = "-".join(("shared", "by", "two"))


@pytest.fixture
async def library(migrated_database_url: str) -> AsyncIterator[Library]:
    """Secrets to read; the test runs on both databases."""
    async with opened_library(migrated_database_url) as one:
        yield one


async def test_a_value_at_two_paths_is_reported_without_showing_it(library: Library) -> None:
    await library.put("production/a/one", {"token": SHARED, "other": "only-once"})
    await library.put("production/b/two", {"nested": {"list": [f"{SHARED}\n"]}})
    await library.put("production/c/three", {"token": "another-value"})

    report = await library.reader.reuse(library.desk.admin)

    assert [[(place.path, place.field) for place in group.places] for group in report.items] == [
        [("production/a/one", "token"), ("production/b/two", "nested/list/0")]
    ]
    assert SHARED.encode() not in msgspec.json.encode(report)


async def test_a_group_is_named_by_neither_value_nor_fingerprint(library: Library) -> None:
    await library.put("production/a/one", {"token": SHARED})
    await library.put("production/b/two", {"token": SHARED})

    def prints(connection: Connection) -> list[bytes]:
        return list(connection.execute(select(secret_fingerprint.c.fingerprint)).scalars())

    stored = await library.desk.database.read(prints)
    (group,) = (await library.reader.reuse(library.desk.admin)).items
    again = (await library.reader.reuse(library.desk.admin)).items[0]
    assert group.group == again.group
    assert all(one.hex() not in group.group and group.group not in one.hex() for one in stored)


async def test_short_values_and_versions_of_one_secret_are_no_reuse(library: Library) -> None:
    await library.put("production/a/one", {"token": "short", "kept": SHARED})
    await library.put("production/a/one", {"token": "short", "kept": SHARED})
    await library.put("production/b/two", {"token": "short"})

    assert (await library.reader.reuse(library.desk.admin)).items == ()


async def test_what_the_caller_may_not_list_is_neither_named_nor_counted(library: Library) -> None:
    for path in ("production/a/one", "production/b/two", "production/b/three"):
        await library.put(path, {"token": SHARED})
    _, of_a = await library.desk.hire("a", ("secret.list", "secret/production/a/*"))
    _, of_b = await library.desk.hire("b", ("secret.list", "secret/production/b/*"))

    assert (await library.reader.reuse(of_a)).items == ()
    (group,) = (await library.reader.reuse(of_b)).items
    assert [place.path for place in group.places] == ["production/b/three", "production/b/two"]


async def test_destroyed_versions_and_other_workspaces_hold_nothing(library: Library) -> None:
    await library.put("production/a/one", {"token": SHARED})
    await library.put("production/b/two", {"token": SHARED})
    await library.vault.destroy(library.desk.admin, "production/b/two", SelectVersions(versions=(1,)))
    assert (await library.reader.reuse(library.desk.admin)).items == ()

    tenant = await library.desk.tenant("other")
    assert (await library.reader.reuse(tenant)).items == ()


async def test_a_prefix_narrows_the_report(library: Library) -> None:
    for path in ("production/a/one", "production/b/two", "staging/b/two"):
        await library.put(path, {"token": SHARED})

    (group,) = (await library.reader.reuse(library.desk.admin, prefix="production")).items
    assert [place.path for place in group.places] == ["production/a/one", "production/b/two"]


async def test_whoever_writes_cannot_test_a_guess_at_what_they_may_only_list(library: Library) -> None:
    """Neither a group, nor its name, nor a group that is gone tells a guess that is right from one that is wrong."""
    for path in ("production/a/one", "production/b/two"):
        await library.put(path, {"token": SHARED})
    _, guesser = await library.desk.hire(
        "guesser", ("secret.list", "secret/*"), ("secret.put", "secret/staging/*"), ("secret.read", "secret/staging/*")
    )
    before = (await library.reader.reuse(guesser)).items
    assert [[place.path for place in group.places] for group in before] == [["production/a/one", "production/b/two"]]
    for number, guess in enumerate((SHARED, "another-guess")):
        paths = [f"staging/{number}/one", f"staging/{number}/two"]
        for path in paths:
            await library.vault.put(guesser, path, PutSecret(fields={"token": guess}))
        told = (await library.reader.reuse(guesser)).items
        assert told[:1] == before
        (own,) = [group for group in told if group.places[0].path == paths[0]]
        assert [place.path for place in own.places] == paths
        assert own.group != before[0].group


async def test_a_guard_on_reading_is_one_on_comparing(library: Library) -> None:
    for path in ("production/a/one", "staging/b/two"):
        await library.put(path, {"token": SHARED})
    _, reader = await library.desk.hire("reader", ("secret.list", "secret/*"), ("secret.read", "secret/*"))
    assert len((await library.reader.reuse(reader)).items) == 1
    await library.approvals.create_guard(
        library.desk.admin, CreateGuard(pattern="production/*", actions=(Action.SECRET_READ,))
    )
    assert (await library.reader.reuse(reader)).items == ()
