"""What can be done to secrets and their versions, over real databases."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from keyturn.access.caller import Credentials
from keyturn.errors import (
    ConflictError,
    ForbiddenError,
    IdempotencyError,
    InputError,
    KeyturnError,
    NotFoundError,
    PreconditionError,
    TooLargeError,
)
from keyturn.wire.secrets import (
    VALUE_BYTES_MAX,
    Describe,
    PatchSecret,
    PromoteSecret,
    PutSecret,
    RollbackSecret,
    SelectVersions,
)
from tests.vault.safe import STRIPE, Safe

CURRENT = SelectVersions()


def some(*numbers: int) -> SelectVersions:
    return SelectVersions(versions=numbers)


# --- writing ---------------------------------------------------------------------------------------------------------


async def test_a_version_holds_what_was_put_and_gets_the_next_number(safe: Safe) -> None:
    first = await safe.put(fields={"key": "first", "nested": {"list": [1, 2.5, None, True]}})
    second = await safe.put(fields={"key": "second"})
    assert (first.version, second.version) == (1, 2)
    assert await safe.held(number=1) == {"key": "first", "nested": {"list": [1, 2.5, None, True]}}
    assert await safe.held() == {"key": "second"}
    assert await safe.states() == [(1, "previous"), (2, "current")]
    await safe.put()
    assert await safe.states() == [(1, "superseded"), (2, "previous"), (3, "current")]


async def test_check_and_set_writes_only_over_the_version_it_names(safe: Safe) -> None:
    with pytest.raises(ConflictError) as refused:
        await safe.put(cas=1)
    assert refused.value.code == "cas_mismatch"
    await safe.put(cas=0)
    with pytest.raises(ConflictError):
        await safe.put(cas=0)
    assert (await safe.put(cas=1)).version == 2
    await safe.vault.delete(safe.admin, STRIPE, CURRENT)
    with pytest.raises(ConflictError):
        await safe.put(cas=0)
    assert (await safe.put(cas=2)).version == 3


async def test_a_secret_that_requires_check_and_set_is_not_written_without(safe: Safe) -> None:
    await safe.put(describe=Describe(cas_required=True))
    for write in (
        safe.put(),
        safe.vault.patch(safe.admin, STRIPE, PatchSecret(fields={"a": 1})),
        safe.vault.rollback(safe.admin, STRIPE, RollbackSecret(version=1)),
    ):
        with pytest.raises(InputError) as refused:
            await write
        assert refused.value.code == "cas_required"
    assert (await safe.put(cas=1)).version == 2


async def test_of_concurrent_writes_with_one_check_exactly_one_wins(safe: Safe) -> None:
    await safe.put()
    writes = [safe.put(fields={"by": number}, cas=1) for number in range(12)]
    ended = await asyncio.gather(*writes, return_exceptions=True)
    won = [number for number, one in enumerate(ended) if not isinstance(one, BaseException)]
    assert len(won) == 1
    assert all(isinstance(one, ConflictError) for number, one in enumerate(ended) if number not in won)
    assert await safe.held() == {"by": won[0]}


async def test_concurrent_writes_are_numbered_without_a_gap(safe: Safe) -> None:
    written = await asyncio.gather(*(safe.put(fields={"by": number}) for number in range(20)))
    assert sorted(one.version or 0 for one in written) == list(range(1, 21))
    for number, one in enumerate(written):
        assert await safe.held(number=one.version) == {"by": number}
    assert [state for _, state in await safe.states()] == ["superseded"] * 18 + ["previous", "current"]


async def test_a_patch_merges_as_rfc_7396_says(safe: Safe) -> None:
    await safe.put(fields={"keep": 1, "drop": 2, "deep": {"a": 1, "b": 2}, "list": [1, 2]})
    written = await safe.vault.patch(
        safe.admin,
        STRIPE,
        PatchSecret(fields={"drop": None, "deep": {"b": None, "c": 3}, "list": [3], "new": {"x": None, "y": 1}}),
    )
    assert written.version == 2
    assert await safe.held() == {"keep": 1, "deep": {"a": 1, "c": 3}, "list": [3], "new": {"y": 1}}


async def test_a_patch_needs_a_current_version_that_can_be_read(safe: Safe) -> None:
    patch = PatchSecret(fields={"a": 1})
    with pytest.raises(NotFoundError):
        await safe.vault.patch(safe.admin, STRIPE, patch)
    await safe.put(pending=True)
    with pytest.raises(NotFoundError):
        await safe.vault.patch(safe.admin, STRIPE, patch)
    await safe.put()
    await safe.vault.delete(safe.admin, STRIPE, CURRENT)
    with pytest.raises(NotFoundError) as refused:
        await safe.vault.patch(safe.admin, STRIPE, patch)
    assert refused.value.code == "version_deleted"
    await safe.vault.destroy(safe.admin, STRIPE, some(1))
    with pytest.raises(NotFoundError) as refused:
        await safe.vault.patch(safe.admin, STRIPE, patch)
    assert refused.value.code == "version_destroyed"


async def test_a_rollback_writes_the_earlier_value_as_a_new_version(safe: Safe) -> None:
    await safe.put(fields={"key": "good"})
    await safe.put(fields={"key": "bad"})
    written = await safe.vault.rollback(safe.admin, STRIPE, RollbackSecret(version=1))
    assert written.version == 3
    assert await safe.held() == {"key": "good"}
    for version, code in ((9, "version_not_found"), (2, "version_deleted"), (1, "version_destroyed")):
        if code == "version_deleted":
            await safe.vault.delete(safe.admin, STRIPE, some(2))
        if code == "version_destroyed":
            await safe.vault.destroy(safe.admin, STRIPE, some(1))
        with pytest.raises(NotFoundError) as refused:
            await safe.vault.rollback(safe.admin, STRIPE, RollbackSecret(version=version))
        assert refused.value.code == code


async def test_a_pending_version_gets_its_number_on_promotion(safe: Safe) -> None:
    await safe.put(fields={"key": "old"})
    pending = await safe.put(fields={"key": "new"}, pending=True)
    assert (pending.version, pending.sequence, str(pending.state)) == (None, 2, "pending")
    assert await safe.held() == {"key": "old"}
    between = await safe.put(fields={"key": "between"})
    assert between.version == 2
    promoted = await safe.vault.promote(safe.admin, STRIPE, PromoteSecret())
    assert (promoted.version, promoted.sequence) == (3, 2)
    assert await safe.held() == {"key": "new"}
    assert await safe.states() == [(1, "superseded"), (3, "current"), (2, "previous")]
    again = await safe.vault.promote(safe.admin, STRIPE, PromoteSecret(sequence=2))
    assert again == promoted
    with pytest.raises(ConflictError) as refused:
        await safe.vault.promote(safe.admin, STRIPE, PromoteSecret(sequence=1))
    assert refused.value.code == "version_state"
    with pytest.raises(NotFoundError) as missing:
        await safe.vault.promote(safe.admin, STRIPE, PromoteSecret())
    assert missing.value.code == "version_not_found"


async def test_pending_versions_are_bounded_and_can_be_destroyed(safe: Safe) -> None:
    for _ in range(10):
        await safe.put(pending=True)
    with pytest.raises(ConflictError) as refused:
        await safe.put(pending=True)
    assert refused.value.code == "too_many_pending"
    await safe.vault.destroy(safe.admin, STRIPE, SelectVersions(sequences=(3,)))
    assert (await safe.put(pending=True)).sequence == 11
    with pytest.raises(NotFoundError):
        await safe.vault.promote(safe.admin, STRIPE, PromoteSecret(sequence=3))


async def test_versions_beyond_the_bound_are_destroyed_and_the_log_says_so(safe: Safe) -> None:
    await safe.put(describe=Describe(versions_max=2))
    await safe.put()
    await safe.put()
    found = await safe.show()
    assert (found.oldest_version, found.current_version) == (2, 3)
    assert [one.number for one in found.versions] == [3, 2]
    assert await safe.held(number=1) is None
    assert (await safe.desk.leaves("secret.put"))[-1]["detail"]["destroyed"] == [1]


async def test_a_write_that_is_sent_twice_is_done_once(safe: Safe) -> None:
    request = PutSecret(fields={"key": "once"})
    first = await safe.vault.put(safe.admin, STRIPE, request, idempotency="one")
    again = await safe.vault.put(safe.admin, STRIPE, request, idempotency="one")
    assert first == again
    with pytest.raises(IdempotencyError):
        await safe.vault.put(safe.admin, STRIPE, PutSecret(fields={"key": "two"}), idempotency="one")
    with pytest.raises(IdempotencyError):
        await safe.vault.patch(safe.admin, STRIPE, PatchSecret(fields={"key": "once"}), idempotency="one")
    assert (await safe.show()).current_version == 1


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"nan": float("nan")}, InputError),
        ({"inf": [float("-inf")]}, InputError),
        ({"half": "\ud800"}, InputError),
        ({"\udfff": 1}, InputError),
        ({"nul": "a\0b"}, InputError),
        ({"": 1}, InputError),
        ({"n" * 257: 1}, InputError),
        ({"bytes": b"raw"}, InputError),
        ({"key": {1: "a number as a name"}}, InputError),
        ({f"f{number}": 1 for number in range(513)}, InputError),
        ({"large": "x" * VALUE_BYTES_MAX}, TooLargeError),
    ],
)
async def test_what_nobody_could_read_back_is_refused(
    safe: Safe, fields: dict[str, Any], error: type[KeyturnError]
) -> None:
    with pytest.raises(error) as refused:
        await safe.vault.put(safe.admin, STRIPE, PutSecret(fields=fields))
    assert refused.value.field == "fields"
    with pytest.raises(NotFoundError):
        await safe.show()


async def test_a_value_nested_without_end_is_refused_and_not_walked_into(safe: Safe) -> None:
    deep: Any = "core"
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(InputError, match="nested deeper"):
        await safe.vault.put(safe.admin, STRIPE, PutSecret(fields={"deep": deep}))
    await safe.put(fields={"key": 1})
    with pytest.raises(InputError, match="nested deeper"):
        await safe.vault.patch(safe.admin, STRIPE, PatchSecret(fields={"deep": deep}))
    while isinstance(deep, list):  # taken apart by hand: the interpreter would do it by recursion
        deep = deep.pop()


async def test_the_largest_value_is_kept_whole(safe: Safe) -> None:
    text = "x" * (VALUE_BYTES_MAX - len('{"key":""}'))
    await safe.put(fields={"key": text})
    assert await safe.held() == {"key": text}


@pytest.mark.parametrize(
    "text",
    ["${secret:production/a/b}", "${secret:#key}", "${secret:production/a#}", "${secret:../a/b#c}", "x ${secret:prod"],
)
async def test_a_malformed_reference_is_refused_when_it_is_written(safe: Safe, text: str) -> None:
    with pytest.raises(InputError) as refused:
        await safe.put(fields={"url": {"in": [text]}})
    assert refused.value.field == "fields"
    assert text not in str(refused.value)


async def test_every_version_is_fingerprinted_where_it_is_written(safe: Safe) -> None:
    await safe.put(fields={"key": "a"})
    await safe.vault.patch(safe.admin, STRIPE, PatchSecret(fields={"more": "b"}))
    await safe.vault.rollback(safe.admin, STRIPE, RollbackSecret(version=1))
    assert safe.fingerprints.noted == [
        (STRIPE, 1, {"key": "a"}),
        (STRIPE, 2, {"key": "a", "more": "b"}),
        (STRIPE, 3, {"key": "a"}),
    ]


# --- removing --------------------------------------------------------------------------------------------------------


async def test_a_deletion_is_taken_back_and_both_may_be_repeated(safe: Safe) -> None:
    await safe.put()
    await safe.put()
    deleted = await safe.vault.delete(safe.admin, STRIPE, CURRENT)
    assert [one.deleted_at is not None for one in deleted.versions] == [True, False]
    assert await safe.vault.delete(safe.admin, STRIPE, CURRENT) == deleted
    undeleted = await safe.vault.undelete(safe.admin, STRIPE, CURRENT)
    assert all(one.deleted_at is None for one in undeleted.versions)
    assert await safe.vault.undelete(safe.admin, STRIPE, some(1, 2)) == undeleted
    both = await safe.vault.delete(safe.admin, STRIPE, some(1, 2))
    assert all(one.deleted_at is not None for one in both.versions)
    assert len(await safe.desk.leaves("secret.delete")) == 2
    assert len(await safe.desk.leaves("secret.undelete")) == 1


async def test_what_was_destroyed_is_gone_for_good(safe: Safe) -> None:
    await safe.put(fields={"ref": "${secret:production/a/b#c}"})
    await safe.put()
    gone = await safe.vault.destroy(safe.admin, STRIPE, some(1))
    assert str(gone.versions[1].state) == "destroyed"
    assert await safe.held(number=1) is None
    assert await safe.vault.destroy(safe.admin, STRIPE, some(1)) == gone
    with pytest.raises(NotFoundError) as refused:
        await safe.vault.undelete(safe.admin, STRIPE, some(1))
    assert refused.value.code == "version_destroyed"
    assert await safe.vault.undelete(safe.admin, STRIPE, some(1), missing_ok=True) == gone
    assert await safe.vault.delete(safe.admin, STRIPE, some(1)) == gone


async def test_nothing_is_destroyed_by_default_and_unknown_versions_are_said(safe: Safe) -> None:
    await safe.put()
    with pytest.raises(InputError):
        await safe.vault.destroy(safe.admin, STRIPE, CURRENT)
    for change in (safe.vault.delete, safe.vault.undelete, safe.vault.destroy):
        with pytest.raises(NotFoundError) as refused:
            await change(safe.admin, STRIPE, some(1, 7))
        assert refused.value.code == "version_not_found"
        await change(safe.admin, STRIPE, some(7), missing_ok=True)
    assert await safe.held(number=1) == {"key": "value"}


async def test_a_removed_path_is_free_and_counts_anew(safe: Safe) -> None:
    await safe.put(fields={"key": "old"})
    await safe.put(pending=True)
    for _ in range(3):  # within one instant of the clock
        await safe.vault.remove(safe.admin, STRIPE)
        with pytest.raises(NotFoundError):
            await safe.show()
        assert (await safe.put(cas=0)).version == 1
    assert [leaf["detail"]["count"] for leaf in await safe.desk.leaves("secret.remove")] == [2, 1, 1]


async def test_versions_are_deleted_when_their_time_is_over(safe: Safe) -> None:
    written = await safe.put(describe=Describe(delete_after_seconds=60))
    assert written.delete_at is not None
    safe.desk.clock.advance(59)
    assert (await safe.show()).versions[0].deleted_at is None
    safe.desk.clock.advance(1)
    assert (await safe.show()).versions[0].deleted_at == written.delete_at
    with pytest.raises(NotFoundError):
        await safe.vault.patch(safe.admin, STRIPE, PatchSecret(fields={"a": 1}))
    back = await safe.vault.undelete(safe.admin, STRIPE, CURRENT)
    assert (back.versions[0].deleted_at, back.versions[0].delete_at) == (None, None)


# --- what is told ----------------------------------------------------------------------------------------------------


async def test_a_description_changes_what_it_names_under_its_revision(safe: Safe) -> None:
    await safe.put(describe=Describe(owner="payments team", purpose="charges", metadata={"tier": "1"}))
    changed = await safe.vault.describe(safe.admin, STRIPE, Describe(owner="platform team"), if_match=1)
    assert (changed.owner, changed.purpose, changed.metadata, changed.revision) == (
        "platform team",
        "charges",
        {"tier": "1"},
        2,
    )
    with pytest.raises(PreconditionError):
        await safe.vault.describe(safe.admin, STRIPE, Describe(owner="x"), if_match=1)
    same = await safe.vault.describe(safe.admin, STRIPE, Describe(owner="platform team"))
    assert same == changed
    with pytest.raises(NotFoundError):
        await safe.vault.describe(safe.admin, "production/none", Describe(owner="x"))
    made = await safe.vault.describe(safe.admin, "production/none", Describe(owner="x"), create=True)
    assert (made.current_version, made.versions) == (0, ())
    assert (await safe.put("production/none", cas=0)).version == 1


async def test_who_may_only_put_describes_a_new_secret_and_no_other(safe: Safe) -> None:
    """`cas_required` and the like cannot be taken away with the right to write."""
    _, writer = await safe.desk.hire("writer", ("secret.put", "secret/production/*"))
    described = PutSecret(fields={"a": 1}, describe=Describe(cas_required=True))
    await safe.vault.put(writer, STRIPE, described)
    with pytest.raises(NotFoundError):
        await safe.vault.put(writer, STRIPE, PutSecret(fields={"a": 1}, cas=1, describe=Describe(cas_required=False)))
    assert (await safe.vault.put(writer, STRIPE, PutSecret(fields={"a": 1}, cas=1))).version == 2


async def test_a_list_goes_by_path_in_pages_and_shows_what_the_caller_may_list(safe: Safe) -> None:
    paths = [f"production/shop/s{number:02}" for number in range(7)] + ["production/shop-b/a", "staging/shop/a"]
    for path in paths:
        await safe.put(path)
    _, lister = await safe.desk.hire("lister", ("secret.list", "secret/production/shop/*"))
    seen: list[str] = []
    cursor = None
    while True:
        page = await safe.vault.list(lister, cursor=cursor, limit=3)
        seen += [one.path for one in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen == paths[:7]
    assert [one.path for one in (await safe.vault.list(safe.admin, prefix="production/shop-")).items] == [paths[7]]
    assert [one.path for one in (await safe.vault.list(safe.admin, limit=200)).items] == sorted(paths)
    for wrong in ("x\0", "../", "sys/", "Production/x"):
        with pytest.raises(InputError):
            await safe.vault.list(safe.admin, prefix=wrong)
    with pytest.raises(InputError):
        await safe.vault.list(safe.admin, cursor="%%")


async def test_names_are_those_directly_below(safe: Safe) -> None:
    for path in ("production/a", "production/a/b", "production/a-c", "production/d/e/f", "staging/g"):
        await safe.put(path)

    async def names(folder: str, by: Credentials | None = None) -> tuple[str, ...]:
        return (await safe.vault.names(by or safe.admin, folder)).names

    assert await names("") == ("production/", "staging/")
    assert await names("production") == await names("production/") == ("a", "a-c", "a/", "d/")
    assert await names("production/d/") == ("e/",)
    assert await names("production/none") == ()
    _, lister = await safe.desk.hire("lister", ("secret.list", "secret/production/d/*"))
    assert await names("", lister) == ("production/",)
    assert await names("production", lister) == ("d/",)
    assert await names("production/a", lister) == ()
    with pytest.raises(InputError):
        await names("production/../x")


async def test_names_of_a_large_folder_are_complete(safe: Safe) -> None:
    """More paths than one look fetches, some of them in folders that are passed over at once."""
    for number in range(120):
        await safe.put(f"production/crowd/s{number:03}")
    for number in range(120):
        await safe.put(f"production/x{number:03}")
        await safe.put(f"production/x{number:03}/y")
    expected = {"crowd/"} | {f"x{n:03}" for n in range(120)} | {f"x{n:03}/" for n in range(120)}
    assert set((await safe.vault.names(safe.admin, "production")).names) == expected


# --- rights ----------------------------------------------------------------------------------------------------------


CHANGES: dict[str, Any] = {
    "put": PutSecret(fields={"a": 1}),
    "patch": PatchSecret(fields={"a": 1}),
    "rollback": RollbackSecret(version=1),
    "promote": PromoteSecret(),
    "delete": CURRENT,
    "undelete": CURRENT,
    "destroy": some(1),
    "describe": Describe(owner="x"),
    "show": None,
    "remove": None,
}


@pytest.mark.parametrize("operation", CHANGES)
async def test_what_may_not_be_known_answers_as_what_is_not_there(safe: Safe, operation: str) -> None:
    """Neither the error nor the record tells a stranger that there is a secret."""
    await safe.put("production/shop/there")
    _, stranger = await safe.desk.hire("stranger", ("secret.*", "secret/staging/*"))
    told = []
    for name in ("there", "gone"):
        given = () if CHANGES[operation] is None else (CHANGES[operation],)
        with pytest.raises(NotFoundError) as refused:
            await getattr(safe.vault, operation)(stranger, f"production/shop/{name}", *given)
        error = refused.value
        told.append((error.code, error.field, error.hint, error.message.replace(name, "…")))
    assert told[0] == told[1]
    denied = [leaf for leaf in await _leaves(safe) if leaf["outcome"] == "denied"]
    assert [leaf["resource"].rpartition("/")[2] for leaf in denied] == ["there", "gone"]


@pytest.mark.parametrize("operation", [one for one in CHANGES if one != "show"])
async def test_who_may_list_is_told_what_is_forbidden(safe: Safe, operation: str) -> None:
    await safe.put()
    _, reader = await safe.desk.hire("reader", ("secret.list", "secret/*"))
    given = () if CHANGES[operation] is None else (CHANGES[operation],)
    with pytest.raises(ForbiddenError):
        await getattr(safe.vault, operation)(reader, STRIPE, *given)


async def test_another_workspace_has_paths_of_its_own(safe: Safe) -> None:
    await safe.put(fields={"key": "ours"})
    tenant = await safe.desk.tenant("acme")
    with pytest.raises(NotFoundError):
        await safe.vault.show(tenant, STRIPE)
    assert (await safe.vault.put(tenant, STRIPE, PutSecret(fields={"key": "theirs"}, cas=0))).version == 1
    assert await safe.held() == {"key": "ours"}
    assert len((await safe.vault.list(tenant)).items) == 1


@pytest.mark.parametrize("operation", [one for one in CHANGES if one != "show"])
async def test_a_guarded_action_waits_for_its_approval(safe: Safe, operation: str) -> None:
    await safe.put()
    await safe.put(pending=True)
    action = {"patch": "put", "describe": "update"}.get(operation, operation)
    safe.guards.held.add((f"secret.{action}", STRIPE))
    given = () if CHANGES[operation] is None else (CHANGES[operation],)
    before = await safe.show()
    with pytest.raises(ForbiddenError) as refused:
        await getattr(safe.vault, operation)(safe.admin, STRIPE, *given)
    assert refused.value.code == "approval_required"
    assert await safe.show() == before


async def test_telling_of_a_secret_while_writing_it_is_no_way_around_the_guard_of_telling(safe: Safe) -> None:
    """A guard on `secret.update` covers `describe` of a write as well, by which versions could be dropped."""
    await safe.put()
    safe.guards.held.add(("secret.update", STRIPE))
    before = await safe.show()
    with pytest.raises(ForbiddenError) as refused:
        await safe.put(describe=Describe(versions_max=1))
    assert refused.value.code == "approval_required"
    assert await safe.show() == before
    assert (await safe.put()).version == 2


async def test_a_secret_without_a_version_is_not_made_where_writing_is_guarded(safe: Safe) -> None:
    """A guard on `secret.put` covers the making of a secret by telling of it."""
    safe.guards.held.add(("secret.put", STRIPE))
    with pytest.raises(ForbiddenError) as refused:
        await safe.vault.describe(safe.admin, STRIPE, Describe(owner="payments"), create=True)
    assert refused.value.code == "approval_required"
    with pytest.raises(NotFoundError):
        await safe.show()


# --- the record ------------------------------------------------------------------------------------------------------


async def test_every_operation_leaves_a_leaf_with_names_and_never_a_value(safe: Safe) -> None:
    value = "".join(("sk_live", "_", "4eC39HqLyjWDarjtT1zdp7dc"))
    await safe.put(fields={"api_key": value})
    await safe.vault.patch(safe.admin, STRIPE, PatchSecret(fields={"other": value}))
    await safe.vault.rollback(safe.admin, STRIPE, RollbackSecret(version=1))
    with pytest.raises(InputError) as refused:
        await safe.put(fields={"api_key": value, "bad": "${secret:" + value})
    assert value not in str(refused.value) + repr(refused.value) + repr(vars(refused.value))
    log = b"".join(await safe.desk.leaf_bytes())
    assert value.encode() not in log
    (put, patch) = await safe.desk.leaves("secret.put")
    assert put["resource"] == "secret/production/payments/stripe"
    assert put["detail"]["fields"] == ["api_key"]
    assert patch["detail"] | {"size_bytes": 0} == {
        "path": STRIPE,
        "version": 2,
        "sequence": 2,
        "state": "current",
        "fields": ["api_key", "other"],
        "fields_count": 2,
        "size_bytes": 0,
        "patched": 1,
    }
    assert (await safe.desk.leaves("secret.rollback"))[0]["detail"]["from_version"] == 1
    secret_id = (await safe.show()).id
    assert (await safe.desk.news())[-1] == ("secret", secret_id)


def test_requests_and_answers_show_no_value_when_they_are_printed() -> None:
    for request in (PutSecret(fields={"key": "hidden"}), PatchSecret(fields={"key": "hidden"})):
        assert "hidden" not in repr(request)


async def _leaves(safe: Safe) -> list[dict[str, Any]]:

    return [msgspec.json.decode(body) for body in await safe.desk.leaf_bytes()]
