"""Plans and owners as replicas are loaded from them."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import select

from keyturn.storage.schema import key_owner, plan
from keyturn.wire.policy import LimitRule, OwnerRecord, PlanRecord, QuotaRule, Restrictions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

PAGE = 5000

_read_restrictions = lru_cache(1024)(msgspec.json.Decoder(Restrictions).decode)
_read_texts = lru_cache(1024)(msgspec.json.Decoder(tuple[str, ...]).decode)
_read_limits = lru_cache(1024)(msgspec.json.Decoder(tuple[LimitRule, ...]).decode)
_read_quotas = lru_cache(1024)(msgspec.json.Decoder(tuple[QuotaRule, ...]).decode)


def load_plan(connection: Connection, plan_id: str) -> PlanRecord | None:
    """Return the current state of a plan; None when there is none."""
    row = connection.execute(select(*plan.c).where(plan.c.id == plan_id)).first()
    return None if row is None else _plan_record(row)


def load_plans(connection: Connection, workspace: str | None = None) -> list[PlanRecord]:
    """Return every plan, or those of a workspace."""
    wanted = select(*plan.c).order_by(plan.c.id)
    if workspace is not None:
        wanted = wanted.where(plan.c.workspace == workspace)
    return [_plan_record(row) for row in connection.execute(wanted)]


def load_owner(connection: Connection, owner_id: str) -> OwnerRecord | None:
    """Return what holds for an owner, by the id of its row; None when there is none."""
    row = connection.execute(select(*key_owner.c).where(key_owner.c.id == owner_id)).first()
    return None if row is None else _owner_record(row)


def load_owners(
    connection: Connection, workspace: str | None = None, after: str = "", *, limit: int = PAGE
) -> Sequence[OwnerRecord]:
    """Return up to `limit` owners whose ids come after `after`, in order of id."""
    wanted = select(*key_owner.c).where(key_owner.c.id > after).order_by(key_owner.c.id).limit(limit)
    if workspace is not None:
        wanted = wanted.where(key_owner.c.workspace == workspace)
    return [_owner_record(row) for row in connection.execute(wanted)]


def _plan_record(row: Any) -> PlanRecord:  # noqa: ANN401 -- a row of `plan`
    return PlanRecord(
        id=row.id,
        workspace=row.workspace,
        name=row.name,
        scopes=_read_texts(row.scopes_json),
        limits=() if row.limits_json is None else _read_limits(row.limits_json),
        quotas=() if row.quotas_json is None else _read_quotas(row.quotas_json),
        restrictions=None if row.restrictions_json is None else _read_restrictions(row.restrictions_json),
        shadow_restrictions=(
            None if row.shadow_restrictions_json is None else _read_restrictions(row.shadow_restrictions_json)
        ),
    )


def _owner_record(row: Any) -> OwnerRecord:  # noqa: ANN401 -- a row of `key_owner`
    return OwnerRecord(
        id=row.id,
        workspace=row.workspace,
        name=row.name,
        plan=row.plan,
        limits=() if row.limits_json is None else _read_limits(row.limits_json),
        quotas=() if row.quotas_json is None else _read_quotas(row.quotas_json),
    )
