"""Repositories and folders that are scanned on a schedule.

A watch file is TOML:

    [[watch]]
    name = "backend"                  # what reports are filed under
    repository = "https://git.example.com/backend.git"    # a path or an address that git understands
    every_seconds = 3600

    [[watch]]
    name = "builds"
    folder = "/srv/builds"
    every_seconds = 600
    arguments = ["--rules", "/etc/keyturn/rules.toml"]

The history of a repository is scanned, and only what is new of it the next time; a folder is scanned as it is.  A
repository that is an address is mirrored in the cache, with git's own credentials.

Each scan is a process of its own, so that one that fails or hangs costs no other.  When each is due is kept beside the
cache: a restart neither forgets a watch nor runs all of them at once.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec

from keyturn.errors import InputError
from keyturn.scanner.tables import read_tables

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

EVERY_SECONDS_MIN: Final = 60
EVERY_SECONDS_MAX: Final = 31 * 86_400
WATCHES_MAX: Final = 1000
NAME_PATTERN: Final = r"^[a-z0-9][a-z0-9._-]{0,63}(?!\n)$"


class Watch(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One repository or folder, and how often it is scanned; `arguments` are given to `keyturn scan`."""

    name: str
    repository: str = ""
    folder: str = ""
    every_seconds: int = 3600
    timeout_seconds: int = 3600
    arguments: tuple[str, ...] = ()


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    watch: tuple[Watch, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a scan of a watch ended: its exit code, None when it did not end in time."""

    name: str
    exit_code: int | None
    seconds: float


def read_watches(text: str, name: str) -> tuple[Watch, ...]:
    """Read a watch file; raises InputError that names the watch and the field."""
    try:
        watches = msgspec.convert(read_tables(text, name), _File).watch
    except msgspec.ValidationError as error:
        raise InputError(f"{name}: {error}", field=name, hint="see the guide on watching") from None
    if not 0 < len(watches) <= WATCHES_MAX:
        raise InputError(f"{name}: expected 1 to {WATCHES_MAX} watches, found {len(watches)}", field="watch")
    seen: set[str] = set()
    for one in watches:
        _check(one, name)
        if one.name in seen:
            raise InputError(f"{name}: two watches are called {one.name}", field="name")
        seen.add(one.name)
    return watches


def _check(watch: Watch, name: str) -> None:
    import re

    if re.fullmatch(NAME_PATTERN, watch.name) is None:
        raise InputError(f"{name}: {watch.name!r} is no name of a watch", field="name", hint="use a-z, 0-9, . _ -")
    if bool(watch.repository) == bool(watch.folder):
        raise InputError(f"{name}: {watch.name} needs a repository or a folder, one of them", field="repository")
    if watch.repository.startswith("-") or watch.folder.startswith("-"):
        raise InputError(f"{name}: {watch.name} is at a place that begins with a dash", field="repository")
    if "::" in watch.repository.partition("/")[0]:
        raise InputError(f"{name}: {watch.name} names a remote helper, which could run anything", field="repository")
    if re.match(r"[a-z+]+://[^/@]*:[^/@]+@", watch.repository, re.IGNORECASE):
        raise InputError(
            f"{name}: the address of {watch.name} holds a password, which every process list would show",
            field="repository",
            hint="let git ask a credential helper for it",
        )
    if not EVERY_SECONDS_MIN <= watch.every_seconds <= EVERY_SECONDS_MAX:
        raise InputError(
            f"{name}: {watch.name} is scanned every {watch.every_seconds} seconds, expected "
            f"{EVERY_SECONDS_MIN} to {EVERY_SECONDS_MAX}",
            field="every_seconds",
        )
    if not 1 <= watch.timeout_seconds <= EVERY_SECONDS_MAX:
        raise InputError(f"{name}: {watch.name} has a timeout of {watch.timeout_seconds} s", field="timeout_seconds")


class Schedule:
    """When each watch is due, kept in a file; a file that is lost or garbled makes every watch due."""

    def __init__(self, path: Path) -> None:
        """Keep the schedule in this file."""
        self._path = path
        self._due = _read_due(path)

    def due(self, watches: Sequence[Watch], now: float) -> list[Watch]:
        """Return the watches that are due, the one that has waited longest first."""
        # A clock that was set back must not put a watch off for longer than it ever waits.
        waiting = [(min(self._due.get(one.name, 0.0), now + one.every_seconds), one) for one in watches]
        return [one for due_at, one in sorted(waiting, key=lambda pair: (pair[0], pair[1].name)) if due_at <= now]

    def wait_seconds(self, watches: Sequence[Watch], now: float) -> float:
        """Return how long it is until one is due."""
        return max(0.0, min(min(self._due.get(one.name, 0.0), now + one.every_seconds) for one in watches) - now)

    def done(self, watch: Watch, started_at: float) -> None:
        """Put a watch off until it is due again; it is on disk when this returns."""
        self._due[watch.name] = started_at + watch.every_seconds
        temporary = self._path.with_suffix(".new")
        temporary.write_text(json.dumps(self._due, indent=1, sort_keys=True) + "\n")
        temporary.replace(self._path)


def scan_arguments(watch: Watch, place: str, *, report: bool, output: str = "") -> list[str]:
    """Return the arguments of `keyturn scan` for a watch whose repository, or folder, is at a place.

    The report is written to `output`, unless the watch's own arguments say otherwise.
    """
    arguments = ["scan", "--format", "json", *(("--output", output) if output else ()), *watch.arguments]
    if report:
        arguments += ["--report", watch.name, "--next-due-seconds", str(watch.every_seconds)]
    if watch.repository:
        arguments += ["--history"]
    return [*arguments, "--", place]


def is_elsewhere(watch: Watch) -> bool:
    """Tell whether a watch is of a repository that has to be mirrored to be scanned."""
    return "://" in watch.repository or _is_scp_like(watch.repository)


def mirror_name(watch: Watch) -> str:
    """Return what the mirror of a repository is called; under another address it is another mirror."""
    return f"{watch.name}-{hashlib.sha256(watch.repository.encode()).hexdigest()[:16]}"


def clone_arguments(watch: Watch, mirror: Path) -> list[str]:
    """Return the arguments of git that make the mirror of a repository."""
    return ["clone", "--quiet", "--mirror", "--", watch.repository, str(mirror)]


def update_arguments(mirror: Path) -> list[str]:
    """Return the arguments of git that bring a mirror up to date."""
    return ["--git-dir", str(mirror), "remote", "update", "--prune"]


def _is_scp_like(address: str) -> bool:
    host, colon, _ = address.partition(":")
    return bool(colon) and "/" not in host


def _read_due(path: Path) -> dict[str, float]:
    try:
        held: Mapping[str, object] = json.loads(path.read_text())
        return {name: float(due) for name, due in held.items() if isinstance(due, int | float)}
    except (OSError, ValueError, AttributeError):
        return {}
