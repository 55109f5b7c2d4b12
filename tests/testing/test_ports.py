"""Ports for programs that are killed and started again: nobody else may have taken theirs meanwhile."""

import socket
import subprocess
import sys
from pathlib import Path

from keyturn.testing import ports
from keyturn.testing.ports import free_port

_TAKE = "from keyturn.testing.ports import free_port; print([free_port() for _ in range(200)])"


def test_a_port_is_free_and_given_once() -> None:
    taken = [free_port() for _ in range(50)]
    assert len(set(taken)) == 50
    for port in taken:
        with socket.create_server(("127.0.0.1", port)):
            pass


def test_no_port_is_one_that_a_connection_may_be_given() -> None:
    """Else whatever connects while a server is away could sit on its port when it comes back."""
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert lowest >= ports._HIGHEST  # noqa: SLF001 -- what it must stay below is the machine's
    assert ports._LOWEST <= free_port() < ports._HIGHEST  # noqa: SLF001


def test_runs_at_once_are_given_different_ports() -> None:
    held = {free_port() for _ in range(200)}
    other = subprocess.run([sys.executable, "-c", _TAKE], capture_output=True, text=True, check=True, timeout=120)
    assert not held & set(map(int, other.stdout.strip("[]\n").split(",")))
