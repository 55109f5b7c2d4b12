"""Granian: listening, workers, TLS, and a stop that ends.

    SIGTERM or SIGINT -> parent, in a thread: SIGUSR1 to every worker (streams and long polls end) -> SIGTERM
    -> requests in flight finish -> the application stops -> exit 0; past `KEYTURN_SHUTDOWN_SECONDS` a worker is killed

A stream that stays open would keep a worker from ever stopping, hence the first signal.  A worker whose parent was
killed would go on serving, so it watches its parent and stops by itself.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from typing import TYPE_CHECKING, Any, Final

from keyturn.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from keyturn.config import Settings
    from keyturn.http.lanes import AsgiApp

HEADER_BYTES_MAX: Final = 32 * 1024
HEADER_READ_MS: Final = 10_000
DRAIN_SIGNAL: Final = signal.SIGUSR1
STOP_SIGNALS: Final = frozenset({signal.SIGTERM, signal.SIGINT})
WATCH_SECONDS: Final = 0.5
_PKCS8: Final = "-----BEGIN PRIVATE KEY-----"


# Its logs go where all others go, from warnings upward.
_LOG_CONFIG: Final[dict[str, Any]] = {
    "formatters": {},
    "handlers": {},
    "loggers": {"_granian": {"propagate": True}, "granian.access": {"propagate": True}},
}


def run(settings: Settings, port: int, load: Callable[[str], AsgiApp]) -> None:
    """Listen and serve until told to stop; returns after every worker has ended.

    `load` runs in each worker and builds its ASGI application.  Raises SystemExit with 1 when a worker failed.
    """
    from granian.constants import HTTPModes, Interfaces
    from granian.http import HTTP1Settings, HTTP2Settings
    from granian.log import LogLevels
    from granian.server import Server

    server = Server(
        target="keyturn",
        address=settings.host,
        port=port,
        interface=Interfaces.ASGI,
        workers=settings.workers,
        http=HTTPModes.auto,
        websockets=False,
        http1_settings=HTTP1Settings(header_read_timeout=HEADER_READ_MS, max_buffer_size=HEADER_BYTES_MAX),
        http2_settings=HTTP2Settings(max_headers_size=HEADER_BYTES_MAX),
        ssl_cert=settings.tls_cert,
        ssl_key=settings.tls_key,
        workers_kill_timeout=settings.shutdown_seconds,
        log_level=LogLevels.warning,
        log_dictconfig=_LOG_CONFIG,
    )
    # A worker that is told to drain before it listens for that must not die of it.
    signal.signal(DRAIN_SIGNAL, signal.SIG_IGN)
    server.on_startup(lambda: _stop_on_signals(server))
    server.serve(target_loader=load)


def choose_port(settings: Settings) -> int:
    """Return the port to listen on, a free one for 0; raises ConfigError when it is taken."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {settings.host} port {settings.port}: {error.strerror}",
                code="listen",
                hint="stop what listens there, or set KEYTURN_HOST and KEYTURN_PORT",
            ) from error
        port: int = probe.getsockname()[1]
    return port


def check_tls(settings: Settings) -> None:
    """Refuse TLS files that would only fail later; raises ConfigError naming the file."""
    if settings.tls_cert is None or settings.tls_key is None:
        return
    certificate = _read(settings.tls_cert, "KEYTURN_TLS_CERT")
    key = _read(settings.tls_key, "KEYTURN_TLS_KEY")
    if "-----BEGIN CERTIFICATE-----" not in certificate:
        raise ConfigError(
            f"{settings.tls_cert} holds no PEM certificate", hint="give the chain, the server's own first"
        )
    if _PKCS8 not in key:
        raise ConfigError(
            f"{settings.tls_key} is not an unencrypted PKCS#8 key",
            hint="convert it: openssl pkcs8 -topk8 -nocrypt -in old.key -out new.key",
        )
    if not _belong_together(certificate, key):
        raise ConfigError(
            f"the key {settings.tls_key} does not belong to the certificate {settings.tls_cert}",
            hint="the server's own certificate must be the first of the file",
        )


def watch_parent(parent: int, grace_seconds: float) -> None:
    """Stop this worker when its parent has ended: gracefully, and by force after `grace_seconds`."""

    def watch() -> None:
        while os.getppid() == parent:
            _pause.wait(WATCH_SECONDS)
        os.kill(os.getpid(), DRAIN_SIGNAL)
        os.kill(os.getpid(), signal.SIGTERM)
        _pause.wait(grace_seconds)
        os._exit(1)

    threading.Thread(target=watch, name="keyturn-parent", daemon=True).start()


_pause: Final = threading.Event()


def _stop_on_signals(server: Any) -> None:  # noqa: ANN401 -- granian's server is untyped
    """Wait for a signal to stop in a thread of its own, from now on; workers inherit that it is blocked.

    A handler would run in the main thread wherever that is, and granian's sets an event whose lock it may hold there.
    A worker that is told to stop before it listens for that is told once it does (see `hear_stopping`).
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)

    def wait() -> None:
        while True:
            got = signal.sigwait(STOP_SIGNALS)
            for worker in server.wrks:
                # Who sends the signal may have sent it to the workers too: they may end before they are told to.
                worker.interrupt_by_parent = True
                if worker.inner.pid is not None and worker.inner.is_alive():
                    os.kill(worker.inner.pid, DRAIN_SIGNAL)
            server.signal_handler_interrupt(got, None)

    threading.Thread(target=wait, name="keyturn-signals", daemon=True).start()


def hear_stopping() -> None:
    """Let this worker be told to stop, by its parent alone; what was sent before arrives now."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def _read(path: Path, variable: str) -> str:
    try:
        return path.read_text("ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{variable} names {path}, which cannot be read as PEM", hint="check the path and its mode"
        ) from error


def _belong_together(certificate: str, key: str) -> bool:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
    from cryptography.x509 import load_pem_x509_certificate

    try:
        ours = load_pem_private_key(key.encode(), None).public_key()
        theirs = load_pem_x509_certificate(certificate.encode()).public_key()
    except ValueError:
        return False
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return ours.public_bytes(*form) == theirs.public_bytes(*form)
