import re
from collections.abc import Iterator
from typing import Annotated, Any

import httpx
import pytest
from litestar import get
from litestar.params import QueryParameter

from keyturn import errors
from keyturn.errors import (
    BrokenInvariantError,
    ConflictError,
    InputError,
    IntegrityError,
    KeyturnError,
    StorageError,
    ThrottledError,
    UnauthenticatedError,
)
from keyturn.http.app import create_app
from keyturn.http.edge import EdgeSettings
from keyturn.http.problems import MEDIA_TYPE, STATUS, problem_of, status_of
from keyturn.kernel.tokenformat import mint
from tests.http.sample import BEARER, Sample, Stored, throttled


def _tree(root: type[KeyturnError]) -> Iterator[type[KeyturnError]]:
    yield root
    for cls in root.__subclasses__():
        yield from _tree(cls)


@pytest.mark.parametrize("cls", [one for one in _tree(KeyturnError) if one.__module__ == "keyturn.errors"])
def test_every_error_has_a_status_of_its_own(cls: type[KeyturnError]) -> None:
    assert cls in STATUS


def test_the_statuses_are_those_that_the_error_tree_documents() -> None:
    documented = {name: int(code) for name, code in re.findall(r"(\w+Error) +(\d{3}) ", errors.__doc__ or "")}
    assert len(documented) > 10
    assert {name: STATUS[getattr(errors, name)] for name in documented} == documented


def test_an_error_declared_elsewhere_takes_the_status_of_the_one_above_it() -> None:
    class _LocalError(ConflictError):
        pass

    assert status_of(_LocalError("no")) == 409


async def test_an_error_is_answered_as_problem_details(sample: Sample) -> None:
    answer = await sample.fails_with(InputError("name: too long", field="name", hint="shorten it"))
    assert answer.status_code == 400
    assert answer.headers["content-type"] == MEDIA_TYPE
    body = answer.json()
    assert body.pop("instance") == f"urn:keyturn:request:{answer.headers['x-request-id']}"
    assert body == {
        "type": "urn:keyturn:problem:invalid_input",
        "title": "Bad Request",
        "status": 400,
        "detail": "name: too long",
        "code": "invalid_input",
        "field": "name",
        "hint": "shorten it",
    }


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("the password is swordfish"),
        BrokenInvariantError("the password is swordfish", internal="swordfish"),
        IntegrityError("the password is swordfish", hint="swordfish"),
        KeyError("swordfish"),
    ],
)
async def test_a_failure_of_ours_tells_the_caller_nothing_but_where_to_look(sample: Sample, error: Exception) -> None:
    """Internal detail belongs in the log, under the id that the caller gets."""
    answer = await sample.fails_with(error)
    assert answer.status_code == 500
    assert answer.headers["content-type"] == MEDIA_TYPE
    assert "swordfish" not in answer.text
    assert answer.headers["x-request-id"] in answer.json()["instance"]


async def test_a_throttled_caller_is_told_when_to_come_back(sample: Sample) -> None:
    answer = await sample.fails_with(throttled())
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "3")


async def test_a_failed_dependency_is_a_503_that_may_be_tried_again(sample: Sample) -> None:
    answer = await sample.fails_with(StorageError("the disk is full", code="storage_full", internal="hidden"))
    assert (answer.status_code, answer.json()["code"]) == (503, "storage_full")
    assert "retry-after" in answer.headers
    assert "hidden" not in answer.text


async def test_an_unauthenticated_caller_is_told_the_scheme(sample: Sample) -> None:
    answer = await sample.fails_with(UnauthenticatedError("no"))
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, 'Bearer realm="keyturn"')


async def test_no_problem_repeats_a_credential(sample: Sample) -> None:
    """A key pasted into the wrong field must not come back, and so end up in somebody's log."""
    key = mint("acme", "live").key.reveal()
    refused = InputError(f"{key} is no name", field=key, hint=f"not {key}")
    assert key not in (await sample.fails_with(refused)).text
    body = f'{{"name": "a", "{key}": 1}}'.encode()
    assert key not in (await sample.create(body)).text
    assert key not in (await sample.client.get(f"/api/v1/things?{key}=1", headers=BEARER)).text
    assert key not in (await sample.client.get(f"/{key}")).text


async def test_what_the_router_refuses_looks_the_same(sample: Sample) -> None:
    missing = await sample.client.get("/nothing/here")
    assert (missing.status_code, missing.json()["code"]) == (404, "not_found")
    wrong = await sample.client.put("/api/v1/things", headers=BEARER)
    assert (wrong.status_code, wrong.json()["code"]) == (405, "method_not_allowed")
    for answer in (missing, wrong):
        assert answer.headers["content-type"] == MEDIA_TYPE


async def test_a_required_parameter_that_is_missing_is_named() -> None:
    @get("/api/v1/range", operation_id="range", tags=["things"])
    async def read_range(first: Annotated[int, QueryParameter(name="from")]) -> Stored:
        """Read a range."""
        return Stored(str(first), 1)

    app: Any = create_app({}, EdgeSettings(), protected=[read_range])
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://keyturn", headers=BEARER) as client:
        answer = await client.get("/api/v1/range")
    problem = answer.json()
    assert (answer.status_code, problem["code"], problem["field"]) == (400, "invalid_input", "from")
    assert problem["detail"] == "from: missing required query parameter"


def test_a_problem_without_field_or_hint_leaves_them_out() -> None:
    problem = problem_of(ThrottledError("wait", retry_after_seconds=1), "req_x")
    assert (problem.field, problem.hint) == (None, None)
