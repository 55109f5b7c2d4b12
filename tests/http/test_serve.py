import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from keyturn.config import Settings
from keyturn.errors import ConfigError
from keyturn.http.serve import check_tls, choose_port

FROM = datetime(2020, 1, 1, tzinfo=UTC)


def _key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey, form: serialization.PrivateFormat) -> Path:
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    return path


def _write_certificate(path: Path, key: ec.EllipticCurvePrivateKey) -> Path:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "keyturn.test")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(FROM)
        .not_valid_after(FROM + timedelta(days=36500))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return path


def tls_files(folder: Path) -> tuple[Path, Path]:
    """Write a certificate for 127.0.0.1 and its key."""
    key = _key()
    certificate = _write_certificate(folder / "tls.pem", key)
    return certificate, _write_key(folder / "tls.key", key, serialization.PrivateFormat.PKCS8)


def test_a_certificate_with_its_key_is_taken(tmp_path: Path) -> None:
    certificate, key = tls_files(tmp_path)
    check_tls(Settings(tls_cert=certificate, tls_key=key))


def test_a_key_in_another_form_is_refused_with_the_command_that_converts_it(tmp_path: Path) -> None:
    key = _key()
    certificate = _write_certificate(tmp_path / "tls.pem", key)
    old = _write_key(tmp_path / "tls.key", key, serialization.PrivateFormat.TraditionalOpenSSL)
    with pytest.raises(ConfigError) as refused:
        check_tls(Settings(tls_cert=certificate, tls_key=old))
    assert "openssl pkcs8" in str(refused.value.hint)


def test_a_key_of_another_certificate_is_refused(tmp_path: Path) -> None:
    certificate, _ = tls_files(tmp_path)
    other = _write_key(tmp_path / "other.key", _key(), serialization.PrivateFormat.PKCS8)
    with pytest.raises(ConfigError, match="does not belong"):
        check_tls(Settings(tls_cert=certificate, tls_key=other))


def test_files_in_the_wrong_places_are_refused(tmp_path: Path) -> None:
    certificate, key = tls_files(tmp_path)
    with pytest.raises(ConfigError, match="no PEM certificate"):
        check_tls(Settings(tls_cert=key, tls_key=certificate))
    with pytest.raises(ConfigError, match="cannot be read"):
        check_tls(Settings(tls_cert=tmp_path / "absent", tls_key=key))


@pytest.mark.parametrize(
    "settings",
    [
        Settings(host="0.0.0.0"),  # noqa: S104 -- refused, never listened on
        Settings(host="192.0.2.1"),
        Settings(host="::"),
        Settings(host="keyturn.test"),
        Settings(tls="terminated"),
        Settings(tls_cert=Path("tls.pem")),
        Settings(workers=2),
    ],
)
def test_settings_that_would_be_unsafe_to_serve_with_are_refused(settings: Settings) -> None:
    """Keys and tokens do not travel in the clear beyond this machine."""
    with pytest.raises(ConfigError) as refused:
        settings.check_serving()
    assert refused.value.hint


@pytest.mark.parametrize(
    "settings",
    [
        Settings(),
        Settings(host="localhost"),
        Settings(host="::1"),
        Settings(host="192.0.2.1", tls_cert=Path("a"), tls_key=Path("b")),
        Settings(host="192.0.2.1", tls="terminated", trusted_proxies=(ipaddress.ip_network("10.0.0.0/8"),)),
    ],
)
def test_settings_that_are_safe_are_taken(settings: Settings) -> None:
    settings.check_serving()


def test_port_zero_becomes_a_free_one() -> None:
    assert choose_port(Settings(port=0)) > 1024
