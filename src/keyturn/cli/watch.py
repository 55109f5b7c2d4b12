"""`keyturn watch`: repositories and folders scanned on a schedule, and reported to a server."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from keyturn.config import inherited_environment, own_environment
from keyturn.errors import ConflictError, InputError
from keyturn.kernel.clock import Clock
from keyturn.scanner.cache import default_folder
from keyturn.scanner.watching import (
    Outcome,
    Schedule,
    clone_arguments,
    is_elsewhere,
    mirror_name,
    read_watches,
    scan_arguments,
    update_arguments,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from keyturn.scanner.watching import Watch

GIT_SECONDS: Final = 3600
_FOLDER: Final = "watch"
_STATES: Final = {0: "clean", 1: "findings"}


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--once", is_flag=True, help="Scan what is due now, and end.")
@click.option("--report/--no-report", default=True, help="Report to the server, each under the name of its watch.")
@click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where mirrors, the schedule and the last reports are kept.",
)
def watch(*, file: Path, once: bool, report: bool, state: Path | None) -> int:
    """Scan the repositories and folders of a watch FILE, each when it is due, until stopped.

    With --once the exit code is that of the worst scan: 2 before 1 before 0.  The last report of each is kept below
    the folder of --state.
    """
    try:
        watches = read_watches(file.read_text("utf-8", "replace"), str(file))
    except OSError as error:
        raise InputError(f"the file {str(file)!r} cannot be read: {error.strerror}", field=str(file)) from None
    environment = inherited_environment()
    folder = (state or default_folder(environment) / _FOLDER).absolute()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _alone(folder):
        runner = _Runner(watches, folder, environment, report=report)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: runner.stop())
        return runner.run(once=once)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold a folder for one process; raises ConflictError when another one holds it.  It ends with the process."""
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConflictError(
                f"another keyturn watch keeps its mirrors in {folder}",
                hint="wait for it to end, or name another folder by --state",
            ) from None
        yield
    finally:
        os.close(descriptor)


class _Runner:
    """Runs what is due, one watch at a time; each scan spreads over the processors itself."""

    def __init__(self, watches: Sequence[Watch], folder: Path, environment: Mapping[str, str], *, report: bool) -> None:
        self._watches = watches
        self._folder = folder
        # A git that asks for a password would wait for ever.
        self._environment = {**environment, "GIT_TERMINAL_PROMPT": "0"}
        self._report = report
        self._schedule = Schedule(folder / "schedule.json")
        self._clock = Clock()
        self._stopping = False
        # A lock, such as that of an event, may be held already by what a signal interrupts.
        self._woken, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._process: subprocess.Popen[bytes] | None = None

    def stop(self) -> None:
        """End what runs, and after it the loop; asked a second time, kill what runs."""
        number = signal.SIGKILL if self._stopping else signal.SIGTERM
        self._stopping = True
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake, b"!")
        self._signal(number)

    def run(self, *, once: bool) -> int:
        """Run until stopped, or what is due once; returns the exit code."""
        worst = 0
        while not self._stopping:
            for one in self._schedule.due(self._watches, self._clock.now()):
                if self._is_stopping():
                    break
                outcome = self._scan(one)
                worst = max(worst, 2 if outcome.exit_code not in _STATES else outcome.exit_code)
            if once:
                return worst
            seconds = min(60.0, self._schedule.wait_seconds(self._watches, self._clock.now()))
            select.select([self._woken], [], [], seconds)
        return 0

    def _scan(self, one: Watch) -> Outcome:
        started_at, begin = self._clock.now(), self._clock.boottime()
        place = self._mirrored(one) if is_elsewhere(one) else (one.repository or one.folder)
        kept = self._folder / "reports" / f"{one.name}.json"
        kept.parent.mkdir(exist_ok=True, mode=0o700)
        kept.unlink(missing_ok=True)
        code = None
        if place is not None and not self._stopping:
            arguments = scan_arguments(one, place, report=self._report, output=str(kept))
            # -P: a module of the folder that this runs in is never imported.
            program = [sys.executable, "-P", "-m", "keyturn"]
            # It asks the server, so it gets the token; git does not.
            code = self._run([*program, *arguments], one.timeout_seconds, own_environment())
        if not self._stopping:
            self._schedule.done(one, started_at)
        outcome = Outcome(one.name, code, self._clock.boottime() - begin)
        state = "stopped" if self._is_stopping() else _STATES.get(-1 if code is None else code, "failed")
        why = "" if state == "clean" or not kept.exists() else f"; see {kept}"
        click.echo(f"{one.name}: {state} in {outcome.seconds:.1f} s{why}", err=True)
        return outcome

    def _mirrored(self, one: Watch) -> str | None:
        """Bring the mirror of a repository up to date and return where it is; None when that failed."""
        mirror = self._folder / "mirrors" / mirror_name(one)
        if mirror.exists():
            if self._run(["git", *update_arguments(mirror)], GIT_SECONDS) == 0:
                return str(mirror)
            if self._stopping:
                return None
            click.echo(f"{one.name}: the mirror could not be brought up to date; it is made anew", err=True)
        # Made beside its place: one that was broken off is not taken for whole.  What made that may still be running.
        mirror.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        for left in mirror.parent.glob(f".{mirror.name}.*"):
            shutil.rmtree(left, ignore_errors=True)
        fresh = mirror.with_name(f".{mirror.name}.{os.getpid()}")
        if self._run(["git", *clone_arguments(one, fresh)], GIT_SECONDS) != 0:
            return None
        shutil.rmtree(mirror, ignore_errors=True)
        fresh.rename(mirror)
        return str(mirror)

    def _run(self, command: list[str], seconds: float, environment: Mapping[str, str] | None = None) -> int | None:
        """Run a program to its end; None when it took too long or could not be started."""
        environment = self._environment if environment is None else environment
        given: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
        try:
            # In a session of its own, so that what it starts ends with it, and nobody is asked on a terminal.
            with subprocess.Popen(command, env=environment, start_new_session=True, **given) as process:
                self._process = process
                if self._stopping:
                    self._signal(signal.SIGTERM)
                try:
                    return process.wait(seconds)
                except subprocess.TimeoutExpired:
                    self._signal(signal.SIGKILL)
                    return None
        except OSError as error:
            click.echo(f"error: {command[0]} cannot be run: {error.strerror}", err=True)
            return None
        finally:
            self._process = None

    def _is_stopping(self) -> bool:
        return self._stopping  # asked anew: a signal may have come since

    def _signal(self, number: signal.Signals) -> None:
        process = self._process
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
