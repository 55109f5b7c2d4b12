"""A receiver as somebody would run one: an HTTP server of its own that keeps what it got."""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

from tests.webhooks.post import Message


class Site:
    """Answers `status`; use it as a context manager."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.status = 204
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                site.messages.append(Message(self.path, headers, body))
                self.send_response(site.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the signature of the base class
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/in"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, name="site", daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def types(self) -> list[str]:
        """Return the types of what came, in order."""
        return [one.type for one in self.messages]

    def got(self, type_: str, count: int = 1, seconds_max: float = 120.0) -> list[Message]:
        """Wait for so many different messages of a type, and return the first of each."""
        deadline = time.monotonic() + seconds_max
        while True:
            found = {one.id: one for one in reversed(self.messages) if one.type == type_}
            if len(found) >= count:
                return list(found.values())
            assert time.monotonic() < deadline, f"expected {count} of {type_}, found {self.types()}"
            time.sleep(0.05)
