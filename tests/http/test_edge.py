import ipaddress

import pytest

from keyturn.errors import InputError
from keyturn.http.edge import EdgeSettings, parse_idempotency_key, parse_if_match
from keyturn.http.peer import client_ip
from tests.http.sample import BEARER, TOKEN, Sample, opened_sample

PROXIES = (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("2001:db8::/32"))


def _scope(peer: str, *forwarded: str) -> dict[str, object]:
    return {"client": (peer, "4711"), "headers": [(b"x-forwarded-for", value.encode()) for value in forwarded]}


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("192.0.2.1", (), "192.0.2.1"),
        ("192.0.2.1", ("198.51.100.9",), "192.0.2.1"),
        ("10.0.0.1", ("198.51.100.9",), "198.51.100.9"),
        ("10.0.0.1", ("203.0.113.5, 198.51.100.9",), "198.51.100.9"),
        ("10.0.0.1", ("198.51.100.9, 10.0.0.2",), "198.51.100.9"),
        ("10.0.0.1", ("198.51.100.9", "10.0.0.2"), "198.51.100.9"),
        ("10.0.0.1", ("10.0.0.3, 10.0.0.2",), "10.0.0.3"),
        ("10.0.0.1", ("not an address",), "10.0.0.1"),
        ("10.0.0.1", ("198.51.100.9, unknown, 10.0.0.2",), "10.0.0.2"),
        ("10.0.0.1", ("198.51.100.9:443",), "198.51.100.9"),
        ("10.0.0.1", ("[2001:db9::5]:443",), "2001:db9::5"),
        ("2001:db8::1", ("2001:db9::7",), "2001:db9::7"),
        ("::ffff:10.0.0.1", ("198.51.100.9",), "198.51.100.9"),
        ("::ffff:192.0.2.1", (), "192.0.2.1"),
        ("10.0.0.1", ("",), "10.0.0.1"),
    ],
)
def test_a_forwarded_address_counts_only_as_far_as_listed_proxies_vouch_for_it(
    peer: str, forwarded: tuple[str, ...], expected: str
) -> None:
    """Otherwise anybody could choose the address that a grant's condition looks at."""
    assert client_ip(_scope(peer, *forwarded), PROXIES) == expected


def test_without_listed_proxies_forwarding_headers_mean_nothing() -> None:
    """A header that anybody can send must not move anybody."""
    assert client_ip(_scope("192.0.2.1", "198.51.100.9"), ()) == "192.0.2.1"


def test_a_unix_socket_has_no_address() -> None:
    assert client_ip({"client": ("", "0"), "headers": []}, PROXIES) is None
    assert client_ip({"client": None, "headers": []}, PROXIES) is None


async def test_routes_see_the_address_behind_the_proxy() -> None:
    async with opened_sample(edge=EdgeSettings(trusted_proxies=PROXIES), peer="10.0.0.1") as sample:
        headers = {**BEARER, "X-Forwarded-For": "198.51.100.9"}
        assert (await sample.client.get("/api/v1/things", headers=headers)).json()["ip"] == "198.51.100.9"


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        TOKEN,
        "Basic abc",
        "Bearer",
        "Bearer ",
        "Bearer two tokens",
        "Bearer tök",
        "Bearer " + "a" * 513,
        "Bearer a\tb",
    ],
)
async def test_a_request_without_one_bearer_token_is_a_401(sample: Sample, header: str | None) -> None:
    headers = {} if header is None else {b"authorization": header.encode()}
    answer = await sample.client.get("/api/v1/things", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")


async def test_two_authorization_headers_are_not_chosen_from(sample: Sample) -> None:
    """A proxy and we might choose differently."""
    headers = [("authorization", f"Bearer {TOKEN}"), ("authorization", "Bearer other")]
    assert (await sample.client.get("/api/v1/things", headers=headers)).status_code == 401


async def test_a_request_id_is_echoed_when_it_is_one(sample: Sample) -> None:
    answer = await sample.client.get("/api/v1/things", headers={**BEARER, "X-Request-Id": "trace-1.a:b_c"})
    assert answer.headers["x-request-id"] == answer.json()["request_id"] == "trace-1.a:b_c"


@pytest.mark.parametrize("given", ["", "with space", "a" * 65, 'quote"', "<script>"])
async def test_any_other_request_id_is_replaced(sample: Sample, given: str) -> None:
    """It ends up in logs and audit leaves."""
    answer = await sample.client.get("/open", headers={"X-Request-Id": given})
    assert answer.headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize("given", ["a", "!" * 255, "b5c9-~"])
def test_an_idempotency_key_is_visible_ascii(given: str) -> None:
    assert parse_idempotency_key(given) == given


@pytest.mark.parametrize("given", ["", "a b", "a" * 256, "ä", "a\n", "a\x7f"])
def test_any_other_idempotency_key_is_refused(given: str) -> None:
    with pytest.raises(InputError) as refused:
        parse_idempotency_key(given)
    assert refused.value.field == "Idempotency-Key"


@pytest.mark.parametrize(("given", "revision"), [(None, None), ("*", None), ('"3"', 3), (' "0" ', 0)])
def test_if_match_names_a_revision(given: str | None, revision: int | None) -> None:
    assert parse_if_match(given) == revision


@pytest.mark.parametrize("given", ["3", 'W/"3"', '"3", "4"', '"x"', '"' + "9" * 10 + '"', '"-1"', "", '"٣"'])
def test_any_other_if_match_is_refused(given: str) -> None:
    with pytest.raises(InputError) as refused:
        parse_if_match(given)
    assert refused.value.field == "If-Match"


async def test_headers_reach_the_route(sample: Sample) -> None:
    headers = {**BEARER, "Idempotency-Key": "once", "If-Match": '"7"'}
    seen = (await sample.client.get("/api/v1/things?limit=3&cursor=abc", headers=headers)).json()
    assert (seen["idempotency"], seen["if_match"], seen["limit"], seen["cursor"]) == ("once", 7, 3, "abc")


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=-1", "limit"),
        ("limit=many", "limit"),
        ("limit=1.5", "limit"),
        ("limit=99999999999999999999999", "limit"),
        ("limit=1&limit=2", "limit"),
        ("cursor=" + "a" * 1025, "cursor"),
        ("cursor=%00", "query"),
        ("cursor=%ff", "query"),
        ("state=-1", "state"),
        ("thing_state=1", "thing_state"),
        ("unknown=1", "unknown"),
    ],
)
async def test_a_wrong_query_is_refused_by_the_name_of_the_parameter(sample: Sample, query: str, field: str) -> None:
    answer = await sample.client.get(f"/api/v1/things?{query}", headers=BEARER)
    assert (answer.status_code, answer.json()["field"]) == (400, field)


@pytest.mark.parametrize("path", ["/api/v1/things/%00", "/api/v1/things/a%00b", "/api/v1/things/%ff", "/%c3%28"])
async def test_a_path_that_is_not_clean_text_is_a_400(sample: Sample, path: str) -> None:
    assert (await sample.client.get(path, headers=BEARER)).status_code == 400


async def test_a_revision_is_sent_as_a_strong_tag(sample: Sample) -> None:
    assert (await sample.create(b'{"name": "a"}')).headers["etag"] == '"3"'
