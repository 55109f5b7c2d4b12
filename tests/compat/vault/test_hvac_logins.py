"""`hvac`, unmodified, against a real server: logins by JWT and by the certificate that a proxy passes on."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import httpx
import hvac
import hvac.exceptions
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from keyturn.testing.server import RunningServer
from tests.logins.issuer import AUDIENCE, ISSUER, Issuer

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # what hvac warns of is its own


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server whose listed proxy is this machine."""
    folder = tmp_path_factory.mktemp("vault") / "data"
    with RunningServer.start(folder, env={"KEYTURN_TRUSTED_PROXIES": "127.0.0.1"}) as running:
        yield running


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    return Issuer(time.time())


@pytest.fixture(scope="module")
def deploy(native: Callable[..., Any], client: Any, issuer: Issuer) -> str:
    """A role of the method `jwt` whose service may read `production/deploy/*`."""
    native(
        "POST", "/login-methods", {"name": "jwt", "kind": "jwt", "jwt": {"issuer": ISSUER, "jwks": issuer.key_set()}}
    )
    principal = native("POST", "/principals", {"kind": "service", "name": "deploy"})["id"]
    grant = {"principal": principal, "actions": ["secret.read"], "resource": "secret/production/deploy/*"}
    native("POST", "/grants", grant)
    binding = {"audiences": [AUDIENCE], "claims": {"sub": "repo:acme/payments:*"}}
    native("POST", "/login-methods/jwt/roles", {"name": "deploy", "principal": "deploy", "jwt": binding})
    client.secrets.kv.v2.create_or_update_secret("deploy/a", {"n": 1})
    return "deploy"


def test_a_signed_token_of_the_issuer_logs_in(server: RunningServer, issuer: Issuer, deploy: str) -> None:
    client = hvac.Client(server.url)
    told = client.auth.jwt.jwt_login(role=deploy, jwt=issuer.token())
    assert told["auth"]["metadata"]["subject"].startswith("repo:acme/payments")
    assert client.secrets.kv.v2.read_secret_version("deploy/a")["data"]["data"] == {"n": 1}
    looked = client.auth.token.lookup_self()["data"]
    assert looked["path"] == "auth/jwt/login"
    assert looked["display_name"].startswith("jwt-repo:acme/payments")


def test_every_other_token_is_refused_alike(server: RunningServer, issuer: Issuer, deploy: str) -> None:
    client = hvac.Client(server.url)
    stranger = Issuer(time.time())
    for role, token in (
        (deploy, stranger.token()),
        (deploy, issuer.token(aud="https://elsewhere.example.com")),
        (deploy, issuer.token(sub="repo:other/payments:ref:refs/heads/main")),
        (deploy, issuer.token(exp=int(time.time()) - 600)),
        ("nothing", issuer.token()),
        (deploy, "not.a.token"),
    ):
        with pytest.raises(hvac.exceptions.Forbidden) as caught:
            client.auth.jwt.jwt_login(role=role, jwt=token)
        assert caught.value.errors == ["permission denied"]
    with pytest.raises(hvac.exceptions.InvalidRequest):
        client.auth.jwt.jwt_login(role=deploy, jwt="x" * 20_000)


def certificate_of(name: str, issued_by: tuple[x509.Name, Any] | None = None) -> tuple[x509.Certificate, Any]:
    """Make a certificate: an authority's own, or one that it issued to a client."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    by, signer = issued_by or (subject, key)
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
    )
    if issued_by is None:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    else:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
    return builder.sign(signer, hashes.SHA256()), key


def pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


def test_a_certificate_that_a_listed_proxy_passes_on_logs_in(
    server: RunningServer, native: Callable[..., Any], deploy: str
) -> None:
    authority, key = certificate_of("clients")
    name = "payments.internal.example"
    good, _ = certificate_of(name, (authority.subject, key))
    options = {"ca_pem": pem(authority), "header": "X-Client-Cert"}
    native("POST", "/login-methods", {"name": "cert", "kind": "certificate", "certificate": options})
    role = {"name": "payments", "principal": deploy, "certificate": {"names": [name]}}
    native("POST", "/login-methods/cert/roles", role)
    other, _ = certificate_of(name)
    for passed, status in ((pem(good), 200), (pem(other), 400), (None, 400)):
        headers = {} if passed is None else {"X-Client-Cert": quote(passed, safe="")}
        answer = httpx.post(f"{server.url}/v1/auth/cert/login", json={"name": "payments"}, headers=headers, timeout=120)
        assert answer.status_code == status, answer.text
    assert answer.json() == {"errors": ["invalid certificate or no client certificate supplied"]}
