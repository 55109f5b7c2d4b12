import re
from collections.abc import Iterator
from dataclasses import fields
from typing import Any, cast

import httpx
import pytest

from keyturn.bootstrap import application
from keyturn.bootstrap.application import Application
from keyturn.http import documents, health, introspection
from keyturn.http.app import create_app, feature_routes, open_routes
from keyturn.http.edge import EdgeSettings
from keyturn.http.openapi import build_document

CREDENTIAL_IN_BODY = {
    "/api/v1/login",
    "/api/v1/wraps/lookup",
    "/api/v1/wraps/open",
    "/api/v1/wraps/rewrap",
    "/api/v1/leak-reports/{workspace}/{name}",
    "/api/v1/leaked-keys/check",
    "/api/v1/leaked-keys/report",
}


class _Nothing:
    """Stands for an application: every service of it is None, also those that come in parts."""

    def __getattr__(self, name: str) -> Any:
        parts: Any = vars(application).get(Application.__annotations__.get(name, ""))
        if not hasattr(parts, "services"):
            return None
        return parts(**dict.fromkeys((part.name for part in fields(parts)), None))


@pytest.fixture(scope="module")
def app() -> Any:
    """The real routes over services that are never called."""
    services = {**Application.services(cast("Application", _Nothing())), "monitor": None}
    return create_app(services, EdgeSettings(), public=[*health.ROUTES, *documents.ROUTES, *introspection.ROUTES])


@pytest.fixture(scope="module")
def document(app: Any) -> dict[str, Any]:
    return build_document(app)


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            yield path, method, operation


def _references(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for name, item in value.items():
            if name == "$ref" and isinstance(item, str):
                yield item
            else:
                yield from _references(item)
    elif isinstance(value, list):
        for item in value:
            yield from _references(item)


def test_every_route_of_every_feature_is_described(document: dict[str, Any]) -> None:
    described = {operation["operationId"] for _, _, operation in _operations(document)}
    routed = {cast("Any", route).operation_id for route in [*feature_routes(), *open_routes()]}
    assert routed <= described
    assert {"verify", "live", "ready", "metrics", "openapi", "docs"} <= described


def test_operation_ids_are_unique(document: dict[str, Any]) -> None:
    ids = [operation["operationId"] for _, _, operation in _operations(document)]
    assert len(ids) == len(set(ids))


def test_every_operation_says_what_it_does(document: dict[str, Any]) -> None:
    for path, method, operation in _operations(document):
        assert operation["summary"], (method, path)
        assert not operation["summary"].endswith("."), (method, path)


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    for reference in _references(document):
        found: Any = document
        for step in reference.removeprefix("#/").split("/"):
            found = found[step]
        assert found


def test_every_refusal_is_a_problem(document: dict[str, Any]) -> None:
    for path, method, operation in _operations(document):
        for status, answer in operation["responses"].items():
            if int(status) < 400 or operation["operationId"] in {"ready", "verify", "introspect"}:
                continue
            if operation["tags"] == ["gateways"]:
                assert list(answer["content"]) == ["application/problem+json"], (method, path, status)
                continue
            # Who fills in a form is answered with the form.
            response = "FormProblem" if operation["operationId"] == "leakedKeyForm" else "Problem"
            assert answer == {"$ref": f"#/components/responses/{response}"}, (method, path, status)


def test_every_operation_but_health_and_documents_asks_for_a_token(document: dict[str, Any]) -> None:
    """An operation that forgot the guard would be open to the network."""
    assert document["security"] == [{"bearer": []}]
    for path, _, operation in _operations(document):
        is_open = operation.get("security") == []
        guarded = path.startswith(("/api/v1/", "/auth/", "/oauth/"))
        assert is_open == (not guarded or path == "/api/v1/openapi.json" or path in CREDENTIAL_IN_BODY), path


def test_bodies_refuse_unknown_fields_in_the_document_too(document: dict[str, Any]) -> None:
    for path, method, operation in _operations(document):
        if "requestBody" not in operation:
            continue
        if path == "/oauth/introspect":  # RFC 6749: parameters that are not known are ignored
            continue
        if path.startswith("/api/v1/leak-reports/"):  # a partner may add fields at any time
            continue
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        name = schema["$ref"].rpartition("/")[2]
        assert document["components"]["schemas"][name]["additionalProperties"] is False, (method, path)


def test_patterns_mean_the_same_in_a_browser(document: dict[str, Any]) -> None:
    """Python's `$` also matches before a trailing newline; the document's readers would not know."""
    for pattern in _patterns(document):
        re.compile(pattern)
        assert "(?P<" not in pattern


def _patterns(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for name, item in value.items():
            if name == "pattern" and isinstance(item, str):
                yield item
            else:
                yield from _patterns(item)
    elif isinstance(value, list):
        for item in value:
            yield from _patterns(item)


async def test_the_page_shows_every_operation_and_loads_nothing(app: Any, document: dict[str, Any]) -> None:
    """No script can run on it and no request can leave its origin, whatever a description holds."""
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://keyturn.test") as client:
        page = await client.get("/docs")
        assert (await client.get("/api/v1/openapi.json")).json() == document
    assert page.headers["content-type"].startswith("text/html")
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert "<script" not in page.text
    assert not re.search(r"(?:src|href)=[\"'](?:https?:)?//", page.text)
    for _, _, operation in _operations(document):
        assert f'id="{operation["operationId"]}"' in page.text
    style = re.search(r"<style>(.*?)</style>", page.text, re.DOTALL)
    assert style is not None
    assert f"'{documents.hash_of(style[1])}'" in policy


async def test_whoever_opens_the_address_in_a_browser_is_led_to_something_to_read(app: Any) -> None:
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://keyturn.test", follow_redirects=True) as client:
        opened = await client.get("/")
        lost = await client.get("/nothing/here")

    assert (opened.status_code, opened.url.path) == (200, "/docs")
    assert "`" not in opened.text
    assert "<code>code</code>" in opened.text
    assert lost.json()["hint"] == "see /docs for what there is"
