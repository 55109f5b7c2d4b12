"""`keyturn watch`: repositories and folders scanned on a schedule, and reported to a server."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from keyturn.config import inherited_environment
from keyturn.errors import InputError
from keyturn.kernel.clock import Clock
from keyturn.scanner.cache import default_folder
from keyturn.scanner.watching import (
    Outcome,
    Schedule,
    clone_arguments,
    is_elsewhere,
    read_watches,
    scan_arguments,
    update_arguments,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from keyturn.scanner.watching import Watch

GIT_SECONDS: Final = 3600
_FOLDER: Final = "watch"
_STATES: Final = {0: "clean", 1: "findings"}


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--once", is_flag=True, help="Scan what is due now, and end.")
@click.option("--report/--no-report", default=True, help="Report to the server, each under the name of its watch.")
@click.option(
    "--state", type=click.Path(path_type=Path, file_okay=False), help="Where mirrors and the schedule are kept."
)
def watch(*, file: Path, once: bool, report: bool, state: Path | None) -> int:
    """Scan the repositories and folders of a watch FILE, each when it is due, until stopped.

    With --once the exit code is that of the worst scan: 2 before 1 before 0.
    """
    try:
        watches = read_watches(file.read_text("utf-8", "replace"), str(file))
    except OSError as error:
        raise InputError(f"the file {str(file)!r} cannot be read: {error.strerror}", field=str(file)) from None
    environment = inherited_environment()
    folder = (state or default_folder(environment) / _FOLDER).absolute()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    runner = _Runner(watches, folder, environment, report=report)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: runner.stop())
    return runner.run(once=once)


class _Runner:
    """Runs what is due, one watch at a time; each scan spreads over the processors itself."""

    def __init__(self, watches: Sequence[Watch], folder: Path, environment: Mapping[str, str], *, report: bool) -> None:
        self._watches = watches
        self._folder = folder
        self._environment = dict(environment)
        self._report = report
        self._schedule = Schedule(folder / "schedule.json")
        self._clock = Clock()
        self._stopping = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None

    def stop(self) -> None:
        """End what runs, and after it the loop."""
        self._stopping.set()
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()

    def run(self, *, once: bool) -> int:
        """Run until stopped, or what is due once; returns the exit code."""
        worst = 0
        while not self._stopping.is_set():
            for one in self._schedule.due(self._watches, self._clock.now()):
                if self._stopping.is_set():
                    break
                outcome = self._scan(one)
                worst = max(worst, 2 if outcome.exit_code not in _STATES else outcome.exit_code)
            if once:
                return worst
            self._stopping.wait(min(60.0, self._schedule.wait_seconds(self._watches, self._clock.now())))
        return 0

    def _scan(self, one: Watch) -> Outcome:
        started_at, begin = self._clock.now(), self._clock.boottime()
        place = self._mirrored(one) if is_elsewhere(one) else (one.repository or one.folder)
        code = None
        if place is not None:
            # -P: a module of the folder that this runs in is never imported.
            command = [sys.executable, "-P", "-m", "keyturn", *scan_arguments(one, place, report=self._report)]
            code = self._run(command, one.timeout_seconds)
        if not self._stopping.is_set():
            self._schedule.done(one, started_at)
        outcome = Outcome(one.name, code, self._clock.boottime() - begin)
        state = _STATES.get(-1 if code is None else code, "failed")
        click.echo(f"{one.name}: {state} in {outcome.seconds:.1f} s", err=True)
        return outcome

    def _mirrored(self, one: Watch) -> str | None:
        """Bring the mirror of a repository up to date and return where it is; None when that failed."""
        mirror = self._folder / "mirrors" / one.name
        if mirror.exists():
            return str(mirror) if self._run(["git", *update_arguments(mirror)], GIT_SECONDS) == 0 else None
        # Made beside its place: one that was broken off is not taken for whole.
        fresh = mirror.with_name(f".{one.name}.new")
        shutil.rmtree(fresh, ignore_errors=True)
        mirror.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self._run(["git", *clone_arguments(one, fresh)], GIT_SECONDS) != 0:
            return None
        fresh.rename(mirror)
        return str(mirror)

    def _run(self, command: list[str], seconds: float) -> int | None:
        """Run a program to its end; None when it took too long or could not be started."""
        given: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
        # A git that asks for a password would wait for ever.
        environment = self._environment | {"GIT_TERMINAL_PROMPT": "0"}
        try:
            with subprocess.Popen(command, env=environment, **given) as process:
                self._process = process
                try:
                    return process.wait(seconds)
                except subprocess.TimeoutExpired:
                    process.kill()
                    return None
        except OSError as error:
            click.echo(f"error: {command[0]} cannot be run: {error.strerror}", err=True)
            return None
        finally:
            self._process = None
