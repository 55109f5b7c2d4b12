"""The decision about a presented key.

Order, the first failure wins:

     1 secret        digest in constant time; keyspace visible to the caller     NOT_FOUND
     2 state         version and key, then keyspace                              REVOKED FORBIDDEN DISABLED
                                                                                 NOT_YET_VALID
     3 overlap       a replaced version past its `valid_until`                   EXPIRED
     4 not_before    the key's                                                   NOT_YET_VALID
     5 expiry        the key's                                                   EXPIRED
     6 restrictions  the keyspace's, then the key's; both apply                  FORBIDDEN
     7 scopes        only when the request asks for some                         INSUFFICIENT_PERMISSIONS

Step 1 hides everything: junk, an unknown id, a wrong secret, a keyspace that the caller may not verify, a system
keyspace and another keyspace than the one asked for give one and the same answer, after the same work.
`keyturn.verify.explain` reports the same steps one by one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from keyturn.kernel.tokenformat import proves, version_id_of
from keyturn.verify.demands import check_uses
from keyturn.verify.model import NOT_FOUND, Allowed, Denied
from keyturn.verify.query import compile_query
from keyturn.wire.verification import Code

if TYPE_CHECKING:
    from collections.abc import Callable

    from keyturn.verify.model import Request, VersionPolicy
    from keyturn.verify.standing import KeyspacePolicy

FAST_KIND: Final = "blake2b"

# What an unknown id is compared with, so that it takes as long as a known one.
_NO_PEPPER: Final = bytes(32)
_NO_DIGEST: Final = bytes(32)

_VERSION_STATES: Final = {
    "current": None,
    "previous": None,
    "pending": Code.NOT_YET_VALID,
    "suspended": Code.DISABLED,
    "revoked": Code.REVOKED,
    "compromised": Code.REVOKED,
    "destroyed": Code.REVOKED,
}
_KEY_STATES: Final = {"active": None, "disabled": Code.DISABLED, "revoked": Code.REVOKED}


class Replicated(Protocol):
    """Whatever holds version policies by id."""

    def version(self, version_id: str) -> VersionPolicy | None:
        """Return the version of that id."""


def state_code(version_state: str, key_state: str) -> Code | None:
    """Return what the states of a version and its key lead to, None when they admit.

    What is final goes before what can be undone; a state that is not known forbids.
    """
    found = (_VERSION_STATES.get(version_state, Code.FORBIDDEN), _KEY_STATES.get(key_state, Code.FORBIDDEN))
    for code in (Code.REVOKED, Code.FORBIDDEN, Code.DISABLED, Code.NOT_YET_VALID):
        if code in found:
            return code
    return None


def verify(
    replica: Replicated, request: Request, now: float, allowed: Callable[[KeyspacePolicy], bool] | None = None
) -> Allowed | Denied:
    """Decide about a key of our own shape from a warm replica; foreign shapes need `Replica.foreign` and `decide`."""
    version_id = version_id_of(request.presented)
    version = None if version_id is None else replica.version(version_id)
    return decide(request, version, now, allowed)


def decide(  # noqa: C901, PLR0912 -- in one piece: each call costs on the hot path
    request: Request,
    version: VersionPolicy | None,
    now: float,
    allowed: Callable[[KeyspacePolicy], bool] | None = None,
    *,
    proven: bool = False,
) -> Allowed | Denied:
    """Decide about a presented key, given the version it names (None: it names none that is known).

    `allowed` says whether the caller may verify keys of a keyspace (workspace and permission); without it every
    keyspace but a system one is visible.  `proven` is set by whoever proved a slow foreign digest, and counts for
    no other kind.
    Raises InputError when the scope query, or what is to be charged, is malformed, whatever the key.
    """
    query = None if request.scopes is None else compile_query(request.scopes)
    if request.limits or request.quotas:
        check_uses(request)
    if version is None:
        proves(request.presented, _NO_PEPPER, _NO_DIGEST)
        return NOT_FOUND
    standing = version.standing
    keyspace = standing.keyspace
    pepper = keyspace.peppers.get(standing.pepper, _NO_PEPPER)
    equal = proves(request.presented, pepper, version.packed[: standing.digest_bytes])
    if standing.kind == FAST_KIND:
        proven = equal and pepper is not _NO_PEPPER
    if not proven or not _visible(request, keyspace, allowed):
        return NOT_FOUND
    blocked = standing.blocked
    if blocked is not None:
        return Denied(blocked, "state", version)
    if not keyspace.enabled:
        return Denied(Code.DISABLED, "keyspace", version)
    if version.valid_until is not None and not now < version.valid_until:
        return Denied(Code.EXPIRED, "overlap", version)
    if version.not_before is not None and not now >= version.not_before:
        return Denied(Code.NOT_YET_VALID, "not_before", version)
    if version.expires_at is not None and not now < version.expires_at:
        return Denied(Code.EXPIRED, "expiry", version)
    # Inline what `Own.terms` does, where nothing has changed.
    stamp, terms = standing.own.held
    if terms is None or stamp is not keyspace.stamp or keyspace.book.owners:
        terms = standing.own.terms(version)
    if terms.fault is not None:
        return Denied(Code.FORBIDDEN, terms.fault, version)
    for checker in terms.checkers:
        failure = checker.failure(request)
        if failure is not None:
            return Denied(Code.FORBIDDEN, failure, version)
    if query is not None and not query.satisfied_by(terms.grants.matcher):
        return Denied(Code.INSUFFICIENT_PERMISSIONS, "scopes", version)
    return Allowed(version, terms)


def _visible(request: Request, keyspace: KeyspacePolicy, allowed: Callable[[KeyspacePolicy], bool] | None) -> bool:
    return (
        not keyspace.system
        and (request.keyspace is None or request.keyspace in (keyspace.id, keyspace.name))
        and (allowed is None or allowed(keyspace))
    )
