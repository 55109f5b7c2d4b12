"""The kit is tested on a small program in the place of the server, so that a fault here is a fault of the kit."""

import contextlib
import http.client
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from keyturn.errors import UnavailableError
from keyturn.testing.child import members_of_group
from keyturn.testing.server import RunningServer

_PROGRAM = """
    import http.server, os, pathlib, signal, sys

    if "SAMPLE_FAULT" in os.environ:
        sys.exit("no such key")
    stray = [name for name in os.environ if name.startswith("KEYTURN_STRAY")]
    assert sys.argv[1:] == ["serve"] and not stray, (sys.argv, stray)
    (pathlib.Path(os.environ["KEYTURN_DATA"]) / "admin-token").write_text("sample\\n")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/health/ready" else 404)
            self.end_headers()

    server = http.server.HTTPServer((os.environ["KEYTURN_HOST"], int(os.environ["KEYTURN_PORT"])), Handler)
    worker = os.fork()
    if worker == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        server.serve_forever()

    def stop(number, frame):
        os.kill(worker, signal.SIGKILL)
        print("stopped", flush=True)
        os._exit(0)

    server.socket.close()
    signal.signal(signal.SIGTERM, stop)
    while True:
        signal.pause()
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setenv("KEYTURN_STRAY", "set where the tests run")
    package = tmp_path / "program" / "keyturn"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(textwrap.dedent(_PROGRAM))
    return {"PYTHONPATH": str(package.parent)}


@pytest.fixture
def server(program: dict[str, str], tmp_path: Path) -> Iterator[RunningServer]:
    server = RunningServer.start(tmp_path / "data", env=program)
    yield server
    server.kill9()


def _status(server: RunningServer) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    with contextlib.closing(connection):
        connection.request("GET", "/health/ready")
        return connection.getresponse().status


def test_a_started_server_is_ready_and_alone_in_its_group(server: RunningServer) -> None:
    assert _status(server) == 200
    assert server.admin_token == "sample"
    assert server.process.pid in server.pids
    assert len(server.pids) == 2


def test_stop_lets_the_server_end_by_itself(server: RunningServer) -> None:
    group = server.process.pid
    assert server.stop() == 0
    assert "stopped" in server.logs()
    assert members_of_group(group) == []
    assert server.stop() == 0


def test_kill9_leaves_no_worker_that_holds_the_port(server: RunningServer) -> None:
    """A worker that outlives its parent would answer in place of the server that the test starts next."""
    group = server.process.pid
    server.kill9()
    assert members_of_group(group) == []
    assert not server.is_ready()
    assert "stopped" not in server.logs()
    server.restart()
    assert _status(server) == 200


def test_a_paused_server_answers_nothing_until_resumed(server: RunningServer) -> None:
    server.pause()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=0.2)
    with contextlib.closing(connection):
        connection.request("GET", "/health/ready")
        with pytest.raises(TimeoutError):
            connection.getresponse()
    server.resume()
    assert _status(server) == 200


def test_a_server_that_ends_while_starting_shows_its_log(program: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="no such key"):
        RunningServer.start(tmp_path / "data", env=program | {"SAMPLE_FAULT": "1"})
