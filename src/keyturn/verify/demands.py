"""Demands: what an admitted request is to be charged for, as a pure function of request and terms.

    auto rule             charged with `cost`, or with what the request names for it
    other rule            charged only when the request names it
    a name with numbers   a limit of the request's own, on this key; no rule of that name may exist

A limit that is shared by something the request or the key does not have (an address, a plan) cannot be kept: it denies,
as a restriction whose input is absent does.  In shadow mode it is only reported.

Addresses are counted as networks of one for IPv4 and as the /64 for IPv6, which one client has to itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton
from typing import TYPE_CHECKING, Final, final

from keyturn.errors import InputError
from keyturn.verify.model import Denied
from keyturn.verify.spending import LimitDemand, QuotaDemand
from keyturn.verify.terms import SHADOW
from keyturn.wire.policy import LimitRule
from keyturn.wire.verification import Code

if TYPE_CHECKING:
    from collections.abc import Iterable

    from keyturn.verify.model import Request, VersionPolicy
    from keyturn.verify.terms import Terms
    from keyturn.wire.policy import QuotaRule
    from keyturn.wire.verification import LimitUse, QuotaUse

OWN_LIMIT_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{0,31}")
"""What a limit of a request's own may be called: its name appears in HTTP fields."""

_MAPPED: Final = bytes(10) + b"\xff\xff"
_HOST_BYTES: Final = 8
_RULES_MAX: Final = 4096


@final
@dataclass(frozen=True, slots=True)
class Demands:
    """What to charge; `shadow` names the limits in shadow that could not be kept."""

    limits: tuple[LimitDemand, ...] = ()
    quotas: tuple[QuotaDemand, ...] = ()
    shadow: tuple[str, ...] = ()


NOTHING: Final = Demands()


def check_uses(request: Request) -> None:
    """Raise InputError for what is wrong with `limits` and `quotas` whatever the key."""
    _require_distinct(request.limits, "limits")
    _require_distinct(request.quotas, "quotas")
    for at, use in enumerate(request.limits):
        if (use.limit is None) != (use.window_seconds is None):
            missing = "limit" if use.limit is None else "window_seconds"
            message = f"limits[{at}]: expected both limit and window_seconds, or none of them; {missing} is missing"
            raise InputError(message, field=f"limits[{at}].{missing}")
        if use.limit is not None and OWN_LIMIT_NAME.fullmatch(use.name) is None:
            message = f"limits[{at}].name: expected lower-case letters, digits, `_`, `.` and `-`"
            raise InputError(message, field=f"limits[{at}].name")


def _require_distinct(uses: Iterable[LimitUse | QuotaUse], field: str) -> None:
    seen: set[str] = set()
    for at, use in enumerate(uses):
        if use.name in seen:
            raise InputError(f"{field}[{at}].name: named twice", field=f"{field}[{at}].name")
        seen.add(use.name)


def demands_of(request: Request, version: VersionPolicy, terms: Terms) -> Demands | Denied:
    """Return what to charge for an admitted request, or why it is refused after all.

    Raises InputError when the request names a limit or quota that the key does not have.
    """
    if request.cost == 1 and terms.steady and not request.limits and not request.quotas:
        return _usual_demands(request, version, terms)
    return _demands(request, version, terms)


def _usual_demands(request: Request, version: VersionPolicy, terms: Terms) -> Demands | Denied:
    """Return what every call is charged for that says nothing of its own; worked out once while nothing changes."""
    kept = version.kept
    if kept is not None and kept.terms is terms and kept.demands is not None:
        return kept.demands
    found = _demands(request, version, terms)
    if not isinstance(found, Denied):
        version.keep(terms).demands = found
    return found


def _demands(request: Request, version: VersionPolicy, terms: Terms) -> Demands | Denied:
    cost = request.cost
    limits: list[LimitDemand] = []
    shadow: list[str] = []
    chosen = [(rule, cost) for rule in terms.auto_limits] if not request.limits else _chosen_limits(request, terms)
    workspace = version.keyspace.workspace
    for rule, units in chosen:
        counter = _counter(rule, request, version, terms)
        if counter is not None:
            limits.append(LimitDemand(rule, workspace, counter, units))
        elif rule.mode == SHADOW:
            shadow.append(f"limit:{rule.name}")
        else:
            return Denied(Code.FORBIDDEN, f"limit:{rule.name}", version)
    if terms.quotas or request.quotas:
        wanted = [(rule, cost) for rule in terms.auto_quotas] if not request.quotas else _chosen_quotas(request, terms)
        quotas = tuple([QuotaDemand(rule, workspace, _subject(rule, version), units) for rule, units in wanted])
    else:
        quotas = ()
    return Demands(tuple(limits), quotas, tuple(shadow))


def _counter(rule: LimitRule, request: Request, version: VersionPolicy, terms: Terms) -> str | None:
    """Return who shares the limit in this call; None when the request or the key has no such thing."""
    per = rule.per
    if per == "key":
        return f"key/{version.key_id}/{rule.name}"
    if per == "owner":
        return f"owner/{version.owner}/{rule.name}"
    if per == "plan":
        return None if terms.plan is None else f"plan/{terms.plan.id}/{rule.name}"
    if per == _REQUEST:
        return f"request/{version.key_id}/{rule.name}"
    network = None if request.ip is None else client_network(request.ip)
    return None if network is None else f"ip/{version.keyspace.id}/{network}/{rule.name}"


_REQUEST: Final = "request"
"""The sharing of a request's own limit; no rule that is kept has it."""


def _subject(rule: QuotaRule, version: VersionPolicy) -> str:
    return f"owner/{version.owner}" if rule.per == "owner" else f"key/{version.key_id}"


def _chosen_limits(request: Request, terms: Terms) -> list[tuple[LimitRule, int]]:
    named = {use.name: use for use in request.limits}
    known = {rule.name for rule in terms.limits}
    for at, use in enumerate(request.limits):
        _require_limit(use, at, known)
    cost = request.cost
    found = [
        (rule, named[rule.name].cost if rule.name in named else cost)
        for rule in terms.limits
        if rule.auto or rule.name in named
    ]
    found.extend(
        (_own_rule(use.name, use.limit, use.window_seconds), use.cost)
        for use in request.limits
        if use.limit is not None and use.window_seconds is not None
    )
    return found


def _require_limit(use: LimitUse, at: int, known: set[str]) -> None:
    field = f"limits[{at}].name"
    if use.limit is None and use.name not in known:
        message = f"{field}: this key has no limit of that name; give limit and window_seconds to have one of your own"
        raise InputError(message, field=field)
    if use.limit is not None and use.name in known:
        message = f"{field}: this key has a limit of that name; leave out limit and window_seconds"
        raise InputError(message, field=field)


def _chosen_quotas(request: Request, terms: Terms) -> list[tuple[QuotaRule, int]]:
    named = {use.name: use for use in request.quotas}
    known = {rule.name for rule in terms.quotas}
    for at, use in enumerate(request.quotas):
        if use.name not in known:
            field = f"quotas[{at}].name"
            raise InputError(f"{field}: this key has no quota of that name", field=field)
    return [
        (rule, named[rule.name].cost if rule.name in named else request.cost)
        for rule in terms.quotas
        if rule.auto or rule.name in named
    ]


@lru_cache(maxsize=_RULES_MAX)
def _own_rule(name: str, limit: int, window_seconds: int) -> LimitRule:
    return LimitRule(name, limit, window_seconds, per=_REQUEST)


@lru_cache(maxsize=_RULES_MAX)
def client_network(ip: str) -> str | None:
    """Return what a client is counted as: its IPv4 address, or the /64 of its IPv6 address; None for anything else."""
    try:
        if ":" not in ip:
            return inet_ntop(AF_INET, inet_pton(AF_INET, ip))
        packed = inet_pton(AF_INET6, ip)
    except (OSError, ValueError):
        return None
    if packed.startswith(_MAPPED):
        return inet_ntop(AF_INET, packed[12:])
    return inet_ntop(AF_INET6, packed[:_HOST_BYTES] + bytes(_HOST_BYTES)) + "/64"
