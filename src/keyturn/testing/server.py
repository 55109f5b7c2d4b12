"""A real `keyturn serve` process: started, paused, killed and started again as an operator's would be."""

import contextlib
import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from keyturn.errors import UnavailableError
from keyturn.testing.child import members_of_group, spawn, tail
from keyturn.testing.ports import free_port

START_SECONDS_MAX = 240.0
STOP_SECONDS_MAX = 120.0
_HOST = "127.0.0.1"


class RunningServer:
    """One server and all its worker processes; use it as a context manager, or call `stop`.

    Nothing of the test run's own KEYTURN_ settings reaches it.
    """

    def __init__(self, data_dir: Path, port: int, environment: Mapping[str, str]) -> None:
        """Not for callers: use `start`."""
        self.data_dir = data_dir
        self.port = port
        self.url = f"http://{_HOST}:{port}"
        self.log = data_dir.with_name(f"{data_dir.name}.log")
        self._environment = dict(environment)
        self._process: subprocess.Popen[bytes] | None = None
        self._group = 0

    @classmethod
    def start(
        cls,
        data_dir: Path,
        database_url: str | None = None,
        port: int = 0,
        env: Mapping[str, str] | None = None,
    ) -> Self:
        """Start a server and return once `/health/ready` answers 200.

        `data_dir` is created when absent; its log is the file beside it, `<data_dir>.log`.
        `database_url` None means SQLite in the data folder; port 0 picks a free one; `env` adds settings.
        Raises `UnavailableError` with the end of the log when it ends or is not ready within `START_SECONDS_MAX`.
        """
        data_dir.mkdir(parents=True, exist_ok=True)
        port = port or free_port()
        settings = {"KEYTURN_DATA": str(data_dir), "KEYTURN_HOST": _HOST, "KEYTURN_PORT": str(port)}
        if database_url is not None:
            settings["KEYTURN_DATABASE_URL"] = database_url
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("KEYTURN_")}
        server = cls(data_dir, port, inherited | settings | dict(env or {}))
        server.restart()
        return server

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The parent process of the server; raises `UnavailableError` once it was stopped."""
        if self._process is None:
            msg = "expected a running server, found one that was stopped or killed"
            raise UnavailableError(msg)
        return self._process

    @property
    def admin_token(self) -> str:
        """The token the first start wrote."""
        return (self.data_dir / "admin-token").read_text().strip()

    @property
    def pids(self) -> list[int]:
        """The parent and its workers."""
        return members_of_group(self._group)

    def logs(self) -> str:
        """Return everything it printed, over all its starts."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def restart(self, *, wait: bool = True) -> None:
        """Start it again with the same folder, port and settings, stopping it first if it runs."""
        if self._process is not None:
            self.stop()
        self._process = spawn(
            [sys.executable, "-m", "keyturn", "serve"],
            directory=self.data_dir,
            log=self.log,
            environment=self._environment,
            death_signal=signal.SIGTERM,  # the parent then ends its workers, which SIGKILL would leave behind
        )
        self._group = self._process.pid
        if wait:
            self.wait_until_ready()

    def wait_until_ready(self, seconds_max: float = START_SECONDS_MAX) -> None:
        """Return once `/health/ready` answers 200; kill the server and raise `UnavailableError` if it does not."""
        deadline = time.monotonic() + seconds_max
        while not self.is_ready():
            if self.process.poll() is not None:
                self._end()
                msg = f"the server ended while starting\n{tail(self.log)}"
                raise UnavailableError(msg)
            if time.monotonic() > deadline:
                self.kill9()
                msg = f"the server was not ready within {seconds_max:.0f} s\n{tail(self.log)}"
                raise UnavailableError(msg)
            time.sleep(0.05)

    def is_ready(self) -> bool:
        """Whether `/health/ready` answers 200 now."""
        connection = http.client.HTTPConnection(_HOST, self.port, timeout=10)
        try:
            connection.request("GET", "/health/ready")
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def stop(self) -> int:
        """Ask it to stop (SIGTERM) and return its exit code; harmless when it was stopped before.

        A server that does not end within `STOP_SECONDS_MAX` is killed, and `UnavailableError` raised.
        """
        if self._process is None:
            return 0
        process = self._process
        self.resume()
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.kill9()
            msg = f"the server did not stop within {STOP_SECONDS_MAX:.0f} s\n{tail(self.log)}"
            raise UnavailableError(msg) from None
        self._end()
        return code

    def kill9(self) -> None:
        """Kill the parent and every worker at once (SIGKILL), and return when the last is gone.

        Harmless when it was stopped before.
        """
        if self._process is not None:
            self._signal(signal.SIGKILL)
            self._end()

    def pause(self) -> None:
        """Stop all its processes where they are (SIGSTOP); connections stay open and unanswered."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let its processes run on after `pause`."""
        self._signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._group, number)

    def _end(self) -> None:
        """Take the parent's exit code and see that no worker outlived it, holding the port."""
        self.process.wait()
        while members_of_group(self._group):
            self._signal(signal.SIGKILL)
            time.sleep(0.01)
        self._process = None
