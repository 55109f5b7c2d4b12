"""Structured logs, as JSON lines or for a terminal, in which no secret can appear.

    structlog call  --.                                            .--> JSON line
                       >-- level, time, exception text -- scrub --<
    stdlib logging --'                                             `--> console line

Everything that is logged, by us or by a library, goes through one chain.  Its last step before rendering replaces
credentials in every value, exception texts included (`kernel.redact`).  Tracebacks show no local variables.
"""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any, Final, TextIO

import structlog

from keyturn.kernel.clock import rfc3339, wall
from keyturn.kernel.redact import scrub, scrub_value

if TYPE_CHECKING:
    from types import TracebackType

    from structlog.typing import Processor

EventDict = MutableMapping[str, Any]

_QUIET: Final = ("_granian", "granian", "alembic", "asyncio", "httpx", "httpcore", "sqlalchemy")


def configure_logging(level: str = "info", form: str = "auto", *, stream: TextIO | None = None) -> None:
    """Send every log of this process to `stream` (standard error) in the given form.

    `form` is `json`, `console`, or `auto`: console on a terminal, else JSON.  May be called again.
    """
    stream = stream or sys.stderr
    if form == "auto":
        form = "console" if stream.isatty() else "json"
    render: Processor = (
        structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback)
        if form == "console"
        else structlog.processors.JSONRenderer(default=_shown)
    )
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        _stamp,
        _exception_text,
        _without_secrets,
    ]
    number = logging.getLevelNamesMapping()[level.upper()]
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[_message_of_record, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _without_secrets, render],
            use_get_message=False,
            pass_foreign_args=True,
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(number)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(number, logging.WARNING))
    logging.raiseExceptions = False  # a failure to log would print the arguments as they are
    logging.captureWarnings(capture=True)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_uncaught_in_thread


def _stamp(_logger: object, _method: str, event: EventDict) -> EventDict:
    event["time"] = rfc3339(wall())
    return event


def _message_of_record(_logger: object, _method: str, event: EventDict) -> EventDict:
    # The arguments are formatted here and dropped, so that the text is scrubbed as a whole.
    record: logging.LogRecord | None = event.get("_record")
    if record is not None:
        text, arguments = str(record.msg), event.pop("positional_args", None)
        try:
            event["event"] = text % arguments if arguments else text
        except Exception:  # noqa: BLE001 -- a wrong format string must not lose the line
            event["event"] = text
        event["logger"] = record.name
        if record.exc_info:
            event["exc_info"] = record.exc_info
    return event


def _exception_text(_logger: object, _method: str, event: EventDict) -> EventDict:
    given = event.pop("exc_info", None)
    error: BaseException | None = None
    if isinstance(given, BaseException):
        error = given
    elif isinstance(given, tuple) and len(given) == 3:
        error = given[1]
    elif given:
        error = sys.exception()
    if error is not None:
        event["exception"] = "".join(traceback.format_exception(error)).rstrip()
    stack = event.pop("stack_info", None)
    if stack:
        event["stack"] = str(stack)
    return event


def _without_secrets(_logger: object, _method: str, event: EventDict) -> EventDict:
    for name in list(event):
        if name in {"_record", "_from_structlog"}:
            continue
        value = event.pop(name)
        event[scrub(name)] = _text_of(value) if isinstance(value, BaseException) else scrub_value(value)
    return event


def _text_of(error: BaseException) -> str:
    return scrub(f"{type(error).__name__}: {error}")


def _shown(value: object) -> str:
    return scrub(repr(value))


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    structlog.get_logger("keyturn").critical("uncaught exception", exc_info=(kind, error, trace))


def _log_uncaught_in_thread(arguments: threading.ExceptHookArgs) -> None:
    structlog.get_logger("keyturn").critical(
        "uncaught exception in a thread",
        thread=arguments.thread.name if arguments.thread else None,
        exc_info=arguments.exc_value,
    )
