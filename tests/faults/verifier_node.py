"""A process that verifies in its own memory, and answers about keys over HTTP as a server does.

    python -m tests.faults.verifier_node PORT URL LABEL LIMITS JOURNAL     the token comes in VERIFIER_TOKEN

`POST /api/v1/verify` takes and answers what a server's does, `GET /health/ready` says whether it is ready, and
`GET /counters` what it has counted.
"""

from __future__ import annotations

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec

from keyturn.client import Verifier
from keyturn.wire.verification import VerifyRequest, VerifyResponse

_read = msgspec.json.Decoder(VerifyRequest).decode


class Handler(BaseHTTPRequestHandler):
    """Answers from the verifier of its server."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Answering

    def do_GET(self) -> None:
        """Tell how the verifier does."""
        verifier = self.server.verifier
        if self.path == "/counters":
            self._answer(200, json.dumps(verifier.counters()).encode())
        else:
            self._answer(200 if verifier.ready else 503, b"{}")

    def do_POST(self) -> None:
        """Verify."""
        asked = _read(self.rfile.read(int(self.headers["Content-Length"])))
        found = self._verified(asked)
        self._answer(503 if found.code == "UNAVAILABLE" else 200, msgspec.json.encode(found))

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- the name is the library's
        """Say nothing."""

    def _verified(self, asked: VerifyRequest) -> VerifyResponse:
        return self.server.verifier.verify(
            asked.key,
            scopes=asked.scopes,
            ip=asked.ip,
            cost=asked.cost,
            limits=asked.limits,
            quotas=asked.quotas,
        ).response

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response_only(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Answering(ThreadingHTTPServer):
    """A thread for each connection."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, port: int, verifier: Verifier) -> None:
        """Answer on that port of this machine."""
        super().__init__(("127.0.0.1", port), Handler)
        self.verifier = verifier

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is none."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


def main(port: str, url: str, label: str, limits: Any, journal: str) -> None:
    """Serve until killed."""
    token = os.environ["VERIFIER_TOKEN"]
    verifier = Verifier(url, token, limits=limits, label=label, journal_dir=journal, timeout_seconds=10)
    with Answering(int(port), verifier) as server:
        server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
