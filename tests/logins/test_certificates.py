"""Client certificates from the header of a listed proxy, and from nowhere else."""

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from structlog.testing import capture_logs

from keyturn.errors import InputError, UnauthenticatedError
from keyturn.kernel.secret import Secret
from keyturn.logins.assertions import CertificateAssertion, JwtAssertion
from keyturn.testing.clock import START
from keyturn.wire.logins import LoginAnswer
from tests.logins.gate import OFFICE, Gate

HEADER = "x-forwarded-client-cert"


class Authority:
    """Issues certificates."""

    def __init__(self, name: str = "clients") -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = self._built(self.name, self.key.public_key(), x509.BasicConstraints(ca=True, path_length=0))

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(Encoding.PEM).decode()

    @property
    def fingerprint(self) -> str:
        return self.certificate.fingerprint(hashes.SHA256()).hex(":").upper()

    def issue(self, *names: str, common: str = "payments", days: int = 30, **given: Any) -> str:
        """Issue a certificate; return it as PEM."""
        extensions: list[x509.ExtensionType] = []
        if names:
            kinds = [x509.UniformResourceIdentifier(n) if "://" in n else x509.DNSName(n) for n in names]
            extensions.append(x509.SubjectAlternativeName(kinds))
        usage = given.get("usage", ExtendedKeyUsageOID.CLIENT_AUTH)
        if usage is not None:
            extensions.append(x509.ExtendedKeyUsage([usage]))
        if given.get("ca"):
            extensions.append(x509.BasicConstraints(ca=True, path_length=None))
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])
        made = self._built(subject, ec.generate_private_key(ec.SECP256R1()).public_key(), *extensions, days=days)
        return made.public_bytes(Encoding.PEM).decode()

    def _built(
        self, subject: x509.Name, key: Any, *extensions: x509.ExtensionType, days: int = 300
    ) -> x509.Certificate:
        begin = datetime.fromtimestamp(START, UTC) - timedelta(days=100)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(begin + timedelta(days=100 + days))
        )
        for one in extensions:
            builder = builder.add_extension(one, critical=False)
        return builder.sign(self.key, hashes.SHA256())


async def opened(gate: Gate, authority: Authority, binding: dict[str, Any], **given: Any) -> None:
    await gate.service()
    await gate.method("mtls", kind="certificate", certificate={"ca_pem": authority.pem} | given)
    await gate.role("mtls", certificate=binding)


async def present(gate: Gate, *values: str, proxied: bool = True, header: str = HEADER) -> LoginAnswer:
    """Log in as a request with these headers would."""
    held = tuple((header.encode(), value.encode()) for value in values)
    return await gate.logins.login("mtls", "deploy", CertificateAssertion(held, proxied), ip=OFFICE)


async def refused(gate: Gate, *values: str, **given: Any) -> str:
    with capture_logs() as logs, pytest.raises(UnauthenticatedError):
        await present(gate, *values, **given)
    return str(next(one["reason"] for one in logs if one["event"] == "a login was refused"))


async def test_a_certificate_lets_in_by_its_name_and_gets_the_same_token_again(gate: Gate) -> None:
    authority = Authority()
    await opened(gate, authority, {"names": ["spiffe://example.com/payments/*"], "issuers": [authority.fingerprint]})
    pem = authority.issue("spiffe://example.com/payments/api", "api.example.com")

    first = await present(gate, quote(pem))
    again = await present(gate, f'Hash=abc;Subject="CN=x,O=y";Cert="{quote(pem)}";URI=spiffe://example.com')

    assert first.subject == "spiffe://example.com/payments/api"
    assert again.token == first.token
    await gate.whoami(first)


async def test_a_certificate_counts_only_from_a_listed_proxy(lone_gate: Gate) -> None:
    """Anybody can send the header; only a proxy that is listed is believed."""
    authority = Authority()
    await opened(lone_gate, authority, {"subjects": ["payments"]})
    pem = quote(authority.issue())

    await present(lone_gate, pem)
    assert await refused(lone_gate, pem, proxied=False) == "peer_not_listed"
    assert await refused(lone_gate, pem, header="ssl-client-cert") == "no_certificate"
    assert await refused(lone_gate, pem, pem) == "several_headers"
    one = f'Cert="{pem}"'
    assert await refused(lone_gate, f"{one},{one}") == "several_certificates"
    assert await refused(lone_gate, f"{one};{one}") == "no_certificate"


async def test_a_certificate_is_checked_again(lone_gate: Gate) -> None:
    authority, other = Authority(), Authority()
    await opened(lone_gate, authority, {"subjects": ["payments"]})

    assert await refused(lone_gate, quote(other.issue())) == "authority"
    assert await refused(lone_gate, quote(authority.issue(days=-1))) == "certificate_time"
    server = authority.issue(usage=ExtendedKeyUsageOID.SERVER_AUTH)
    assert await refused(lone_gate, quote(server)) == "certificate_usage"
    assert await refused(lone_gate, quote(authority.issue(ca=True))) == "certificate_usage"
    assert await refused(lone_gate, quote(authority.issue(common="payments-evil"))) == "subject"
    assert await refused(lone_gate, quote(authority.issue(common="p\u0430yments"))) == "subject"
    good = authority.issue()
    assert await refused(lone_gate, quote(good + good)) == "certificate_form"
    for text in ("x", "%00", "-----BEGIN CERTIFICATE-----", "A" * 40_000, "Cert=", 'Cert="%ff"'):
        assert await refused(lone_gate, text)


async def test_an_issuer_that_is_not_bound_lets_nobody_in(lone_gate: Gate) -> None:
    authority, other = Authority(), Authority("others")
    await opened(lone_gate, authority, {"subjects": ["payments"], "issuers": [other.fingerprint]})

    assert await refused(lone_gate, quote(authority.issue())) == "issuer"


async def test_a_header_of_its_own_and_a_form_with_tabs(lone_gate: Gate) -> None:
    authority = Authority()
    await opened(lone_gate, authority, {"names": ["api.example.com"]}, header="ssl-client-cert")
    pem = authority.issue("api.example.com", usage=None)

    await present(lone_gate, quote(pem), header="ssl-client-cert")
    await present(lone_gate, pem.replace("\n", "\t"), header="SSL-Client-Cert")


@pytest.mark.parametrize(
    "binding", [{}, {"issuers": ["a" * 64]}, {"names": ["a*b"]}, {"subjects": ["x"], "issuers": ["ab" * 40]}]
)
async def test_a_binding_that_names_nobody_is_refused(lone_gate: Gate, binding: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        await opened(lone_gate, Authority(), binding)


async def test_what_is_no_authority_is_refused(lone_gate: Gate) -> None:
    leaf = Authority().issue()
    for pem in (leaf, "x", leaf.replace("CERTIFICATE", "PRIVATE KEY")):
        with pytest.raises(InputError):
            await lone_gate.method("mtls", kind="certificate", certificate={"ca_pem": pem})


async def test_a_token_is_no_certificate_and_the_other_way_round(lone_gate: Gate) -> None:
    await opened(lone_gate, Authority(), {"subjects": ["payments"]})

    with pytest.raises(UnauthenticatedError):
        await lone_gate.logins.login("mtls", "deploy", JwtAssertion(Secret("a.b.c")), ip=OFFICE)
