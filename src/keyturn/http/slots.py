"""The route that gives back slots of concurrency limits."""

from __future__ import annotations

from litestar import post
from litestar.params import JSONBody

from keyturn.access.caller import Credentials
from keyturn.http.edge import Given
from keyturn.keys.verification import VerifyService
from keyturn.wire.verification import ReleasedSlots, ReleaseSlots


@post("/api/v1/verify/release", operation_id="releaseSlots", tags=["verify"], status_code=200)
async def release_slots(
    data: JSONBody[ReleaseSlots], credentials: Given[Credentials], verification: Given[VerifyService]
) -> ReleasedSlots:
    """Give back the slots that a verification told, when the call has ended.

    A slot that is not given back is free again after the limit's window.  Unknown slots change nothing.
    """
    return await verification.release(credentials, data)


ROUTES = (release_slots,)
