"""The surface against what the caller may know: neither words nor records may tell what exists."""

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from keyturn.testing.server import RunningServer

Leaves = list[dict[str, Any]]

REQUESTS = (
    ("GET", "/v1/secret/data/hidden/{}", None),
    ("GET", "/v1/secret/data/hidden/{}?version=1", None),
    ("PUT", "/v1/secret/data/hidden/{}", {"data": {"a": 1}}),
    ("PUT", "/v1/secret/data/hidden/{}", {"data": {"a": 1}, "options": {"cas": 1}}),
    ("PATCH", "/v1/secret/data/hidden/{}", {"data": {"a": 1}}),
    ("DELETE", "/v1/secret/data/hidden/{}", None),
    ("PUT", "/v1/secret/delete/hidden/{}", {"versions": [1]}),
    ("PUT", "/v1/secret/undelete/hidden/{}", {"versions": [1]}),
    ("PUT", "/v1/secret/destroy/hidden/{}", {"versions": [1]}),
    ("GET", "/v1/secret/metadata/hidden/{}", None),
    ("LIST", "/v1/secret/metadata/hidden/{}", None),
    ("PUT", "/v1/secret/metadata/hidden/{}", {"custom_metadata": {"a": "b"}}),
    ("DELETE", "/v1/secret/metadata/hidden/{}", None),
    ("GET", "/v1/secret/subkeys/hidden/{}", None),
)


@pytest.fixture(scope="module")
def outsider(raw: httpx.Client, server: RunningServer, hire: Callable[..., str]) -> Iterator[httpx.Client]:
    """A caller with rights elsewhere."""
    raw.post("/v1/secret/data/hidden/there", json={"data": {"a": 1}})
    token = hire("elsewhere", (["secret.*"], "secret/production/mine/*"))
    with httpx.Client(base_url=server.url, headers={"X-Vault-Token": token}, timeout=120) as http:
        yield http


@pytest.mark.parametrize(("method", "path", "body"), REQUESTS, ids=[f"{one[0]} {one[1][11:-10]}" for one in REQUESTS])
def test_what_exists_answers_as_what_does_not(
    outsider: httpx.Client, native: Callable[..., Any], method: str, path: str, body: object
) -> None:
    """The same status, body and headers, and the same number of records, so that not even a commit tells them apart."""
    headers = {"Content-Type": "application/merge-patch+json"} if method == "PATCH" else {}
    seen = []
    for name in ("there", "absent"):
        mark = f"{method}-{name}-{abs(hash(path + str(body)))}"
        answer = outsider.request(method, path.format(name), json=body, headers={**headers, "X-Request-Id": mark})
        leaves: Leaves = native("GET", "/audit?limit=200&outcome=denied")["items"]
        records = [(leaf["action"], leaf["outcome"]) for leaf in leaves if leaf["request_id"] == mark]
        told = {key: value for key, value in answer.headers.items() if key not in {"x-request-id", "date"}}
        seen.append((answer.status_code, answer.content, told, records))
    assert seen[0] == seen[1]
    assert bool(seen[0][3]) == (method != "LIST")
    assert seen[0][:2] == (403, b'{"errors":["permission denied"]}')
