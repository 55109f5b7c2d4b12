import pytest

from tests.http.sample import BEARER, Sample, opened_sample

PROTECTING = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cache-control": "no-store",
}


@pytest.mark.parametrize(("path", "status"), [("/open", 200), ("/nothing", 404), ("/api/v1/things", 401)])
async def test_every_answer_carries_the_protecting_headers(sample: Sample, path: str, status: int) -> None:
    answer = await sample.client.get(path)
    assert answer.status_code == status
    assert {name: answer.headers.get(name) for name in PROTECTING} == PROTECTING


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/api/v1/things", "GET, HEAD, OPTIONS, POST"),
        ("/api/v1/things/one", "GET, HEAD, OPTIONS"),
        ("/api/v1/verify", "OPTIONS, POST"),
        ("/open", "GET, HEAD, OPTIONS"),
    ],
)
async def test_options_lists_every_method_of_a_path(sample: Sample, path: str, allowed: str) -> None:
    answer = await sample.client.options(path)
    assert (answer.status_code, answer.headers["allow"], answer.content) == (204, allowed, b"")
    refused = await sample.client.request("BREW", path)
    assert (refused.status_code, refused.headers["allow"]) == (405, allowed)


async def test_options_of_no_path_is_a_404(sample: Sample) -> None:
    assert (await sample.client.options("/nothing")).status_code == 404


async def test_head_answers_as_get_does_without_a_body(sample: Sample) -> None:
    got, head = await sample.client.get("/open"), await sample.client.head("/open")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == got.headers["content-length"]
    assert (await sample.client.head("/api/v1/things")).status_code == 401
    assert (await sample.client.head("/api/v1/things/bulk", headers=BEARER)).status_code in {200, 405}


async def test_requests_are_counted_by_route_and_never_by_what_was_asked_for() -> None:
    """An id in a label would be told to whoever reads the metrics, and make their number unbounded."""
    counted: list[tuple[str, str, int]] = []

    def observe(method: str, route: str, status: int, seconds: float) -> None:
        assert seconds >= 0
        counted.append((method, route, status))

    async with opened_sample(observe=observe) as sample:
        await sample.client.get("/api/v1/things/key_secret", headers=BEARER)
        await sample.client.get("/no/such/path")
        await sample.client.request("BREW", "/open")
        await sample.client.head("/open")
    assert counted == [
        ("GET", "/api/v1/things/{name}", 200),
        ("GET", "unknown", 404),
        ("other", "unknown", 405),
        ("HEAD", "/open", 200),
    ]


async def test_a_stopping_server_lets_go_of_its_connections(sample: Sample) -> None:
    assert "connection" not in (await sample.client.get("/open")).headers
    sample.draining.set()
    assert (await sample.client.get("/open")).headers["connection"] == "close"
