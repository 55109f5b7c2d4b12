"""Django: a middleware, and a decorator for what single views need beyond it.

    MIDDLEWARE = ["keyturn.client.middleware.django.KeyturnMiddleware", ...]
    KEYTURN = {"VERIFIER": "shop.keys.verifier", "EXEMPT": ["/health"], "TRUSTED_PROXIES": ["10.0.0.0/8"]}

    @requires("orders:read")
    def orders(request): ...                                request.keyturn

`VERIFIER` is a Keyturn or a Verifier, or the dotted name of one; the other entries are those of Protection in capital
letters.  Views may be synchronous; an asynchronous project is served through Django's own adapter.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.utils.module_loading import import_string

from keyturn.client.middleware.protection import Protection, permits
from keyturn.client.middleware.wsgi import Asker, call_of
from keyturn.errors import ConfigError
from keyturn.verify.query import compile_query
from keyturn.wire.refusals import Refusal, missing_key, refusal_of
from keyturn.wire.verification import Code

if TYPE_CHECKING:
    from keyturn.client.model import Verification

View = Callable[..., HttpResponse]
_OPTIONS = ("SCOPES", "KEYSPACE", "COST", "HEADER", "REALM", "EXEMPT", "TRUSTED_PROXIES")


class KeyturnMiddleware:
    """Lets only admitted requests through to the views."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        """Read `settings.KEYTURN`; raises ConfigError naming what is wrong with it."""
        given: dict[str, Any] = getattr(settings, "KEYTURN", None) or {}
        unknown = sorted(set(given) - {"VERIFIER", *_OPTIONS})
        if unknown or "VERIFIER" not in given:
            message = f"KEYTURN holds {', '.join(unknown)}" if unknown else "KEYTURN names no VERIFIER"
            raise ConfigError(message, hint=f"known are VERIFIER, {', '.join(_OPTIONS)}")
        verifier = given["VERIFIER"]
        self._get_response = get_response
        self._protection = Protection(**{name.lower(): given[name] for name in _OPTIONS if name in given})
        self._asker = Asker(import_string(verifier) if isinstance(verifier, str) else verifier, self._protection)

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Serve one request."""
        if self._protection.is_exempt(request.path):
            return self._get_response(request)
        found = self._asker.ask(call_of(request.META))
        if isinstance(found, Refusal):
            return _response(found)
        request.keyturn = found
        try:
            response = self._get_response(request)
        finally:
            self._asker.release(found)
        for name, value in found.headers():
            response[name] = value
        return response


def requires(scopes: str, *, realm: str = "api") -> Callable[[View], View]:
    """Let a view be called only with a key that has these scopes; it needs the middleware."""
    compile_query(scopes)

    def decorate(view: View) -> View:
        @wraps(view)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:  # noqa: ANN401 -- the view's
            verdict: Verification | None = getattr(request, "keyturn", None)
            if verdict is None:
                return _response(missing_key(realm))
            if permits(verdict, scopes):
                return view(request, *args, **kwargs)
            return _response(refusal_of(Code.INSUFFICIENT_PERMISSIONS, realm=realm, scopes=scopes))

        return guarded

    return decorate


def _response(refusal: Refusal) -> HttpResponse:
    response = HttpResponse(refusal.body, status=refusal.status)
    for name, value in refusal.headers:
        response[name] = value
    return response
