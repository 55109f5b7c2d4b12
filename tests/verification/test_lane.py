import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from keyturn.http.verify_lane import BODY_BYTES_MAX, VerifyLane
from keyturn.wire.policy import LimitRule
from tests.verification.world import Issued, World


@dataclass
class Answer:
    """What the lane sent."""

    status: int
    headers: dict[bytes, bytes]
    body: Any


class Caller:
    """Calls the lane as the server does."""

    def __init__(self, world: World, issued: Issued) -> None:
        self.world = world
        self.issued = issued
        self.draining = asyncio.Event()
        self.seen: list[str] = []
        self.lane = VerifyLane(
            world.service,
            draining=self.draining,
            observe=lambda code, _seconds: self.seen.append(code),
            body_seconds=0.2,
        )

    async def __call__(
        self,
        body: bytes | dict[str, Any] | None = None,
        *,
        headers: Sequence[tuple[bytes, bytes]] | None = None,
        parts: Sequence[bytes] | None = None,
        stall: bool = False,
    ) -> Answer:
        raw = json.dumps(body or {"key": self.issued.key}).encode() if not isinstance(body, bytes) else body
        left = [
            {"type": "http.request", "body": part, "more_body": True}
            for part in (parts if parts is not None else [raw])
        ]
        if headers is None:
            headers = [*self.headers(), (b"content-length", str(len(raw)).encode())]
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/api/v1/verify",
            "headers": headers,
            "client": ("192.0.2.9", "4711"),
            "query_string": b"",
        }
        sent: list[Any] = []

        async def receive() -> Any:
            if left:
                return left.pop(0)
            if stall:
                await asyncio.Event().wait()
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        await asyncio.create_task(self.lane(scope, receive, send))
        start, end = sent
        sent_headers = dict(start["headers"])
        assert sent_headers[b"content-length"] == str(len(end["body"])).encode()
        return Answer(start["status"], sent_headers, json.loads(end["body"]))

    def headers(self, token: str | None = None) -> list[tuple[bytes, bytes]]:
        bearer = self.world.credentials.token.reveal() if token is None else token
        return [(b"content-type", b"application/json"), (b"authorization", f"Bearer {bearer}".encode())]


@pytest.fixture
async def caller(tmp_path: Path) -> AsyncIterator[Caller]:
    """A lane over a node that knows one key."""
    world = await World.open(f"sqlite:///{tmp_path / 'keyturn.db'}", tmp_path)
    issued = await world.issue(await world.create_keyspace(), scopes=("orders:read",))
    await world.follow()
    yield Caller(world, issued)
    await world.close()


async def test_every_verdict_is_answered_with_200(caller: Caller) -> None:
    answer = await caller()
    assert (answer.status, answer.body["code"]) == (200, "VALID")
    answer = await caller({"key": "junk"})
    assert (answer.status, answer.body) == (200, {"valid": False, "code": "NOT_FOUND"})
    answer = await caller({"key": caller.issued.key, "scopes": "orders:write"})
    assert (answer.status, answer.body["code"]) == (200, "INSUFFICIENT_PERMISSIONS")
    assert caller.seen == ["VALID", "NOT_FOUND", "INSUFFICIENT_PERMISSIONS"]


async def test_the_same_question_gets_the_same_answer_warm_and_cold(caller: Caller) -> None:
    first = await caller()
    for _ in range(3):
        assert (await caller()).body == first.body


async def test_a_changed_key_is_not_answered_with_an_old_encoding(caller: Caller) -> None:
    """Answers are kept encoded; a change of the key must end that at once."""
    assert (await caller()).body["valid"]
    await caller.world.set_key_state(caller.issued, "revoked")
    await caller.world.follow()
    answer = await caller()
    assert (answer.body["valid"], answer.body["code"]) == (False, "REVOKED")
    await caller.world.set_key_state(caller.issued, "active")
    await caller.world.follow()
    assert (await caller()).body["valid"]


async def test_nothing_decided_is_answered_with_503(caller: Caller) -> None:
    await caller()
    caller.world.go_stale()
    caller.world.take_database_away()
    answer = await caller()
    assert (answer.status, answer.body) == (503, {"valid": False, "code": "UNAVAILABLE"})


async def test_no_answer_may_be_stored(caller: Caller) -> None:
    for answer in (await caller(), await caller(b"{")):
        assert answer.headers[b"cache-control"] == b"no-store"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", None),
        (b"{", None),
        (b"[]", None),
        (b"null", None),
        (b'"key"', None),
        (b"\xff\xfe", None),
        (b"{}", "key"),
        (b'{"key": 5}', "key"),
        (b'{"key": null}', "key"),
        (b'{"key": "a", "unknown": 1}', "unknown"),
        (b'{"key": "a", "explain": "yes"}', "explain"),
        (b'{"key": "a", "ip": 5}', "ip"),
        (b'{"key": "a", "method": "' + b"G" * 40 + b'"}', "method"),
        (b'{"key": "a\\u0000"}', "key"),
        (b'{"key": "\xff"}', None),
        (b'{"key": "a", "scopes": "x AND"}', "scopes"),
        (b"[" * 5000, None),
    ],
)
async def test_a_body_that_is_not_understood_is_a_problem_that_names_the_field(
    caller: Caller, body: bytes, field: str | None
) -> None:
    answer = await caller(body)
    assert answer.status == 400
    assert answer.headers[b"content-type"] == b"application/problem+json"
    assert answer.body.get("field") == field
    assert answer.body["code"] == "invalid_input"


@pytest.mark.parametrize("content_type", [b"text/plain", b"", b"application/x-www-form-urlencoded"])
async def test_only_json_is_read(caller: Caller, content_type: bytes) -> None:
    headers = [(b"content-type", content_type), *caller.headers()[1:]]
    assert (await caller(headers=headers)).status == 415
    assert (await caller(headers=caller.headers()[1:])).status == 415


async def test_json_may_say_its_charset(caller: Caller) -> None:
    headers = [(b"content-type", b"application/json; charset=utf-8"), *caller.headers()[1:]]
    assert (await caller(headers=headers)).status == 200


async def test_a_call_without_a_valid_token_is_unauthenticated(caller: Caller) -> None:
    token = caller.headers()[1]
    for presented in ([], [(b"authorization", b"Basic abc")], [(b"authorization", b"Bearer nope")], [token, token]):
        answer = await caller(headers=[caller.headers()[0], *presented])
        assert answer.status == 401
        assert answer.headers[b"www-authenticate"].startswith(b"Bearer")
        assert "valid" not in answer.body


async def test_the_bearer_scheme_may_be_written_in_any_case(caller: Caller) -> None:
    token = caller.world.credentials.token.reveal_bytes()
    for scheme in (b"bearer ", b"BEARER   "):
        headers = [caller.headers()[0], (b"authorization", scheme + token)]
        assert (await caller(headers=headers)).body["valid"]


async def test_a_body_that_says_it_is_too_large_is_refused_unread(caller: Caller) -> None:
    headers = [*caller.headers(), (b"content-length", str(BODY_BYTES_MAX + 1).encode())]
    answer = await caller(headers=headers, stall=True, parts=[])
    assert answer.status == 413
    assert answer.headers[b"connection"] == b"close"


async def test_a_body_that_turns_out_too_large_is_refused(caller: Caller) -> None:
    parts = [b" " * 40_000] * 3
    for length in ([], [(b"content-length", b"100")], [(b"content-length", b"many")]):
        answer = await caller(headers=[*caller.headers(), *length], parts=parts)
        assert answer.status == 413


async def test_a_body_may_come_in_pieces(caller: Caller) -> None:
    raw = json.dumps({"key": caller.issued.key}).encode()
    parts = [raw[:10], b"", raw[10:]]
    assert (await caller(headers=caller.headers(), parts=parts)).body["valid"]
    length = (b"content-length", str(len(raw)).encode())
    assert (await caller(headers=[*caller.headers(), length], parts=parts, stall=True)).body["valid"]


async def test_a_body_that_never_ends_is_given_up(caller: Caller) -> None:
    """A client that stalls must not hold a request for ever, nor keep the server from stopping."""
    answer = await caller(headers=caller.headers(), parts=[b"{"], stall=True)
    assert (answer.status, answer.body["code"]) == (400, "body_timeout")
    assert (await caller()).body["valid"]


async def test_a_lane_that_drains_asks_for_the_connection_to_be_closed(caller: Caller) -> None:
    assert b"connection" not in (await caller()).headers
    caller.draining.set()
    assert (await caller()).headers[b"connection"] == b"close"


async def test_a_problem_never_repeats_the_key(caller: Caller) -> None:
    """A key that was sent in the wrong place must not come back, nor reach a log of answers."""
    key = caller.issued.key
    for body in (f'{{"{key}": 1}}', f'{{"key": "a", "{key}": 1}}', f'{{"key": "a", "ip": ["{key}"]}}', f'"{key}"'):
        assert key not in json.dumps((await caller(body.encode())).body)


async def test_how_limits_stand_is_told_in_http_fields_too(world: World) -> None:
    rules = (LimitRule("minute", 1, 60), LimitRule("hour", 9, 3600, mode="shadow"))
    issued = await world.issue(await world.create_keyspace(), limits=rules)
    free = await world.issue(await world.create_keyspace("free"))
    await world.follow()
    call = Caller(world, issued)
    first, second = await call(), await call()
    assert (first.body["code"], second.body["code"]) == ("VALID", "RATE_LIMITED")
    assert [first.headers[name] for name in (b"ratelimit-policy", b"ratelimit")] == [
        b'"minute";q=1;w=60',
        b'"minute";r=0;t=60',
    ]
    assert b"retry-after" not in first.headers
    assert int(second.headers[b"retry-after"]) == pytest.approx(60, abs=1)
    assert second.status == 200
    plain = await call({"key": free.key})
    assert plain.body["valid"]
    assert b"ratelimit" not in plain.headers


@pytest.mark.parametrize(
    "asked",
    [
        {"cost": -1},
        {"cost": "1"},
        {"limits": [{"name": "nope"}]},
        {"limits": [{"name": "x", "limit": 1}]},
        {"limits": [{"name": "x", "limit": 0, "window_seconds": 1}]},
        {"quotas": [{"name": "nope"}]},
        {"quotas": [{"cost": 1}]},
    ],
)
async def test_what_is_to_be_charged_has_to_make_sense(world: World, asked: dict[str, Any]) -> None:
    issued = await world.issue(await world.create_keyspace())
    await world.follow()
    answer = await Caller(world, issued)({"key": issued.key, **asked})
    assert answer.status == 400
    assert world.sink.used == []
