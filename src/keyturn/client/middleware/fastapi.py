"""FastAPI: one line protects an application, a router or a single route.

    app = FastAPI(dependencies=[Depends(Protect(verifier))])

    @app.get("/orders")
    async def orders(key: Annotated[Verification, Depends(Protect(verifier, scopes="orders:read"))]): ...

The OpenAPI document of the application says that it takes a bearer key.
"""

from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Any

import msgspec
from fastapi import HTTPException, Request, Response
from fastapi.openapi.models import HTTPBearer
from fastapi.security.base import SecurityBase

from keyturn.client.middleware.asgi import AsyncAsker, call_of
from keyturn.client.middleware.protection import Protection
from keyturn.client.model import Verification
from keyturn.wire.refusals import Refusal


class Protect(SecurityBase):
    """A dependency that gives the verdict on the key a request presents, and raises HTTPException for a refusal.

    Used twice for one request (on the application and on a route) it verifies twice: say `cost=0` on one of them.
    """

    def __init__(self, verifier: Any, **options: Any) -> None:  # noqa: ANN401 -- three kinds of verifier; Protection's
        """Hold a verifier; raises ConfigError for options that cannot be read."""
        self._protection = Protection(**options)
        self._asker = AsyncAsker(verifier, self._protection)
        self.model = HTTPBearer(description="An API key, as a bearer token")
        self.scheme_name = "ApiKey"

    async def __call__(self, request: Request, response: Response) -> AsyncIterator[Verification | None]:
        """Verify, and hold the slots of concurrency limits until the answer was made."""
        if self._protection.is_exempt(request.url.path):
            yield None
            return
        found = await self._asker.ask(call_of(request.scope))
        if isinstance(found, Refusal):
            raise _exception(found)
        request.state.keyturn = found
        for name, value in found.headers():
            response.headers[name] = value
        try:
            yield found
        finally:
            await self._asker.release(found)


def _exception(refusal: Refusal) -> HTTPException:
    problem = msgspec.json.decode(refusal.body)
    own = {"content-type"}
    headers = {name: value for name, value in refusal.headers if name.lower() not in own}
    detail = {name: value for name, value in problem.items() if name in {"code", "detail", "violated-policies"}}
    return HTTPException(refusal.status, detail or HTTPStatus(refusal.status).phrase, headers)
