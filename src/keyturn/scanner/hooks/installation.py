"""Hooks of a repository: written, and taken out again.

A hook that was there is kept as `<name>.local` and runs first; what it reads from git on standard input, ours reads
too.  Only a file that carries the mark of ours is ever overwritten or removed.
"""

from __future__ import annotations

import contextlib
import os
import shlex
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from keyturn.errors import ConflictError, InputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MARK: Final = "# Installed by `keyturn hooks install`; `keyturn hooks uninstall` takes it out again."
LOCAL: Final = ".local"


class Hook(StrEnum):
    """A moment at which git asks."""

    PRE_COMMIT = "pre-commit"
    PRE_PUSH = "pre-push"
    PRE_RECEIVE = "pre-receive"


_READS_INPUT: Final = frozenset({Hook.PRE_PUSH, Hook.PRE_RECEIVE})

_ALONE: Final = """\
#!/bin/sh
{mark}
local="$(dirname "$0")/{hook}{suffix}"
if [ -x "$local" ]; then "$local" "$@" || exit; fi
exec {command} "$@"
"""

# The lines that git gives are kept, so that both hooks get them.
_WITH_INPUT: Final = """\
#!/bin/sh
{mark}
local="$(dirname "$0")/{hook}{suffix}"
lines="$(cat)"
if [ -x "$local" ]; then printf '%s\\n' "$lines" | "$local" "$@" || exit; fi
printf '%s\\n' "$lines" | {command} "$@"
"""


@dataclass(frozen=True, slots=True)
class Installed:
    """Where a hook stands now, and the one that was there before, which runs first."""

    path: Path
    local: Path | None


def install(folder: Path, hook: Hook, command: Sequence[str]) -> Installed:
    """Write a hook into a repository's folder of hooks; doing it again brings it up to date.

    Raises:
        ConflictError: there are both a foreign hook and one that was put aside before.
        InputError: the folder cannot be written.

    """
    path, local = folder / hook, folder / f"{hook}{LOCAL}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if path.exists() and not is_ours(path):
            if local.exists():
                raise ConflictError(
                    f"{path} is not ours, and {local.name} is there already",
                    hint="make one hook of the two, and install again",
                )
            path.rename(local)
        _write(path, _text(hook, command))
    except OSError as error:
        raise InputError(f"the hook {path} cannot be written: {error.strerror}", field="repository") from None
    return Installed(path, local if local.exists() else None)


def uninstall(folder: Path, hook: Hook) -> bool:
    """Take a hook out, and put the one that was there before back; False when there is none of ours."""
    path, local = folder / hook, folder / f"{hook}{LOCAL}"
    if not is_ours(path):
        return False
    path.unlink()
    if local.exists():
        local.rename(path)
    return True


def is_ours(path: Path) -> bool:
    """Tell whether a hook carries our mark."""
    try:
        return MARK in path.read_text("utf-8", "replace")
    except OSError:
        return False


def _text(hook: Hook, command: Sequence[str]) -> str:
    form = _WITH_INPUT if hook in _READS_INPUT else _ALONE
    return form.format(mark=MARK, hook=hook, suffix=LOCAL, command=shlex.join(command))


def _write(path: Path, text: str) -> None:
    new = path.with_name(f".{path.name}.new")
    with contextlib.suppress(FileNotFoundError):
        new.unlink()
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o755)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    new.replace(path)
