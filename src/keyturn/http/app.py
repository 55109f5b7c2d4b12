"""The litestar application: routes, dependencies and error answers, built from the services it is given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from litestar import Litestar, Request, Router, post
from litestar.datastructures import State
from litestar.di import Provide

from keyturn.errors import BrokenInvariantError, InputError
from keyturn.http import (
    access,
    approvals,
    audit,
    decoys,
    edge,
    keys,
    leak_intakes,
    leak_patterns,
    leaked_keys,
    leaks,
    leases,
    limits,
    logins,
    nodes,
    problems,
    quotas,
    replica,
    root_keys,
    secret_reading,
    secrets,
    slots,
    webhooks,
    wraps,
)
from keyturn.http.body import BODY_BYTES_MAX, printable
from keyturn.http.lanes import VERIFY_PATH
from keyturn.http.parameters import query_names, repeated_names, untextual_names

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from litestar.types import ControllerRouterHandler


def create_app(
    services: Mapping[str, object],
    settings: edge.EdgeSettings,
    *,
    public: Sequence[ControllerRouterHandler] = (),
    protected: Sequence[ControllerRouterHandler] | None = None,
) -> Litestar:
    """Build the application.

    `services` are injected by name.  `public` routes need no token (health, documents); `protected` ones do, and
    default to those of every feature, beside which stand those that take their credential in the body.
    """
    routes = feature_routes() if protected is None else protected
    opened = open_routes() if protected is None else []
    return Litestar(
        route_handlers=[
            Router("/", route_handlers=list(routes), guards=[edge.require_bearer]),
            verify,
            *opened,
            *public,
        ],
        dependencies=_dependencies(services),
        request_class=edge.StrictRequest,
        before_request=require_known_query,
        request_max_body_size=BODY_BYTES_MAX,
        exception_handlers=problems.HANDLERS,
        openapi_config=None,
        state=State({"edge": settings}),
        debug=False,
        logging_config=None,
    )


@post(VERIFY_PATH, include_in_schema=False)
async def verify() -> None:
    """Hold the path of the verify lane in the router, for its other methods; the gate never sends a POST here."""
    raise BrokenInvariantError("a verification reached the router")


async def require_known_query(request: Request[Any, Any, Any]) -> None:
    """Refuse a query parameter that the route does not know, that is given twice, or that is `null`."""
    if not request.scope["query_string"]:
        return
    known = query_names(request.route_handler)
    given: set[str] = set()
    for name, value in request.query_params.multi_items():
        shown = printable(name)
        if name not in known:
            hint = f"known here: {', '.join(sorted(known))}" if known else "this operation takes none"
            raise InputError(f"{shown}: not a query parameter of this operation", field=shown, hint=hint)
        if name in given and name not in repeated_names(request.route_handler):
            raise InputError(f"{shown}: given more than once", field=shown)
        if value.lower() == "null" and name in untextual_names(request.route_handler):
            raise InputError(f"{shown}: null is not a value; leave the parameter out", field=shown)
        given.add(name)


def feature_routes() -> list[ControllerRouterHandler]:
    """Collect the `ROUTES` of every feature; each of them needs a token."""
    features = (
        keys,
        leaks,
        leases,
        access,
        approvals,
        audit,
        decoys,
        leak_intakes,
        leak_patterns,
        limits,
        logins,
        nodes,
        quotas,
        replica,
        root_keys,
        secrets,
        secret_reading,
        slots,
        webhooks,
        wraps,
    )
    return [route for feature in features for route in feature.ROUTES]


def open_routes() -> list[ControllerRouterHandler]:
    """Collect the routes of features that need no token: what the body holds is the credential."""
    return [*logins.OPEN_ROUTES, *wraps.OPEN_ROUTES, *leak_intakes.OPEN_ROUTES, *leaked_keys.OPEN_ROUTES]


class _Provide(Provide):
    """A provider that equals nothing but itself: litestar compares each with each, once for every route."""

    __eq__ = object.__eq__
    __hash__ = object.__hash__


def _dependencies(services: Mapping[str, object]) -> dict[str, Provide]:
    provided: dict[str, Provide] = {
        "credentials": _Provide(edge.provide_credentials),
        "idempotency": _Provide(edge.provide_idempotency),
        "if_match": _Provide(edge.provide_if_match),
        "page": _Provide(edge.provide_page),
        "raw_body": _Provide(edge.provide_raw_body),
    }
    return provided | {name: _Provide(_constant(service), sync_to_thread=False) for name, service in services.items()}


def _constant(service: object) -> Any:  # noqa: ANN401 -- litestar takes any callable
    def provide() -> Any:  # noqa: ANN401 -- checked against the route's annotation
        return service

    return provide
