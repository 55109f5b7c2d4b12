"""What a worker and `keyturn doctor` say about quotas."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyturn.quotas.inspection import discrepancies
from keyturn.telemetry.metrics import Family, counter, gauge

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection

    from keyturn.quotas.keeper import QuotaKeeper

SHOWN_MAX = 5


def quota_families(keeper: QuotaKeeper) -> Iterable[Family]:
    """Describe the keeper of balances."""
    yield gauge("keyturn_quota_holdings", "Balances that units are held of.", keeper.held)
    yield counter("keyturn_quota_exchanges", "Units of work that leased, renewed or gave back.", keeper.exchanges)
    yield counter("keyturn_quota_failures", "Those that the database refused.", keeper.failures)
    yield counter("keyturn_quota_unavailable", "Calls whose balance could not be asked.", keeper.unavailable)
    yield counter("keyturn_quota_settled", "Counter files of ended processes that were settled.", keeper.settled)
    yield counter("keyturn_quota_forfeited", "Blocks forfeited when nobody reported them.", keeper.forfeited)


def wrong_balances(connection: Connection) -> str | None:
    """Return what does not add up, None when every balance is exact."""
    found = discrepancies(connection)
    if not found:
        return None
    more = f"; and {len(found) - SHOWN_MAX} more" if len(found) > SHOWN_MAX else ""
    return "; ".join(found[:SHOWN_MAX]) + more
