"""`keyturn serve`: the parent that prepares and watches, and the ASGI application of each worker."""

from __future__ import annotations

import asyncio
import gc
import os
import shlex
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import structlog

from keyturn import __version__
from keyturn.bootstrap.application import open_application
from keyturn.bootstrap.folder import FolderLock, create_folder
from keyturn.bootstrap.observation import Observation
from keyturn.bootstrap.preparation import prepare
from keyturn.bootstrap.vault_dialect import open_vault_edge
from keyturn.compat.unkey.edge import PREFIX as UNKEY_PREFIX
from keyturn.compat.unkey.edge import UnkeyEdge
from keyturn.compat.unkey.operations import UnkeyOperations
from keyturn.compat.vault.asking import PREFIX as VAULT_PREFIX
from keyturn.config import load_settings
from keyturn.http import documents, health, introspection, serve
from keyturn.http.app import create_app
from keyturn.http.edge import EdgeSettings
from keyturn.http.forward_auth import ForwardAuthLane
from keyturn.http.lanes import Gate
from keyturn.http.secret_lane import SecretLane
from keyturn.http.verify_lane import VerifyLane
from keyturn.telemetry.logs import configure_logging

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from keyturn.bootstrap.application import Application
    from keyturn.bootstrap.preparation import Preparation
    from keyturn.config import Settings
    from keyturn.http.lanes import AsgiApp, Receive, Scope, Send

_log = structlog.get_logger("keyturn")
_inherited: list[Settings] = []


def run_server(settings: Settings) -> None:
    """Serve until told to stop.

    Raises ConfigError or KekError when these settings may not be served, StorageError when the database is out of
    reach, and SystemExit with 1 when a worker failed.
    """
    settings.check_serving()
    serve.check_tls(settings)
    configure_logging(settings.log_level, settings.log_format)
    with ExitStack() as held:
        create_folder(settings.data)
        if settings.database_url is None:
            held.enter_context(FolderLock.acquire(settings.data))
        port = serve.choose_port(settings)
        prepared = prepare(settings)
        print(announcement(settings, port, prepared), flush=True)  # noqa: T201 -- this is for the person at the terminal
        _inherited[:] = [settings]
        serve.run(settings, port, load_worker)


def load_worker(_target: str) -> AsgiApp:
    """Build the application of one worker; runs in the worker."""
    settings = _inherited[0] if _inherited else load_settings()
    configure_logging(settings.log_level, settings.log_format)
    serve.watch_parent(os.getppid(), settings.shutdown_seconds)
    return Worker(settings)


class Worker:
    """The ASGI application of one worker: opens on start-up, then hands every request to the gate."""

    def __init__(self, settings: Settings) -> None:
        """Hold the settings; nothing is opened yet."""
        self._settings = settings
        self._application: Application | None = None
        self._gate: AsgiApp | None = None

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve one connection event."""
        # Not a coroutine itself: the hot lane should not pay for one more.
        if self._gate is None or scope["type"] == "lifespan":
            return self._live(receive, send)
        return self._gate(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self._open()
        except Exception as error:  # noqa: BLE001 -- the server must be told, whatever it was
            _log.critical("the worker could not start", reason=str(error), exc_info=error)
            await send({"type": "lifespan.startup.failed", "message": ""})
            return
        await send({"type": "lifespan.startup.complete"})
        serve.hear_stopping()
        await receive()
        await self._close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _open(self) -> None:
        application = open_application(self._settings)
        try:
            await application.start()
            self._gate = build_gate(application)
        except BaseException:
            await application.stop()
            raise
        self._application = application
        gc.freeze()  # what is there now stays: it is looked through for garbage no more
        gc.enable()
        asyncio.get_running_loop().add_signal_handler(serve.DRAIN_SIGNAL, application.drain)

    async def _close(self) -> None:
        if self._application is not None:
            try:
                async with asyncio.timeout(max(1.0, self._settings.shutdown_seconds - STOP_MARGIN_SECONDS)):
                    await self._application.stop()
            except TimeoutError:
                _log.error("the worker did not stop in time; usage counted last may be lost")


STOP_MARGIN_SECONDS: Final = 1.0


def build_gate(application: Application) -> Gate:
    """Build everything that answers HTTP for an application."""
    settings = application.settings
    monitor = Observation(application).monitor()
    services: dict[str, Any] = {**application.services(), "monitor": monitor}
    router = create_app(
        services,
        EdgeSettings(settings.trusted_proxies, application.node),
        public=[*health.ROUTES, *documents.ROUTES, *introspection.ROUTES],
    )
    lane = VerifyLane(
        application.verification.service,
        trusted_proxies=settings.trusted_proxies,
        draining=application.draining,
        observe=application.metrics.verify.observe,
    )
    forward_auth = ForwardAuthLane(
        application.verification.service,
        trusted_proxies=settings.trusted_proxies,
        draining=application.draining,
        observe=application.metrics.verify.observe,
    )
    unkey = UnkeyEdge(
        UnkeyOperations(
            application.keyspaces,
            application.keys,
            application.verification.service,
            application.quotas,
            application.named_limits,
            application.clock,
        ).table(),
        trusted_proxies=settings.trusted_proxies,
        draining=application.draining,
    )
    return Gate(
        cast("AsgiApp", router),
        lane,
        mounted={UNKEY_PREFIX: unkey, VAULT_PREFIX: open_vault_edge(application, monitor)},
        forward_auth=forward_auth,
        secrets=secret_lane(application),
        draining=application.draining,
        observe=application.metrics.requests.observe,
        over_tls=settings.serves_tls or settings.tls == "terminated",
    )


def secret_lane(application: Application) -> SecretLane:
    """Build the lane of reads."""
    settings = application.settings
    return SecretLane(
        application.vault.reader,
        trusted_proxies=settings.trusted_proxies,
        draining=application.draining,
        observe=application.metrics.requests.observe,
        over_tls=settings.serves_tls or settings.tls == "terminated",
    )


def announcement(settings: Settings, port: int, prepared: Preparation) -> str:
    """Say where the server is and, at the first start, where the token is and what to try."""
    scheme = "https" if settings.serves_tls else "http"
    host = "127.0.0.1" if settings.host in {"0.0.0.0", "::", "localhost"} else settings.host  # noqa: S104 -- compared only
    url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
    lines = [f"Keyturn {__version__} on {url}  (API documentation: {url}/docs)"]
    if prepared.first_start:
        token = prepared.token_path.resolve()
        where = f"PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH KEYTURN_URL={url}"
        issue = "keyturn keys issue orders --owner team-web --purpose trial --scope orders:read"
        shown = """tee /dev/stderr | awk '$1 == "key:" {print $2}'"""
        lines += [
            "",
            f"First start: the admin token is in {token}",
            "Try, in another terminal: create a keyspace, issue a key, verify it.",
            "",
            f"export {where} KEYTURN_TOKEN_FILE={shlex.quote(str(token))}",
            "keyturn keyspaces create orders --prefix acme --environment production",
            f"{issue} | {shown} | keyturn keys verify --scopes orders:read",
            "",
        ]
    return "\n".join(lines)
