"""Plans and owners: the requests and responses of `/api/v1/plans` and `/api/v1/owners`.

In an update a field that is left out stays as it is, and `null` clears it.
"""

from __future__ import annotations

import msgspec
from msgspec import UNSET, UnsetType

from keyturn.wire.keys import Description, Scopes
from keyturn.wire.policy import LimitRule, QuotaRule, Restrictions
from keyturn.wire.rules import Limits, PlanName, Quotas


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A request: unknown fields are refused."""


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A response."""


# --- plans -------------------------------------------------------------------------------------------------------


class CreatePlan(_Strict, frozen=True, kw_only=True):
    """Create a plan: what every key on it may do beyond what is its own, and what holds for it."""

    name: PlanName
    description: Description = ""
    scopes: Scopes = ()
    limits: Limits = ()
    quotas: Quotas = ()
    restrictions: Restrictions | None = None
    shadow_restrictions: Restrictions | None = None


class UpdatePlan(_Strict, frozen=True, kw_only=True):
    """Change a plan for every key on it; its name never changes."""

    description: Description | UnsetType = UNSET
    scopes: Scopes | UnsetType = UNSET
    limits: Limits | UnsetType = UNSET
    quotas: Quotas | UnsetType = UNSET
    restrictions: Restrictions | UnsetType | None = UNSET
    shadow_restrictions: Restrictions | UnsetType | None = UNSET


class RetirePlan(_Strict, frozen=True, kw_only=True):
    """Retire a plan for good; what is on it goes to the plan `move_to`, without one nothing may be on it."""

    move_to: PlanName | None = None


class PlanInfo(_Answer, frozen=True, kw_only=True):
    """A plan."""

    id: str
    name: str
    state: str
    description: str
    scopes: tuple[str, ...]
    limits: tuple[LimitRule, ...]
    quotas: tuple[QuotaRule, ...]
    restrictions: Restrictions | None
    shadow_restrictions: Restrictions | None
    created_at: str
    created_by: str
    updated_at: str
    revision: int


class PlanDetail(PlanInfo, frozen=True, kw_only=True):
    """A plan, and how much was put on it: keys that are not revoked, owners, and keyspaces that default to it."""

    keys: int
    owners: int
    keyspaces: int


class PlanEffect(PlanDetail, frozen=True, kw_only=True):
    """A changed plan, and how far the change has spread; see KeyEffect."""

    effective: bool
    lag_ms: float
    effective_by: str
    laggards: tuple[str, ...]


class PlanPage(_Answer, frozen=True, kw_only=True):
    """A page of plans, oldest first."""

    items: tuple[PlanInfo, ...]
    next_cursor: str | None


# --- owners ------------------------------------------------------------------------------------------------------


class UpdateOwner(_Strict, frozen=True, kw_only=True):
    """Change what holds for all keys of an owner; the first change is what puts the owner on record."""

    plan: PlanName | UnsetType | None = UNSET
    limits: Limits | UnsetType = UNSET
    quotas: Quotas | UnsetType = UNSET


class OwnerInfo(_Answer, frozen=True, kw_only=True):
    """An owner of keys.  Revision 0: nothing was ever set for it."""

    name: str
    resource: str
    plan: str | None
    limits: tuple[LimitRule, ...]
    quotas: tuple[QuotaRule, ...]
    updated_at: str | None
    updated_by: str | None
    revision: int


class OwnerDetail(OwnerInfo, frozen=True, kw_only=True):
    """An owner, and how many keys it has that are not revoked."""

    keys: int


class OwnerEffect(OwnerDetail, frozen=True, kw_only=True):
    """A changed owner, and how far the change has spread; see KeyEffect."""

    effective: bool
    lag_ms: float
    effective_by: str
    laggards: tuple[str, ...]


class OwnerPage(_Answer, frozen=True, kw_only=True):
    """A page of owners that something was set for, in the order in which that was."""

    items: tuple[OwnerInfo, ...]
    next_cursor: str | None
