"""How every command fails: one line that says what, one that says what next, an exit code, and no traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from keyturn.cli.failure import flush_streams, print_failure
from keyturn.cli.session import Session
from keyturn.client.transport import error_of
from keyturn.config import server_url
from keyturn.errors import ConfigError, NotFoundError
from keyturn.kernel.secret import Secret


def keyturn(*arguments: str | bytes, stdout: int = subprocess.PIPE) -> "subprocess.CompletedProcess[bytes]":
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KEYTURN_")}
    command = [os.fsencode(sys.executable), b"-m", b"keyturn", *map(os.fsencode, arguments)]
    environment = kept | {"KEYTURN_URL": "http://127.0.0.1:1", "KEYTURN_TOKEN": "any"}
    return subprocess.run(command, env=environment, stdout=stdout, stderr=subprocess.PIPE, check=False, timeout=120)


@pytest.mark.parametrize(
    "arguments", [("--help",), ("rules", "list"), ("scan", str(Path(__file__).parent / "conftest.py"))]
)
def test_an_answer_that_cannot_be_written_is_told_in_a_sentence(arguments: tuple[str, ...]) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        done = keyturn(*arguments, stdout=full)
    finally:
        os.close(full)
    assert done.returncode == 2
    assert done.stderr.startswith(b"error: ")
    assert b"no space left on device [system]" in done.stderr


def test_what_was_printed_and_not_taken_is_known_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, taken in (("stdout", False), ("stderr", True)):
        with open("/dev/full", "w") as full, monkeypatch.context() as patched:  # noqa: PTH123 -- a device
            patched.setattr(sys, name, full)
            full.write("still in the buffer")
            assert flush_streams() is taken
            assert flush_streams() is True


def test_an_argument_that_is_not_utf_8_is_told_in_a_sentence() -> None:
    done = keyturn("keys", "list", "--owner", b"\xff")
    assert (done.returncode, done.stderr.splitlines()[0]) == (
        2,
        b"error: an argument is not text in UTF-8 [invalid_input]",
    )


@pytest.mark.parametrize("token", [Secret("any"), None])
def test_nothing_is_sent_in_clear_but_to_this_machine(token: Secret | None) -> None:
    """Whoever listens on the way would hold the token from then on, or the wrap that is opened, or the key shown."""
    for url in ("http://keys.example.com", "http://10.0.0.7:8700", "HTTP://keys.example.com"):
        with pytest.raises(ConfigError, match="unencrypted"):
            Session(url, token)
    for url in ("http://127.0.0.1:8700", "http://[::1]:8700", "http://localhost:8700", "https://keys.example.com"):
        Session(url, token)


@pytest.mark.parametrize(
    "url", ["http://[::1", "http://127.0.0.1:99999", "https://", "http://a b", "https://a?b=c", "a"]
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="expected the address of a server"):
        server_url({"KEYTURN_URL": url})


def test_a_password_in_an_address_is_refused_and_not_shown() -> None:
    with pytest.raises(ConfigError) as refused:
        server_url({"KEYTURN_URL": "https://ana:hidden@keys.example.com"})
    assert "hidden" not in str(refused.value)


def test_the_request_that_was_refused_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """Some hints refer to the server's log, which is by request."""
    error = error_of(404, {}, b'{"detail": "no", "code": "not_found", "instance": "urn:keyturn:request:req_1"}')
    assert isinstance(error, NotFoundError)
    print_failure(error)
    assert capsys.readouterr().err == "error: no [not_found]\nrequest: req_1\n"


def test_nothing_that_a_server_says_is_obeyed_by_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_failure(error_of(404, {}, b'{"detail": "a\\u001b[2Jb\\nc", "instance": "\\u001b[1m"}'))
    assert "\x1b" not in (printed := capsys.readouterr().err)
    assert len(printed.splitlines()) == 2


def test_help_lists_commands_in_whole_words() -> None:
    done = keyturn("keys", "--help")
    assert b"..." not in done.stdout.partition(b"Commands:")[2]
    assert b"verify   Verify a key from standard input, a prompt or an env file." in done.stdout
    assert b"disable  Refuse every secret of a key; reversible." in done.stdout
