"""Health and metrics.

`/health/live` answers while the process can answer at all.  `/health/ready` answers 200 when this worker may be sent
traffic, else 503, and names every check either way.  `/metrics` is in the Prometheus text format and holds no key id.
None of them needs a token, and none tells anything about a tenant.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, Literal

import msgspec
from litestar import MediaType, Response, get
from litestar.openapi.datastructures import ResponseSpec

from keyturn.http.edge import Given

METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class HealthCheck(msgspec.Struct, frozen=True, omit_defaults=True):
    """One check: whether it passed and, if not, what is wrong; one that is not required is only named."""

    name: str
    ok: bool
    required: bool = True
    detail: str | None = None


class Health(msgspec.Struct, frozen=True):
    """The state of this worker."""

    status: Literal["ok", "failing"]
    checks: tuple[HealthCheck, ...]


class Monitor:
    """What the health routes ask."""

    def __init__(
        self, checks: Callable[[], Awaitable[list[HealthCheck]]], metrics: Callable[[], Awaitable[bytes]]
    ) -> None:
        """Ask `checks` for readiness and `metrics` for the text of a scrape."""
        self.checks = checks
        self.metrics = metrics


@get("/health/live", operation_id="live", tags=["health"])
async def live() -> Health:
    """Tell that the process answers."""
    return Health("ok", ())


@get(
    "/health/ready",
    operation_id="ready",
    tags=["health"],
    responses={503: ResponseSpec(Health, description="Send no traffic here now.", generate_examples=False)},
)
async def ready(monitor: Given[Monitor]) -> Response[Health]:
    """Tell whether this worker may be sent traffic; 503 when not."""
    checks = tuple(await monitor.checks())
    passed = all(check.ok for check in checks if check.required)
    return Response(Health("ok" if passed else "failing", checks), status_code=200 if passed else 503)


@get("/metrics", operation_id="metrics", tags=["health"], media_type=MediaType.TEXT)
async def metrics(monitor: Given[Monitor]) -> Response[bytes]:
    """Measure this server, in the Prometheus text format."""
    return Response(await monitor.metrics(), media_type=METRICS_TYPE)


ROUTES = (live, ready, metrics)
