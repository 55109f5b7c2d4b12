"""Client certificates that a listed TLS proxy has checked and hands on in a header.

    X-Forwarded-Client-Cert: Hash=…;Cert="-----BEGIN%20CERTIFICATE-----…";Subject="…"      one element, with its Cert
    ssl-client-cert: -----BEGIN%20CERTIFICATE-----%0A…                                     percent-encoded PEM

The header counts only when the peer of the connection is itself a listed proxy, and only once: a proxy that adds to
what a client sent is set up wrongly.  The proxy has made sure that the client holds the key; here the certificate is
checked again: issued by one of the method's authorities, within its time, and not for servers alone.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Final, NoReturn
from urllib.parse import unquote_to_bytes

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from keyturn.errors import InputError
from keyturn.logins.claims import any_matches
from keyturn.logins.model import Proof
from keyturn.logins.refusal import RefusedLoginError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keyturn.logins.assertions import CertificateAssertion
    from keyturn.wire.logins import CertificateBinding, CertificateOptions

HEADER_BYTES_MAX: Final = 32_768
AUTHORITIES_MAX: Final = 32
TEXT_MAX: Final = 512
_CERT: Final = re.compile(rb'(?i:(?:^|;)cert)=(?:"([^"]*)"|([^;"]*))')
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def read_authorities(pem: str, field: str) -> list[x509.Certificate]:
    """Read the authorities of a method; raises InputError for what is none."""
    try:
        found = x509.load_pem_x509_certificates(pem.encode())
        able = all(one.extensions.get_extension_for_class(x509.BasicConstraints).value.ca for one in found)
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension):
        found, able = [], False
    if not found or not able or len(found) > AUTHORITIES_MAX:
        raise InputError(f"expected 1 to {AUTHORITIES_MAX} certificates of authorities, as PEM", field=field)
    return found


def prove(
    assertion: CertificateAssertion, options: CertificateOptions, binding: CertificateBinding, now: float
) -> Proof:
    """Return the identity of a certificate in the proxy's header; raises RefusedLoginError."""
    certificate = _load(_from_header(assertion, options.header))
    authority = _authority(certificate, read_authorities(options.ca_pem, "certificate.ca_pem"))
    begins, ends = certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()
    if not begins <= now < ends:
        _refuse("certificate_time")
    _check_usage(certificate)
    fingerprint = authority.fingerprint(SHA256()).hex()
    if binding.issuers and fingerprint not in {one.replace(":", "").lower() for one in binding.issuers}:
        _refuse("issuer")
    subject = _subject(certificate, binding)
    metadata = {"serial": format(certificate.serial_number, "x"), "issuer": fingerprint}
    der = certificate.public_bytes(Encoding.DER)
    return Proof(subject, metadata, expires_at=ends, mark=hashlib.sha256(der).digest())


def _from_header(assertion: CertificateAssertion, name: str) -> bytes:
    if not assertion.proxied:
        _refuse("peer_not_listed")
    wanted = name.lower().encode("ascii")
    given = [value for key, value in assertion.headers if key.lower() == wanted]
    if len(given) != 1:
        _refuse("no_certificate" if not given else "several_headers")
    value = given[0]
    if len(value) > HEADER_BYTES_MAX:
        _refuse("certificate_too_large")
    if value.lstrip().startswith(b"-----BEGIN"):
        return value
    # A quoted part may hold a comma of its own; the certificate is percent-encoded and never does.
    if b"," in re.sub(rb'"[^"]*"', b"", value):
        _refuse("several_certificates")
    found = _CERT.findall(value)
    if len(found) != 1:
        _refuse("no_certificate")
    return bytes(found[0][0] or found[0][1])


def _load(encoded: bytes) -> x509.Certificate:
    pem = unquote_to_bytes(encoded)
    if pem.count(b"-----BEGIN") != 1:
        _refuse("certificate_form")
    try:
        # Some proxies write spaces, or tabs, for the line ends.
        body = b"".join(pem.partition(b"-----BEGIN CERTIFICATE-----")[2].partition(b"-----END")[0].split())
        lines = b"-----BEGIN CERTIFICATE-----\n" + body + b"\n-----END CERTIFICATE-----\n"
        return x509.load_pem_x509_certificate(lines)
    except ValueError:
        _refuse("certificate_form")


def _authority(certificate: x509.Certificate, authorities: Sequence[x509.Certificate]) -> x509.Certificate:
    for authority in authorities:
        try:
            certificate.verify_directly_issued_by(authority)
        except (ValueError, TypeError, InvalidSignature):
            continue
        return authority
    raise RefusedLoginError("authority")


def _check_usage(certificate: x509.Certificate) -> None:
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        if constraints.value.ca:
            _refuse("certificate_usage")
    except x509.ExtensionNotFound:
        pass
    except (ValueError, x509.DuplicateExtension):
        _refuse("certificate_form")
    try:
        usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return
    if not {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE} & set(usages):
        _refuse("certificate_usage")


def _subject(certificate: x509.Certificate, binding: CertificateBinding) -> str:
    """Return the name that the certificate is let in by; a binding of issuers alone lets in by any name."""
    names, commons = _names(certificate), _commons(certificate)
    if not (binding.names or binding.subjects):
        _refuse("nothing_bound")
    by_name = next((name for name in names if any_matches(binding.names, name)), None)
    by_common = next((name for name in commons if any_matches(binding.subjects, name)), None)
    if binding.names and by_name is None:
        _refuse("name")
    if binding.subjects and by_common is None:
        _refuse("subject")
    return str(by_name if binding.names else by_common)


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        held = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    found = (
        *held.get_values_for_type(x509.DNSName),
        *held.get_values_for_type(x509.UniformResourceIdentifier),
        *held.get_values_for_type(x509.RFC822Name),
    )
    return [name for name in found if _plain(name)]


def _commons(certificate: x509.Certificate) -> list[str]:
    found = (str(one.value) for one in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME))
    return [name for name in found if _plain(name)]


def _plain(name: str) -> bool:
    return 0 < len(name) <= TEXT_MAX and not _CONTROL.search(name)


def _refuse(reason: str) -> NoReturn:
    raise RefusedLoginError(reason)
