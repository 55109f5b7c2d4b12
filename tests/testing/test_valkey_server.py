import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from keyturn.errors import UnavailableError
from keyturn.testing.valkey import ValkeyServer


def _is_alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def test_what_was_written_survives_a_kill_and_a_restart() -> None:
    with ValkeyServer.start() as server:
        url = server.url
        server.command("SET", "greeting", "hello")
        server.kill()
        server.restart()

        assert server.command("EXISTS", "greeting") == b":1"
        assert server.url == url


def test_one_that_is_not_durable_forgets() -> None:
    with ValkeyServer.start(durable=False) as server:
        server.command("SET", "greeting", "hello")
        server.restart()

        assert server.command("EXISTS", "greeting") == b":0"


def test_nobody_gets_in_without_the_password(valkey_server: ValkeyServer) -> None:
    with socket.create_connection(("127.0.0.1", valkey_server.port), timeout=120) as peer:
        peer.sendall(b"PING\r\n")
        assert peer.recv(64).startswith(b"-NOAUTH")


def test_the_fixture_hands_out_an_empty_store(valkey_url: str, valkey_server: ValkeyServer) -> None:
    assert valkey_url == valkey_server.url
    assert valkey_server.command("DBSIZE") == b":0"


def test_a_stopped_server_says_so_and_leaves_nothing() -> None:
    server = ValkeyServer.start(durable=False)
    server.stop()
    server.stop()

    assert not server.folder.exists()
    with pytest.raises(UnavailableError, match="stopped or killed"):
        server.pause()


def test_a_server_dies_with_the_process_that_started_it() -> None:
    """A test run that is killed leaves nothing running."""
    program = """
        import sys, time
        from keyturn.testing.valkey import ValkeyServer
        server = ValkeyServer.start(durable=False)
        print(server.process.pid, server.folder, flush=True)
        time.sleep(600)
    """
    child = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    pid, _, folder = child.stdout.readline().strip().partition(" ")
    try:
        assert _is_alive(int(pid))
        child.send_signal(signal.SIGKILL)
        child.wait(120)
        deadline = time.monotonic() + 120
        while _is_alive(int(pid)):
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        child.stdout.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)
