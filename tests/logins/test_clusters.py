"""Service accounts that a cluster reviews: a server that answers as its API does."""

import json
from typing import Any

import msgspec
import pytest
from sqlalchemy import Connection, select

from keyturn.errors import InputError, UnauthenticatedError, UnavailableError
from keyturn.storage.schema import login_method, sealed_key
from keyturn.wire.logins import UpdateLoginMethod
from tests.logins.gate import Gate
from tests.logins.issuer import Place
from tests.logins.test_certificates import Authority

PATH = "/apis/authentication.k8s.io/v1/tokenreviews"
REVIEWER = "reviewer." + "x" * 40
BINDING = {"namespaces": ["prod"], "service_accounts": ["payments-*"], "audiences": ["keyturn"]}


def reviewed(**status: Any) -> dict[str, Any]:
    """Return a review of a good token, but for what is given."""
    good = {
        "authenticated": True,
        "user": {"username": "system:serviceaccount:prod:payments-api", "uid": "0000-1111", "groups": []},
        "audiences": ["keyturn"],
    }
    return {"kind": "TokenReview", "status": good | status}


async def opened(gate: Gate, place: Place) -> None:
    await gate.service()
    await gate.method("k8s", kind="kubernetes", kubernetes={"url": place.url, "reviewer_token": REVIEWER})
    await gate.role("k8s", kubernetes=BINDING)


async def test_a_service_account_that_the_cluster_knows_is_let_in(gate: Gate) -> None:
    with Place() as place:
        place.answer(PATH, reviewed(), 201)
        await opened(gate, place)
        answer = await gate.by_jwt("presented.service.token", method="k8s")

    assert answer.subject == "system:serviceaccount:prod:payments-api"
    assert answer.metadata["namespace"] == "prod"
    assert json.loads(place.bodies[0])["spec"] == {"token": "presented.service.token", "audiences": ["keyturn"]}
    assert place.headers[0]["authorization"] == f"Bearer {REVIEWER}"


async def test_the_reviewer_token_is_sealed_and_never_shown(gate: Gate) -> None:
    with Place() as place:
        await opened(gate, place)

    def read(connection: Connection) -> str:
        return repr([*connection.execute(select(login_method)).all(), *connection.execute(select(sealed_key)).all()])

    assert REVIEWER not in await gate.database.read(read)
    assert REVIEWER not in repr(await gate.logins.methods.read(gate.admin, "k8s"))
    assert REVIEWER not in repr(await gate.leaves("login_method.create"))


@pytest.mark.parametrize(
    "status",
    [
        {"authenticated": False},
        {"authenticated": "true"},
        {"audiences": ["another"]},
        {"audiences": None},
        {"user": {"username": "system:serviceaccount:other:payments-api"}},
        {"user": {"username": "system:serviceaccount:prod:orders-api"}},
        {"user": {"username": "system:serviceaccount:prod:payments-api:extra"}},
        {"user": {"username": "admin"}},
        {"user": None},
    ],
)
async def test_what_the_cluster_does_not_vouch_for_is_refused(lone_gate: Gate, status: dict[str, Any]) -> None:
    with Place() as place:
        place.answer(PATH, reviewed(**status), 201)
        await opened(lone_gate, place)
        with pytest.raises(UnauthenticatedError) as caught:
            await lone_gate.by_jwt("presented.service.token", method="k8s")

    assert caught.value.code == "login_refused"


@pytest.mark.parametrize(("status", "body"), [(401, {}), (500, {}), (201, []), (302, {}), (201, b"no json")])
async def test_a_cluster_that_cannot_be_asked_lets_nobody_in(lone_gate: Gate, status: int, body: Any) -> None:
    with Place() as place:
        place.answer(PATH, body, status)
        await opened(lone_gate, place)
        with pytest.raises(UnavailableError) as caught:
            await lone_gate.by_jwt("presented.service.token", method="k8s")

    assert caught.value.code == "token_review_unavailable"


async def test_a_cluster_that_is_gone_lets_nobody_in(lone_gate: Gate) -> None:
    with Place() as place:
        await opened(lone_gate, place)

    with pytest.raises(UnavailableError):
        await lone_gate.by_jwt("presented.service.token", method="k8s")


async def test_a_cluster_without_a_reviewer_is_none(lone_gate: Gate) -> None:
    with pytest.raises(InputError):
        await lone_gate.method("k8s", kind="kubernetes", kubernetes={"url": "https://cluster.example.com"})


@pytest.mark.parametrize("change", ["url", "ca_pem"])
async def test_the_reviewer_token_goes_to_no_other_place(lone_gate: Gate, change: str) -> None:
    """Whoever may change a method, and may not see its reviewer token, cannot have it sent to a server of theirs."""
    with Place() as place, Place() as elsewhere:
        place.answer(PATH, reviewed(), 201)
        elsewhere.answer(PATH, reviewed(), 201)
        await opened(lone_gate, place)
        moved = {"url": elsewhere.url} if change == "url" else {"url": place.url, "ca_pem": Authority().pem}

        with pytest.raises(InputError) as caught:
            await lone_gate.logins.methods.update(lone_gate.admin, "k8s", update(moved))
        await lone_gate.by_jwt("presented.service.token", method="k8s")
        await lone_gate.logins.methods.update(lone_gate.admin, "k8s", update({"url": place.url}))
        await lone_gate.logins.methods.update(lone_gate.admin, "k8s", update(moved | {"reviewer_token": "another"}))

    assert caught.value.field == "kubernetes.reviewer_token"
    assert elsewhere.asked == []
    assert [one["authorization"] for one in place.headers] == [f"Bearer {REVIEWER}"]


def update(kubernetes: dict[str, Any]) -> UpdateLoginMethod:
    return msgspec.convert({"kubernetes": kubernetes}, type=UpdateLoginMethod)
