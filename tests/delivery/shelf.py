"""A server that holds secrets in memory and speaks just the routes that delivery asks."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

_AT = "2026-01-02T03:04:05.678Z"


class Shelf:
    """Secrets by path, and every version that was put."""

    def __init__(self) -> None:
        self.token = "_".join(("kt", "mgmt", "shelf"))
        self.url = ""
        self.versions: dict[str, list[dict[str, Any]]] = {}
        self.log: list[str] = []
        self.news = threading.Condition()
        self.asked: list[str] = []
        self.failing: int | None = None
        self.refused: dict[str, int] = {}
        self.closing = False

    def put(self, path: str, /, **fields: Any) -> int:
        with self.news:
            self.versions.setdefault(path, []).append(fields)
            self.log.append(path)
            self.news.notify_all()
            return len(self.versions[path])

    def value(self, path: str) -> dict[str, Any]:
        number = len(self.versions[path])
        return {
            "id": "sec_" + path,
            "path": path,
            "environment": path.partition("/")[0],
            "version": number,
            "sequence": number,
            "state": "current",
            "fields": self.versions[path][-1],
            "created_at": _AT,
            "metadata": {},
        }

    def info(self, path: str) -> dict[str, Any]:
        names = ("owner", "purpose", "provider", "revocation_path", "created_by")
        return {
            **dict.fromkeys(names, ""),
            "id": "sec_" + path,
            "path": path,
            "environment": path.partition("/")[0],
            "metadata": {},
            "next_rotation_at": None,
            "expires_at": None,
            "current_version": len(self.versions[path]),
            "oldest_version": 1,
            "versions_max": 100,
            "cas_required": False,
            "delete_after_seconds": None,
            "created_at": _AT,
            "updated_at": _AT,
            "revision": 1,
        }

    def answer(self, method: str, address: str, body: bytes) -> tuple[int, dict[str, Any]]:
        parts = urlsplit(address)
        path = unquote(parts.path).removeprefix("/api/v1/")
        query = parse_qs(parts.query)
        self.asked.append(f"{method} {path}")
        if self.failing is not None:
            return self.failing, {"detail": "the shelf refuses", "code": "test"}
        if path == "secrets":
            prefix = query.get("prefix", [""])[0]
            found = [self.info(one) for one in sorted(self.versions) if one.startswith(prefix)]
            return 200, {"items": found, "next_cursor": None}
        if path == "secret-news":
            return self._wait(query)
        name = path.removeprefix("secrets/")
        if name in self.refused:
            return self.refused[name], {"detail": "not for you", "code": "test"}
        if method == "PUT":
            number = self.put(name, **json.loads(body)["fields"])
            keys = ("id", "path", "version", "sequence", "state", "created_at", "metadata")
            shown = self.value(name)
            return 200, {**{key: shown[key] for key in keys}, "delete_at": None, "revision": number}
        if name not in self.versions:
            return 404, {"detail": f"no secret named {name!r} is visible to this caller", "code": "not_found"}
        return 200, self.value(name)

    def _wait(self, query: dict[str, list[str]]) -> tuple[int, dict[str, Any]]:
        paths = query["path"]
        for path in paths:
            if path in self.refused:
                return self.refused[path], {"detail": "not for you", "code": "test"}
        with self.news:
            after = int(query["cursor"][0]) if "cursor" in query else len(self.log)
            seconds = float(query.get("wait_seconds", ["0"])[0])
            self.news.wait_for(lambda: self.closing or set(self.log[after:]) & set(paths), seconds)
            return 200, {"cursor": str(len(self.log)), "changed": sorted(set(self.log[after:]) & set(paths))}


@contextmanager
def open_shelf(port: int = 0, shelf: Shelf | None = None) -> Iterator[Shelf]:
    """Serve a shelf until the end."""
    held = shelf or Shelf()
    held.closing = False

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _do(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            if held.failing == 503:
                status, answer = 503, {"title": "Service Unavailable"}
            elif self.headers["Authorization"] != f"Bearer {held.token}":
                status, answer = 401, {"detail": "who are you", "code": "unauthenticated"}
            else:
                status, answer = held.answer(self.command, self.path, body)
            sent = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(sent)))
            self.send_header("Connection", "close")
            with suppress(ConnectionError):  # who asked may be gone
                self.end_headers()
                self.wfile.write(sent)

        def do_GET(self) -> None:
            self._do()

        def do_PUT(self) -> None:
            self._do()

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        server.daemon_threads = True
        held.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield held
        with held.news:
            held.closing = True
            held.news.notify_all()
        server.shutdown()
        thread.join()
