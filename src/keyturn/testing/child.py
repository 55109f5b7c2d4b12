"""Child processes that never outlive the test run, not even one that is killed with SIGKILL.

Linux sends a chosen signal to a child when the thread that started it ends (PR_SET_PDEATHSIG).  It has to be asked
for by the child itself, after any change of user, so a child begins as the few lines of Python in `_TRAMPOLINE`,
which then becomes the program.  That is safer than `preexec_fn`, which runs Python code in a forked copy of a
program that may have threads.
"""

import os
import pwd
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from keyturn.errors import UnavailableError

_TRAMPOLINE = """
import ctypes, os, sys
parent, death_signal, uid, gid, *command = sys.argv[1:]
libc = ctypes.CDLL(None, use_errno=True)
if int(uid) != os.geteuid():
    os.setgroups([])
    os.setgid(int(gid))
    os.setuid(int(uid))
if libc.prctl(1, int(death_signal), 0, 0, 0) != 0:
    raise OSError(ctypes.get_errno(), "prctl failed")
if os.getppid() != int(parent):
    sys.exit("the parent ended before the child began")
os.execv(command[0], command)
"""


@dataclass(frozen=True, slots=True)
class User:
    """Who a child runs as."""

    uid: int
    gid: int


def current_user() -> User:
    """Return the user of this process."""
    return User(os.geteuid(), os.getegid())


def unprivileged_user() -> User:
    """Return this process's user, or `nobody` when that is root: some programs refuse to run as root."""
    if os.geteuid() != 0:
        return current_user()
    nobody = pwd.getpwnam("nobody")
    return User(nobody.pw_uid, nobody.pw_gid)


def spawn(
    command: Sequence[str | Path],
    *,
    directory: Path,
    log: Path,
    environment: Mapping[str, str],
    death_signal: signal.Signals,
    user: User | None = None,
) -> subprocess.Popen[bytes]:
    """Start `command` in a process group of its own; its output is appended to `log`.

    It receives `death_signal` when this process ends, however that happens.  Its environment is `environment` and
    nothing more.  Raises `UnavailableError` off the main thread, whose end would be taken for that of the process.
    """
    if threading.current_thread() is not threading.main_thread():
        msg = "expected the main thread to start a child process, found another: the child would end with it"
        raise UnavailableError(msg)
    user = user or current_user()
    trampoline = [sys.executable, "-I", "-S", "-c", _TRAMPOLINE]
    identity = [str(os.getpid()), str(int(death_signal)), str(user.uid), str(user.gid)]
    with log.open("ab") as output:
        return subprocess.Popen(
            [*trampoline, *identity, *(str(part) for part in command)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=directory,
            env=dict(environment),
            process_group=0,
        )


def members_of_group(group: int) -> list[int]:
    """Return the live processes of a process group; one that ended but was not waited for is not live."""
    return [pid for pid, found in _processes().items() if found.group == group and found.lives]


def children_of(parent: int) -> list[int]:
    """Return the live children of a process."""
    return [pid for pid, found in _processes().items() if found.parent == parent and found.lives]


def tail(log: Path, lines: int = 30) -> str:
    """Return the last lines of a log, for an error message."""
    if not log.exists():
        return "(no output)"
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) or "(no output)"


@dataclass(frozen=True, slots=True)
class _Process:
    parent: int
    group: int
    lives: bool


def _processes() -> dict[int, _Process]:
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            text = (entry / "stat").read_text()
        except OSError:
            continue  # it ended between the listing and the reading
        # The second field is the program's name in parentheses and may itself contain spaces and parentheses.
        state, parent, group = text[text.rindex(")") + 2 :].split()[:3]
        found[int(entry.name)] = _Process(int(parent), int(group), lives=state not in "ZX")
    return found
