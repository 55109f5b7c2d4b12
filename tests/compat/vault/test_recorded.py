"""Requests as External Secrets and the Vault CLI send them, replayed in order; see `recorded/README.md`."""

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from keyturn.testing.server import RunningServer

RECORDED = sorted((Path(__file__).parent / "recorded").glob("*.json"))
MORE = "..."


@pytest.fixture(scope="module")
def given(raw: httpx.Client, native: Callable[..., Any], server: RunningServer) -> dict[str, str]:
    """An AppRole whose service may do everything below `production/eso`."""
    raw.post("/v1/sys/auth/approle", json={"type": "approle"})
    raw.post("/v1/auth/approle/role/eso", json={"token_policies": "secret.*"})
    service = next(one for one in native("GET", "/principals?limit=200")["items"] if one["name"] == "eso")
    for resource in ("secret/production/eso", "secret/production/eso/*"):
        native("POST", "/grants", {"principal": service["id"], "actions": ["secret.*"], "resource": resource})
    return {
        "admin": server.admin_token,
        "role_id": raw.get("/v1/auth/approle/role/eso/role-id").json()["data"]["role_id"],
        "secret_id": raw.post("/v1/auth/approle/role/eso/secret-id").json()["data"]["secret_id"],
    }


@pytest.mark.parametrize("record", RECORDED, ids=lambda path: path.stem)
def test_a_program_gets_the_answers_that_it_reads(record: Path, given: dict[str, str], server: RunningServer) -> None:
    values = dict(given)
    with httpx.Client(base_url=server.url, timeout=120) as http:
        for exchange in json.loads(record.read_text()):
            asked = filled(exchange["request"], values)
            content = json.dumps(asked["body"]).encode() if "body" in asked else None
            # No content type of its own: the Go client sends none.
            answer = http.request(asked["method"], asked["path"], headers=asked.get("headers"), content=content)
            assert answer.status_code == exchange["status"], (exchange["name"], answer.text)
            if "shape" not in exchange:
                assert answer.content == b"", exchange["name"]
                continue
            assert answer.headers["content-type"] == "application/json"
            body = answer.json()
            fault = differs(body, filled(exchange["shape"], values), "$")
            assert fault is None, (exchange["name"], fault)
            for name, place in exchange.get("keep", {}).items():
                values[name] = found_at(body, place)


def filled(value: Any, values: dict[str, str]) -> Any:
    """Put values in the place of their names."""
    if isinstance(value, dict):
        return {name: filled(one, values) for name, one in value.items()}
    if isinstance(value, list):
        return [filled(one, values) for one in value]
    if isinstance(value, str) and value.startswith("$"):
        return values[value[1:]]
    return value


def found_at(body: Any, place: str) -> str:
    for name in place.split("."):
        body = body[name]
    return str(body)


def differs(found: Any, shape: Any, at: str) -> str | None:
    """Return where an answer is not of its shape, None when it is."""
    if isinstance(shape, str) and shape.startswith("<"):
        return None if is_of_kind(found, shape) else f"{at}: expected {shape}, found {found!r}"
    if not isinstance(shape, dict):
        return None if found == shape and type(found) is type(shape) else f"{at}: expected {shape!r}, found {found!r}"
    if not isinstance(found, dict):
        return f"{at}: expected an object, found {found!r}"
    wanted = set(shape) - {MORE}
    if wanted - set(found) or (MORE not in shape and set(found) - wanted):
        return f"{at}: expected {sorted(wanted)}, found {sorted(found)}"
    return next((fault for name in wanted if (fault := differs(found[name], shape[name], f"{at}.{name}"))), None)


def is_of_kind(found: Any, kind: str) -> bool:
    if kind == "<any>":
        return True
    if kind == "<time>":
        return isinstance(found, str) and found.endswith("Z") and datetime.fromisoformat(found).tzinfo is not None
    expected = {"<text>": str, "<int>": int, "<bool>": bool}[kind]
    return type(found) is expected and found != ""
