"""The decision of `keyturn.verify.rules`, check by check.

Unless the secret was proven the explanation is the same list for every key: what the caller knows anyway (shape
and check of what it presented), `secret` failed, and all else skipped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from keyturn.kernel.tokenformat import version_id_of
from keyturn.verify.model import Check
from keyturn.verify.query import compile_query
from keyturn.verify.rules import decide, state_code

if TYPE_CHECKING:
    from collections.abc import Callable

    from keyturn.verify.model import Allowed, CheckSource, Denied, KeyspacePolicy, Request, VersionPolicy
    from keyturn.verify.restrictions import Checker

_HIDDEN: Final = (
    Check("version_state", "skipped", "version"),
    Check("key_state", "skipped", "key"),
    Check("keyspace_state", "skipped", "keyspace"),
    Check("overlap", "skipped", "version"),
    Check("not_before", "skipped", "key"),
    Check("expiry", "skipped", "key"),
    Check("restrictions", "skipped", "keyspace"),
    Check("restrictions", "skipped", "key"),
    Check("scopes", "skipped", "key"),
)


def explain(
    request: Request,
    version: VersionPolicy | None,
    now: float,
    allowed: Callable[[KeyspacePolicy], bool] | None = None,
    *,
    proven: bool = False,
) -> tuple[Allowed | Denied, tuple[Check, ...]]:
    """Decide as `rules.decide` does, and report every check; also those after the first failure.

    Raises InputError when the scope query is malformed, whatever the key.
    """
    verdict = decide(request, version, now, allowed, proven=proven)
    shaped = version_id_of(request.presented) is not None
    shape = Check("shape", "pass" if shaped else "fail", "request")
    if verdict.version is None:
        return verdict, (shape, Check("secret", "fail", "request"), *_HIDDEN)
    known = verdict.version
    if known.standing.foreign:
        shape = Check("shape", "skipped", "request", "an imported key")
    return verdict, (
        shape,
        Check("secret", "pass", "request"),
        *_states(known),
        *_times(known, now),
        *_restrictions(request, known.keyspace.checker, "keyspace"),
        *_restrictions(request, known.checker, "key"),
        _scopes(request, known),
    )


def _check(name: str, source: CheckSource, *, passed: bool, detail: str | None = None) -> Check:
    return Check(name, "pass" if passed else "fail", source, detail)


def _states(version: VersionPolicy) -> tuple[Check, ...]:
    standing = version.standing
    return (
        _check(
            "version_state",
            "version",
            passed=state_code(standing.version_state, "active") is None,
            detail=standing.version_state,
        ),
        _check("key_state", "key", passed=state_code("current", standing.key_state) is None, detail=standing.key_state),
        _check("keyspace_state", "keyspace", passed=version.keyspace.enabled),
    )


def _times(version: VersionPolicy, now: float) -> tuple[Check, ...]:
    return (
        _time("overlap", "version", version.valid_until, ends=True, now=now),
        _time("not_before", "key", version.not_before, ends=False, now=now),
        _time("expiry", "key", version.expires_at, ends=True, now=now),
    )


def _time(name: str, source: CheckSource, limit: float | None, *, ends: bool, now: float) -> Check:
    if limit is None:
        return Check(name, "skipped", source)
    return _check(name, source, passed=now < limit if ends else now >= limit)


def _restrictions(request: Request, checker: Checker | None, source: CheckSource) -> tuple[Check, ...]:
    if checker is None:
        return (Check("restrictions", "skipped", source),)
    return tuple(
        _check(name, source, passed=passed, detail=None if passed else detail)
        for name, passed, detail in checker.verdicts(request)
    )


def _scopes(request: Request, version: VersionPolicy) -> Check:
    if request.scopes is None:
        return Check("scopes", "skipped", "key")
    query = compile_query(request.scopes)
    if query.satisfied_by(version.grants.matcher):
        return Check("scopes", "pass", "key")
    return Check("scopes", "fail", "key", f"not granted: {', '.join(query.missing(version.grants.matcher))}")
