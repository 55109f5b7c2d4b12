#!/usr/bin/env python3
"""A FastCGI authorizer that asks Keyturn about each request to Apache (mod_authnz_fcgi).  Python 3.11, nothing else.

KEYTURN_ADDRESS      where Keyturn is, such as http://127.0.0.1:8700; with https:// its certificate is verified
KEYTURN_TOKEN_FILE   the file with the management token of this gateway, which needs key.verify and nothing else
KEYTURN_LISTEN       where Apache asks, such as 127.0.0.1:8701; nobody else should reach it

Apache says in the variable KEYTURN_OPTIONS what a part of the site needs.  Whatever goes wrong, the answer is 503.
"""

import http.client
import json
import os
import queue
import socket
import ssl
import struct
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

THREADS = 64
TIMEOUT_SECONDS = 6.0
RECORD_BYTES_MAX = 65_528
REQUEST_BYTES_MAX = 256 * 1024
BEGIN, END, PARAMS, STDOUT = 1, 3, 4, 6
NOT_SENT = {
    "HTTP_HOST",
    "HTTP_CONNECTION",
    "HTTP_COOKIE",
    "HTTP_FORWARDED",
    "HTTP_X_REAL_IP",
    "HTTP_ACCEPT_ENCODING",
    "HTTP_EXPECT",
    "HTTP_TE",
    "HTTP_UPGRADE",
    "HTTP_TRANSFER_ENCODING",
}
OURS = ("HTTP_X_KEYTURN_", "HTTP_X_FORWARDED_")
REFUSING = ("content-type", "www-authenticate", "retry-after", "ratelimit-policy", "ratelimit", "x-request-id")
ADMITTING = ("x-keyturn-", "x-consumer-username", "x-credential-identifier", "ratelimit")
UNAVAILABLE = {
    "type": "urn:keyturn:problem:unavailable",
    "title": "Keys cannot be verified now",
    "status": 503,
    "code": "unavailable",
}


class Keyturn:
    """Keeps connections to Keyturn open, as many as are used at once."""

    def __init__(self, address: str, token: str) -> None:
        """Connect when first asked."""
        parts = urlsplit(address)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise SystemExit(f"KEYTURN_ADDRESS is {address!r}; expected http://host:port or https://host:port")
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._host, self._port = parts.hostname, parts.port
        self._token = token
        self._idle: queue.LifoQueue[http.client.HTTPConnection] = queue.LifoQueue(THREADS)

    def ask(self, variables: dict[str, str]) -> tuple[int, list[tuple[str, str]], bytes]:
        """Return status, headers and body of the answer about a request; raises OSError or HTTPException."""
        path = "/auth/traefik?" + variables["KEYTURN_OPTIONS"]
        headers = {
            name[5:].replace("_", "-"): value
            for name, value in variables.items()
            if name.startswith("HTTP_") and name not in NOT_SENT and not name.startswith(OURS)
        }
        headers |= {
            "X-Keyturn-Token": self._token,
            "X-Forwarded-Method": variables["REQUEST_METHOD"],
            "X-Forwarded-Uri": variables["REQUEST_URI"],
            "X-Forwarded-For": variables["REMOTE_ADDR"],
        }
        while True:
            connection, used_before = self._connection()
            try:
                connection.request("GET", path, headers=headers)
                answer = connection.getresponse()
                found = answer.status, answer.getheaders(), answer.read()
            except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
                # Keyturn may close a connection that was idle; a new one tells whether it is there.
                connection.close()
                if not used_before:
                    raise
            except BaseException:
                connection.close()
                raise
            else:
                self._keep(connection)
                return found

    def _connection(self) -> tuple[http.client.HTTPConnection, bool]:
        try:
            return self._idle.get_nowait(), True
        except queue.Empty:
            pass
        if self._tls is None:
            return http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT_SECONDS), False
        return http.client.HTTPSConnection(self._host, self._port, timeout=TIMEOUT_SECONDS, context=self._tls), False

    def _keep(self, connection: http.client.HTTPConnection) -> None:
        try:
            self._idle.put_nowait(connection)
        except queue.Full:
            connection.close()


def answer_to(keyturn: Keyturn, variables: dict[str, str]) -> bytes:
    """Return what the authorizer says about a request, as the text of a CGI response."""
    try:
        status, headers, body = keyturn.ask(variables)
    except Exception as error:  # noqa: BLE001 -- whatever it is, the request must not pass
        sys.stderr.write(f"not answered: {type(error).__name__}\n")
        status, headers, body = 503, [], b""
    given = {name.lower(): value for name, value in headers}
    if status == 200 and given.get("x-keyturn-code") == "VALID":
        said = [
            (f"Variable-{name.upper().replace('-', '_')}", value)
            for name, value in given.items()
            if name.startswith(ADMITTING)
        ]
        return _encoded(200, [("Variable-REMOTE_USER", given["x-keyturn-key-id"]), *said], b"")
    if status in {401, 403, 429}:
        return _encoded(status, [(name, given[name]) for name in REFUSING if name in given], body)
    problem = [("content-type", "application/problem+json"), ("retry-after", "1")]
    return _encoded(503, problem, json.dumps(UNAVAILABLE, separators=(",", ":")).encode())


def _encoded(status: int, headers: list[tuple[str, str]], body: bytes) -> bytes:
    lines = [f"Status: {status}", "Cache-Control: no-store", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def serve(connection: socket.socket, keyturn: Keyturn) -> None:
    """Answer the one request of a connection."""
    with connection:
        connection.settimeout(TIMEOUT_SECONDS)
        try:
            request_id, variables = _read_request(connection)
            output = answer_to(keyturn, variables)
            records = [
                _record(STDOUT, request_id, output[start : start + RECORD_BYTES_MAX])
                for start in range(0, len(output), RECORD_BYTES_MAX)
            ]
            ended = _record(END, request_id, struct.pack(">IB3x", 0, 0))
            connection.sendall(b"".join(records) + _record(STDOUT, request_id, b"") + ended)
        except (OSError, ValueError, struct.error, IndexError) as error:
            sys.stderr.write(f"broken connection: {type(error).__name__}\n")


def _read_request(connection: socket.socket) -> tuple[int, dict[str, str]]:
    request_id, encoded = 0, b""
    while True:
        _, kind, number, length, padding = struct.unpack(">BBHHBx", _read(connection, 8))
        content = _read(connection, length + padding)[:length]
        if kind == BEGIN:
            request_id = number
        elif kind == PARAMS and content:
            encoded += content
            if len(encoded) > REQUEST_BYTES_MAX:
                raise ValueError("the request is too large")
        elif kind == PARAMS:
            return request_id, _variables(encoded)


def _read(connection: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        chunk = connection.recv(length - len(data))
        if not chunk:
            raise OSError("closed")
        data += chunk
    return data


def _variables(encoded: bytes) -> dict[str, str]:
    found: dict[str, str] = {}
    at = 0
    while at < len(encoded):
        name_length, at = _length(encoded, at)
        value_length, at = _length(encoded, at)
        value_at = at + name_length
        found[encoded[at:value_at].decode("latin-1")] = encoded[value_at : value_at + value_length].decode("latin-1")
        at = value_at + value_length
    return found


def _length(encoded: bytes, at: int) -> tuple[int, int]:
    if encoded[at] < 128:
        return encoded[at], at + 1
    return int.from_bytes(encoded[at : at + 4], "big") & 0x7FFF_FFFF, at + 4


def _record(kind: int, request_id: int, content: bytes) -> bytes:
    return struct.pack(">BBHHBx", 1, kind, request_id, len(content), 0) + content


def main() -> None:
    """Serve until killed."""
    try:
        token = Path(os.environ["KEYTURN_TOKEN_FILE"]).read_text("ascii").strip()
        keyturn = Keyturn(os.environ["KEYTURN_ADDRESS"], token)
        host, _, port = os.environ.get("KEYTURN_LISTEN", "127.0.0.1:8701").rpartition(":")
        listening = socket.create_server((host, int(port)), backlog=256)
    except (KeyError, OSError, ValueError) as error:
        raise SystemExit(f"cannot start: {error}") from None
    with listening, ThreadPoolExecutor(THREADS) as pool:
        while True:
            connection, _ = listening.accept()
            pool.submit(serve, connection, keyturn)


if __name__ == "__main__":
    main()
