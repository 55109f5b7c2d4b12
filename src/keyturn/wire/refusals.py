"""What a refused verification becomes at an HTTP edge: status, challenge and problem details.

    401  NOT_FOUND EXPIRED NOT_YET_VALID DISABLED REVOKED     WWW-Authenticate: Bearer error="invalid_token"
    403  FORBIDDEN                                            -
    403  INSUFFICIENT_PERMISSIONS                             WWW-Authenticate: Bearer error="insufficient_scope"
    429  RATE_LIMITED USAGE_EXCEEDED                          Retry-After, when waiting helps
    503  UNAVAILABLE                                          Retry-After

An unknown code is a 403.  Challenges are those of RFC 6750, section 3; the bodies are RFC 9457 problem details.
"""

from __future__ import annotations

import math
from typing import Final

import msgspec

from keyturn.wire.ratelimit_fields import fields as ratelimit_fields
from keyturn.wire.verification import Code, VerifyResponse

PROBLEM_TYPE: Final = "application/problem+json"
QUOTA_EXCEEDED: Final = "https://iana.org/assignments/http-problem-types#quota-exceeded"
UNAVAILABLE_RETRY_SECONDS: Final = 1
_STATUS: Final[dict[str, int]] = {
    Code.NOT_FOUND: 401,
    Code.EXPIRED: 401,
    Code.NOT_YET_VALID: 401,
    Code.DISABLED: 401,
    Code.REVOKED: 401,
    Code.FORBIDDEN: 403,
    Code.INSUFFICIENT_PERMISSIONS: 403,
    Code.RATE_LIMITED: 429,
    Code.USAGE_EXCEEDED: 429,
    Code.UNAVAILABLE: 503,
}
_SAID: Final[dict[str, tuple[str, str]]] = {
    Code.NOT_FOUND: ("Invalid API key", "the key is not valid"),
    Code.EXPIRED: ("Expired API key", "the key has expired"),
    Code.NOT_YET_VALID: ("API key not valid yet", "the key is not valid yet"),
    Code.DISABLED: ("Disabled API key", "the key is disabled"),
    Code.REVOKED: ("Revoked API key", "the key is revoked"),
    Code.FORBIDDEN: ("Forbidden", "the key may not be used from here or for this"),
    Code.INSUFFICIENT_PERMISSIONS: ("Insufficient scope", "the key lacks a scope that this needs"),
    Code.RATE_LIMITED: ("Too many requests", "a rate limit of the key is reached"),
    Code.USAGE_EXCEEDED: ("Quota exceeded", "a quota of the key is used up"),
    Code.UNAVAILABLE: ("Keys cannot be verified now", "the key could not be verified; try again"),
}
_UNKNOWN: Final = ("Forbidden", "the key is refused")


class Refusal(msgspec.Struct, frozen=True):
    """An HTTP answer: `headers` are (name, value), `body` is a problem."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


def status_of(code: str) -> int:
    """Return the HTTP status of a verdict, 200 for VALID."""
    return 200 if code == Code.VALID else _STATUS.get(code, 403)


def missing_key(realm: str) -> Refusal:
    """Return the answer to a request that presents no key, or more than one."""
    challenge = ("WWW-Authenticate", f'Bearer realm="{realm}"')
    return _refusal(401, "missing_key", "API key required", "present one API key", (challenge,))


def refusal_of(
    code: str,
    *,
    realm: str,
    scopes: str | None = None,
    retry_after_seconds: float | None = None,
    fields: tuple[tuple[str, str], ...] = (),
    violated: tuple[str, ...] = (),
) -> Refusal:
    """Return the answer to a refused verification.

    `fields` are RateLimit fields to send along, `violated` the names of the limits or quotas that refused.
    """
    status = status_of(code)
    headers = list(fields)
    title, detail = _SAID.get(code, _UNKNOWN)
    if status == 401:
        headers.append(("WWW-Authenticate", f'Bearer realm="{realm}", error="invalid_token"'))
    elif code == Code.INSUFFICIENT_PERMISSIONS:
        asked = f', scope="{_quotable(scopes)}"' if scopes else ""
        headers.append(("WWW-Authenticate", f'Bearer realm="{realm}", error="insufficient_scope"{asked}'))
    if status == 503:
        headers.append(("Retry-After", str(UNAVAILABLE_RETRY_SECONDS)))
    elif status == 429 and retry_after_seconds and not any(name.lower() == "retry-after" for name, _ in fields):
        headers.append(("Retry-After", str(math.ceil(retry_after_seconds))))
    return _refusal(status, str(code).lower(), title, detail, tuple(headers), violated)


def refusal_of_verdict(answer: VerifyResponse, *, realm: str, scopes: str | None = None) -> Refusal:
    """Return the answer to a verification that refuses, with its RateLimit fields and the rules it violated."""
    limits = [one.name for one in answer.limits or () if one.exceeded and not one.shadow]
    quotas = [one.name for one in answer.quotas or () if one.exceeded and not one.shadow]
    return refusal_of(
        answer.code,
        realm=realm,
        scopes=scopes,
        retry_after_seconds=answer.retry_after_seconds,
        fields=tuple(ratelimit_fields(answer)),
        violated=(*limits, *quotas),
    )


def _refusal(
    status: int,
    code: str,
    title: str,
    detail: str,
    headers: tuple[tuple[str, str], ...],
    violated: tuple[str, ...] = (),
) -> Refusal:
    problem: dict[str, object] = {
        "type": QUOTA_EXCEEDED if status == 429 else f"urn:keyturn:problem:{code}",
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
    }
    if violated:
        problem["violated-policies"] = violated
    content = (("Content-Type", PROBLEM_TYPE), ("Cache-Control", "no-store"))
    return Refusal(status, (*content, *headers), msgspec.json.encode(problem))


def _quotable(text: str) -> str:
    return "".join(one for one in text if one.isascii() and one.isprintable() and one not in '"\\')
