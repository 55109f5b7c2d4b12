"""Admission: what follows a decision that allows, in the server and inside a user's own process.

    Allowed -> demands -> quotas reserved -> limits charged -> Admission(verdict, how everything stands)
                 | FORBIDDEN   | USAGE_EXCEEDED   | RATE_LIMITED: the reservation is given back
                                 UNAVAILABLE

`admit` answers from memory or says None: a keeper has to be asked that may take its time.  `admit_later` asks it.
After either, and before the caller of this tells anybody, it checks again that the node is fresh; after `admit_later`
also that the decision still stands.  When it does not, `undo` gives back what can be given back.

What is in shadow is evaluated and reported by name (`restriction:cidr`, `limit:burst`, `quota:monthly`), and changes
no verdict.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from keyturn.verify.demands import demands_of
from keyturn.verify.model import Admission, Denied
from keyturn.wire.verification import Code

if TYPE_CHECKING:
    from collections.abc import Iterable

    from keyturn.verify.demands import Demands
    from keyturn.verify.model import Allowed, Request, VersionPolicy
    from keyturn.verify.spending import Limiter, LimitOutcome, Quotas, Reservation
    from keyturn.verify.terms import Terms
    from keyturn.wire.verification import LimitReport, QuotaReport

SHADOW_OUTCOMES: Final = {
    "limit": "SHADOW_RATE_LIMITED",
    "restriction": "SHADOW_FORBIDDEN",
    "quota": "SHADOW_USAGE_EXCEEDED",
}
"""What usage calls a refusal that was not enforced, by the kind before the colon of its name."""


def admit(request: Request, allowed: Allowed, now: float, limiter: Limiter, quotas: Quotas | None) -> Admission | None:
    """Charge an admitted request from memory; None, with nothing charged, when `admit_later` has to be awaited.

    Raises InputError when the request names a limit or quota that the key does not have.
    """
    version = allowed.version
    terms = allowed.terms
    if terms.plain and not request.limits and not request.quotas:
        return Admission(allowed)
    demands = demands_of(request, version, terms)
    if not isinstance(demands, Denied):
        reservation: Reservation | None = None
        if demands.quotas:
            if quotas is None:
                return _without_keeper(request, allowed, terms, demands)
            reservation = quotas.reserve_now(demands.quotas, now)
            if reservation is None:
                return None
            if not reservation.admitted:
                return _no_quota(request, version, terms, demands, reservation)
        if not demands.limits:
            return _admission(request, allowed, terms, demands, reservation, None)
        outcome = limiter.take_now(demands.limits, now)
        if outcome is not None and outcome.admitted:
            return _admission(request, allowed, terms, demands, reservation, outcome)
        if reservation is not None and quotas is not None:
            quotas.release(reservation)
        return None if outcome is None else _limited(request, version, terms, demands, reservation, outcome)
    return Admission(demands, shadow=_shadow_restrictions(request, terms))


async def admit_later(
    request: Request, allowed: Allowed, now: float, limiter: Limiter, quotas: Quotas | None
) -> Admission:
    """Charge an admitted request, asking whoever keeps the counters.

    Raises InputError when the request names a limit or quota that the key does not have.
    """
    version = allowed.version
    terms = allowed.terms
    demands = demands_of(request, version, terms)
    if isinstance(demands, Denied):
        return Admission(demands, shadow=_shadow_restrictions(request, terms))
    reservation: Reservation | None = None
    if demands.quotas:
        if quotas is None:
            return _without_keeper(request, allowed, terms, demands)
        reservation = quotas.reserve_now(demands.quotas, now) or await quotas.reserve(demands.quotas, now)
        if not reservation.admitted:
            return _no_quota(request, version, terms, demands, reservation)
    if not demands.limits:
        return _admission(request, allowed, terms, demands, reservation, None)
    admitted = False
    try:
        outcome = limiter.take_now(demands.limits, now) or await limiter.take(demands.limits, now)
        admitted = outcome.admitted
    finally:
        # Also when whoever waits for this has gone.
        if not admitted and reservation is not None and quotas is not None:
            quotas.release(reservation)
    if outcome.admitted:
        return _admission(request, allowed, terms, demands, reservation, outcome)
    return _limited(request, version, terms, demands, reservation, outcome)


def undo(admission: Admission, quotas: Quotas | None) -> tuple[str, ...]:
    """Give back the quotas of an admission that does not count; return the slots to give to `Limiter.release`.

    What was charged to rates stays charged: it is gone with time, and never admits more.
    """
    if admission.verdict and admission.reservation is not None and quotas is not None:
        quotas.release(admission.reservation)
    return admission.slots


def shadow_outcomes(names: Iterable[str]) -> tuple[str, ...]:
    """Return what usage calls these refusals that were not enforced, each once."""
    return tuple(dict.fromkeys(SHADOW_OUTCOMES[name.partition(":")[0]] for name in names))


def _admission(
    request: Request,
    allowed: Allowed,
    terms: Terms,
    demands: Demands,
    reservation: Reservation | None,
    outcome: LimitOutcome | None,
) -> Admission:
    quotas = () if reservation is None else reservation.reports
    limits = () if outcome is None else outcome.reports
    shadow = _shadow(request, terms, demands, limits, quotas) if terms.shadowed else ()
    if outcome is None:
        return Admission(allowed, limits, quotas, 0.0, (), shadow, False, reservation)
    return Admission(allowed, limits, quotas, 0.0, outcome.slots, shadow, outcome.store_failed, reservation)


def _limited(
    request: Request,
    version: VersionPolicy,
    terms: Terms,
    demands: Demands,
    reservation: Reservation | None,
    outcome: LimitOutcome,
) -> Admission:
    check = next((f"limit:{one.name}" for one in outcome.reports if one.exceeded and not one.shadow), "limit")
    # The reservation was given back, so what it says of the quotas no longer holds.
    return Admission(
        Denied(Code.RATE_LIMITED, check, version),
        outcome.reports,
        (),
        outcome.retry_after_seconds,
        (),
        _shadow(request, terms, demands, outcome.reports, () if reservation is None else reservation.reports),
        outcome.store_failed,
    )


def _no_quota(
    request: Request, version: VersionPolicy, terms: Terms, demands: Demands, reservation: Reservation
) -> Admission:
    if reservation.unavailable:
        verdict = Denied(Code.UNAVAILABLE, "quota", version)
    else:
        found = (f"quota:{one.name}" for one in reservation.reports if one.exceeded and not one.shadow)
        verdict = Denied(Code.USAGE_EXCEEDED, next(found, "quota"), version)
    return Admission(
        verdict,
        (),
        reservation.reports,
        reservation.retry_after_seconds,
        (),
        _shadow(request, terms, demands, (), reservation.reports),
    )


def _without_keeper(request: Request, allowed: Allowed, terms: Terms, demands: Demands) -> Admission:
    """Refuse: nobody keeps the balances, so nothing may be spent of them."""
    denied = Denied(Code.UNAVAILABLE, "quota", allowed.version)
    return Admission(denied, shadow=_shadow(request, terms, demands, (), ()))


def _shadow(
    request: Request,
    terms: Terms,
    demands: Demands,
    limits: tuple[LimitReport, ...],
    quotas: tuple[QuotaReport, ...],
) -> tuple[str, ...]:
    if not terms.shadowed:
        return ()
    found = list(_shadow_restrictions(request, terms))
    found.extend(demands.shadow)
    found.extend([f"limit:{one.name}" for one in limits if one.shadow and one.exceeded])
    found.extend([f"quota:{one.name}" for one in quotas if one.shadow and one.exceeded])
    return tuple(dict.fromkeys(found))


def _shadow_restrictions(request: Request, terms: Terms) -> tuple[str, ...]:
    return tuple(
        f"restriction:{name}"
        for _, checker in terms.shadows
        for name, passed, _ in checker.verdicts(request)
        if not passed
    )
