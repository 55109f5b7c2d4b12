"""Ports of this machine for the programs that tests start, kill and start again."""

import secrets
import socket
from typing import Final

_LOWEST: Final = 20_000
_HIGHEST: Final = 32_000
"""Below what Linux gives to connections (32768 and up), which would else take the port of a program that is away."""


def free_port() -> int:
    """Return a TCP port that is free on 127.0.0.1, and that no other test run is given while this process lives."""
    while True:
        port = _LOWEST + secrets.randbelow(_HIGHEST - _LOWEST)
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0keyturn-test-port-{port}")
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            claim.close()
            continue
        claim.detach()  # the kernel lets go of the name when this process ends, however that happens
        return port
