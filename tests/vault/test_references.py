"""References between secrets, resolved when a version is read."""

from collections.abc import AsyncIterator

import pytest

from keyturn.errors import ConflictError, NotFoundError, PreconditionError
from keyturn.vault.resolving import Resolver
from keyturn.wire.secrets import PatchSecret, PutSecret, SelectVersions
from tests.vault.library import Library, opened_library

MAIN = "production/shop/main"
DATABASE = "production/database/main"


@pytest.fixture
async def library(migrated_database_url: str) -> AsyncIterator[Library]:
    """Secrets to read; the test runs on both databases."""
    async with opened_library(migrated_database_url) as one:
        yield one


async def test_a_reference_gives_the_current_value_of_its_target(library: Library) -> None:
    await library.put(DATABASE, {"password": "first", "port": 5432, "options": {"tls": True}})
    await library.put(
        MAIN,
        {
            "url": "postgres://shop:${secret:production/database/main#password}@db:${secret:production/database/main#port}",
            "options": "${secret:production/database/main#options}",
            "literal": "$${secret:production/database/main#password}",
        },
    )

    assert (await library.read(MAIN)).fields == {
        "url": "postgres://shop:first@db:5432",
        "options": {"tls": True},
        "literal": "${secret:production/database/main#password}",
    }
    await library.put(DATABASE, {"password": "second", "port": 5432, "options": {}})
    assert (await library.read(MAIN)).fields["url"] == "postgres://shop:second@db:5432"


async def test_without_resolving_the_text_comes_as_it_was_written(library: Library) -> None:
    await library.put(MAIN, {"password": "${secret:production/database/main#password}"})

    assert (await library.read(MAIN, resolve=False)).fields == {
        "password": "${secret:production/database/main#password}"
    }


async def test_each_secret_that_a_value_was_taken_from_has_its_own_leaf_and_reader(library: Library) -> None:
    await library.put(DATABASE, {"password": "held-in-the-database"})
    await library.put(MAIN, {"password": "${secret:production/database/main#password}"})
    app = await library.app()
    await library.read(MAIN, app)

    assert [(outcome, detail) for outcome, _, detail in await library.accesses()] == [
        ("allowed", {"path": DATABASE, "version": 1, "sequence": 1, "referred_by": MAIN}),
        ("allowed", {"path": MAIN, "version": 1, "sequence": 1, "references": [DATABASE]}),
    ]
    assert len((await library.reader.readers(library.desk.admin, DATABASE)).items) == 1


async def test_a_reference_to_what_the_caller_may_not_read_gives_nothing_and_is_on_record(library: Library) -> None:
    """The right to read a secret is no right to what it refers to, and what is denied answers as what is not there."""
    await library.put(DATABASE, {"password": "held-in-the-database"})
    await library.put(MAIN, {"password": "${secret:production/database/main#password}"})
    await library.put("production/shop/other", {"password": "${secret:production/database/absent#password}"})
    app = await library.app("shop", "production/shop/*")

    messages = []
    for path, target in ((MAIN, "main"), ("production/shop/other", "absent")):
        with pytest.raises(ConflictError) as broken:
            await library.read(path, app)
        assert broken.value.code == "broken_reference"
        messages.append(str(broken.value).replace(target, "…"))

    assert messages[0] == messages[1]
    outcomes = [(outcome, detail.get("reason")) for outcome, _, detail in await library.accesses()]
    assert outcomes == [("denied", None), ("failed", "broken_reference")] * 2
    assert (await library.reader.readers(library.desk.admin, MAIN)).items == ()


async def test_references_in_a_circle_are_refused(library: Library) -> None:
    await library.put("production/a/one", {"x": "${secret:production/a/two#x}"})
    await library.put("production/a/two", {"x": "${secret:production/a/one#x}", "y": "plain"})
    with pytest.raises(ConflictError, match="refers to itself"):
        await library.read("production/a/one")

    await library.put("production/a/one", {"x": "${secret:production/a/two#y}"})
    assert (await library.read("production/a/one")).fields == {"x": "plain"}


async def test_references_reach_eight_steps_and_no_further(library: Library) -> None:
    await library.put("production/chain/s0", {"x": "the end"})
    for number in range(1, 10):
        await library.put(f"production/chain/s{number}", {"x": f"${{secret:production/chain/s{number - 1}#x}}"})

    assert (await library.read("production/chain/s8")).fields == {"x": "the end"}
    with pytest.raises(ConflictError, match="more than 8"):
        await library.read("production/chain/s9")


async def test_a_deleted_target_breaks_the_reference(library: Library) -> None:
    await library.put(DATABASE, {"password": "held-in-the-database"})
    await library.put(MAIN, {"password": "${secret:production/database/main#password}"})
    await library.vault.delete(library.desk.admin, DATABASE, SelectVersions())

    with pytest.raises(ConflictError):
        await library.read(MAIN)


def test_references_cannot_grow_without_end() -> None:
    """Each level takes the one below in ten times: what is taken in is bounded, however little was written."""
    held = {f"production/a/s{n}": {"x": f"${{secret:production/a/s{n - 1}#x}}" * 10} for n in range(1, 8)}
    held["production/a/s0"] = {"x": "x" * 100}
    resolver = Resolver(lambda path: held[path])

    with pytest.raises(ConflictError, match="more than 4194304 bytes"):
        resolver.resolve(held["production/a/s7"])


async def test_a_new_reference_needs_the_right_to_read_its_target(library: Library) -> None:
    """Else a writer could have the next reader send a value anywhere: `https://elsewhere/?${secret:…}`."""
    await library.put(DATABASE, {"password": "held-in-the-database"})
    await library.put(MAIN, {"url": "plain"})
    _, writer = await library.desk.hire("writer", ("secret.put", "secret/production/*"))
    fields = {"url": "https://elsewhere.example/?${secret:production/database/main#password}"}

    with pytest.raises(NotFoundError):
        await library.vault.put(writer, MAIN, PutSecret(fields=fields))

    assert (await library.read(MAIN)).fields == {"url": "plain"}
    await library.put(MAIN, fields)
    await library.vault.put(writer, MAIN, PutSecret(fields={**fields, "more": "1"}))


async def test_a_write_of_another_revision_is_refused(library: Library) -> None:
    """`If-Match` counts for writes of versions as for everything else that has a revision."""
    first = await library.put(MAIN, {"value": "first"})
    await library.put(MAIN, {"value": "second"})

    with pytest.raises(PreconditionError):
        await library.vault.put(library.desk.admin, MAIN, PutSecret(fields={"value": "third"}), if_match=first.revision)
    with pytest.raises(PreconditionError):
        await library.vault.patch(
            library.desk.admin, MAIN, PatchSecret(fields={"value": "third"}), if_match=first.revision
        )

    assert (await library.read(MAIN)).fields == {"value": "second"}
