"""Small stand-ins for the services that keep root keys, asked by the providers' real clients over HTTP.

They wrap for real (AES-KWP, RSA-OAEP), check what is bound to a wrapped key, and can be made to fail.
"""

import base64
import datetime as dt
import json
import re
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV

from keyturn.kernel.secret import random_bytes


class Refusal(Exception):  # noqa: N818 -- an answer
    """What a stand-in answers instead."""

    def __init__(self, status: int, document: object) -> None:
        """Answer a status and a document."""
        super().__init__(status)
        self.status = status
        self.document = document


class Service:
    """Answers requests by `handle`; `failing` answers that status to everything."""

    failing: int | None = None
    asked = 0

    def answer(self, method: str, path: str, headers: dict[str, str], body: dict[str, Any]) -> dict[str, Any]:
        """Answer one request, or raise a Refusal."""
        if self.failing is not None:
            raise Refusal(self.failing, self.failure(self.failing))
        return self.handle(method, path, headers, body)

    def handle(self, method: str, path: str, headers: dict[str, str], body: dict[str, Any]) -> dict[str, Any]:
        """Answer one request when all is well, or raise a Refusal."""
        raise NotImplementedError

    def failure(self, status: int) -> dict[str, Any]:
        """Say what a failure of this service looks like."""
        return {"errors": [f"failing with {status}"]}


@contextmanager
def serving(service: Service, certificate: Path | None = None, key: Path | None = None) -> Iterator[int]:
    """Serve on a free port of this machine, with TLS if a certificate is given."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            content = self.rfile.read(length)
            service.asked += 1
            status, document = 200, {}
            headers = {name.lower(): value for name, value in self.headers.items()}
            try:
                document = service.answer(self.command, self.path, headers, json.loads(content) if content else {})
            except Refusal as refusal:
                status, document = refusal.status, refusal.document  # type: ignore[assignment]
            text = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            if status == 401:
                self.send_header(
                    "WWW-Authenticate",
                    'Bearer authorization="https://login.example/tenant", resource="https://vault.example"',
                )
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = answer  # noqa: N815 -- the server's names

        def log_message(self, *_arguments: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Transit(Service):
    """The transit engine of Vault: `keyturn` and `newer` exist."""

    def __init__(self, token: str) -> None:
        """Accept one token."""
        self.token = token
        self.keys = {name: random_bytes(32) for name in ("keyturn", "newer")}

    def handle(self, method: str, path: str, headers: dict[str, str], body: dict[str, Any]) -> dict[str, Any]:
        """Encrypt and decrypt with associated data."""
        found = re.fullmatch(r"/v1/transit/(encrypt|decrypt)/([a-z]+)", path)
        if method != "POST" or headers.get("x-vault-token") != self.token:
            raise Refusal(403, {"errors": ["permission denied"]})
        if found is None or found[2] not in self.keys:
            raise Refusal(400, {"errors": ["encryption key not found"]})
        cipher = AESGCMSIV(self.keys[found[2]])
        bound = base64.b64decode(body["associated_data"])
        if found[1] == "encrypt":
            nonce = random_bytes(12)
            sealed = nonce + cipher.encrypt(nonce, base64.b64decode(body["plaintext"]), bound)
            return {"data": {"ciphertext": "vault:v1:" + base64.b64encode(sealed).decode()}}
        try:
            sealed = base64.b64decode(body["ciphertext"].removeprefix("vault:v1:"))
            plain = cipher.decrypt(sealed[:12], sealed[12:], bound)
        except (InvalidTag, ValueError):
            raise Refusal(400, {"errors": ["cipher: message authentication failed"]}) from None
        return {"data": {"plaintext": base64.b64encode(plain).decode()}}


class CloudKms(Service):
    """Google Cloud KMS over REST: any key of the ring `r`."""

    def __init__(self) -> None:
        """Make one key for every name."""
        self.keys: dict[str, bytes] = {}

    def handle(self, method: str, path: str, headers: dict[str, str], body: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002 -- the base class's
        """Encrypt and decrypt with additional authenticated data."""
        found = re.fullmatch(r"/v1/(projects/p/locations/l/keyRings/r/cryptoKeys/\w+):(encrypt|decrypt)(\?.*)?", path)
        if found is None:
            raise Refusal(404, self.failure(404))
        cipher = AESGCMSIV(self.keys.setdefault(found[1], random_bytes(32)))
        bound = base64.b64decode(body["additionalAuthenticatedData"])
        if found[2] == "encrypt":
            nonce = random_bytes(12)
            sealed = nonce + cipher.encrypt(nonce, base64.b64decode(body["plaintext"]), bound)
            return {"name": found[1], "ciphertext": base64.b64encode(sealed).decode()}
        sealed = base64.b64decode(body["ciphertext"])
        try:
            return {"plaintext": base64.b64encode(cipher.decrypt(sealed[:12], sealed[12:], bound)).decode()}
        except InvalidTag:
            raise Refusal(400, self.failure(400)) from None

    def failure(self, status: int) -> dict[str, Any]:
        """Say it in Google's form."""
        names = {400: "INVALID_ARGUMENT", 403: "PERMISSION_DENIED", 404: "NOT_FOUND", 503: "UNAVAILABLE"}
        return {"error": {"code": status, "message": "no", "status": names[status]}}


class KeyVault(Service):
    """Azure Key Vault: RSA keys with versions; it keeps the private half and unwraps with it."""

    def __init__(self) -> None:
        """Have one version of one key."""
        self.address = ""
        self.versions: dict[str, rsa.RSAPrivateKey] = {}
        self.add_version("first")

    def add_version(self, version: str) -> None:
        """Rotate the key."""
        self.versions[version] = rsa.generate_private_key(65537, 2048)

    def handle(self, method: str, path: str, headers: dict[str, str], body: dict[str, Any]) -> dict[str, Any]:
        """Show a key, wrap and unwrap."""
        if not headers.get("authorization", "").startswith("Bearer "):
            raise Refusal(401, self.failure(401))
        found = re.fullmatch(r"/keys/keyturn/(\w*)(?:/(wrapkey|unwrapkey))?\?api-version=.*", path)
        version = "" if found is None else found[1] or next(reversed(self.versions))
        if found is None or version not in self.versions:
            raise Refusal(404, self.failure(404))
        key = self.versions[version]
        name = f"{self.address}/keys/keyturn/{version}"
        if method == "GET":
            numbers = key.public_key().public_numbers()
            parts = {
                part: _url64(value.to_bytes(-(-value.bit_length() // 8)))
                for part, value in (("n", numbers.n), ("e", numbers.e))
            }
            operations = ["wrapKey", "unwrapKey"]
            return {"key": {"kid": name, "kty": "RSA", "key_ops": operations, **parts}, "attributes": {"enabled": True}}
        scheme = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
        given = base64.urlsafe_b64decode(body["value"] + "=" * (-len(body["value"]) % 4))
        if found[2] == "wrapkey":
            return {"kid": name, "value": _url64(key.public_key().encrypt(given, scheme))}
        try:
            return {"kid": name, "value": _url64(key.decrypt(given, scheme))}
        except ValueError:
            raise Refusal(400, self.failure(400)) from None

    def failure(self, status: int) -> dict[str, Any]:
        """Say it in Azure's form."""
        return {"error": {"code": "BadParameter" if status == 400 else "Failed", "message": "no"}}


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """Make a certificate for this machine, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    start = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + dt.timedelta(days=36500))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "service.pem", folder / "service.key"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


def _url64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")
