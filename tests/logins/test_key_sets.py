"""Where an issuer's keys come from, how they rotate, and what happens when they cannot be read."""

import asyncio
import json
from pathlib import Path

import pytest

from keyturn.bootstrap.logins import GuardedFetcher
from keyturn.errors import InputError, UnauthenticatedError, UnavailableError
from keyturn.logins.jwks import KeySets
from keyturn.logins.ports import Fetched, FetchError
from keyturn.testing.clock import ManualClock
from keyturn.wire.logins import JwtOptions
from tests.logins.gate import Gate
from tests.logins.issuer import AUDIENCE, Issuer, Place, new_key, signed

BINDING = {"audiences": [AUDIENCE], "claims": {"repository_id": "12345"}}


async def opened(gate: Gate, options: dict[str, str]) -> None:
    await gate.service()
    await gate.method(jwt={"issuer": "https://issuer.example.com", **options})
    await gate.role(jwt=BINDING)


async def test_keys_from_an_address_rotate_without_a_restart(lone_gate: Gate) -> None:
    issuer = lone_gate.issuer()
    with Place() as place:
        await opened(lone_gate, {"jwks_url": place.answer("/jwks", issuer.key_set())})
        await lone_gate.by_jwt(issuer.token())
        issuer.rotate()
        place.answer("/jwks", issuer.key_set())
        lone_gate.clock.advance(11)

        await lone_gate.by_jwt(issuer.token())
        await lone_gate.by_jwt(issuer.token(jti="two"))

    assert place.asked == ["/jwks", "/jwks"]


async def test_a_key_that_the_issuer_took_out_counts_no_longer(lone_gate: Gate) -> None:
    issuer = lone_gate.issuer()
    with Place() as place:
        await opened(lone_gate, {"jwks_url": place.answer("/jwks", issuer.key_set())})
        old = issuer.token(exp=int(issuer.now) + 3600)
        await lone_gate.by_jwt(old)
        del issuer.keys[issuer.current]
        issuer.rotate("new")
        place.answer("/jwks", issuer.key_set())
        lone_gate.clock.advance(601)

        with pytest.raises(UnauthenticatedError):
            await lone_gate.by_jwt(old)


async def test_unknown_key_ids_do_not_make_the_server_ask_each_time(lone_gate: Gate) -> None:
    issuer = lone_gate.issuer()
    with Place() as place:
        await opened(lone_gate, {"jwks_url": place.answer("/jwks", issuer.key_set())})
        await lone_gate.by_jwt(issuer.token())
        own = new_key("ES256")
        for number in range(20):
            forged = signed(own, {"alg": "ES256", "kid": f"unknown-{number}"}, issuer.claims())
            with pytest.raises(UnauthenticatedError):
                await lone_gate.by_jwt(forged)

    assert len(place.asked) == 1


async def test_what_could_not_be_let_in_anyway_costs_the_issuer_no_request(lone_gate: Gate) -> None:
    issuer = lone_gate.issuer()
    with Place() as place:
        await opened(lone_gate, {"jwks_url": place.answer("/jwks", issuer.key_set())})
        with pytest.raises(UnauthenticatedError):
            await lone_gate.by_jwt(issuer.token(aud="somebody else"))

    assert place.asked == []


async def test_keys_read_last_count_for_an_hour_and_then_nobody_is_let_in(lone_gate: Gate) -> None:
    """Fails closed: an issuer that is down is `jwks_unavailable`, not a refused login, and not an open door."""
    issuer = lone_gate.issuer()
    with Place() as place:
        await opened(lone_gate, {"jwks_url": place.answer("/jwks", issuer.key_set())})
        await lone_gate.by_jwt(issuer.token())
        place.answer("/jwks", b"down", 503)
        lone_gate.clock.advance(1200)
        issuer.now = lone_gate.clock.now()
        await lone_gate.by_jwt(issuer.token(jti="stale"))
        lone_gate.clock.advance(3600)
        issuer.now = lone_gate.clock.now()

        with pytest.raises(UnavailableError) as caught:
            await lone_gate.by_jwt(issuer.token(jti="too late"))
        asked = len(place.asked)
        with pytest.raises(UnavailableError):
            await lone_gate.by_jwt(issuer.token(jti="too late too"))
        assert len(place.asked) == asked

        place.answer("/jwks", issuer.key_set())
        lone_gate.clock.advance(6)
        await lone_gate.by_jwt(issuer.token(jti="back"))

    assert caught.value.code == "jwks_unavailable"
    assert len(lone_gate.failures.seen) == 0


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"no json"),
        (200, b"[]"),
        (200, b'{"keys": []}'),
        (200, b'{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}'),
        (200, b'{"keys": [' + b" " * 300_000 + b"]}"),
        (301, b"https://issuer.example.com/elsewhere"),
        (404, b"{}"),
    ],
)
async def test_what_is_no_key_set_is_unavailable(lone_gate: Gate, status: int, body: bytes) -> None:
    issuer = lone_gate.issuer()
    with Place() as place:
        await opened(lone_gate, {"jwks_url": place.answer("/jwks", body, status)})
        with pytest.raises(UnavailableError) as caught:
            await lone_gate.by_jwt(issuer.token())

    assert caught.value.code == "jwks_unavailable"
    assert "issuer.example.com" not in str(caught.value)


async def test_discovery_leads_to_the_keys_of_the_pinned_issuer_alone(lone_gate: Gate) -> None:
    issuer = lone_gate.issuer()
    with Place() as place:
        keys = place.answer("/keys", issuer.key_set())
        found = place.answer("/.well-known/openid-configuration", {"issuer": issuer.url, "jwks_uri": keys})
        await opened(lone_gate, {"discovery_url": found})
        await lone_gate.by_jwt(issuer.token())

        other = place.answer("/other", {"issuer": "https://attacker.example.com", "jwks_uri": keys})
        await lone_gate.method("other", jwt={"issuer": issuer.url, "discovery_url": other})
        await lone_gate.role("other", jwt=BINDING)
        with pytest.raises(UnavailableError):
            await lone_gate.by_jwt(issuer.token(), method="other")


async def test_keys_from_a_file_are_read_again_when_it_changes(lone_gate: Gate) -> None:
    issuer = lone_gate.issuer()
    (lone_gate.folder / "jwks").mkdir()
    path = lone_gate.folder / "jwks" / "ci.json"
    path.write_text(json.dumps(issuer.key_set()))
    await opened(lone_gate, {"jwks_file": "ci.json"})
    await lone_gate.by_jwt(issuer.token())

    issuer.rotate()
    path.write_text(json.dumps(issuer.key_set()))

    await lone_gate.by_jwt(issuer.token())


@pytest.mark.parametrize(
    "options",
    [
        {"jwks_url": "http://issuer.example.com/jwks", "issuer": "x"},
        {"jwks_url": "https://10.0.0.1/jwks"},
        {"jwks_url": "https://169.254.169.254/latest"},
        {"jwks_url": "https://[::1]/jwks"},
        {"jwks_url": "https://user:word@issuer.example.com/jwks"},
        {"jwks_url": "https://issuer.example.com/a", "discovery_url": "https://issuer.example.com/b"},
        {},
        {"jwks": {"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}},
        {"jwks": {"keys": [{"kty": "RSA"}]}},
        {"jwks": {}},
    ],
)
async def test_a_source_that_may_not_be_used_is_refused_when_it_is_set(
    lone_gate: Gate, options: dict[str, object]
) -> None:
    given = {"issuer": "https://issuer.example.com"} | options
    if options.get("issuer") == "x":
        given["jwks_url"] = "http://192.0.2.9/jwks"
    with pytest.raises(InputError):
        await lone_gate.method(jwt=given)


async def test_a_private_key_in_a_key_set_is_refused(lone_gate: Gate) -> None:
    issuer = Issuer(0.0)
    private = {**issuer.keys[issuer.current].as_dict(private=True), "kid": "x"}

    with pytest.raises(InputError, match="private"):
        await lone_gate.method(jwt={"issuer": issuer.url, "jwks": {"keys": [private]}})


async def test_a_name_that_leads_inside_is_not_followed() -> None:
    """The keys' address resolves to a metadata service only when it is asked: refused then."""

    async def resolve(host: str, port: int) -> list[str]:  # noqa: ARG001 -- the port
        return ["169.254.169.254"]

    with pytest.raises(FetchError, match="link-local"):
        await GuardedFetcher(resolver=resolve).get("https://issuer.example.com/jwks", ca_pem=None, bytes_max=100)


async def test_an_issuer_that_lets_requests_wait_is_asked_once_for_all_who_wait(tmp_path: Path) -> None:
    """Logins that wait for the same keys fail together, and not one after the other."""
    clock = ManualClock()

    class Slow(GuardedFetcher):
        asked = 0

        async def get(self, url: str, *, ca_pem: str | None, bytes_max: int) -> Fetched:  # noqa: ARG002 -- the port
            self.asked += 1
            await asyncio.sleep(0)
            clock.advance(8)
            raise FetchError("no answer within 8 s")

    fetcher = Slow()
    key_sets = KeySets(fetcher, tmp_path, clock.boottime)
    options = JwtOptions(issuer="https://issuer.example.com", jwks_url="https://issuer.example.com/jwks")

    found = await asyncio.gather(*(key_sets.find(options, "one", "ES256") for _ in range(5)), return_exceptions=True)

    assert [type(one) for one in found] == [UnavailableError] * 5
    assert fetcher.asked == 1
