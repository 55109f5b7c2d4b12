"""A shelf of secrets, and the command line in processes of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.delivery.shelf import Shelf, open_shelf

Command = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    with open_shelf() as found:
        yield found


def sample(*parts: str) -> str:
    """Put a value together, so that no scanner takes this file for a leak."""
    return "_".join(parts)


@pytest.fixture
def environment(shelf: Shelf, tmp_path: Path) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("KEYTURN_")}
    return {**inherited, "HOME": str(tmp_path), "KEYTURN_URL": shelf.url, "KEYTURN_TOKEN": shelf.token}


@pytest.fixture
def start(environment: dict[str, str], tmp_path: Path) -> Iterator[Command]:
    """Start `keyturn …`; whatever still runs is killed at the end."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(*arguments: str, **more: Any) -> subprocess.Popen[bytes]:
        given: dict[str, Any] = {
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "stdin": subprocess.DEVNULL,
            "cwd": tmp_path,
        }
        given |= {"env": {**environment, **more.pop("env", {})}} | more
        command = [sys.executable, "-m", "keyturn", *arguments]
        started.append(subprocess.Popen(command, **given))
        return started[-1]

    yield begin
    for one in started:
        if one.poll() is None:
            one.kill()
        one.communicate()


@pytest.fixture
def keyturn(start: Command) -> Callable[..., subprocess.CompletedProcess[bytes]]:
    """Run `keyturn …` to its end."""

    def whole(*arguments: str, **more: Any) -> subprocess.CompletedProcess[bytes]:
        process = start(*arguments, **more)
        out, err = process.communicate(timeout=120)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    return whole
