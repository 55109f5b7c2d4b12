"""JSON Web Tokens: what one says is believed only after all of this held.

form         three parts of base64url without padding; header and claims are JSON objects without a name twice
header       `alg` is one of the method's, all of them asymmetric; no `crit`, `b64` or `zip`
             `typ`, where there is one, says that this is no logout token, security event or the like
             `jku`, `jwk`, `x5u`, `x5c` mean nothing: keys come from the method's own source alone
signature    by a key of the issuer whose type, use and algorithm fit
claims       `iss` is the method's issuer, `aud` holds one of the role's audiences, `exp` is there, ahead, and not too
             far, `nbf` and `iat` are not ahead, `sub` is a text; skew is forgiven up to the leeway, 60 s at most
bindings     every claim that the role binds has one of its patterns
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NoReturn

from joserfc.errors import JoseError
from joserfc.jws import JWSRegistry

from keyturn.logins.claims import texts_of, unbound
from keyturn.logins.model import Proof
from keyturn.logins.refusal import RefusedLoginError
from keyturn.wire.logins import ALGORITHMS_DEFAULT, ASSERTION_CHARS_MAX

if TYPE_CHECKING:
    from collections.abc import Iterable

    from keyturn.logins.jwk import IssuerKey
    from keyturn.wire.logins import JwtBinding, JwtOptions

LEEWAY_SECONDS_DEFAULT: Final = 30
LIFETIME_SECONDS_MAX_DEFAULT: Final = 86_400
TEXT_MAX: Final = 512
DEPTH_MAX: Final = 16
TRIED_MAX: Final = 8
_FORM: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_REFUSED_HEADERS: Final = ("crit", "b64", "zip", "enc")
_TYPES: Final = frozenset({"jwt", "at+jwt", "jose"})
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_METADATA: Final = (
    "repository",
    "ref",
    "environment",
    "workflow",
    "run_id",
    "project_path",
    "pipeline_id",
    "/kubernetes.io/namespace",
    "/kubernetes.io/serviceaccount/name",
)
"""What is kept of the claims with a token, where they are there."""


@dataclass(frozen=True, slots=True, repr=False)
class Unproven:
    """A token taken apart; nothing in it is proven yet."""

    text: str
    algorithm: str
    kid: str | None
    claims: dict[str, Any]


def take_apart(text: str, options: JwtOptions) -> Unproven:
    """Read a token's form and header; raises RefusedLoginError."""
    if len(text) > ASSERTION_CHARS_MAX or _FORM.fullmatch(text) is None:
        _refuse("not_a_jwt")
    first, second, _ = text.split(".")
    header, claims = _object(first, "header"), _object(second, "claims")
    algorithm, kid = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or algorithm not in (options.algorithms or ALGORITHMS_DEFAULT):
        _refuse("algorithm")
    if any(name in header for name in _REFUSED_HEADERS):
        _refuse("header")
    if not _is_identity(header.get("typ")):
        _refuse("typ")
    if kid is not None and (not isinstance(kid, str) or len(kid) > TEXT_MAX):
        _refuse("kid")
    return Unproven(text, algorithm, kid, claims)


def check_signature(unproven: Unproven, keys: Iterable[IssuerKey]) -> None:
    """Return if one of the keys, already chosen for the token, made its signature; raises RefusedLoginError."""
    signed, _, last = unproven.text.rpartition(".")
    try:
        signature = _decoded(last)
    except ValueError:
        _refuse("signature")
    algorithm = JWSRegistry.algorithms[unproven.algorithm]
    for key in tuple(keys)[:TRIED_MAX]:
        try:
            if algorithm.verify(signed.encode("ascii"), signature, key.key):
                return
        except (JoseError, ValueError, TypeError):
            continue
    _refuse("signature")


def check_standard(claims: dict[str, Any], options: JwtOptions, audiences: Iterable[str], now: float) -> str:
    """Check what every token has to say, and return its `sub`; raises RefusedLoginError."""
    leeway = LEEWAY_SECONDS_DEFAULT if options.leeway_seconds is None else options.leeway_seconds
    longest = options.lifetime_seconds_max or LIFETIME_SECONDS_MAX_DEFAULT
    if not isinstance(claims.get("iss"), str) or claims["iss"] != options.issuer:
        _refuse("issuer")
    _check_audience(claims.get("aud"), tuple(audiences))
    expires = _time(claims, "exp")
    if expires is None:
        _refuse("exp_missing")
    if now >= expires + leeway:
        _refuse("expired")
    if expires > now + longest + leeway:
        _refuse("exp_too_far")
    for name in ("nbf", "iat"):
        at = _time(claims, name)
        if at is not None and at > now + leeway:
            _refuse(f"{name}_ahead")
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 0 < len(subject) <= TEXT_MAX or _CONTROL.search(subject):
        _refuse("sub")
    return subject


def prove(unproven: Unproven, options: JwtOptions, binding: JwtBinding, method: str, now: float) -> Proof:
    """Return the identity of a token whose signature holds; raises RefusedLoginError."""
    claims = unproven.claims
    subject = check_standard(claims, options, binding.audiences, now)
    if not binding.claims:
        _refuse("nothing_bound")
    missing = unbound(claims, binding.claims)
    if missing is not None:
        _refuse(f"claim:{missing}"[:160])
    leeway = LEEWAY_SECONDS_DEFAULT if options.leeway_seconds is None else options.leeway_seconds
    ends = float(claims["exp"]) + leeway
    metadata = kept(claims)
    if not binding.single_use:
        return Proof(subject, metadata, expires_at=ends, phrase=unproven.text.encode("ascii"))
    jti = claims.get("jti")
    if not isinstance(jti, str) or not 0 < len(jti) <= TEXT_MAX:
        _refuse("jti")
    used = hashlib.sha256("\0".join((method, str(options.issuer), jti)).encode("utf-8", "surrogatepass")).hexdigest()
    return Proof(subject, metadata, expires_at=ends, replay=used)


def kept(claims: dict[str, Any]) -> dict[str, str]:
    """Return what is kept of the claims: a few that say where a workload runs."""
    found: dict[str, str] = {}
    for name in _METADATA:
        texts = texts_of(claims, name)
        if texts and len(texts[0]) <= TEXT_MAX and not _CONTROL.search(texts[0]):
            found[name.removeprefix("/kubernetes.io/").replace("/", "_")] = texts[0]
    return found


def _is_identity(kind: Any) -> bool:  # noqa: ANN401 -- JSON
    """Tell whether `typ` may be that of a token which says who somebody is (RFC 8725, 3.11)."""
    return kind is None or (isinstance(kind, str) and kind.lower().removeprefix("application/") in _TYPES)


def _check_audience(given: Any, wanted: tuple[str, ...]) -> None:  # noqa: ANN401 -- JSON
    held = [given] if isinstance(given, str) else given
    if not wanted:
        _refuse("role_without_audience")
    if not isinstance(held, list) or not all(isinstance(one, str) for one in held) or not set(held) & set(wanted):
        _refuse("audience")


def _time(claims: dict[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        _refuse(name)
    return float(value) if value < 1e15 else math.inf


def _object(part: str, what: str) -> dict[str, Any]:
    try:
        text = _decoded(part).decode("utf-8")
        found = json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        _refuse(what)
    if not isinstance(found, dict) or _deep(found, DEPTH_MAX):
        _refuse(what)
    return found


def _decoded(part: str) -> bytes:
    # Strict: `urlsafe_b64decode` would pass over what is no base64.
    return base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is there twice")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _deep(value: Any, left: int) -> bool:  # noqa: ANN401 -- JSON
    if left == 0:
        return True
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(_deep(item, left - 1) for item in items)


def _refuse(reason: str) -> NoReturn:
    raise RefusedLoginError(reason)
