"""The keys of an issuer: public signature keys, each for the algorithms that its type and its own words allow.

    RSA, 2048 to 8192 bits          RS256 … PS512
    EC P-256, P-384, P-521          ES256, ES384, ES512, each on its own curve
    OKP Ed25519                     EdDSA

Everything else in a key set is left out: symmetric keys above all, so that no public key is ever taken for a secret,
and keys for encryption.  Of a key only its public members are read; `x5u`, `x5c` and their like mean nothing here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

from keyturn.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable

KEYS_MAX: Final = 64
KEY_SET_BYTES_MAX: Final = 262_144
RSA_BITS_MIN: Final = 2048
RSA_BITS_MAX: Final = 8192

_RSA: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_CURVES: Final = {"P-256": ("ES256",), "P-384": ("ES384",), "P-521": ("ES512",)}
_MEMBERS: Final = {"RSA": ("kty", "n", "e"), "EC": ("kty", "crv", "x", "y"), "OKP": ("kty", "crv", "x")}


@dataclass(frozen=True, slots=True, repr=False)
class IssuerKey:
    """A public key, and the algorithms whose signatures it may check."""

    kid: str | None
    algorithms: tuple[str, ...]
    key: RSAKey | ECKey | OKPKey


def read_key_set(content: bytes) -> tuple[IssuerKey, ...]:
    """Read a key set; raises ValueError when it is none, or holds no key that can be used."""
    if len(content) > KEY_SET_BYTES_MAX:
        raise ValueError(f"a key set of more than {KEY_SET_BYTES_MAX} bytes")
    try:
        document = msgspec.json.decode(content)
    except (msgspec.DecodeError, RecursionError):
        raise ValueError("no JSON") from None
    return keys_of(document)


def keys_of(document: Any) -> tuple[IssuerKey, ...]:  # noqa: ANN401 -- JSON
    """Take the usable keys of a key set; raises ValueError."""
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list) or len(listed) > KEYS_MAX:
        raise ValueError(f"expected a key set: an object with `keys`, at most {KEYS_MAX}")
    found = tuple(key for key in map(_key, listed) if key is not None)
    if not found:
        raise ValueError("expected at least one public key for signatures (RSA, EC or Ed25519)")
    return found


def check_key_set(document: dict[str, Any], field: str) -> None:
    """Refuse a key set that was given and cannot be used, or that holds what nobody should have: InputError."""
    listed = document.get("keys")
    if isinstance(listed, list) and any(isinstance(one, dict) and ({"d", "k"} & set(one)) for one in listed):
        raise InputError(
            "expected public keys alone, found a private or a symmetric one", field=field, hint="take it out of use now"
        )
    try:
        keys_of(document)
    except ValueError as error:
        raise InputError(str(error), field=field) from None


def candidates(keys: Iterable[IssuerKey], kid: str | None, algorithm: str) -> tuple[IssuerKey, ...]:
    """Return the keys that a signature may be checked with: those of its key id, where it names one."""
    return tuple(key for key in keys if algorithm in key.algorithms and (kid is None or key.kid == kid))


def _key(listed: Any) -> IssuerKey | None:  # noqa: ANN401 -- JSON
    if not isinstance(listed, dict):
        return None
    kid, use, operations, own = (listed.get(name) for name in ("kid", "use", "key_ops", "alg"))
    if (kid is not None and not isinstance(kid, str)) or use not in (None, "sig"):
        return None
    if operations is not None and not (isinstance(operations, list) and "verify" in operations):
        return None
    try:
        key, algorithms = _public(listed)
    except (JoseError, ValueError, TypeError, KeyError):
        return None
    if own is not None:
        algorithms = tuple(one for one in algorithms if one == own or (one == "EdDSA" and own == "Ed25519"))
    return IssuerKey(kid, algorithms, key) if algorithms else None


def _public(listed: dict[str, Any]) -> tuple[RSAKey | ECKey | OKPKey, tuple[str, ...]]:
    kind = listed["kty"]
    public = {name: listed[name] for name in _MEMBERS[kind]}
    if kind == "RSA":
        rsa = RSAKey.import_key(public)
        bits = rsa.raw_value.key_size
        return rsa, _RSA if RSA_BITS_MIN <= bits <= RSA_BITS_MAX else ()
    if kind == "EC":
        return ECKey.import_key(public), _CURVES.get(public["crv"], ())
    return OKPKey.import_key(public), ("EdDSA",) if public["crv"] == "Ed25519" else ()
