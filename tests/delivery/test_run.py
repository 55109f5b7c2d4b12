"""`keyturn run` with real processes: what the program gets, and that nothing else changes for it."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.delivery.conftest import Command, sample
from tests.delivery.shelf import Shelf, open_shelf

KEY = sample("sk", "live", "0123456789abcdef")
PASSWORD = sample("pw", "correct", "horse")
Keyturn = Callable[..., "subprocess.CompletedProcess[bytes]"]

# Ways to run: in our place, and under our eyes for each reason there is.
WAYS = [
    pytest.param((), id="exec"),
    pytest.param(("--watch", "restart"), id="watch"),
    pytest.param(("--mask",), id="mask"),
    pytest.param(("--files", "auto"), id="files"),
]
PAYMENTS = ("--env", "production", "--service", "payments")
SHOW = "import json, os; print(json.dumps(dict(os.environ)))"


@pytest.fixture(autouse=True)
def secrets(shelf: Shelf) -> None:
    shelf.put("production/payments/stripe", key=KEY)
    shelf.put("production/payments/db", password=PASSWORD, port=5432, **{"host-name": "db"})
    shelf.put("production/payments-other/x", key="of another service")


def python(program: str, *arguments: str) -> tuple[str, ...]:
    return ("--", sys.executable, "-c", program, *arguments)


def lines(process: subprocess.Popen[bytes], seconds: float = 120.0) -> Iterator[str]:
    """Yield lines as they come; fail when one takes too long."""
    assert process.stdout is not None
    descriptor = process.stdout.fileno()
    held = b""
    while True:
        ready, _, _ = select.select([descriptor], [], [], seconds)
        assert ready, f"nothing within {seconds} s after {held!r}"
        chunk = os.read(descriptor, 4096)
        if not chunk:
            return
        held += chunk
        while b"\n" in held:
            line, _, held = held.partition(b"\n")
            yield line.decode()


# --- what the program gets ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", [(), ("--watch", "restart")])
def test_fields_are_variables_of_the_program(keyturn: Keyturn, way: tuple[str, ...]) -> None:
    done = keyturn("run", *PAYMENTS, *way, *python(SHOW))
    found = json.loads(done.stdout)
    assert (found["KEY"], found["PASSWORD"], found["PORT"], found["HOST_NAME"]) == (KEY, PASSWORD, "5432", "db")
    assert done.returncode == 0


def test_exactly_this_secret_of_that_name_is_enough(keyturn: Keyturn, shelf: Shelf) -> None:
    shelf.put("production/alone", key="one")
    assert json.loads(keyturn("run", "--env", "production", "--service", "alone", *python(SHOW)).stdout)["KEY"] == "one"


def test_the_management_token_stays_behind_unless_it_is_asked_for(keyturn: Keyturn, shelf: Shelf) -> None:
    """Who may read one application's secrets may often read others: the program has no need of it."""
    assert shelf.token not in keyturn("run", *PAYMENTS, *python(SHOW)).stdout.decode()
    assert shelf.token not in keyturn("run", *PAYMENTS, "--watch", "restart", *python(SHOW)).stdout.decode()
    passed = json.loads(keyturn("run", *PAYMENTS, "--pass-token", *python(SHOW)).stdout)
    assert (passed["KEYTURN_TOKEN"], passed["KEYTURN_URL"]) == (shelf.token, shelf.url)


def test_fields_of_one_name_are_an_error_that_names_both(keyturn: Keyturn, shelf: Shelf) -> None:
    shelf.put("production/payments/paypal", Key="other")
    done = keyturn("run", *PAYMENTS, *python(SHOW))
    assert done.returncode == 2
    assert b"production/payments/paypal#Key and production/payments/stripe#key" in done.stderr
    assert done.stdout == b""
    found = json.loads(keyturn("run", *PAYMENTS, "--prefix", *python(SHOW)).stdout)
    assert (found["STRIPE_KEY"], found["PAYPAL_KEY"]) == (KEY, "other")


@pytest.mark.parametrize("name", ["LD_PRELOAD", "path", "PYTHONPATH", "node-options", "BASH_ENV", "HTTPS_PROXY"])
def test_a_field_cannot_change_what_is_run(keyturn: Keyturn, shelf: Shelf, name: str) -> None:
    """Whoever may write a secret must not thereby run code in the program."""
    shelf.put("production/payments/evil", **{name: "/tmp/evil"})  # noqa: S108 -- never opened
    done = keyturn("run", *PAYMENTS, *python(SHOW))
    assert done.returncode == 2
    assert b"changes how programs are run" in done.stderr
    mapped = ("--map", f"LD_NAMED=production/payments/evil#{name}")
    assert json.loads(keyturn("run", *mapped, *python(SHOW)).stdout)["LD_NAMED"] == "/tmp/evil"  # noqa: S108


def test_only_what_is_named_is_given(keyturn: Keyturn) -> None:
    done = keyturn(
        "run", "--map", "STRIPE=production/payments/stripe#key", "--clean-env", *python(SHOW), env={"X": "y"}
    )
    found = json.loads(done.stdout)
    assert found["STRIPE"] == KEY
    assert not {"KEY", "PASSWORD", "X"} & set(found)


def test_values_are_on_no_command_line(start: Command) -> None:
    """Every user of the machine can read the command lines of all processes."""
    program = "import time; print('up', flush=True); time.sleep(60)"
    for way in ((), ("--watch", "restart"), ("--mask",), ("--files", "auto")):
        process = start("run", *PAYMENTS, *way, *python(program))
        assert next(lines(process)) == "up"
        seen = b"".join(_read(path) for path in Path("/proc").glob("[0-9]*/cmdline"))
        assert KEY.encode() not in seen
        assert b"import time; print('up'" in seen
        process.terminate()
        process.wait(120)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


# --- how it ends -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("status", [0, 1, 3, 42, 125, 255])
def test_the_exit_status_is_the_programs_own(keyturn: Keyturn, way: tuple[str, ...], status: int) -> None:
    assert keyturn("run", *PAYMENTS, *way, *python(f"raise SystemExit({status})")).returncode == status


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGPIPE])
def test_a_program_that_dies_by_a_signal_shows_as_that(keyturn: Keyturn, way: tuple[str, ...], number: int) -> None:
    program = f"import os, resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); os.kill(os.getpid(), {number})"
    restored = "import signal; signal.signal(signal.SIGPIPE, signal.SIG_DFL); "
    assert keyturn("run", *PAYMENTS, *way, *python(restored + program)).returncode == -number


@pytest.mark.parametrize("way", WAYS)
def test_what_cannot_be_run_is_told_as_shells_do(keyturn: Keyturn, way: tuple[str, ...], tmp_path: Path) -> None:
    missing = keyturn("run", *PAYMENTS, *way, "--", "no-such-program-here")
    assert (missing.returncode, b"no-such-program-here" in missing.stderr) == (127, True)
    (tmp_path / "plain").write_text("text")
    assert keyturn("run", *PAYMENTS, *way, "--", str(tmp_path / "plain")).returncode == 126


def test_a_pipe_that_closes_ends_the_program_as_without_us(environment: dict[str, str]) -> None:
    for way in ("", "--watch restart", "--files auto"):
        run = f"{sys.executable} -m keyturn run --env production --service payments {way} -- yes"
        line = f"{run} | head -1; echo ${{PIPESTATUS[0]}}"
        done = subprocess.run(["/bin/bash", "-c", line], env=environment, capture_output=True, timeout=120, check=False)
        assert done.stdout.split() == [b"y", b"141"], done


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGWINCH"])
def test_signals_reach_the_program(start: Command, way: tuple[str, ...], name: str) -> None:
    program = (
        "import os, signal, time\n"
        # Not print, which may be at work still when the signal comes, and not pause, which may begin just after it.
        f"signal.signal(signal.{name}, lambda *_: (os.write(1, b'got {name}\\n'), os._exit(7)))\n"
        "os.write(1, b'up\\n')\n"
        "while True: time.sleep(0.01)\n"
    )
    process = start("run", *PAYMENTS, *way, *python(program))
    printed = lines(process)
    assert next(printed) == "up"
    process.send_signal(getattr(signal, name))
    assert next(printed) == f"got {name}"
    assert process.wait(120) == 7


@pytest.mark.parametrize("way", [("--watch", "restart"), ("--mask",)])
def test_the_program_does_not_outlive_us(start: Command, way: tuple[str, ...]) -> None:
    program = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    process = start("run", *PAYMENTS, *way, *python(program))
    pid = int(next(lines(process)))
    process.kill()
    process.wait(120)
    deadline = time.monotonic() + 120
    while _alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _alive(pid)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_a_parent_that_ignores_its_children_changes_nothing(environment: dict[str, str]) -> None:
    run = f"{sys.executable} -m keyturn run --env production --service payments --watch restart -- sh -c 'exit 4'"
    ignoring = "import signal, subprocess, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); "
    program = ignoring + "import os; os.execvp('sh', ['sh', '-c', 'exec ' + sys.argv[1]])"
    done = subprocess.run([sys.executable, "-c", program, run], env=environment, timeout=120, check=False)
    assert done.returncode == 4


@pytest.mark.parametrize("way", [(), ("--watch", "restart")])
def test_the_terminal_is_the_programs(environment: dict[str, str], way: tuple[str, ...]) -> None:
    """An interactive program sees a terminal, and the interrupt key reaches it once."""
    program = (
        "import os, signal, sys, time\n"
        "seen = []\n"
        "signal.signal(signal.SIGINT, lambda *_: seen.append(1))\n"
        "print('tty', os.isatty(0), os.isatty(1), os.tcgetpgrp(0) == os.getpgrp(), flush=True)\n"
        "while not seen: time.sleep(0.01)\n"
        "time.sleep(0.3)\n"
        "print('interrupts', len(seen), flush=True)\n"
        "print('typed', input(), flush=True)\n"
        "sys.exit(5)\n"
    )
    command = [sys.executable, "-m", "keyturn", "run", *PAYMENTS, *way, *python(program)]
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(command[0], command, environment)  # noqa: S606
    shown = _until(terminal, b"tty True True True")
    os.write(terminal, b"\x03")
    shown += _until(terminal, b"interrupts")
    os.write(terminal, b"hello\n")
    shown += _until(terminal, b"typed hello")
    assert b"interrupts 1" in shown, shown
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 5


def _until(terminal: int, text: bytes) -> bytes:
    shown = b""
    while text not in shown:
        ready, _, _ = select.select([terminal], [], [], 30)
        assert ready, shown
        try:
            shown += os.read(terminal, 4096)
        except OSError:
            raise AssertionError(shown) from None
    return shown


# --- files -------------------------------------------------------------------------------------------------------


TREE = (
    "import os, pathlib, json\n"
    "root = pathlib.Path(os.environ['SECRETS_DIR'])\n"
    "files = {str(p.relative_to(root)): [p.read_text(), oct(p.stat().st_mode & 0o777)] for p in root.rglob('*')"
    " if p.is_file() and p.name != '.lock'}\n"
    "print(json.dumps([str(root), oct(root.stat().st_mode & 0o777), files, dict(os.environ)]))\n"
)


def test_files_are_private_and_gone_afterwards(keyturn: Keyturn, tmp_path: Path) -> None:
    for folder in ("auto", str(tmp_path / "secrets")):
        root, mode, files, found = json.loads(keyturn("run", *PAYMENTS, "--files", folder, *python(TREE)).stdout)
        assert mode == "0o700"
        assert files == {
            "stripe/key": [KEY, "0o600"],
            "db/password": [PASSWORD, "0o600"],
            "db/port": ["5432", "0o600"],
            "db/host-name": ["db", "0o600"],
        }
        assert "KEY" not in found
        assert not Path(root).exists()


def test_one_field_as_a_file_is_named_by_a_variable(keyturn: Keyturn) -> None:
    named = ("--file", "STRIPE_FILE=production/payments/stripe#key")
    _, _, files, found = json.loads(keyturn("run", *named, *python(TREE)).stdout)
    assert files == {"STRIPE_FILE": [KEY, "0o600"]}
    assert found["STRIPE_FILE"].endswith("/STRIPE_FILE")
    assert not Path(found["STRIPE_FILE"]).exists()


def test_a_folder_of_others_or_with_things_in_it_is_refused(keyturn: Keyturn, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o755)
    assert b"not a folder of this user alone" in keyturn("run", *PAYMENTS, "--files", str(shared), "--", "true").stderr
    shared.chmod(0o700)
    (shared / "thesis.txt").write_text("keep me")
    done = keyturn("run", *PAYMENTS, "--files", str(shared), "--", "true")
    assert (done.returncode, b"is not empty" in done.stderr) == (2, True)
    assert (shared / "thesis.txt").read_text() == "keep me"


def test_what_a_kill_leaves_is_removed_by_the_next_run(start: Command, keyturn: Keyturn) -> None:
    process = start("run", *PAYMENTS, "--files", "auto", *python(TREE + "import time; time.sleep(60)"), bufsize=0)
    # It is printed when the buffer is flushed: at the end, so look for the folder by its files instead.
    process.kill()
    process.wait(120)
    program = "import os, time; print(os.environ['SECRETS_DIR'], flush=True); time.sleep(60)"
    process = start("run", *PAYMENTS, "--files", "auto", *python(program))
    left = Path(next(lines(process)))
    process.kill()
    process.wait(120)
    assert left.exists()
    assert keyturn("run", *PAYMENTS, "--files", "auto", "--", "true").returncode == 0
    assert not left.exists()


def test_a_stop_leaves_no_file(start: Command) -> None:
    program = "import os, time; print(os.environ['SECRETS_DIR'], flush=True); time.sleep(60)"
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        process = start("run", *PAYMENTS, "--files", "auto", *python(program))
        folder = Path(next(lines(process)))
        assert folder.exists()
        process.send_signal(number)
        process.wait(120)
        assert not folder.exists()


def test_a_field_cannot_choose_where_it_is_written(keyturn: Keyturn, shelf: Shelf, tmp_path: Path) -> None:
    """Whoever may write a secret must not write this user's files."""
    shelf.put("production/payments/evil", **{"../../escaped": "x"})
    done = keyturn("run", *PAYMENTS, "--files", str(tmp_path / "a"), "--", "true")
    assert (done.returncode, b"cannot be the name of a file" in done.stderr) == (2, True)
    assert not (tmp_path / "escaped").exists()
    assert not (tmp_path / "a").exists()


# --- change ------------------------------------------------------------------------------------------------------


def test_a_change_restarts_the_program_with_the_new_value(start: Command, shelf: Shelf) -> None:
    program = "import os, time; print(os.environ['KEY'], flush=True); time.sleep(60)"
    process = start("run", *PAYMENTS, "--watch", "restart", *python(program))
    printed = lines(process)
    assert next(printed) == KEY
    shelf.put("production/payments/stripe", key="rotated-once")
    assert next(printed) == "rotated-once"
    shelf.put("production/payments/stripe", key="rotated-twice")
    assert next(printed) == "rotated-twice"
    process.terminate()
    assert process.wait(120) == -signal.SIGTERM


def test_a_program_that_ignores_sigterm_is_killed_after_the_grace(start: Command, shelf: Shelf) -> None:
    program = (
        "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print(os.environ['KEY'], flush=True); time.sleep(60)"
    )
    process = start("run", *PAYMENTS, "--watch", "restart", "--grace-seconds", "0.3", *python(program))
    printed = lines(process)
    assert next(printed) == KEY
    shelf.put("production/payments/stripe", key="rotated")
    assert next(printed) == "rotated"


def test_a_change_rewrites_files_and_sends_the_signal(start: Command, shelf: Shelf) -> None:
    program = (
        "import os, pathlib, signal, time\n"
        "def show(*_): print(pathlib.Path(os.environ['K']).read_text(), os.getpid(), flush=True)\n"
        "signal.signal(signal.SIGHUP, show)\n"
        "show()\n"
        "while True: time.sleep(0.01)\n"
    )
    named = ("--file", "K=production/payments/stripe#key", "--watch", "signal=HUP")
    printed = lines(start("run", *named, *python(program)))
    before, pid = next(printed).split()
    shelf.put("production/payments/stripe", key="rotated")
    assert before == KEY
    assert next(printed).split() == ["rotated", pid]


def test_a_signal_without_files_is_refused(keyturn: Keyturn) -> None:
    assert keyturn("run", *PAYMENTS, "--watch", "signal=HUP", "--", "true").returncode == 2


def test_a_change_of_something_else_changes_nothing(start: Command, shelf: Shelf) -> None:
    program = "import os, time; print(os.environ['KEY'], flush=True); time.sleep(60)"
    process = start("run", *PAYMENTS, "--watch", "restart", *python(program))
    printed = lines(process)
    next(printed)
    shelf.put("production/payments-other/x", key="changed")
    shelf.put("production/payments/stripe", key=KEY, extra="field")
    assert next(printed) == KEY


def test_a_server_that_goes_away_changes_nothing(start: Command) -> None:
    with open_shelf() as first:
        first.put("production/payments/stripe", key="before")
        program = "import os, time; print(os.environ['KEY'], flush=True); time.sleep(60)"
        way = ("--watch", "restart", *python(program))
        process = start("run", *PAYMENTS, *way, env={"KEYTURN_URL": first.url})
        printed = lines(process)
        assert next(printed) == "before"
    assert process.stderr is not None
    assert b"still using what was read before" in process.stderr.readline()
    assert process.poll() is None
    port = int(first.url.rpartition(":")[2])
    with open_shelf(port, first):
        first.put("production/payments/stripe", key="after")
        assert next(printed) == "after"
        process.terminate()
        process.wait(120)


# --- outage ------------------------------------------------------------------------------------------------------


OFFLINE = ("--offline-cache", "copy", *python("import os; print(os.environ['KEY'])"))


def test_an_outage_is_bridged_by_a_sealed_copy(keyturn: Keyturn, tmp_path: Path) -> None:
    assert keyturn("run", *PAYMENTS, *OFFLINE).returncode == 0
    copy = tmp_path / "copy"
    assert copy.stat().st_mode & 0o777 == 0o600
    assert KEY.encode() not in copy.read_bytes()
    down = keyturn("run", *PAYMENTS, *OFFLINE, env={"KEYTURN_URL": "http://127.0.0.1:9"})
    # The copy belongs to one address.
    assert (down.returncode, b"does not open" in down.stderr) == (5, True)


def test_the_copy_is_used_when_the_server_does_not_answer(keyturn: Keyturn, shelf: Shelf) -> None:
    assert keyturn("run", *PAYMENTS, *OFFLINE).returncode == 0
    shelf.failing = 503
    done = keyturn("run", *PAYMENTS, *OFFLINE)
    assert done.stdout.decode().strip() == KEY
    assert b"using the offline copy" in done.stderr


def test_a_copy_that_cannot_be_written_keeps_nothing_from_starting(keyturn: Keyturn) -> None:
    nowhere = ("--offline-cache", "no/such/folder/copy", *python("print('up')"))
    done = keyturn("run", *PAYMENTS, *nowhere)
    assert (done.returncode, done.stdout, b"was not renewed" in done.stderr) == (0, b"up\n", True)


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_is_never_bridged(keyturn: Keyturn, shelf: Shelf, status: int) -> None:
    """A right that was taken away must not live on in a copy."""
    assert keyturn("run", *PAYMENTS, *OFFLINE).returncode == 0
    shelf.failing = status
    done = keyturn("run", *PAYMENTS, *OFFLINE)
    assert (done.stdout, done.returncode) == (b"", 3 if status == 404 else 4)


def test_an_old_copy_and_another_token_and_another_selection_are_refused(keyturn: Keyturn, shelf: Shelf) -> None:
    keyturn("run", *PAYMENTS, *OFFLINE)
    shelf.failing = 503
    assert b"old, expected at most 0 s" in keyturn("run", *PAYMENTS, "--max-age", "0", *OFFLINE).stderr
    assert b"does not open" in keyturn("run", *PAYMENTS, *OFFLINE, env={"KEYTURN_TOKEN": "other"}).stderr
    other = ("--secret", "production/payments/stripe")
    assert b"does not open" in keyturn("run", *other, *OFFLINE).stderr


# --- masking -----------------------------------------------------------------------------------------------------


def test_values_are_masked_in_both_outputs(keyturn: Keyturn) -> None:
    program = (
        "import base64, os, sys\n"
        "key = os.environ['KEY']\n"
        "encoded = base64.b64encode(b'x' + key.encode()).decode()\n"
        "for part in (key[:7], key[7:], '\\n', encoded, '\\n', 'plain text\\n'):\n"
        "    sys.stdout.write(part); sys.stdout.flush()\n"
        "sys.stderr.write('failed with ' + os.environ['PASSWORD'])\n"
        "sys.exit(9)\n"
    )
    done = keyturn("run", *PAYMENTS, "--mask", *python(program))
    assert done.returncode == 9
    assert KEY.encode() not in done.stdout
    assert PASSWORD.encode() not in done.stderr
    assert re.fullmatch(rb"\*{8}\n\w{0,3}\*{8}\S{0,5}\nplain text\n", done.stdout), done.stdout
    assert done.stderr == b"failed with ********"


def test_masked_output_comes_at_once(start: Command) -> None:
    program = "import sys; sys.stdout.write('name? \\n'); sys.stdout.flush(); print('hello', input())"
    process = start("run", *PAYMENTS, "--mask", *python(program), stdin=subprocess.PIPE)
    printed = lines(process)
    assert next(printed) == "name? "
    assert process.stdin is not None
    process.stdin.write(b"you\n")
    process.stdin.flush()
    assert next(printed) == "hello you"


# --- wrong usage -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ("--", "true"),
        ("--env", "production", "--", "true"),
        ("--service", "payments", "--", "true"),
        (*PAYMENTS,),
        ("--map", "A=B", "--", "true"),
        ("--map", "A=production/x#y", "--file", "A=production/x#z", "--", "true"),
        ("--map", "A-B=production/x#y", "--", "true"),
        (*PAYMENTS, "--watch", "always", "--", "true"),
        (*PAYMENTS, "--max-age", "soon", "--", "true"),
    ],
)
def test_wrong_usage_runs_nothing(keyturn: Keyturn, arguments: tuple[str, ...]) -> None:
    done = keyturn("run", *arguments)
    assert done.returncode == 2
    assert done.stdout == b""


def test_no_message_holds_a_value(keyturn: Keyturn, shelf: Shelf) -> None:
    secret: dict[str, Any] = {"LD_PRELOAD": KEY, "nul": KEY + "\0"}
    for name, value in secret.items():
        shelf.put("production/bad/one", **{name: value})
        done = keyturn("run", "--env", "production", "--service", "bad", "--", "true")
        assert done.returncode == 2
        assert KEY.encode() not in done.stderr + done.stdout
