"""Terms: what holds for a key beyond its state, put together from its keyspace, plan, owner and itself.

    plan          the key's, else its owner's, else the keyspace's default; one that is not known here denies
    scopes        the key's and the plan's together
    restrictions  those of the keyspace, the plan and the key must all hold; so for those in shadow
    limits        by name, later wins: keyspace < plan < owner < key; quotas likewise

A rule of a kind, mode, sharing or period that is not known here denies: it was written by a newer server and cannot
be kept, and it must not count as absent.

Terms are put together when they are first needed and kept until something they come from changes.  Keys that say the
same share one `Own`, and with it the terms.  A keyspace's `stamp` is replaced after each change of the keyspace or of
a plan of its workspace, so one comparison tells whether kept terms still hold.  With an owner's record they are kept by
what the record says, which many owners share.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, final

from keyturn.kernel.match import Matcher, compile_patterns
from keyturn.verify.restrictions import Checker
from keyturn.wire.policy import LimitRule, QuotaRule

if TYPE_CHECKING:
    from collections.abc import Iterable

    from keyturn.verify.model import VersionPolicy
    from keyturn.verify.standing import KeyspacePolicy

RuleSource = Literal["key", "owner", "plan", "keyspace"]

UNKNOWN_PLAN: Final = "plan"
UNKNOWN_LIMIT: Final = "unknown_limit"
UNKNOWN_QUOTA: Final = "unknown_quota"
SHADOW: Final = "shadow"

_OWNERS_MAX: Final = 4096
_MODES: Final = frozenset({"enforce", SHADOW})
_LIMIT_KINDS: Final = frozenset({"rate", "concurrency"})
_LIMIT_SHARINGS: Final = frozenset({"key", "owner", "plan", "ip"})
_QUOTA_PERIODS: Final = frozenset({"day", "week", "month", "none"})
_QUOTA_SHARINGS: Final = frozenset({"key", "owner"})
_REFILLS: Final = frozenset({None, "day", "week", "month"})


@final
@dataclass(frozen=True, slots=True)
class Grants:
    """Scopes, compiled; keys with equal scopes share one."""

    names: tuple[str, ...]
    matcher: Matcher


@final
@dataclass(frozen=True, slots=True)
class PlanPolicy:
    """What a replica knows of a plan; a change makes a new one."""

    id: str
    workspace: str
    name: str
    scopes: tuple[str, ...]
    limits: tuple[LimitRule, ...]
    quotas: tuple[QuotaRule, ...]
    checker: Checker | None
    shadow: Checker | None


class OwnerSays:
    """What owners' records say; those that say the same share one."""

    __slots__ = ("limits", "plan", "quotas")

    def __init__(self, plan: str | None, limits: tuple[LimitRule, ...], quotas: tuple[QuotaRule, ...]) -> None:
        """Hold what a record says."""
        self.plan = plan
        self.limits = limits
        self.quotas = quotas


@final
@dataclass(frozen=True, slots=True)
class OwnerPolicy:
    """What a replica knows of an owner that has a record; a change makes a new one."""

    id: str
    workspace: str
    name: str
    says: OwnerSays


class Book:
    """The plans and owners of one workspace: plans by id, owners by name.

    `kept` are the versions of which something is kept, see `VersionPolicy.keep`.
    """

    __slots__ = ("kept", "owners", "plans")

    def __init__(self) -> None:
        """Begin empty."""
        self.kept: list[VersionPolicy] = []
        self.plans: dict[str, PlanPolicy] = {}
        self.owners: dict[str, OwnerPolicy] = {}


@final
@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for a key; `fault` names what cannot be enforced here, and denies.

    `plain` says that there is nothing to charge and nothing in shadow, `shadowed` that something is in shadow, and
    `steady` that what is charged by itself does not depend on the request.  `sources` says where each of `limits` and
    `quotas` was set, by `limit:<name>` and `quota:<name>`.
    """

    plan: PlanPolicy | None
    plan_source: RuleSource
    fault: str | None
    grants: Grants
    checkers: tuple[Checker, ...]
    shadows: tuple[tuple[RuleSource, Checker], ...]
    limits: tuple[LimitRule, ...]
    quotas: tuple[QuotaRule, ...]
    auto_limits: tuple[LimitRule, ...]
    auto_quotas: tuple[QuotaRule, ...]
    sources: dict[str, RuleSource]
    plain: bool
    shadowed: bool
    steady: bool


class Own:
    """What keys say themselves; those of one keyspace that say the same share one."""

    __slots__ = ("_by_owner", "checker", "grants", "held", "limits", "plan", "quotas", "shadow")

    def __init__(
        self,
        grants: Grants,
        checker: Checker | None,
        plan: str | None,
        limits: tuple[LimitRule, ...],
        quotas: tuple[QuotaRule, ...],
        shadow: Checker | None,
    ) -> None:
        """Hold what a key's record says."""
        self.grants = grants
        self.checker = checker
        self.plan = plan
        self.limits = limits
        self.quotas = quotas
        self.shadow = shadow
        # Set at once, so that no thread sees a stamp with the terms of another.
        self.held: tuple[object, Terms | None] = (None, None)
        """The terms for owners without a record, and the stamp they hold for; `terms` checks it."""
        self._by_owner: dict[OwnerSays, tuple[object, Terms]] | None = None

    def terms(self, version: VersionPolicy) -> Terms:
        """Return what holds now for a key that says this."""
        keyspace = version.standing.keyspace
        owners = keyspace.book.owners
        if owners:
            owner = owners.get(version.owner)
            if owner is not None:
                return self._terms_with(keyspace, owner.says)
        stamp, terms = self.held
        if terms is not None and stamp is keyspace.stamp:
            return terms
        stamp = keyspace.stamp
        terms = resolve(keyspace, None, self)
        self.held = (stamp, terms)
        return terms

    def _terms_with(self, keyspace: KeyspacePolicy, owner: OwnerSays) -> Terms:
        by_owner = self._by_owner
        if by_owner is None:
            by_owner = self._by_owner = {}
        stamp = keyspace.stamp
        held = by_owner.get(owner)
        if held is not None and held[0] is stamp:
            return held[1]
        terms = resolve(keyspace, owner, self)
        if len(by_owner) >= _OWNERS_MAX:
            by_owner.clear()
        by_owner[owner] = (stamp, terms)
        return terms


def resolve(keyspace: KeyspacePolicy, owner: OwnerSays | None, own: Own) -> Terms:
    """Put the terms of a key together."""
    plan_id, source = _plan_of(keyspace, owner, own)
    plan = None if plan_id is None else keyspace.book.plans.get(plan_id)
    limits: dict[str, tuple[LimitRule, RuleSource]] = {}
    quotas: dict[str, tuple[QuotaRule, RuleSource]] = {}
    layers: tuple[tuple[RuleSource, KeyspacePolicy | PlanPolicy | OwnerSays | Own | None], ...] = (
        ("keyspace", keyspace),
        ("plan", plan),
        ("owner", owner),
        ("key", own),
    )
    for where, layer in layers:
        if layer is not None:
            limits.update((rule.name, (rule, where)) for rule in layer.limits)
            quotas.update((rule.name, (rule, where)) for rule in layer.quotas)
    found_limits = tuple(rule for rule, _ in limits.values())
    found_quotas = tuple(rule for rule, _ in quotas.values())
    fault = _fault(found_limits, found_quotas)
    if plan_id is not None and plan is None:
        fault = UNKNOWN_PLAN
    shadows: tuple[tuple[RuleSource, Checker | None], ...] = (
        ("keyspace", keyspace.shadow),
        ("plan", None if plan is None else plan.shadow),
        ("key", own.shadow),
    )
    kept = tuple((where, checker) for where, checker in shadows if checker is not None)
    return Terms(
        plan=plan,
        plan_source=source,
        fault=fault,
        grants=own.grants if plan is None or not plan.scopes else _joined(own.grants.names, plan.scopes),
        checkers=tuple(
            checker
            for checker in (keyspace.checker, None if plan is None else plan.checker, own.checker)
            if checker is not None
        ),
        shadows=kept,
        limits=found_limits,
        quotas=found_quotas,
        auto_limits=tuple(rule for rule in found_limits if rule.auto),
        auto_quotas=tuple(rule for rule in found_quotas if rule.auto),
        sources={
            **{f"limit:{name}": where for name, (_, where) in limits.items()},
            **{f"quota:{name}": where for name, (_, where) in quotas.items()},
        },
        plain=not (found_limits or found_quotas or kept),
        shadowed=bool(kept)
        or any(rule.mode == SHADOW for rule in found_limits)
        or any(rule.mode == SHADOW for rule in found_quotas),
        steady=not any(rule.per == "ip" for rule in found_limits if rule.auto),
    )


def _plan_of(keyspace: KeyspacePolicy, owner: OwnerSays | None, own: Own) -> tuple[str | None, RuleSource]:
    if own.plan is not None:
        return own.plan, "key"
    if owner is not None and owner.plan is not None:
        return owner.plan, "owner"
    return keyspace.default_plan, "keyspace"


def _joined(own: tuple[str, ...], of_plan: tuple[str, ...]) -> Grants:
    names = tuple(dict.fromkeys((*own, *of_plan)))
    return Grants(names, compile_patterns(names))


def _fault(limits: Iterable[LimitRule], quotas: Iterable[QuotaRule]) -> str | None:
    if not all(map(_is_known_limit, limits)):
        return UNKNOWN_LIMIT
    return None if all(map(_is_known_quota, quotas)) else UNKNOWN_QUOTA


def _is_known_limit(rule: LimitRule) -> bool:
    return (
        rule.kind in _LIMIT_KINDS
        and rule.per in _LIMIT_SHARINGS
        and rule.mode in _MODES
        and rule.limit > 0
        and rule.window_seconds > 0
        and (rule.burst is None or rule.burst > 0)
    )


def _is_known_quota(rule: QuotaRule) -> bool:
    return (
        rule.period in _QUOTA_PERIODS
        and rule.per in _QUOTA_SHARINGS
        and rule.mode in _MODES
        and rule.amount >= 0
        and rule.refill_every in _REFILLS
    )
