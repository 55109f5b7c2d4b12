"""Routes of balances."""

from __future__ import annotations

from typing import Annotated

from litestar import get, post
from litestar.params import JSONBody, QueryParameter

from keyturn.access.caller import Credentials
from keyturn.http.edge import Given, Page
from keyturn.quotas.service import QuotaService
from keyturn.wire.quotas import CreditStranded, QuotaBalance, QuotaBalances, QuotaLedger, SetBalance, TopUp

_Key = Annotated[str | None, QueryParameter(max_length=256, description="The id of a key; or name an owner.")]
_Owner = Annotated[str | None, QueryParameter(max_length=256, description="The name of an owner; or name a key.")]


@get("/api/v1/quotas", operation_id="listQuotas", tags=["quotas"])
async def list_quotas(
    credentials: Given[Credentials], quotas: Given[QuotaService], key: _Key = None, owner: _Owner = None
) -> QuotaBalances:
    """Show the balances of a key or an owner.

    Those that its rules say, used or not, and those of the last two months.
    """
    return await quotas.list(credentials, key=key, owner=owner)


@get("/api/v1/quotas/ledger", operation_id="readQuotaLedger", tags=["quotas"])
async def read_quota_ledger(
    credentials: Given[Credentials],
    quotas: Given[QuotaService],
    page: Given[Page],
    quota: Annotated[str, QueryParameter(max_length=32, description="The name of the quota.")],
    key: _Key = None,
    owner: _Owner = None,
    period: Annotated[
        str | None, QueryParameter(max_length=16, description="Such as 2026-03, 2026-W13 or 2026-03-29.")
    ] = None,
) -> QuotaLedger:
    """Show what happened to a balance, the latest first.

    It is the balance of the present period, unless another one is named.
    """
    return await quotas.ledger(
        credentials, quota, key=key, owner=owner, period=period, cursor=page.cursor, limit=page.limit
    )


@post("/api/v1/quotas/top-up", operation_id="topUpQuota", tags=["quotas"], status_code=200)
async def top_up_quota(
    data: JSONBody[TopUp],
    credentials: Given[Credentials],
    quotas: Given[QuotaService],
    idempotency: Given[str | None],
) -> QuotaBalance:
    """Add units to the present balance, or take them when negative.

    No more can be taken than is available: what nodes lease is out.
    """
    return await quotas.top_up(credentials, data, idempotency=idempotency)


@post("/api/v1/quotas/credit", operation_id="creditQuota", tags=["quotas"], status_code=200)
async def credit_quota(
    data: JSONBody[CreditStranded],
    credentials: Given[Credentials],
    quotas: Given[QuotaService],
    idempotency: Given[str | None],
) -> QuotaBalance:
    """Make stranded units available again.

    A node that was lost held them, and whoever credits them decides that they were not spent.
    """
    return await quotas.credit(credentials, data, idempotency=idempotency)


@post("/api/v1/quotas/set", operation_id="setQuota", tags=["quotas"], status_code=200)
async def set_quota(
    data: JSONBody[SetBalance],
    credentials: Given[Credentials],
    quotas: Given[QuotaService],
    idempotency: Given[str | None],
) -> QuotaBalance:
    """Set what is left of the present balance.

    What other nodes lease at this moment cannot be taken from them: the answer says what is left.
    """
    return await quotas.set_balance(credentials, data, idempotency=idempotency)


ROUTES = (list_quotas, read_quota_ledger, top_up_quota, credit_quota, set_quota)
