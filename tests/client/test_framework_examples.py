"""The examples that users copy, run as they say, against a real server."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from keyturn.client import Keyturn
from keyturn.testing.child import spawn, tail
from keyturn.testing.ports import free_port
from keyturn.testing.server import RunningServer
from keyturn.wire.keys import CreateKeyspace, IssueKey
from keyturn.wire.rules import LimitInput

pytestmark = pytest.mark.slow

EXAMPLES = sorted((Path(__file__).parents[2] / "examples" / "python").glob("*_app.py"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with RunningServer.start(tmp_path_factory.mktemp("examples") / "data") as running:
        with Keyturn(running.url, running.admin_token) as keyturn:
            keyturn.create_keyspace(CreateKeyspace(name="orders", prefix="acme", environment="development"))
        yield running


@pytest.fixture(params=EXAMPLES, ids=lambda path: path.stem)
def application(request: pytest.FixtureRequest, server: RunningServer, tmp_path: Path) -> Iterator[str]:
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KEYTURN_")}
    environment |= {
        "KEYTURN_URL": server.url,
        "KEYTURN_TOKEN_FILE": str(server.data_dir / "admin-token"),
        "PORT": str(port),
    }
    log = tmp_path / "application.log"
    process = spawn(
        [sys.executable, str(request.param)],
        directory=tmp_path,
        log=log,
        environment=environment,
        death_signal=signal.SIGKILL,
    )
    try:
        url = f"http://127.0.0.1:{port}"
        _await_answer(url, log)
        yield url
    finally:
        process.kill()
        process.wait()


def _await_answer(url: str, log: Path) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            httpx.get(f"{url}/health", timeout=2).raise_for_status()
        except httpx.HTTPError:
            assert time.monotonic() < deadline, tail(log)
            time.sleep(0.1)
        else:
            return


def test_it_admits_limits_and_refuses_and_its_usage_is_recorded(application: str, server: RunningServer) -> None:
    with Keyturn(server.url, server.admin_token) as keyturn:
        limits = (LimitInput(name="burst", limit=2, window_seconds=3600),)
        asked = IssueKey(keyspace="orders", owner="alice", purpose="examples", scopes=("orders:read",), limits=limits)
        made = keyturn.issue(asked)
        assert made.key is not None
        headers = {"Authorization": f"Bearer {made.key}"}
        assert httpx.get(f"{application}/orders", timeout=120).status_code == 401
        answers = [_get(application, headers) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert answers[0].json() == {"owner": "alice", "key": made.id}
        assert int(answers[2].headers["retry-after"]) > 0
        deadline = time.monotonic() + 120
        while sum(version.uses for version in keyturn.key(made.id).versions) < 3:
            assert time.monotonic() < deadline, "the usage was not recorded"
            time.sleep(0.1)
        # An application that an earlier test has killed counts as a node for as long as its keyspace may be stale.
        assert keyturn.revoke(made.id).state == "revoked"
        while _get(application, headers).status_code != 401:
            assert time.monotonic() < deadline, "the revocation did not arrive"
            time.sleep(0.05)


def _get(application: str, headers: dict[str, str]) -> httpx.Response:
    """Ask once the application knows of the key: a verifier in its process hears of a new one a moment later."""
    deadline = time.monotonic() + 120
    while True:
        answer = httpx.get(f"{application}/orders", headers=headers, timeout=120)
        if answer.status_code != 401 or time.monotonic() > deadline or "revoked" in answer.text.lower():
            return answer
        time.sleep(0.05)
