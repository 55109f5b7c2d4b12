"""Run a program as if nothing stood between it and whoever started it.

    start      no shell; the program is in our own process group, so that the terminal is its terminal
    signals    from other processes are passed on; those of the terminal reach the program without us
    end        its exit status, or its signal, becomes ours
    restart    SIGTERM, a grace, SIGKILL, then the program again with another environment
    our death  the kernel kills the program when we are killed

A program that needs none of it takes our place (`become`), and there is no parent at all.
"""

from __future__ import annotations

import contextlib
import os
import queue
import resource
import signal
import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NoReturn, final

from keyturn.delivery.masking import Masker
from keyturn.kernel.clock import boottime

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

NOT_FOUND: Final = 127
NOT_EXECUTABLE: Final = 126
GRACE_SECONDS: Final = 10.0
_DRAIN_SECONDS: Final = 2.0
_FORWARDED: Final = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGWINCH,
    signal.SIGCONT,
)
_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)

# The program asks for its own end with ours, which only it can, and undoes what Python does to signals when it starts.
_TRAMPOLINE: Final = """
import ctypes, os, signal, sys
parent, *command = sys.argv[1:]
try:
    ctypes.CDLL(None).prctl(1, int(signal.SIGKILL), 0, 0, 0)
except (AttributeError, OSError):
    pass
if os.getppid() != int(parent):
    os._exit(1)
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
try:
    os.execvp(command[0], command)
except OSError as error:
    print(f"keyturn run: {command[0]}: {error.strerror}", file=sys.stderr)
    os._exit(127 if isinstance(error, (FileNotFoundError, NotADirectoryError)) else 126)
"""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a program ended: by itself with a status, or by a signal."""

    status: int = 0
    signal: int | None = None


@dataclass(frozen=True, slots=True)
class Restart:
    """Run the program again with this environment."""

    environment: Mapping[str, str]
    patterns: tuple[bytes, ...] = ()

    def __repr__(self) -> str:
        return "Restart([redacted])"


@dataclass(frozen=True, slots=True)
class Notify:
    """Send the program this signal."""

    signal: signal.Signals


def become(command: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
    """Replace this process by the program; raises OSError when that is not possible."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    os.execvpe(command[0], list(command), dict(environment))  # noqa: S606 -- no shell, which is the point


def end_alike(ending: Ending) -> NoReturn:
    """End this process as the program ended; leaves no core file of ours, which would hold values."""
    sys.stdout.flush()
    sys.stderr.flush()
    if ending.signal is not None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with contextlib.suppress(OSError, ValueError):  # SIGKILL and SIGSTOP have no handler
            signal.signal(ending.signal, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {ending.signal})
        os.kill(os.getpid(), ending.signal)
        os._exit(128 + ending.signal)
    os._exit(ending.status)


@final
class Supervisor:
    """Runs a program until it ends by itself or for a signal; use it from the main thread."""

    def __init__(self, command: Sequence[str], *, grace_seconds: float = GRACE_SECONDS) -> None:
        """Hold what to run."""
        self._command = list(command)
        self._environment: dict[str, str] = {}
        self._masked: tuple[bytes, ...] | None = None
        self._grace_seconds = grace_seconds
        self._asked: queue.SimpleQueue[Restart | Notify] = queue.SimpleQueue()
        self._pid = 0
        self._restarting = False
        self._leaving = False
        self._kill_at: float | None = None
        self._pumps: list[threading.Thread] = []
        self._signals: frozenset[signal.Signals] = frozenset()

    def ask(self, what: Restart | Notify) -> None:
        """Ask for a restart or a signal; from any thread."""
        self._asked.put(what)
        # Wakes whoever waits for signals.
        os.kill(os.getpid(), signal.SIGCHLD)

    @contextlib.contextmanager
    def hold_signals(self) -> Iterator[None]:
        """Keep signals for `run`; threads are to be started, and files to be made, inside."""
        # Where it was ignored, the kernel would keep the status of children from us.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        # One that was ignored (nohup) stays ignored, for us and the program.
        wanted = {one for one in _FORWARDED if signal.getsignal(one) is not signal.SIG_IGN}
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {*wanted, signal.SIGCHLD})
        self._signals = frozenset(before)  # type: ignore[arg-type] # what the program starts with
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def run(self, environment: Mapping[str, str], masked: tuple[bytes, ...] | None = None) -> Ending:
        """Start the program and return how it ended; inside `hold_signals`.  `masked` None leaves its output alone."""
        self._environment, self._masked = dict(environment), masked
        self._start()
        waited = {*_FORWARDED, signal.SIGCHLD}
        while True:
            came = self._wait(waited)
            if came is not None and came.si_signo != signal.SIGCHLD:
                self._came(came)
            ending = self._reaped()
            if ending is not None:
                if not self._restarting or self._leaving:
                    self._drain()
                    return ending
                self._restarting, self._kill_at = False, None
                self._start()
            self._take_asked()
            if self._kill_at is not None and boottime() >= self._kill_at:
                self._kill_at = None
                self._send(signal.SIGKILL)

    def _wait(self, waited: set[signal.Signals]) -> signal.struct_siginfo | None:
        if self._kill_at is None:
            return signal.sigwaitinfo(waited)
        return signal.sigtimedwait(waited, max(0.0, self._kill_at - boottime()))

    def _came(self, came: signal.struct_siginfo) -> None:
        # SIGTERM means the end; the others only while the program is being ended: many take HUP or INT otherwise.
        if came.si_signo == signal.SIGTERM or (self._restarting and came.si_signo in _ENDING):
            self._leaving = True
        # A code above 0 is the kernel's: the terminal sent it to the whole group, and the program has it already.
        if came.si_code <= 0:
            self._send(signal.Signals(came.si_signo))

    def _take_asked(self) -> None:
        while not self._asked.empty():
            what = self._asked.get()
            if isinstance(what, Notify):
                self._send(what.signal)
                continue
            self._environment = dict(what.environment)
            if self._masked is not None:
                # What the old process printed, or left in a file, still comes through the new one.
                self._masked = tuple(dict.fromkeys((*self._masked, *what.patterns)))
            if not self._restarting and not self._leaving:
                self._restarting = True
                self._kill_at = boottime() + self._grace_seconds
                self._send(signal.SIGTERM)
                self._send(signal.SIGCONT)

    def _start(self) -> None:
        outputs: list[tuple[int, int, int]] = []
        actions: list[tuple[int, ...]] = []
        if self._masked is not None:
            for target in (1, 2):
                source, sink = os.pipe()
                outputs.append((source, sink, target))
                actions.append((os.POSIX_SPAWN_DUP2, sink, target))
        argv = [sys.executable, "-I", "-S", "-c", _TRAMPOLINE, str(os.getpid()), *self._command]
        self._pid = os.posix_spawn(
            sys.executable, argv, self._environment, file_actions=actions, setsigmask=self._signals
        )
        for source, sink, target in outputs:
            os.close(sink)
            pump = threading.Thread(target=_pump, args=(source, target, Masker(self._masked or ())), daemon=True)
            pump.start()
            self._pumps = [*(one for one in self._pumps if one.is_alive()), pump]

    def _reaped(self) -> Ending | None:
        """Take the status of every child that ended, as the first process of a container has to; return ours."""
        ours = None
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return ours
            if pid == 0:
                return ours
            if pid == self._pid:
                killed = os.WIFSIGNALED(status)
                ours = Ending(signal=os.WTERMSIG(status)) if killed else Ending(os.WEXITSTATUS(status))

    def _send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(self._pid, number)

    def _drain(self) -> None:
        """Let the output come to its end; something that the program left running may hold it open."""
        for pump in self._pumps:
            pump.join(_DRAIN_SECONDS)


def _pump(source: int, target: int, masker: Masker) -> None:
    try:
        while chunk := os.read(source, 65536):
            _write(target, masker.feed(chunk))
        _write(target, masker.finish())
    except OSError:
        pass  # nobody reads it any more; closing our end tells the program
    finally:
        os.close(source)


def _write(target: int, text: bytes) -> None:
    while text:
        text = text[os.write(target, text) :]
