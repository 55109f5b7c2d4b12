"""WSGI: whatever gunicorn or uWSGI serves.

    app = KeyturnMiddleware(app, verifier=Verifier(url, token), scopes="orders:read")

The verdict stands in `environ["keyturn.verification"]`.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from keyturn.client.middleware.protection import Call, Protection, Question, SyncVerifier
from keyturn.errors import ConfigError, KeyturnError
from keyturn.wire.refusals import Refusal

if TYPE_CHECKING:
    from keyturn.client.model import Verification

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
WsgiApp = Callable[[Environ, StartResponse], Iterable[bytes]]

_log = logging.getLogger("keyturn.client")


class Asker:
    """Asks a verifier from a thread that may block."""

    def __init__(self, verifier: SyncVerifier, protection: Protection) -> None:
        """Raise ConfigError for a verifier that has to be awaited."""
        if inspect.iscoroutinefunction(verifier.verify):
            raise ConfigError(
                "an AsyncKeyturn cannot be asked from a synchronous application", hint="use Keyturn or Verifier"
            )
        self._verifier = verifier
        self._protection = protection

    def ask(self, call: Call) -> Verification | Refusal:
        """Return the verdict that admits, or the answer that refuses; never raises for a failure to verify."""
        question = self._protection.question(call)
        if not isinstance(question, Question):
            return question
        try:
            verdict = self._verifier.verify(question.key, **question.call)
        except KeyturnError as error:
            _log.error("a key could not be verified: %s", error)
            return self._protection.failure()
        return self._protection.refusal(verdict) or verdict

    def release(self, verification: Verification) -> None:
        """Give back the slots of a call that has ended; a failure leaves them to expire."""
        if not verification.slots:
            return
        try:
            self._verifier.release(verification.slots)
        except KeyturnError as error:
            _log.warning("slots were not given back and will expire: %s", error)


class KeyturnMiddleware:
    """A WSGI application that lets only admitted requests through to another."""

    def __init__(self, app: WsgiApp, verifier: SyncVerifier, **options: Any) -> None:  # noqa: ANN401 -- see Protection
        """Protect `app`; `options` are those of Protection."""
        self._app = app
        self._protection = Protection(**options)
        self._asker = Asker(verifier, self._protection)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        if self._protection.is_exempt(environ.get("PATH_INFO", "")):
            return self._app(environ, start_response)
        found = self._asker.ask(call_of(environ))
        if isinstance(found, Refusal):
            return _refuse(found, start_response)
        environ["keyturn.verification"] = found
        added = list(found.headers())

        def told(status: str, headers: list[tuple[str, str]], *error: Any) -> Any:  # noqa: ANN401 -- PEP 3333
            return start_response(status, [*headers, *added], *error)

        if not found.slots:
            return self._app(environ, told)
        return _Releasing(self._app, environ, told, lambda: self._asker.release(found))


class _Releasing:
    """The body of an answer whose slots are given back once it was sent, or was given up."""

    def __init__(self, app: WsgiApp, environ: Environ, start: StartResponse, release: Callable[[], None]) -> None:
        self._release = release
        try:
            self._body = app(environ, start)
        except BaseException:
            release()
            raise

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._body)

    def close(self) -> None:
        """Close what the application returned, and give the slots back; called by the server (PEP 3333)."""
        try:
            getattr(self._body, "close", lambda: None)()
        finally:
            self._release()


def call_of(environ: Environ) -> Call:
    """Return what a WSGI environment tells of a request."""
    headers = {name[5:].replace("_", "-").lower(): value for name, value in environ.items() if name.startswith("HTTP_")}
    path = f"{environ.get('SCRIPT_NAME', '')}{environ.get('PATH_INFO', '')}"
    raw = environ.get("RAW_URI") or environ.get("REQUEST_URI") or path
    return Call(environ["REQUEST_METHOD"], _as_sent(raw, path), headers, environ.get("REMOTE_ADDR"))


def _as_sent(raw: str, path: str) -> str:
    """Return the target as the client sent it where the server tells (its escapes still in it), without the query."""
    if not raw.startswith("/"):
        return path
    return raw.partition("?")[0]


def _refuse(refusal: Refusal, start_response: StartResponse) -> Iterable[bytes]:
    phrase = HTTPStatus(refusal.status).phrase
    headers = [*refusal.headers, ("Content-Length", str(len(refusal.body)))]
    start_response(f"{refusal.status} {phrase}", headers)
    return [refusal.body]
