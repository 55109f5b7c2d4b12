"""`POST /api/v1/limits/take`: a limit on anything that your API can name."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from keyturn.wire.rules import Units, WindowSeconds
from keyturn.wire.verification import Cost

NamespaceName = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(?!\n)$")]
Identifier = Annotated[str, Meta(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]+(?!\n)$")]


class TakeLimit(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Charge `cost` to the limit of `limit` units per `window_seconds` that `identifier` has in `namespace`.

    At most `burst` units may come at once (default: `limit`).  `on_store_error` says what happens when the store of
    the counters cannot be asked.
    """

    namespace: NamespaceName
    identifier: Identifier
    limit: Units
    window_seconds: WindowSeconds
    burst: Units | None = None
    cost: Cost = 1
    on_store_error: Literal["allow", "deny"] = "deny"


class TakenLimit(msgspec.Struct, frozen=True, kw_only=True):
    """Whether it admits, and how it stands; `store_failed` says that the rule decided and no counter was asked."""

    admitted: bool
    limit: int
    remaining: int
    reset_seconds: float
    retry_after_seconds: float
    store_failed: bool
