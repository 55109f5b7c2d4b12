"""The decision of `keyturn.verify.rules`, check by check.

Unless the secret was proven the explanation is the same list for every key: what the caller knows anyway (shape
and check of what it presented), `secret` failed, and all else skipped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from keyturn.kernel.tokenformat import version_id_of
from keyturn.verify.model import Check
from keyturn.verify.query import compile_query
from keyturn.verify.rules import decide, state_code
from keyturn.verify.terms import SHADOW, UNKNOWN_PLAN

if TYPE_CHECKING:
    from collections.abc import Callable

    from keyturn.verify.model import Admission, Allowed, CheckSource, Denied, Request, VersionPolicy
    from keyturn.verify.restrictions import Checker
    from keyturn.verify.standing import KeyspacePolicy
    from keyturn.verify.terms import Terms
    from keyturn.wire.policy import LimitRule, QuotaRule
    from keyturn.wire.verification import LimitReport, QuotaReport

_HIDDEN: Final = (
    Check("version_state", "skipped", "version"),
    Check("key_state", "skipped", "key"),
    Check("keyspace_state", "skipped", "keyspace"),
    Check("overlap", "skipped", "version"),
    Check("not_before", "skipped", "key"),
    Check("expiry", "skipped", "key"),
    Check("plan", "skipped", "key"),
    Check("restrictions", "skipped", "keyspace"),
    Check("restrictions", "skipped", "plan"),
    Check("restrictions", "skipped", "key"),
    Check("scopes", "skipped", "key"),
    Check("quotas", "skipped", "key"),
    Check("limits", "skipped", "key"),
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

    When the secret was proven, what is charged is for `explain_charges` to add.
    Raises InputError when the scope query, or what is to be charged, is malformed, whatever the key.
    """
    verdict = decide(request, version, now, allowed, proven=proven)
    shaped = version_id_of(request.presented) is not None
    shape = Check("shape", "pass" if shaped else "fail", "request")
    if verdict.version is None:
        return verdict, (shape, Check("secret", "fail", "request"), *_HIDDEN)
    known = verdict.version
    terms = known.terms
    if known.standing.foreign:
        shape = Check("shape", "skipped", "request", "an imported key")
    return verdict, (
        shape,
        Check("secret", "pass", "request"),
        *_states(known),
        *_times(known, now),
        *_plan(terms),
        *_restrictions(request, known.keyspace.checker, "keyspace"),
        *_restrictions(request, None if terms.plan is None else terms.plan.checker, "plan"),
        *_restrictions(request, known.own.checker, "key"),
        _scopes(request, terms),
    )


def explain_charges(request: Request, version: VersionPolicy, admission: Admission | None) -> tuple[Check, ...]:
    """Report shadow restrictions, quotas and limits; `admission` is None when the decision refused already.

    What is in shadow has a name that begins with `shadow:`, and fails when it would have refused.
    """
    terms = version.terms
    found = [
        Check(f"shadow:restriction:{check.name}", check.verdict, source, check.detail)
        for source, checker in terms.shadows
        for check in _restrictions(request, checker, source)
    ]
    quotas = {} if admission is None else {report.name: report for report in admission.quotas}
    limits = {} if admission is None else {report.name: report for report in admission.limits}
    refused = frozenset() if admission is None else frozenset((*admission.shadow, admission.verdict.check))
    for quota in terms.quotas:
        left = quotas.get(quota.name)
        detail = None if left is None else f"{left.remaining} left"
        found.append(_charge("quota", quota, terms, left, detail, refused))
    for limit in terms.limits:
        stands = limits.pop(limit.name, None)
        detail = None if stands is None else _standing_of(stands)
        found.append(_charge("limit", limit, terms, stands, detail, refused))
    for name, report in limits.items():
        found.append(_check(f"limit:{name}", "request", passed=not report.exceeded, detail=_standing_of(report)))
    if admission is not None and admission.store_failed:
        found.append(
            _check("limit_store", "request", passed=bool(admission.verdict), detail="the counters cannot be asked")
        )
    if "quota" in refused:
        found.append(Check("quota_store", "fail", "request", "the balances cannot be asked"))
    return tuple(found)


def _charge(
    kind: Literal["limit", "quota"],
    rule: LimitRule | QuotaRule,
    terms: Terms,
    report: LimitReport | QuotaReport | None,
    detail: str | None,
    refused: frozenset[str],
) -> Check:
    name = f"{kind}:{rule.name}"
    source = terms.sources[name]
    shown = f"shadow:{name}" if rule.mode == SHADOW else name
    if report is not None:
        return _check(shown, source, passed=not report.exceeded, detail=detail)
    if name in refused:
        return Check(shown, "fail", source)
    return Check(shown, "skipped", source)


def _standing_of(report: LimitReport) -> str:
    return f"{report.remaining} of {report.limit} left in {report.window_seconds} s"


def _plan(terms: Terms) -> tuple[Check, ...]:
    """Report the plan, and rules that cannot be enforced here."""
    if terms.fault == UNKNOWN_PLAN:
        return (Check("plan", "fail", terms.plan_source, "it is not known here"),)
    plan = (
        Check("plan", "skipped", "key")
        if terms.plan is None
        else Check("plan", "pass", terms.plan_source, terms.plan.name)
    )
    if terms.fault is None:
        return (plan,)
    return plan, Check(terms.fault, "fail", "key", "a rule of a kind that this version does not know")


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


def _scopes(request: Request, terms: Terms) -> Check:
    if request.scopes is None:
        return Check("scopes", "skipped", "key")
    query = compile_query(request.scopes)
    if query.satisfied_by(terms.grants.matcher):
        return Check("scopes", "pass", "key")
    return Check("scopes", "fail", "key", f"not granted: {', '.join(query.missing(terms.grants.matcher))}")
