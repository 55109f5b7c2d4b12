"""The routes over the real door: success, malformed, unauthenticated, forbidden; and the log verified through them."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import httpx
import pytest

from keyturn.access.audit_keys import AuditKeyService
from keyturn.access.caller import Credentials, Resource
from keyturn.audit.builder import Builder
from keyturn.audit.service import AuditService
from keyturn.audit.verification import verify_export, verify_server
from keyturn.http.app import create_app
from keyturn.http.audit import ROUTES
from keyturn.http.edge import EdgeSettings
from tests.access.house import House, opened_house
from tests.audit.log import new_keyring

READS = [
    "/audit",
    "/audit/leaves/evt_0000000000000000000000",
    "/audit/export",
    "/audit/checkpoint",
    "/audit/checkpoints",
    "/audit/proofs/inclusion?leaf=evt_0000000000000000000000",
    "/audit/proofs/consistency?from=0",
    "/audit/public-key",
]


@dataclass
class Api:
    """The audit routes of a house."""

    client: httpx.AsyncClient
    house: House
    builder: Builder

    async def get(self, path: str, by: Credentials | None = None) -> httpx.Response:
        token = (by or self.house.admin).token.reveal()
        return await self.client.get(f"/api/v1{path}", headers={"Authorization": f"Bearer {token}"})

    async def post(self, path: str, body: Any, by: Credentials | None = None) -> httpx.Response:
        token = (by or self.house.admin).token.reveal()
        return await self.client.post(f"/api/v1{path}", json=body, headers={"Authorization": f"Bearer {token}"})


@pytest.fixture
async def api(migrated_database_url: str) -> AsyncIterator[Api]:
    """Routes over the real door, on both databases."""
    async with opened_house(migrated_database_url) as house:
        keyring = new_keyring()
        services = {
            "audit": AuditService(house.door, keyring, Resource, build_wait_seconds=0),
            "audit_keys": AuditKeyService(house.door, keyring, wait_seconds=0),
            "draining": asyncio.Event(),
        }
        app = create_app(services, EdgeSettings(), protected=ROUTES)
        transport = httpx.ASGITransport(app=cast("Any", app))
        async with httpx.AsyncClient(transport=transport, base_url="http://keyturn.test") as client:
            yield Api(client, house, Builder(house.database, keyring, "nod_test"))


async def test_log_is_listed_exported_and_verified_over_http(api: Api) -> None:
    bot, theirs = await api.house.hire("bot", ("audit.read", "audit/log"))
    assert (await api.get("/audit/export", theirs)).status_code == 403
    await api.builder.build_once()

    listed = (await api.get("/audit?limit=2")).json()
    assert [item["outcome"] for item in listed["items"]] == ["denied", "allowed"]
    assert (listed["items"][0]["action"], listed["items"][0]["actor"]["id"]) == ("audit.export", bot)
    following = (await api.get(f"/audit?limit=2&cursor={listed['next_cursor']}", theirs)).json()
    assert {item["id"] for item in following["items"]}.isdisjoint(item["id"] for item in listed["items"])
    leaf = (await api.get(f"/audit/leaves/{listed['items'][0]['id']}")).json()
    assert leaf["hash"] is not None
    proof = (await api.get(f"/audit/proofs/inclusion?leaf={leaf['id']}")).json()
    assert proof["hash"] == leaf["hash"]

    answer = await api.get("/audit/export")
    assert answer.headers["content-type"].startswith("application/jsonl")
    key = (await api.get("/audit/public-key")).json()["verifier_key"]
    report = verify_export(answer.text.splitlines(), key)
    assert (report.ok, report.size) == (True, proof["size"])


async def test_verification_of_a_server_reads_only_what_came_after_the_checkpoint(api: Api) -> None:
    await api.house.hire("one")
    await api.builder.build_once()
    kept = (await api.get("/audit/checkpoint")).json()
    await api.house.hire("two")
    await api.builder.build_once()
    fetched: dict[str, list[str]] = {}
    for path in ("/audit/public-key", "/audit/checkpoint"):
        fetched[path] = (await api.get(path)).text.splitlines()
    fetched["/audit/export"] = (await api.get(f"/audit/export?since={kept['size']}")).text.splitlines()

    def fetch(path: str, parameters: Mapping[str, object]) -> Iterator[str]:
        assert parameters == ({"since": kept["size"]} if path == "/audit/export" else {})
        return iter(fetched[path])

    report = verify_server(fetch, since=kept["note"])
    assert (report.findings, report.first) == ((), kept["size"])
    assert report.size > kept["size"]


async def test_signing_key_is_rotated_and_retired_over_http(api: Api) -> None:
    _, nobody = await api.house.hire("nobody")
    await api.builder.build_once()
    before = (await api.get("/audit/public-key")).json()
    assert (await api.post("/audit/rotate-key", {}, nobody)).status_code == 403
    assert (await api.post("/audit/rotate-key", {"key": 1})).status_code == 400

    assert (await api.post("/audit/rotate-key", {})).status_code == 201
    assert (await api.post("/audit/retire-keys", {})).json()["code"] == "audit_key_in_use"
    await api.builder.build_once()
    retired = await api.post("/audit/retire-keys", {})

    assert retired.status_code == 200
    assert [one["state"] for one in retired.json()["keys"]] == ["current", "retired"]
    for key in (before, retired.json()):
        await api.builder.build_once()
        exported = (await api.get("/audit/export")).text.splitlines()
        assert verify_export(exported, key["verifier_key"]).ok


async def test_content_is_erased_over_http(api: Api) -> None:
    await api.house.hire("bot")
    await api.builder.build_once()
    (newest,) = (await api.get("/audit?limit=1")).json()["items"]

    answer = await api.post("/audit/erase", {"ids": [newest["id"]], "reason": "asked for by the person"})

    assert (answer.status_code, answer.json()) == (200, {"erased": [newest["id"]], "already": []})
    assert (await api.get(f"/audit/leaves/{newest['id']}")).json()["erased"] is True


@pytest.mark.parametrize("path", READS)
async def test_nothing_is_told_without_a_token_or_a_grant(api: Api, path: str) -> None:
    _, nobody = await api.house.hire("nobody")

    assert (await api.client.get(f"/api/v1{path}")).status_code == 401
    assert (await api.get(path, nobody)).status_code == 403


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/audit?since=yesterday", "since"),
        ("/audit?action=a..b", "action"),
        ("/audit?outcome=perhaps", "outcome"),
        ("/audit?actor=%00", "actor"),
        ("/audit?cursor=zzz", "cursor"),
        ("/audit/export?since=-1", "since"),
        ("/audit/proofs/inclusion?leaf=evt_0000000000000000000000&size=0", "size"),
        ("/audit/proofs/consistency?from=7", "from"),
        ("/audit/proofs/consistency?from=0&to=9007199254740992", "to"),
    ],
)
async def test_malformed_questions_name_the_parameter(api: Api, path: str, field: str) -> None:
    answer = await api.get(path)

    assert (answer.status_code, answer.json()["field"]) == (400, field), answer.text


@pytest.mark.parametrize(
    "body",
    [
        {"ids": [], "reason": "x"},
        {"ids": ["evt_0000000000000000000000\n"], "reason": "x"},
        {"ids": ["evt_0000000000000000000000"]},
        {"ids": ["evt_0000000000000000000000"], "reason": "a\u0001b"},
        {"ids": ["evt_0000000000000000000000"], "reason": "x", "more": 1},
    ],
)
async def test_malformed_erasures_are_refused(api: Api, body: dict[str, object]) -> None:
    assert (await api.post("/audit/erase", body)).status_code == 400
