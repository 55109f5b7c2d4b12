"""Routes of limits apart from keys."""

from __future__ import annotations

from litestar import post
from litestar.params import JSONBody

from keyturn.access.caller import Credentials
from keyturn.http.edge import Given
from keyturn.keys.named_limits import NamedLimitService
from keyturn.wire.limits import TakeLimit, TakenLimit


@post("/api/v1/limits/take", operation_id="takeLimit", tags=["limits"], status_code=200)
async def take_limit(
    data: JSONBody[TakeLimit], credentials: Given[Credentials], limits: Given[NamedLimitService]
) -> TakenLimit:
    """Charge a limit on anything that your API can name.

    Nothing has to be set up first: the request says what the limit is.  Needs `limit.take` on `limit/<namespace>`.
    """
    return await limits.take(credentials, data)


ROUTES = (take_limit,)
