import io
import json
import logging
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog

from keyturn.kernel.secret import Secret
from keyturn.kernel.tokenformat import mint
from keyturn.telemetry.logs import configure_logging

KEY = mint("acme", "live").key.reveal()
BODY = KEY.rpartition("_")[2]
PEM = "\n".join(["-----BEGIN PRIVATE KEY-----", "MC4CAQAwBQYDK2VwBCIEIA", "-----END PRIVATE KEY-----"])


@pytest.fixture(params=["json", "console"])
def log(request: pytest.FixtureRequest) -> Iterator[io.StringIO]:
    """Everything logged, in both forms; the process's logging is put back afterwards."""
    root = logging.getLogger()
    before = (root.handlers[:], root.level, sys.excepthook, threading.excepthook, logging.raiseExceptions)
    stream = io.StringIO()
    configure_logging("debug", request.param, stream=stream)
    yield stream
    root.handlers[:], level, sys.excepthook, threading.excepthook, logging.raiseExceptions = before
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


class _Holder:
    def __repr__(self) -> str:
        return f"_Holder({KEY})"


def _raise() -> None:
    raise RuntimeError(f"cannot use {KEY}")


def _through_structlog_message() -> None:
    structlog.get_logger("x").info(f"issued {KEY}")


def _through_structlog_values() -> None:
    structlog.get_logger("x").info("issued", key=KEY, nested={"list": [KEY, {KEY: (KEY,)}]}, held=_Holder(), **{KEY: 1})


def _through_bound_values() -> None:
    structlog.get_logger("x").bind(key=KEY).warning("issued")


def _through_context() -> None:
    with structlog.contextvars.bound_contextvars(key=KEY):
        structlog.get_logger("x").info("issued")


def _through_an_exception() -> None:
    try:
        _raise()
    except RuntimeError as error:
        structlog.get_logger("x").exception("failed")
        structlog.get_logger("x").error("failed", exc_info=error)
        structlog.get_logger("x").error("failed", error=error)


def _through_a_chain_of_exceptions() -> None:
    try:
        try:
            _raise()
        except RuntimeError as error:
            raise ValueError("outer") from error
    except ValueError:
        structlog.get_logger("x").exception("failed")


def _through_stdlib_message() -> None:
    logging.getLogger("library").warning("got " + KEY)  # noqa: G003 -- one of the ways


def _through_stdlib_arguments() -> None:
    logging.getLogger("library").warning("got %s and %r", KEY, {"k": KEY})


def _through_a_wrong_format() -> None:
    logging.getLogger("library").warning("got %d", KEY)


def _through_stdlib_exception() -> None:
    try:
        _raise()
    except RuntimeError:
        logging.getLogger("library").exception("failed %s", KEY)


def _through_stdlib_extra() -> None:
    logging.getLogger("library").warning("got", extra={"key": KEY})


def _through_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn(f"deprecated {KEY}", stacklevel=1)


def _through_an_uncaught_exception() -> None:
    try:
        _raise()
    except RuntimeError as error:
        sys.excepthook(type(error), error, error.__traceback__)


def _through_a_thread() -> None:
    thread = threading.Thread(target=_raise)
    thread.start()
    thread.join()


def _through_a_header() -> None:
    structlog.get_logger("x").info("request", headers=[(b"authorization", f"Bearer {KEY}".encode())])


def _through_a_url() -> None:
    structlog.get_logger("x").info("request", path=f"/api/v1/keys/{KEY}?key={KEY}")


def _through_local_variables() -> None:
    def fail(held_in_a_local: str) -> None:
        raise RuntimeError(f"the message tells only the length: {len(held_in_a_local)}")

    try:
        fail(KEY)
    except RuntimeError:
        structlog.get_logger("x").exception("failed")


WAYS: list[Callable[[], None]] = [way for name, way in list(globals().items()) if name.startswith("_through_")]


@pytest.mark.parametrize("way", WAYS, ids=[way.__name__ for way in WAYS])
def test_no_key_can_be_logged_whichever_way_it_is_tried(log: io.StringIO, way: Callable[[], None]) -> None:
    """A log is copied to places that may not hold credentials; not even the end of one may appear."""
    way()
    written = log.getvalue()
    assert written.strip()
    assert BODY not in written
    assert BODY[-12:] not in written


def test_other_credentials_are_kept_out_too(log: io.StringIO) -> None:
    """Bearer tokens of any shape, PEM blocks, and everything typed as a secret."""
    token = "tok" + "en-of-another-kind-0123456789"
    structlog.get_logger("x").info(
        "seen", header=f"Bearer {token}", pem=PEM, held=Secret("swordfish"), deep=[Secret("swordfish")]
    )
    written = log.getvalue()
    for hidden in (token, "MC4CAQAwBQYDK2VwBCIEIA", "swordfish"):
        assert hidden not in written


def test_a_line_says_when_and_how_bad(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    configure_logging("info", "json", stream=stream)
    structlog.get_logger("x").debug("too low")
    structlog.get_logger("x").warning("request refused", code="stale", count=3)
    line: dict[str, Any] = json.loads(stream.getvalue())
    assert line.pop("time").endswith("Z")
    assert line == {"event": "request refused", "level": "warning", "code": "stale", "count": 3}
    assert capsys.readouterr() == ("", "")
    structlog.reset_defaults()
