"""What a server does about keys that somebody outside has found, and about decoys; over HTTP, on a real server."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keyturn.kernel.tokenformat import mint
from keyturn.testing.server import RunningServer
from keyturn.testing.waiting import eventually

pytestmark = pytest.mark.slow
API = "/api/v1"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with RunningServer.start(tmp_path_factory.mktemp("outside") / "data") as running:
        yield running


@pytest.fixture
def admin(server: RunningServer) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {server.admin_token}"}
    with httpx.Client(base_url=server.url, headers=headers, timeout=120) as client:
        yield client


@pytest.fixture
def anybody(server: RunningServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=120) as client:
        yield client


@pytest.fixture(scope="module")
def signer() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@pytest.fixture(scope="module")
def keyspace(server: RunningServer) -> str:
    headers = {"Authorization": f"Bearer {server.admin_token}"}
    body = {"name": "orders", "prefix": "acme", "environment": "production"}
    made = httpx.post(f"{server.url}{API}/keyspaces", headers=headers, json=body, timeout=120)
    assert made.status_code == 201, made.text
    return "orders"


@pytest.fixture(scope="module")
def intake(server: RunningServer, signer: ec.EllipticCurvePrivateKey) -> str:
    pem = signer.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    headers = {"Authorization": f"Bearer {server.admin_token}"}
    body = {"name": "partner", "keys": [{"key_identifier": "one", "key": pem}]}
    made = httpx.post(f"{server.url}{API}/leak-intakes", headers=headers, json=body, timeout=120)
    assert made.status_code == 201, made.text
    return str(made.json()["path"])


def issue(admin: httpx.Client, keyspace: str) -> dict[str, Any]:
    body = {"keyspace": keyspace, "owner": "ann@example.com", "purpose": "tests"}
    made = admin.post(f"{API}/keys", json=body)
    assert made.status_code == 201, made.text
    issued: dict[str, Any] = made.json()
    return issued


def signed(signer: ec.EllipticCurvePrivateKey, body: bytes) -> dict[str, str]:
    signature = base64.b64encode(signer.sign(body, ec.ECDSA(SHA256()))).decode()
    return {
        "Github-Public-Key-Identifier": "one",
        "Github-Public-Key-Signature": signature,
        "Content-Type": "application/json",
    }


def new_token(admin: httpx.Client, principal: str) -> str:
    made = admin.post(f"{API}/principals/{principal}/tokens", json={"name": "tests"})
    assert made.status_code == 201, made.text
    return str(made.json()["token"])


def code_of(admin: httpx.Client, key: str) -> str:
    return str(admin.post(f"{API}/verify", json={"key": key}).json()["code"])


# --- partners --------------------------------------------------------------------------------------------------------


def test_a_signed_report_of_a_key_becomes_a_finding_that_names_its_owner(
    admin: httpx.Client, anybody: httpx.Client, keyspace: str, intake: str, signer: ec.EllipticCurvePrivateKey
) -> None:
    issued = issue(admin, keyspace)
    other = mint("other", "live").key.reveal()
    tokens = [
        {"token": issued["key"], "type": "acme_key", "url": "https://git.example.com/a/b", "source": "content"},
        {"token": other, "type": "acme_key", "url": "https://git.example.com/a/c"},
    ]
    body = json.dumps(tokens).encode()
    answered = anybody.post(intake, content=body, headers=signed(signer, body))
    assert answered.status_code == 200, answered.text
    assert [one["label"] for one in answered.json()] == ["true_positive", "false_positive"]
    assert issued["key"] not in answered.text
    found = admin.get(f"{API}/findings", params={"key": issued["id"]}).json()["items"]
    assert [(one["origin"], one["owner"], one["certainty"]) for one in found] == [("partner", "ann@example.com", "own")]
    again = anybody.post(intake, content=body, headers=signed(signer, body))
    assert again.json() == answered.json()
    assert len(admin.get(f"{API}/findings", params={"key": issued["id"]}).json()["items"]) == 1


def test_a_report_that_was_tampered_with_is_refused_and_finds_nothing(
    admin: httpx.Client, anybody: httpx.Client, keyspace: str, intake: str, signer: ec.EllipticCurvePrivateKey
) -> None:
    issued = issue(admin, keyspace)
    body = json.dumps([{"token": issued["key"], "type": "t", "url": "u"}]).encode()
    headers = signed(signer, body)
    for changed, named in ((body + b" ", headers), (body, headers | {"Github-Public-Key-Identifier": "two"})):
        refused = anybody.post(intake, content=changed, headers=named)
        assert refused.status_code == 403, refused.text
    assert anybody.post(intake, content=body, headers={"Content-Type": "application/json"}).status_code == 403
    nowhere = anybody.post(intake.replace("partner", "nothing"), content=body, headers=headers)
    assert (nowhere.status_code, nowhere.json()["code"]) == (403, "signature_invalid")
    assert admin.get(f"{API}/findings", params={"key": issued["id"]}).json()["items"] == []


def test_an_intake_is_switched_off_and_deleted(
    admin: httpx.Client, anybody: httpx.Client, signer: ec.EllipticCurvePrivateKey
) -> None:
    pem = signer.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    made = admin.post(f"{API}/leak-intakes", json={"name": "brief", "keys": [{"key_identifier": "one", "key": pem}]})
    path = made.json()["path"]
    assert anybody.post(path, content=b"[]", headers=signed(signer, b"[]")).json() == []
    admin.patch(f"{API}/leak-intakes/brief", json={"state": "disabled"})
    assert anybody.post(path, content=b"[]", headers=signed(signer, b"[]")).status_code == 403
    admin.patch(f"{API}/leak-intakes/brief", json={"state": "active"})
    assert anybody.post(path, content=b"[]", headers=signed(signer, b"[]")).status_code == 200
    admin.post(f"{API}/leak-intakes/brief/delete")
    assert anybody.post(path, content=b"[]", headers=signed(signer, b"[]")).status_code == 403
    assert admin.get(f"{API}/leak-intakes/brief").status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        {"name": "bad", "keys": [{"key_identifier": "a", "key": "no PEM"}]},
        {"name": "bad", "keys_url": "http://169.254.169.254/keys"},
        {"name": "Bad"},
        {"name": "bad", "kind": "other"},
    ],
)
def test_an_intake_that_could_prove_nothing_is_refused(admin: httpx.Client, body: dict[str, Any]) -> None:
    assert admin.post(f"{API}/leak-intakes", json=body).status_code == 400


# --- holders ---------------------------------------------------------------------------------------------------------


def test_whoever_holds_a_key_has_it_revoked(admin: httpx.Client, anybody: httpx.Client, keyspace: str) -> None:
    issued = issue(admin, keyspace)
    checked = anybody.post(f"{API}/leaked-keys/check", json={"key": issued["key"]}).json()
    assert (checked["ours"], checked["works"], checked["id"]) == (True, True, issued["version_id"])
    assert code_of(admin, issued["key"]) == "VALID"
    reported = anybody.post(f"{API}/leaked-keys/report", json={"key": issued["key"], "where": "a paste"})
    assert reported.json()["revoked"], reported.text
    assert issued["key"] not in reported.text
    assert code_of(admin, issued["key"]) == "REVOKED"
    assert not anybody.post(f"{API}/leaked-keys/check", json={"key": issued["key"]}).json()["works"]
    [finding] = admin.get(f"{API}/findings", params={"key": issued["id"]}).json()["items"]
    assert (finding["origin"], finding["owner"]) == ("possession", "ann@example.com")
    eventually(lambda: admin.get(f"{API}/findings/{finding['id']}").json()["finding"]["state"] == "rotated")


def test_a_key_that_is_not_quite_right_is_like_none(admin: httpx.Client, anybody: httpx.Client, keyspace: str) -> None:
    """Neither the answer nor the database says that the id is one that exists."""
    issued = issue(admin, keyspace)
    own = issued["key"]
    never = mint("acme", "live").key.reveal()
    for shown in (own[:-1], own + "x", never, "nothing", own.swapcase()):
        answered = anybody.post(f"{API}/leaked-keys/report", json={"key": shown})
        assert answered.json() == {"ours": False, "works": False, "id": "", "reported": False, "revoked": False}
    assert code_of(admin, own) == "VALID"


def test_a_leaked_management_token_can_be_reported(admin: httpx.Client, anybody: httpx.Client) -> None:
    principal = admin.post(f"{API}/principals", json={"name": "ci", "kind": "service"}).json()["id"]
    presented = new_token(admin, principal)
    assert anybody.post(f"{API}/leaked-keys/report", json={"key": presented}).json()["revoked"]
    used = anybody.get(f"{API}/whoami", headers={"Authorization": f"Bearer {presented}"})
    assert used.status_code == 401


def test_the_page_asks_and_reports_and_never_shows_the_key(
    admin: httpx.Client, anybody: httpx.Client, keyspace: str
) -> None:
    issued = issue(admin, keyspace)
    page = anybody.get("/leaked-key")
    assert page.status_code == 200
    assert "script" not in page.headers["content-security-policy"]
    asked = anybody.post("/leaked-key", data={"key": issued["key"], "where": "<b>here</b>", "do": "check"})
    assert "It is ours, and it works" in asked.text
    told = anybody.post("/leaked-key", data={"key": issued["key"], "do": "report"})
    assert "Thank you" in told.text
    for answer in (asked, told):
        assert issued["key"] not in answer.text
        assert "<b>here" not in answer.text
        assert answer.headers["cache-control"] == "no-store"
    assert code_of(admin, issued["key"]) == "REVOKED"
    assert "It is not ours" in anybody.post("/leaked-key", data={"key": "nothing", "do": "report"}).text


@pytest.mark.parametrize(
    ("content", "media", "status"),
    [
        (b"", "application/x-www-form-urlencoded", 400),
        (b"key=", "application/x-www-form-urlencoded", 400),
        (b'{"key": "x"}', "application/json", 415),
        (b"key=%ff", "application/x-www-form-urlencoded", 200),
        (b"key=" + b"a" * 5000, "application/x-www-form-urlencoded", 400),
    ],
)
def test_a_form_that_is_none_is_refused(anybody: httpx.Client, content: bytes, media: str, status: int) -> None:
    assert anybody.post("/leaked-key", content=content, headers={"Content-Type": media}).status_code == status


def test_a_form_that_is_refused_is_answered_with_the_form_and_the_reason(anybody: httpx.Client) -> None:
    refused = anybody.post("/leaked-key", data={"key": " ", "where": "<b>here</b>", "do": "report"})
    assert refused.status_code == 400
    assert refused.headers["content-type"].startswith("text/html")
    assert "<title>That did not work." in refused.text
    assert "Expected a key of 1 to 4096 characters." in refused.text
    assert '<form method="post"' in refused.text
    assert "<b>here" not in refused.text


def test_the_page_says_when_to_come_back(start_server: Callable[..., RunningServer]) -> None:
    with httpx.Client(base_url=start_server().url, timeout=120) as guessing:
        for _ in range(1000):
            answer = guessing.post("/leaked-key", data={"key": "nothing", "do": "report"})
            if answer.status_code != 200:
                break
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) > 0
    assert "Please try again later" in answer.text


def test_nobody_is_asked_where_it_is_closed(start_server: Callable[..., RunningServer]) -> None:
    closed = start_server(env={"KEYTURN_LEAKED_KEYS": "off"})
    with httpx.Client(base_url=closed.url, timeout=120) as client:
        assert client.get("/leaked-key").status_code == 404
        for verb in ("check", "report"):
            assert client.post(f"{API}/leaked-keys/{verb}", json={"key": "x"}).status_code == 404


# --- patterns --------------------------------------------------------------------------------------------------------


def test_the_pattern_of_a_keyspace_is_for_who_may_read_it(
    admin: httpx.Client, anybody: httpx.Client, keyspace: str
) -> None:
    answered = admin.get(f"{API}/keyspaces/{keyspace}/pattern", params={"format": "gitleaks"}).json()
    assert "acme_live_" in answered["text"]
    assert anybody.get(f"{API}/keyspaces/{keyspace}/pattern", params={"format": "gitleaks"}).status_code == 401
    assert admin.get(f"{API}/keyspaces/{keyspace}/pattern", params={"format": "other"}).status_code == 400
    assert admin.get(f"{API}/keyspaces/none/pattern", params={"format": "github"}).status_code == 404


# --- decoys ----------------------------------------------------------------------------------------------------------


def test_a_decoy_that_is_presented_is_refused_and_alarms(admin: httpx.Client, keyspace: str) -> None:
    body = {"name": "build", "kind": "issued", "keyspace": keyspace, "planted_at": "a .env"}
    made = admin.post(f"{API}/decoys", json=body).json()
    assert code_of(admin, made["value"]) == "DISABLED"
    asked = {"key": made["value"], "ip": "198.51.100.9", "user_agent": "curl/8"}
    assert not admin.post(f"{API}/verify", json=asked).json()["valid"]

    def tripped() -> dict[str, Any] | None:
        shown: dict[str, Any] = admin.get(f"{API}/decoys/build").json()
        return shown if shown["tripped_count"] >= 2 and shown["last_trip"]["user_agent"] else None

    shown = eventually(tripped)
    assert shown["state"] == "tripped"
    assert shown["last_trip"]["user_agent"] == "curl/8"
    assert shown["last_trip"]["ip_network"].startswith("198.51.100.")
    told = admin.get(f"{API}/audit", params={"action": "system.decoy_tripped"}).json()["items"]
    assert told
    assert made["value"] not in json.dumps(told)


def test_a_held_decoy_alarms_when_it_is_read(admin: httpx.Client) -> None:
    body = {"name": "old", "kind": "held", "path": "production/backup/code", "like": "github-personal-access-token"}
    made = admin.post(f"{API}/decoys", json=body)
    assert made.status_code == 201, made.text
    value = made.json()["value"]
    assert value.startswith("ghp_")
    assert admin.get(f"{API}/decoys/old").json()["tripped_count"] == 0
    assert admin.get(f"{API}/secrets/production/backup/code").json()["fields"] == {"api_key": value}
    shown = eventually(lambda: (one := admin.get(f"{API}/decoys/old").json()) and one["tripped_count"] == 1 and one)
    assert shown["last_trip"]["actor"]
    assert shown["last_trip"]["outcome"] == "allowed"
    assert value not in json.dumps(shown)


def test_a_retired_decoy_alarms_no_more(admin: httpx.Client) -> None:
    for name in ("gone", "still-there"):
        body = {"name": name, "kind": "held", "path": f"production/backup/{name}"}
        assert admin.post(f"{API}/decoys", json=body).status_code == 201
    assert admin.post(f"{API}/decoys/gone/retire").json()["state"] == "retired"
    for name in ("gone", "still-there"):  # in this order: once the later one is noticed, so would the first have been
        assert admin.get(f"{API}/secrets/production/backup/{name}").status_code == 200
    assert eventually(lambda: admin.get(f"{API}/decoys/still-there").json()["tripped_count"] == 1)
    assert admin.get(f"{API}/decoys/gone").json()["tripped_count"] == 0


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"name": "bad", "kind": "issued"}, 400),
        ({"name": "bad", "kind": "held"}, 400),
        ({"name": "bad", "kind": "held", "path": "production/x", "keyspace": "orders"}, 400),
        ({"name": "bad", "kind": "held", "path": "production/x", "like": "no-such-rule"}, 400),
        ({"name": "bad", "kind": "issued", "keyspace": "nothing"}, 404),
    ],
)
def test_a_decoy_that_could_be_none_is_refused(admin: httpx.Client, body: dict[str, Any], status: int) -> None:
    assert admin.post(f"{API}/decoys", json=body).status_code == status


def test_a_decoy_never_takes_the_place_of_a_secret(admin: httpx.Client) -> None:
    path = "production/backup/used"
    assert admin.put(f"{API}/secrets/{path}", json={"fields": {"api_key": "in use"}}).status_code in {200, 201}
    refused = admin.post(f"{API}/decoys", json={"name": "over", "kind": "held", "path": path})
    assert refused.status_code == 409
    assert admin.get(f"{API}/secrets/{path}").json()["fields"] == {"api_key": "in use"}
    assert admin.get(f"{API}/decoys/over").status_code == 404


def test_making_a_decoy_needs_the_right_to_make_what_it_looks_like(admin: httpx.Client, server: RunningServer) -> None:
    principal = admin.post(f"{API}/principals", json={"name": "planter", "kind": "service"}).json()["id"]
    grant = {"principal": principal, "actions": ["decoy.create"], "resource": "decoy/*"}
    assert admin.post(f"{API}/grants", json=grant).status_code == 201
    presented = new_token(admin, principal)
    headers = {"Authorization": f"Bearer {presented}"}
    for body in (
        {"name": "mine", "kind": "issued", "keyspace": "orders"},
        {"name": "mine", "kind": "held", "path": "production/mine/x"},
    ):
        refused = httpx.post(f"{server.url}{API}/decoys", json=body, headers=headers, timeout=120)
        assert refused.status_code in {403, 404}, refused.text
