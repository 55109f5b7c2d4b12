"""Checks that some providers put into their keys: a match with a wrong one is none.

Each names its source.  `verify` gets the whole secret; `check_of` what stands before the check, and makes samples.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from typing import TYPE_CHECKING, Final

import msgspec

from keyturn.kernel.secret import BASE62
from keyturn.kernel.tokenformat import version_id_of

if TYPE_CHECKING:
    from collections.abc import Callable


_NATS: Final = b"hbGciOiJlZDI1NTE5"
"""How the header says `alg` is `ed25519`, as that of NATS alone does."""
_NKEY_BYTES: Final = 36
_PUBLIC_CLAIMS: Final = frozenset({"operator", "account", "activation"})


class Checksum(msgspec.Struct, frozen=True):
    """One provider's check."""

    verify: Callable[[bytes], bool]
    check_of: Callable[[str], str]


def _base62(number: int, width: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, 62)
        digits = BASE62[digit] + digits
    return digits.rjust(width, "0")


def _after_prefix(token: str) -> str:
    return token.rpartition("_")[2]


def _crc32_base62(token: str) -> str:
    """CRC-32 of what follows the prefix, six base62 digits.

    Source: GitHub, "Behind GitHub's new authentication token formats", 2021; npm took it over.
    """
    return _base62(zlib.crc32(_after_prefix(token).encode()), 6)


def _verify_crc32_base62(secret: bytes) -> bool:
    text = secret.decode("latin-1")
    return text[-6:] == _crc32_base62(text[:-6])


def _crc32_base36(token: str) -> str:
    """CRC-32 of everything before, an instance's own prefix with it, seven digits of 0-9a-z.

    Source: GitLab's design document "Routable tokens", and `Authn::TokenField::Generator::RoutableToken` of GitLab.
    """
    number, digits = zlib.crc32(token.encode("latin-1")), ""
    while number:
        number, digit = divmod(number, 36)
        digits = BASE62[digit].lower() + digits
    return digits.rjust(7, "0")


def _verify_gitlab_routable(secret: bytes) -> bool:
    text = secret.decode("latin-1")
    return text[-7:] == _crc32_base36(text[:-7])


def _keyturn_check(token: str) -> str:
    """CRC-32 of everything before; see `keyturn.kernel.tokenformat`."""
    return _base62(zlib.crc32(token.encode()), 6)


def _grafana_check(token: str) -> str:
    """CRC-32 of everything before the last underscore, in hex, least significant byte first.

    Source: grafana/grafana, pkg/components/satokengen.
    """
    return zlib.crc32(token.removesuffix("_").encode()).to_bytes(4, "little").hex()


def _verify_grafana(secret: bytes) -> bool:
    text = secret.decode("latin-1")
    return text[-8:] == _grafana_check(text[:-8])


def _matrix_check(token: str) -> str:
    """CRC-32 of everything before the last underscore, in six base62 digits.

    Source: element-hq/synapse, handlers/auth.py, "syt_{local part}_{random}_{check}".
    """
    return _base62(zlib.crc32(token.removesuffix("_").encode()), 6)


def _verify_matrix(secret: bytes) -> bool:
    text = secret.decode("latin-1")
    return text[-6:] == _matrix_check(text[:-6])


def _nkey_check(token: str) -> str:
    """CRC-16 of the 34 bytes before it, of which one stands for what the key is of; it ends the last base32 digits.

    Source: nats-io/nkeys, `strkey.go` and `crc16.go`: XMODEM, least significant byte first, base32 without padding.
    Two bits of the check stand in the digit before it, so that a sample has to be made anew from its first 54 digits.
    """
    raw = base64.b32decode(token[:54] + "AA")[:34]
    return base64.b32encode(_nkey_signed(raw)).decode().rstrip("=")[54:]


def _nkey_signed(raw: bytes) -> bytes:
    return raw + binascii.crc_hqx(raw, 0).to_bytes(2, "little")


def _verify_nkey(secret: bytes) -> bool:
    try:
        raw = base64.b32decode(secret + b"=" * (-len(secret) % 8))
    except binascii.Error:
        return False
    return len(raw) == _NKEY_BYTES and _nkey_signed(raw[:-2]) == raw


def _is_no_public_claim(token: bytes) -> bool:
    """Tell whether a signed token may let somebody in: what NATS signs about operators and accounts is for all to see.

    That of a user counts, because one with `bearer_token` needs no seed beside it.
    Source: nats-io/jwt, "type" of claims, at the top in version 1 and below `nats` in version 2.
    """
    head, _, rest = token.partition(b".")
    if _NATS not in head:
        return True
    body = rest.partition(b".")[0]
    try:
        claims = msgspec.json.decode(base64.urlsafe_b64decode(body + b"=" * (-len(body) % 4)))
    except (ValueError, RecursionError):
        return True
    if not isinstance(claims, dict):
        return True
    about = claims.get("nats")
    kind = (about.get("type") if isinstance(about, dict) else None) or claims.get("type")
    return kind not in _PUBLIC_CLAIMS


CHECKSUMS: Final[dict[str, Checksum]] = {
    "keyturn": Checksum(lambda secret: version_id_of(secret.decode("latin-1")) is not None, _keyturn_check),
    "crc32-base62": Checksum(_verify_crc32_base62, _crc32_base62),
    "gitlab-routable": Checksum(_verify_gitlab_routable, _crc32_base36),
    "grafana": Checksum(_verify_grafana, _grafana_check),
    "jwt": Checksum(_is_no_public_claim, lambda _: ""),
    "matrix": Checksum(_verify_matrix, _matrix_check),
    "nkey": Checksum(_verify_nkey, _nkey_check),
}
"""Every checksum by the name that rules use."""
