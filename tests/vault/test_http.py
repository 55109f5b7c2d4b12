"""The routes that write, list and describe secrets, over the real application: names, statuses, bounds, rights."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from keyturn.access.caller import Credentials
from keyturn.http import secrets as routes
from keyturn.http.app import create_app
from keyturn.http.edge import EdgeSettings
from keyturn.wire.secrets import VALUE_BYTES_MAX
from tests.vault.safe import STRIPE, Safe

API = "/api/v1"


@dataclass
class Edge:
    """A client of the application, and the safe behind it."""

    safe: Safe
    client: httpx.AsyncClient

    async def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        by: Credentials | None = None,
        content: bytes | None = None,
        **headers: str,
    ) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if content is not None:
            named["Content-Type"] = "application/json"
        return await self.client.request(
            method,
            API + path,
            json=body,
            content=content,
            headers={"Authorization": f"Bearer {(by or self.safe.admin).token.reveal()}", **named},
        )

    async def put(self, fields: dict[str, Any], path: str = STRIPE, **given: Any) -> httpx.Response:
        return await self.send("PUT", f"/secrets/{path}", {"fields": fields, **given})


@pytest.fixture
async def edge(safe: Safe) -> AsyncIterator[Edge]:
    app: Any = create_app({"vault": safe.vault}, EdgeSettings(), protected=list(routes.ROUTES))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://keyturn") as client:
        yield Edge(safe, client)


async def test_the_life_of_a_secret(edge: Edge) -> None:
    written = await edge.put({"key": "one"}, cas=0, describe={"owner": "payments team"})
    assert (written.status_code, written.headers["etag"], written.json()["version"]) == (200, '"1"', 1)
    assert (await edge.put({"key": "two"}, cas=0)).json()["code"] == "cas_mismatch"
    patched = await edge.send("PATCH", f"/secrets/{STRIPE}", {"fields": {"more": 1}, "cas": 1})
    assert patched.json()["version"] == 2
    assert await edge.safe.held() == {"key": "one", "more": 1}
    pending = (await edge.put({"key": "next"}, pending=True)).json()
    assert (pending["version"], pending["state"]) == (None, "pending")
    promoted = await edge.send("POST", f"/secret-promote/{STRIPE}")
    assert (promoted.status_code, promoted.json()["version"]) == (200, 3)
    assert (await edge.send("POST", f"/secret-rollback/{STRIPE}", {"version": 1})).json()["version"] == 4
    assert (await edge.send("POST", f"/secret-delete/{STRIPE}")).json()["versions"][0]["deleted_at"]
    assert not (await edge.send("POST", f"/secret-undelete/{STRIPE}", {})).json()["versions"][0]["deleted_at"]
    destroyed = (await edge.send("POST", f"/secret-destroy/{STRIPE}", {"versions": [1, 2]})).json()
    assert [one["state"] for one in destroyed["versions"]] == ["current", "previous", "destroyed", "destroyed"]
    shown = await edge.send("GET", f"/secret-metadata/{STRIPE}")
    assert shown.json() == destroyed
    described = await edge.send(
        "PATCH", f"/secret-metadata/{STRIPE}", {"provider": "a bank"}, If_Match=shown.headers["etag"]
    )
    assert (described.json()["owner"], described.json()["provider"]) == ("payments team", "a bank")
    stale = await edge.send("PATCH", f"/secret-metadata/{STRIPE}", {"owner": ""}, If_Match=shown.headers["etag"])
    assert stale.status_code == 412
    assert [one["path"] for one in (await edge.send("GET", "/secrets")).json()["items"]] == [STRIPE]
    assert (await edge.send("GET", "/secret-names?folder=production/payments")).json() == {"names": ["stripe"]}
    assert (await edge.send("POST", f"/secret-remove/{STRIPE}")).json() == {"path": STRIPE}
    assert (await edge.send("GET", f"/secret-metadata/{STRIPE}")).status_code == 404


async def test_a_write_that_is_sent_twice_is_done_once(edge: Edge) -> None:
    body = {"fields": {"key": "one"}}
    first = await edge.send("PUT", f"/secrets/{STRIPE}", body, Idempotency_Key="once")
    again = await edge.send("PUT", f"/secrets/{STRIPE}", body, Idempotency_Key="once")
    assert first.json() == again.json()
    other = await edge.send("PUT", f"/secrets/{STRIPE}", {"fields": {"key": "two"}}, Idempotency_Key="once")
    assert (other.status_code, "two" in other.text) == (422, False)


async def test_a_value_of_one_mebibyte_is_taken_and_a_larger_one_refused(edge: Edge) -> None:
    text = "x" * (VALUE_BYTES_MAX - len('{"key":""}'))
    assert (await edge.put({"key": text})).status_code == 200
    assert await edge.safe.held() == {"key": text}
    refused = await edge.put({"key": text + "x"})
    assert (refused.status_code, refused.json()["code"], refused.json()["field"]) == (413, "too_large", "fields")


@pytest.mark.parametrize("depth", [40, 900, 5_000, 100_000])
@pytest.mark.parametrize("core", [b'"x"', b'"\\u0000"'])
async def test_json_without_end_is_a_clear_error(edge: Edge, depth: int, core: bytes) -> None:
    for opening, closing in ((b"[", b"]"), (b'{"a":', b"}")):
        content = b'{"fields":{"deep":' + opening * depth + core + closing * depth + b"}}"
        refused = await edge.send("PUT", f"/secrets/{STRIPE}", content=content)
        assert refused.status_code == 400
        assert refused.json()["code"] == "invalid_input"


async def test_of_a_name_that_stands_twice_the_later_counts(edge: Edge) -> None:
    await edge.send("PUT", f"/secrets/{STRIPE}", content=b'{"fields":{"a":1,"a":2}}')
    assert await edge.safe.held() == {"a": 2}


@pytest.mark.parametrize(
    "content",
    [
        b'{"fields":{"a":NaN}}',
        b'{"fields":{"a":1e999}}',
        b'{"fields":{"a":"\\ud800"}}',
        b'{"fields":{"a":"\xff"}}',
        b'{"fields":{"a":"\\u0000"}}',
        b'{"fields":{"":1}}',
        b'{"fields":[1]}',
        b'{"fields":{"a":1},"more":2}',
        b'{"fields":{"a":1},"cas":-1}',
        b"{}",
        b"",
    ],
)
async def test_a_body_that_is_none_is_a_clear_error(edge: Edge, content: bytes) -> None:
    refused = await edge.send("PUT", f"/secrets/{STRIPE}", content=content)
    assert (refused.status_code, refused.headers["content-type"]) == (400, "application/problem+json")


WRONG = [
    "production",
    "production/",
    "production//x",
    "/production/x",
    "production/x/",
    "production/%2e%2e/x",
    "production/..%2fx",
    "production/x%00",
    "production/x%20y",
    "production/x%5cy",
    "production/%ef%bc%8e%ef%bc%8e/x",
    "production/stripe%e2%80%8b",
    "production/%d1%81tripe",
    "production/x%0a",
    "production/x%2500",
    "Production/x",
    "sys/x",
    "auth/x",
    "secret/x",
    "production/" + "a/" * 16 + "x",
    "production/" + "a" * 400,
    "production/" + "." * 200 + "a",
    "production/x*",
    "production/~x",
]


@pytest.mark.parametrize("route", ["PUT /secrets", "GET /secret-metadata", "POST /secret-delete"])
async def test_a_path_is_taken_as_it_was_written_or_refused(edge: Edge, route: str) -> None:
    """Nothing is resolved, decoded twice or made to look like another path; look-alikes are refused by their code."""
    await edge.put({"a": 1}, "production/x")
    method, _, at = route.partition(" ")
    body = {"fields": {"a": 1}} if method == "PUT" else None
    wrong = []
    for path in WRONG:
        answer = await edge.send(method, f"{at}/{path}", body)
        held = [one.path for one in (await edge.safe.vault.list(edge.safe.admin)).items]
        revision = (await edge.safe.show("production/x")).revision
        if answer.status_code not in (400, 404) or held != ["production/x"] or revision != 1:
            wrong.append(f"{path}: {answer.status_code} {answer.text}, then {held} at revision {revision}")
    assert not wrong, "\n".join(wrong)


async def test_a_stranger_gets_the_same_answer_whether_or_not_there_is_a_secret(edge: Edge) -> None:
    """Status, headers and body of the refusal tell nothing."""
    await edge.put({"a": 1}, "production/shop/there")
    _, stranger = await edge.safe.desk.hire("stranger", ("secret.*", "secret/staging/*"))
    calls: list[tuple[str, str, Any]] = [
        ("PUT", "secrets", {"fields": {"a": 1}}),
        ("PATCH", "secrets", {"fields": {"a": 1}}),
        ("GET", "secret-metadata", None),
        ("PATCH", "secret-metadata", {"owner": "x"}),
        ("POST", "secret-delete", {}),
        ("POST", "secret-undelete", {}),
        ("POST", "secret-destroy", {"versions": [1]}),
        ("POST", "secret-rollback", {"version": 1}),
        ("POST", "secret-promote", {}),
        ("POST", "secret-remove", {}),
    ]
    for method, route, body in calls:
        told = []
        for name in ("there", "other"):
            answer = await edge.send(method, f"/{route}/production/shop/{name}", body, by=stranger)
            problem = answer.json() | {"instance": ""}
            told.append((answer.status_code, sorted(answer.headers), str(problem).replace(name, "…")))
        assert told[0] == told[1]
        assert told[0][0] == 404
    assert (await edge.send("GET", "/secrets?prefix=production/", by=stranger)).json()["items"] == []
    assert (await edge.send("GET", "/secret-names?folder=production/shop", by=stranger)).json() == {"names": []}


async def test_no_refusal_repeats_a_value(edge: Edge) -> None:
    """A body that is refused holds a secret all the same."""
    value = "".join(("sk_live", "_", "51H8xyzzyQ2"))
    wrong: list[Any] = [
        {"fields": {"key": value}, "cas": value},
        {"fields": value},
        {"fields": {"key": value, "bad": "${secret:" + value + "}"}},
        {"fields": {"key": value}, "cas": 7},
        {"fields": {"key": [value + "\0"]}},
        {"fields": {"key": value}, "describe": {"owner": 5}},
    ]
    for body in wrong:
        answer = await edge.send("PUT", f"/secrets/{STRIPE}", body)
        assert answer.status_code in (400, 409)
        assert value not in answer.text + str(answer.headers)
