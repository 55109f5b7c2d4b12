"""An issuer of tokens as a real one is: keys made at run time, a key set, and a server that hands it out."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from joserfc.jwk import ECKey, Key, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

ISSUER = "https://issuer.example.com"
AUDIENCE = "https://keyturn.example.com"
_KINDS = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}
_CURVES = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521", "EdDSA": "Ed25519"}


def new_key(algorithm: str) -> Key:
    """Make a private key that an algorithm signs with."""
    if algorithm[:2] in ("RS", "PS"):
        return RSAKey.generate_key(2048)
    if algorithm == "EdDSA":
        return OKPKey.generate_key("Ed25519")
    return ECKey.generate_key(_CURVES[algorithm])


def b64(raw: bytes) -> str:
    """Encode as JOSE does."""
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def signed(key: Key, header: dict[str, Any], claims: dict[str, Any] | bytes) -> str:
    """Sign whatever is given, however wrong."""
    payload = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    start = f"{b64(json.dumps(header).encode())}.{b64(payload)}"
    signature = JWSRegistry.algorithms[header["alg"]].sign(start.encode(), key)
    return f"{start}.{b64(signature)}"


def hmac_signed(secret: bytes, header: dict[str, Any], claims: dict[str, Any]) -> str:
    """Sign with a symmetric key, as in a confusion of keys."""
    start = f"{b64(json.dumps(header).encode())}.{b64(json.dumps(claims).encode())}"
    return f"{start}.{b64(hmac.new(secret, start.encode(), hashlib.sha256).digest())}"


class Issuer:
    """Signs tokens for one clock; `keys` are by key id."""

    def __init__(self, now: float, algorithm: str = "ES256", url: str = ISSUER) -> None:
        self.now = now
        self.algorithm = algorithm
        self.url = url
        self.keys: dict[str, Key] = {}
        self.current = ""
        self.rotate()

    def rotate(self, kid: str | None = None) -> None:
        """Make a new key; the old ones stay in the key set."""
        self.current = kid or f"key-{len(self.keys) + 1}"
        self.keys[self.current] = new_key(self.algorithm)

    def key_set(self) -> dict[str, Any]:
        """Return what an issuer publishes."""
        return {
            "keys": [
                {**key.as_dict(private=False), "kid": kid, "use": "sig", "alg": self.algorithm}
                for kid, key in self.keys.items()
            ]
        }

    def claims(self, **changed: Any) -> dict[str, Any]:
        """Return good claims, but for what is changed; None takes one away."""
        claims = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": "repo:acme/payments:ref:refs/heads/main",
            "repository": "acme/payments",
            "repository_id": "12345",
            "ref": "refs/heads/main",
            "iat": int(self.now),
            "nbf": int(self.now),
            "exp": int(self.now) + 300,
            "jti": "one",
        } | changed
        return {name: value for name, value in claims.items() if value is not None}

    def token(self, *, header: dict[str, Any] | None = None, **changed: Any) -> str:
        """Sign a token."""
        head = {"alg": self.algorithm, "typ": "JWT", "kid": self.current} | (header or {})
        return signed(self.keys[self.current], head, self.claims(**changed))


class Place:
    """A server of this machine that answers what it is told; use it as a context manager."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, bytes]] = {}
        self.asked: list[str] = []
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        place = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                place.asked.append(self.path)
                place.headers.append({name.lower(): value for name, value in self.headers.items()})
                status, body = place.answers.get(self.path, (404, b"{}"))
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                if 300 <= status < 400:
                    self.send_header("Location", body.decode())
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self) -> None:
                place.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
                self.do_GET()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the signature of the base class
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def answer(self, path: str, document: Any, status: int = 200) -> str:
        """Answer a path with a document from now on; return its address."""
        self.answers[path] = (status, document if isinstance(document, bytes) else json.dumps(document).encode())
        return self.url + path

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, name="place", daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()
