"""One-time handover: a wrap is opened once, by one holder of its token, or not at all."""

from __future__ import annotations

import asyncio
from binascii import crc32
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import pytest
from sqlalchemy import Connection, select, update

from keyturn.access.caller import Credentials
from keyturn.errors import ForbiddenError, GoneError, IntegrityError, KeyturnError, NotFoundError, TooLargeError
from keyturn.kernel import tokenformat
from keyturn.kernel.secret import Secret
from keyturn.storage.retention import WRAP_SECONDS, run_retention
from keyturn.storage.schema import wrap
from keyturn.vault.wrap_store import end_all
from keyturn.vault.wrapping import ALARM_SECONDS, Bearer
from keyturn.webhooks.rules import is_event
from keyturn.wire.access import UpdateWorkspace
from keyturn.wire.secrets import VALUE_BYTES_MAX
from keyturn.wire.wraps import BYTES_MAX, CreateWrap, ShareSecret
from tests.vault.room import STRIPE, Room, opened_room

DATA = {"password": "held", "nested": {"list": [1, None, "é"]}}
ELSEWHERE = Bearer(ip="198.51.100.9", request_id="req_elsewhere")


@pytest.fixture
async def room(migrated_database_url: str) -> AsyncIterator[Room]:
    """The test runs on both databases."""
    async with opened_room(migrated_database_url) as one:
        yield one


async def refused(running: Awaitable[object]) -> KeyturnError:
    """Return the error that a call ends in."""
    with pytest.raises(KeyturnError) as caught:
        await running
    return caught.value


async def wrapped(room: Room, *, ttl_seconds: int = 300, data: dict[str, Any] | None = None) -> Secret:
    """Wrap something; return the token."""
    made = await room.wraps.wrap(room.desk.admin, CreateWrap(data=data or DATA, ttl_seconds=ttl_seconds))
    assert made.token is not None
    return Secret(made.token)


async def rows(room: Room) -> list[Any]:
    """Return the rows of `wrap`."""

    def read(connection: Connection) -> list[Any]:
        return list(connection.execute(select(*wrap.c).order_by(wrap.c.expires_at)).all())

    return await room.desk.database.read(read)


async def test_a_wrap_is_opened_once(room: Room) -> None:
    token = await wrapped(room)
    info = await room.wraps.lookup(token)
    assert (info.creation_path, info.ttl_seconds, info.created_by) == (
        "api/v1/wraps",
        300,
        room.desk.founded.principal.id,
    )
    assert await room.wraps.lookup(token) == info
    opened = await room.wraps.unwrap(token, ELSEWHERE)
    assert (opened.id, opened.creation_path, opened.data) == (info.id, info.creation_path, DATA)
    for running in (room.wraps.unwrap(token), room.wraps.lookup(token), room.wraps.rewrap(token)):
        error = await refused(running)
        assert (type(error), error.code) == (GoneError, "wrap_used")


async def test_one_of_many_at_once_wins(room: Room) -> None:
    """At most once, on either database: the claim is the one statement that decides it."""
    token = await wrapped(room)
    ended = await asyncio.gather(*(room.wraps.unwrap(token) for _ in range(20)), return_exceptions=True)
    won = [one for one in ended if not isinstance(one, BaseException)]
    lost = [one for one in ended if isinstance(one, BaseException)]
    assert [one.data for one in won] == [DATA]
    assert {(type(one), getattr(one, "code", "")) for one in lost} == {(GoneError, "wrap_used")}


async def test_opening_leaves_nothing_behind(room: Room) -> None:
    """A backup taken later, or the row itself, has nothing that any token opens."""
    token = await wrapped(room)
    (before,) = await rows(room)
    assert b"held" not in before.sealed
    assert token.reveal().encode() not in before.sealed + before.digest
    await room.wraps.unwrap(token)
    (after,) = await rows(room)
    assert (after.sealed, after.state, after.used_at) == (None, "used", room.desk.clock.now())


async def test_what_was_wrapped_is_sealed_under_the_token_alone(room: Room) -> None:
    """Swapping what two rows hold opens neither, and the wraps can still be opened once they are put right."""
    one, other = await wrapped(room), await wrapped(room, data={"password": "other"})
    first, second = await rows(room)

    async def put(wrap_id: str, sealed: bytes) -> None:
        await room.desk.database.write(
            lambda t: t.connection.execute(update(wrap).where(wrap.c.id == wrap_id).values(sealed=sealed))
        )

    await put(first.id, second.sealed)
    await put(second.id, first.sealed)
    assert isinstance(await refused(room.wraps.unwrap(one)), IntegrityError)
    assert isinstance(await refused(room.wraps.unwrap(other)), IntegrityError)
    await put(first.id, first.sealed)
    await put(second.id, second.sealed)
    assert {(await room.wraps.unwrap(token)).data["password"] for token in (one, other)} == {"held", "other"}


# --- time ------------------------------------------------------------------------------------------------------------


async def test_a_wrap_ends(room: Room) -> None:
    token = await wrapped(room, ttl_seconds=60)
    room.desk.clock.advance(59)
    await room.wraps.lookup(token)
    room.desk.clock.advance(1)
    for running in (room.wraps.lookup(token), room.wraps.unwrap(token), room.wraps.rewrap(token)):
        error = await refused(running)
        assert (type(error), error.code) == (GoneError, "wrap_expired")
    assert await room.desk.leaves("system.alarm") == []


async def test_retention_empties_what_is_over_and_forgets_it_a_week_later(room: Room) -> None:
    over, living = await wrapped(room, ttl_seconds=60), await wrapped(room, ttl_seconds=7200)
    room.desk.clock.advance(61)
    assert (await run_retention(room.desk.database, "n1")).expired_wraps == 1
    assert [row.sealed is None for row in await rows(room)] == [True, False]
    assert (await refused(room.wraps.unwrap(over))).code == "wrap_expired"
    assert (await room.wraps.unwrap(living)).data == DATA
    room.desk.clock.advance(WRAP_SECONDS + 7200)
    done = await run_retention(room.desk.database, "n1")
    assert (done.expired_wraps, done.wraps) == (0, 2)
    assert (await refused(room.wraps.unwrap(over))).code == "wrap_unknown"


async def test_a_restore_without_the_record_of_what_was_opened_since_ends_every_wrap(room: Room) -> None:
    """What was opened after the backup would be opened a second time; another workspace's are not touched."""
    used, unused = await wrapped(room), await wrapped(room)
    await room.wraps.unwrap(used)
    tenant = await room.desk.tenant("acme")
    kept = (await room.wraps.wrap(tenant, CreateWrap(data=DATA))).token
    workspace = room.desk.founded.workspace.id
    assert (await room.desk.database.write(lambda t: end_all(t.connection, workspace))).value == 1
    assert [(await refused(room.wraps.unwrap(one))).code for one in (used, unused)] == ["wrap_used", "wrap_expired"]
    assert kept is not None
    assert (await room.wraps.unwrap(Secret(kept))).data == DATA
    assert [row.sealed for row in await rows(room)] == [None, None, None]


async def test_rewrapping_hands_over_under_a_new_token(room: Room) -> None:
    token = await wrapped(room, ttl_seconds=60)
    room.desk.clock.advance(30)
    made = await room.wraps.rewrap(token)
    assert (made.creation_path, made.ttl_seconds) == ("api/v1/wraps", 60)
    assert (await refused(room.wraps.unwrap(token))).code == "wrap_used"
    room.desk.clock.advance(45)
    assert made.token is not None
    assert (await room.wraps.unwrap(Secret(made.token))).data == DATA


# --- tokens ----------------------------------------------------------------------------------------------------------


async def test_a_wrong_token_answers_like_an_unknown_one_and_is_counted(room: Room) -> None:
    """Junk, the right id with another secret, another kind of token: one answer, no commit."""
    token = (await wrapped(room)).reveal()
    other = (await wrapped(room)).reveal()
    forged = _with_check(token[:20] + other[20:-6])
    absent = tokenformat.mint("kt", "wrap").key.reveal()
    foreign = tokenformat.mint("kt", "mgmt").key.reveal()
    before = len(await room.desk.leaf_bytes())
    answers = set()
    for presented in (forged, absent, foreign, "", "x" * 256, token[:-1], token + "\n", "kt_wrap_é"):
        for running in (
            room.wraps.lookup(Secret(presented), ELSEWHERE),
            room.wraps.unwrap(Secret(presented), ELSEWHERE),
            room.wraps.rewrap(Secret(presented), ELSEWHERE),
        ):
            error = await refused(running)
            answers.add((type(error), error.code, error.message, error.hint))
    assert len(answers) == 1
    assert next(iter(answers))[:2] == (NotFoundError, "wrap_unknown")
    assert [ip for ip, _ in room.desk.failures.seen] == [ELSEWHERE.ip] * 24
    assert len(await room.desk.leaf_bytes()) == before
    assert (await room.wraps.unwrap(Secret(token))).data == DATA


async def test_wraps_of_a_workspace_that_is_disabled_open_nothing(room: Room) -> None:
    tenant = await room.desk.tenant("acme")
    made = await room.wraps.wrap(tenant, CreateWrap(data=DATA))
    assert made.token is not None
    await room.desk.access.workspaces.update(room.desk.admin, "acme", UpdateWorkspace(state="disabled"))
    assert (await refused(room.wraps.unwrap(Secret(made.token)))).code == "wrap_unknown"
    await room.desk.access.workspaces.update(room.desk.admin, "acme", UpdateWorkspace(state="active"))
    assert (await room.wraps.unwrap(Secret(made.token))).data == DATA


# --- who wraps, and what is on record --------------------------------------------------------------------------------


async def test_wrapping_needs_the_right_to(room: Room) -> None:
    stranger = (await room.hire("sue", ("secret.read", "*")))[1]
    assert isinstance(await refused(room.wraps.wrap(stranger, CreateWrap(data=DATA))), ForbiddenError)
    maker = (await room.hire("max", ("wrap.create", "wrap/*")))[1]
    assert (await room.wraps.wrap(maker, CreateWrap(data=DATA))).token is not None
    # An answer that one gets anyway may be wrapped without it.
    assert (await room.wraps.wrap_answer(stranger, "auth/approle/login", DATA, 60)).token is not None


async def test_data_is_bounded(room: Room) -> None:
    big = {"x": "y" * BYTES_MAX}
    error = await refused(room.wraps.wrap(room.desk.admin, CreateWrap(data=big)))
    assert (type(error), error.field) == (TooLargeError, "data")


async def test_an_answer_that_holds_the_largest_secret_can_be_handed_over(room: Room) -> None:
    """What is told of a secret, around what it holds, is no reason to refuse it."""
    answer = {"data": {"data": {"x": "y" * VALUE_BYTES_MAX}, "metadata": {"version": 1}}}
    made = await room.wraps.wrap_answer(room.desk.admin, "production/data/large", answer, 60)
    assert (await room.wraps.unwrap(Secret(made.token or ""))).data == answer


async def test_a_wrap_is_made_once_per_key(room: Room) -> None:
    request = CreateWrap(data=DATA)
    first = await room.wraps.wrap(room.desk.admin, request, idempotency="one")
    assert await room.wraps.wrap(room.desk.admin, request, idempotency="one") == first
    room.desk.clock.advance(601)
    again = await room.wraps.wrap(room.desk.admin, request, idempotency="one")
    assert (again.id, again.token) == (first.id, None)


async def test_opening_is_on_record_and_a_second_try_is_an_alarm(room: Room) -> None:
    """Whoever finds it opened has an alarm that anybody can see; nothing of the token or the data is in it."""
    token = await wrapped(room)
    opened = await room.wraps.unwrap(token, ELSEWHERE)
    (leaf,) = await room.desk.leaves("system.unwrap")
    assert (leaf["outcome"], leaf["resource"], leaf["request"]["ip"]) == (
        "allowed",
        f"wrap/{opened.id}",
        ELSEWHERE.ip,
    )
    for _ in range(3):
        await refused(room.wraps.unwrap(token, ELSEWHERE))
    (alarm,) = await room.desk.leaves("system.alarm")
    assert (alarm["outcome"], alarm["detail"]["alarm"], alarm["resource"]) == (
        "failed",
        "wrap_used",
        f"wrap/{opened.id}",
    )
    room.desk.clock.advance(ALARM_SECONDS)
    await refused(room.wraps.unwrap(token, ELSEWHERE))
    assert len(await room.desk.leaves("system.alarm")) == 2
    assert is_event(alarm["action"], alarm["outcome"])
    log = b"".join(await room.desk.leaf_bytes()).decode()
    assert token.reveal() not in log
    assert token.reveal()[20:-6] not in log
    assert "held" not in log


async def test_nothing_of_a_wrap_is_in_a_repr(room: Room) -> None:
    made = await room.wraps.wrap(room.desk.admin, CreateWrap(data=DATA))
    assert made.token is not None
    opened = await room.wraps.unwrap(Secret(made.token))
    shown = repr([made, opened, CreateWrap(data=DATA)])
    assert "held" not in shown
    assert made.token not in shown


# --- sharing a secret ------------------------------------------------------------------------------------------------


async def test_sharing_a_secret_needs_both_rights(room: Room) -> None:
    reader = (await room.hire("rea", ("secret.read", f"secret/{STRIPE}")))[1]
    sharer = (await room.hire("sha", ("secret.share", f"secret/{STRIPE}")))[1]
    both = (await room.hire("bot", ("secret.read", f"secret/{STRIPE}"), ("secret.share", f"secret/{STRIPE}")))[1]
    assert isinstance(await refused(room.sharing.share(reader, STRIPE, ShareSecret())), ForbiddenError)
    assert isinstance(await refused(room.sharing.share(sharer, STRIPE, ShareSecret())), KeyturnError)
    made = await room.sharing.share(both, STRIPE, ShareSecret(ttl_seconds=60))
    assert (made.creation_path, made.ttl_seconds) == (f"api/v1/secret-share/{STRIPE}", 60)
    assert made.token is not None
    opened = await room.wraps.unwrap(Secret(made.token))
    assert opened.data == {"path": STRIPE, "version": 1, "fields": {"token": "held"}}
    (leaf,) = [one for one in await room.desk.leaves("secret.share") if one["outcome"] == "allowed"]
    assert (leaf["resource"], leaf["detail"]["wrap"]) == (f"secret/{STRIPE}", made.id)


async def test_sharing_is_no_way_around_a_guard(room: Room) -> None:
    person = (await room.hire("ana", ("secret.*", "secret/production/*"), kind="user"))[1]
    await room.guard()
    assert (await refused(room.sharing.share(person, STRIPE, ShareSecret()))).code == "approval_required"
    assert await rows(room) == []


async def test_who_may_not_know_of_a_secret_learns_nothing_by_sharing(room: Room) -> None:
    stranger: Credentials = (await room.hire("sue", ("secret.*", "secret/staging/*")))[1]
    await room.put()
    there = await refused(room.sharing.share(stranger, STRIPE, ShareSecret()))
    absent = await refused(room.sharing.share(stranger, f"{STRIPE}-x", ShareSecret()))
    assert type(there) is type(absent) is NotFoundError
    assert there.message.replace(STRIPE, "X") == absent.message.replace(f"{STRIPE}-x", "X")


def _with_check(unchecked: str) -> str:
    """Return the token with the check that belongs to it, as whoever knows the format would make it."""
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    number, check = crc32(unchecked.encode()), ""
    for _ in range(6):
        number, digit = divmod(number, 62)
        check = digits[digit] + check
    assert tokenformat.version_id_of(unchecked + check) is not None
    return unchecked + check
