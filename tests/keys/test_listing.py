from typing import Any

import msgspec
import pytest
from sqlalchemy import insert

from keyturn.errors import ConflictError, InputError, NotFoundError
from keyturn.kernel.clock import rfc3339
from keyturn.storage.schema import last_used
from keyturn.storage.transaction import Transaction
from keyturn.wire.access import UpdateWorkspace
from keyturn.wire.keys import IssueKeys, KeyFilter, RevokeKey, UpdateKey
from tests.keys.desk import Desk, wanted


async def found(desk: Desk, **filters: Any) -> list[str]:
    """Return the purposes of the keys that a filter leaves."""
    page = await desk.keys.list(desk.admin, msgspec.convert(filters, type=KeyFilter))
    return [key.purpose for key in page.items]


async def test_every_filter_leaves_the_keys_that_meet_it(desk: Desk) -> None:
    now = desk.clock.now()
    await desk.keyspace("orders")
    await desk.keyspace("other", environment="staging")
    await desk.key(purpose="a", owner="ann", tags=["x", "y"], name="Nightly job", expires_at=rfc3339(now + 100))
    desk.clock.advance(1)
    b = await desk.key(purpose="b", owner="bob", tags=["y"], name="nightly")
    desk.clock.advance(1)
    await desk.key("other", purpose="c", owner="ann")
    await desk.keys.disable(desk.admin, b.id)
    assert await found(desk) == ["a", "b", "c"]
    assert await found(desk, keyspace="other") == ["c"]
    assert await found(desk, keyspace="unheard-of") == []
    assert await found(desk, owner="ann") == ["a", "c"]
    assert await found(desk, state="disabled") == ["b"]
    assert await found(desk, environment="staging") == ["c"]
    assert await found(desk, tag="y") == ["a", "b"]
    assert await found(desk, tag="y", owner="bob") == ["b"]
    assert await found(desk, name="Night") == ["a"]
    assert await found(desk, name="%") == []
    assert await found(desk, expiring_before=now + 101) == ["a"]
    assert await found(desk, expiring_before=now + 100) == []


async def test_unused_since_takes_in_the_never_used_but_not_the_new(desk: Desk) -> None:
    await desk.keyspace()
    used = await desk.key(purpose="used")
    desk.clock.advance(1)
    await desk.key(purpose="idle")
    desk.clock.advance(1000)
    await desk.key(purpose="new")
    at = desk.clock.now() - 100

    def use(transaction: Transaction) -> None:
        transaction.connection.execute(
            insert(last_used).values(
                version=used.version_id,
                caller="c",
                key=used.id,
                workspace=desk.founded.workspace.id,
                first_at=at,
                at=at,
                count=1,
            )
        )

    await desk.database.write(use)
    assert await found(desk, unused_since=at) == ["idle"]
    assert await found(desk, unused_since=at + 1) == ["used", "idle"]
    listed = await desk.keys.list(desk.admin)
    assert [key.last_used_at for key in listed.items] == [rfc3339(at), None, None]


async def test_pages_hold_every_key_once_though_keys_are_added_meanwhile(desk: Desk) -> None:
    await desk.keyspace()
    await desk.keys.issue_bulk(desk.admin, IssueKeys(keys=tuple(wanted(purpose=f"p{number}") for number in range(25))))
    seen: list[str] = []
    cursor = None
    while True:
        page = await desk.keys.list(desk.admin, cursor=cursor, limit=10)
        seen.extend(key.id for key in page.items)
        desk.clock.advance(1)
        if len(seen) < 20:
            await desk.key(purpose="late")
        if (cursor := page.next_cursor) is None:
            break
    assert len(seen) == len(set(seen)) == 26
    assert seen == sorted(seen)


async def test_a_list_leaves_out_what_the_caller_may_not_read_without_a_trace(desk: Desk) -> None:
    await desk.keyspace("orders")
    await desk.keyspace("secret")
    own = await desk.key("orders")
    for _ in range(5):
        await desk.key("secret")
    _, reader = await desk.hire("reader", ("key.read", "key/orders/*"))
    page = await desk.keys.list(reader, limit=1)
    assert [key.id for key in page.items] == [own.id]
    assert page.next_cursor is None


@pytest.mark.parametrize("field", ["keyspace", "owner", "environment", "tag", "name"])
async def test_a_filter_that_is_no_text_is_refused(desk: Desk, field: str) -> None:
    for text in ("\0", "a\nb", "\ud800", "x" * 1000):
        with pytest.raises(InputError) as caught:
            await desk.keys.list(desk.admin, msgspec.convert({field: text}, type=KeyFilter))
        assert caught.value.field == field


async def test_a_bulk_is_issued_whole_or_not_at_all(desk: Desk) -> None:
    await desk.keyspace()
    issued = await desk.keys.issue_bulk(
        desk.admin, IssueKeys(keys=tuple(wanted(purpose=f"p{number}") for number in range(100)))
    )
    assert [one.purpose for one in issued.items] == [f"p{number}" for number in range(100)]
    assert len({one.key for one in issued.items}) == 100
    assert await desk.verdict(issued.items[42].key) == "VALID"
    assert len(await desk.leaves("key.issue")) == 100
    with pytest.raises(InputError) as caught:
        await desk.keys.issue_bulk(desk.admin, IssueKeys(keys=(wanted(), wanted(scopes=["a b"]))))
    assert caught.value.field == "keys[1].scopes[0]"
    with pytest.raises(NotFoundError):
        await desk.keys.issue_bulk(desk.admin, IssueKeys(keys=(wanted(), wanted(keyspace="unheard-of"))))
    assert len(await desk.leaves("key.issue")) == 100


async def test_caps_of_owner_and_workspace_hold_for_one_and_for_many(desk: Desk) -> None:
    await desk.keyspace()
    await desk.access.workspaces.update(desk.admin, "default", UpdateWorkspace(keys_max=4, keys_per_owner_max=2))
    first = await desk.key(owner="ann")
    await desk.key(owner="ann")
    with pytest.raises(ConflictError) as caught:
        await desk.key(owner="ann")
    assert caught.value.code == "cap_reached"
    with pytest.raises(ConflictError):
        await desk.keys.issue_bulk(desk.admin, IssueKeys(keys=tuple(wanted(owner=o) for o in ("b", "b", "c"))))
    await desk.key(owner="bob")
    cat = await desk.key(owner="cat")
    with pytest.raises(ConflictError):
        await desk.keys.update(desk.admin, cat.id, UpdateKey(owner="ann"))
    await desk.keys.revoke(desk.admin, first.id, RevokeKey())
    await desk.keys.update(desk.admin, cat.id, UpdateKey(owner="ann"))
