"""What plans, keyspaces and keys have alike: restrictions, those in shadow, limits and quotas.  Pure.

Read from an update, compared, and shown in an audit leaf, in one place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from msgspec import UNSET

from keyturn.keys import limit_rules, rules

if TYPE_CHECKING:
    from msgspec import UnsetType

    from keyturn.audit.model import Detail
    from keyturn.wire.policy import LimitRule, QuotaRule, Restrictions
    from keyturn.wire.rules import LimitInput, QuotaInput


class Policy(Protocol):
    """Whatever has a policy as it is stored."""

    @property
    def restrictions(self) -> Restrictions | None: ...  # noqa: D102 -- named by the module
    @property
    def shadow_restrictions(self) -> Restrictions | None: ...  # noqa: D102 -- as above
    @property
    def limits(self) -> tuple[LimitRule, ...]: ...  # noqa: D102 -- as above
    @property
    def quotas(self) -> tuple[QuotaRule, ...]: ...  # noqa: D102 -- as above


class PolicyUpdate(Protocol):
    """Whatever request may change a policy."""

    @property
    def restrictions(self) -> Restrictions | UnsetType | None: ...  # noqa: D102 -- as above
    @property
    def shadow_restrictions(self) -> Restrictions | UnsetType | None: ...  # noqa: D102 -- as above
    @property
    def limits(self) -> tuple[LimitInput, ...] | UnsetType: ...  # noqa: D102 -- as above
    @property
    def quotas(self) -> tuple[QuotaInput, ...] | UnsetType: ...  # noqa: D102 -- as above


def given_policy(request: PolicyUpdate) -> dict[str, Any]:
    """Return the fields that an update gives, checked; raises InputError naming the field."""
    given: dict[str, Any] = {}
    if request.restrictions is not UNSET:
        given["restrictions"] = rules.check_written_restrictions(request.restrictions)
    if request.shadow_restrictions is not UNSET:
        shadowed = rules.check_written_restrictions(request.shadow_restrictions, "shadow_restrictions")
        given["shadow_restrictions"] = shadowed
    if request.limits is not UNSET:
        given["limits"] = limit_rules.check_limits(request.limits)
    if request.quotas is not UNSET:
        given["quotas"] = limit_rules.check_quotas(request.quotas)
    return given


def policy_detail(of: Policy) -> dict[str, Detail]:
    """Return what a new thing has of a policy, as an audit leaf shows it; what it does not have is left out."""
    return {name: value for name, value in _shown(of).items() if value}


def policy_difference(was: Policy, now: Policy) -> dict[str, Detail]:
    """Return what changed of a policy, as an audit leaf shows it."""
    before = _shown(was)
    return {name: value for name, value in _shown(now).items() if value != before[name]}


def _shown(of: Policy) -> dict[str, Detail]:
    return {
        "restrictions": rules.as_detail(of.restrictions),
        "shadow_restrictions": rules.as_detail(of.shadow_restrictions),
        "limits": limit_rules.limits_detail(of.limits),
        "quotas": limit_rules.quotas_detail(of.quotas),
    }
