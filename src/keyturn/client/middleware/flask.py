"""Flask: a whole application, or single views.

    protect = Protect(verifier, exempt=["/health"])
    protect.init_app(app)                                   every request

    @app.get("/orders")
    @protect.requires("orders:read")                        what this view needs beyond that
    def orders(): ...

The verdict stands in `flask.g.keyturn`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from flask import Flask, Response, g, request

from keyturn.client.middleware.protection import Call, Protection, SyncVerifier, permits
from keyturn.client.middleware.wsgi import Asker, call_of
from keyturn.verify.query import compile_query
from keyturn.wire.refusals import Refusal, refusal_of
from keyturn.wire.verification import Code

if TYPE_CHECKING:
    from keyturn.client.model import Verification

P = ParamSpec("P")
T = TypeVar("T")


class Protect:
    """Protection of a Flask application."""

    def __init__(self, verifier: SyncVerifier, **options: Any) -> None:  # noqa: ANN401 -- those of Protection
        """Hold a verifier; raises ConfigError for options that cannot be read."""
        self._protection = Protection(**options)
        self._asker = Asker(verifier, self._protection)

    def init_app(self, app: Flask) -> None:
        """Let only admitted requests through to the views of an application."""
        app.before_request(self._before)
        app.after_request(_after)
        app.teardown_request(self._teardown)

    def requires(self, scopes: str) -> Callable[[Callable[P, T]], Callable[P, T | Response]]:
        """Let a view be called only with a key that has these scopes; the key itself is verified once a request."""
        compile_query(scopes)

        def decorate(view: Callable[P, T]) -> Callable[P, T | Response]:
            @wraps(view)
            def guarded(*args: P.args, **kwargs: P.kwargs) -> T | Response:
                refused = self._admit()
                if refused is not None:
                    return refused
                if permits(g.keyturn, scopes):
                    return view(*args, **kwargs)
                code = Code.INSUFFICIENT_PERMISSIONS
                return _response(refusal_of(code, realm=self._protection.realm, scopes=scopes))

            return guarded

        return decorate

    def _before(self) -> Response | None:
        return None if self._protection.is_exempt(request.path) else self._admit()

    def _admit(self) -> Response | None:
        if _verdict() is not None:
            return None
        found = self._asker.ask(_call())
        if isinstance(found, Refusal):
            return _response(found)
        g.keyturn = found
        return None

    def _teardown(self, _error: BaseException | None) -> None:
        verdict = _verdict()
        if verdict is not None:
            self._asker.release(verdict)


def _verdict() -> Verification | None:
    found: Verification | None = g.get("keyturn")
    return found


def _call() -> Call:
    return call_of(request.environ)


def _after(response: Response) -> Response:
    verdict = _verdict()
    if verdict is not None:
        for name, value in verdict.headers():
            response.headers[name] = value
    return response


def _response(refusal: Refusal) -> Response:
    return Response(refusal.body, refusal.status, list(refusal.headers))
