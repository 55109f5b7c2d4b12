"""`keyturn watch` over real folders and repositories: what is due is scanned, and nothing that goes wrong spreads."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from keyturn.testing.waiting import eventually
from tests.scanner.scanning import shop_key

pytestmark = pytest.mark.slow

RULES = """
[[rule]]
id = "shop-key"
title = "Shop key"
provider = "shop"
regex = '''\\b(shop_[0-9a-z]{24})\\b'''
"""
SLOW_GIT = """#!/bin/sh
case "$1" in clone) for last; do :; done; mkdir "$last"; echo $$ > "{told}"; exec sleep 600;; esac
exec "{git}" "$@"
"""


class Watching:
    """Somebody who watches, with a state folder and rules that are read fast."""

    def __init__(self, home: Path, cache: Path) -> None:
        self.home = home
        self.state = home / "state"
        self.file = home / "watch.toml"
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "XDG_CACHE_HOME": str(cache),
            "GIT_CONFIG_NOSYSTEM": "1",
        }
        (home / "rules.toml").write_text(RULES)

    def watches(self, **where: str) -> None:
        """Write the watch file: names, and a folder or `repository:` and its address."""
        lines = []
        for name, place in where.items():
            kind, _, address = place.rpartition("repository:")
            lines += ["[[watch]]", f'name = "{name}"', f"{'repository' if kind or address != place else 'folder'} = "]
            lines[-1] += f'"{address}"'
            lines += ["every_seconds = 3600", f'arguments = ["--rules", "{self.home / "rules.toml"}"]', ""]
        self.file.write_text("\n".join(lines))

    @property
    def command(self) -> list[str]:
        program = [sys.executable, "-P", "-m", "keyturn", "watch", str(self.file)]
        return [*program, "--no-report", "--state", str(self.state)]

    def once(self) -> tuple[int, str]:
        ended = subprocess.run(
            [*self.command, "--once"], env=self.environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert "Traceback" not in ended.stderr
        return ended.returncode, ended.stderr

    def start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self.command, env=self.environment, stderr=subprocess.DEVNULL)

    def let_be_due(self) -> None:
        (self.state / "schedule.json").unlink()

    def report(self, name: str) -> list[tuple[str, str]]:
        document = json.loads((self.state / "reports" / f"{name}.json").read_text())
        return [(one["place"]["path"], one["place"]["commit"]) for one in document["findings"]]

    def documents(self, name: str) -> int:
        document = json.loads((self.state / "reports" / f"{name}.json").read_text())
        return int(document["summary"]["documents"])


@pytest.fixture
def watching(tmp_path: Path, rules_cache: Path) -> Watching:
    return Watching(tmp_path, rules_cache)


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.com")
    command = ("git", *identity, *arguments)
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def repository(folder: Path, **files: str) -> Path:
    folder.mkdir()
    git(folder, "init", "-q", "--template=", "-b", "main")
    commit(folder, **files)
    return folder


def commit(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / name).write_text(text)
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "change")


def test_folders_repositories_and_remotes_are_scanned_when_they_are_due(watching: Watching, tmp_path: Path) -> None:
    folder = tmp_path / "builds"
    folder.mkdir()
    (folder / "log").write_text("nothing\n")
    local = repository(tmp_path / "local", a=f"{shop_key()}\n")
    commit(local, a="gone\n")
    far = repository(tmp_path / "far", a="one\n", b="two\n")
    watching.watches(builds=str(folder), local=f"repository:{local}", far=f"repository:file://{far}")
    code, said = watching.once()
    assert (code, said.count("clean"), "local: findings" in said) == (1, 2, True)
    assert watching.report("local") == [("a", git(local, "rev-parse", "HEAD~1"))]
    assert (watching.report("builds"), watching.report("far"), watching.documents("far")) == ([], [], 4), (
        "two files, a commit and its branch"
    )
    assert shop_key() not in "".join(path.read_text() for path in watching.state.glob("reports/*"))

    assert watching.once() == (0, ""), "nothing is due"

    commit(far, c=f"{shop_key('c')}\n")
    watching.let_be_due()
    assert watching.once()[0] == 1
    assert watching.report("far") == [("c", git(far, "rev-parse", "HEAD"))]
    assert watching.documents("far") == 3, "the file, its commit and the branch: what was clean is not scanned again"


def test_a_watch_that_is_broken_costs_no_other_and_is_no_pass(watching: Watching, tmp_path: Path) -> None:
    folder = tmp_path / "builds"
    folder.mkdir()
    (folder / "log").write_text(f"{shop_key()}\n")
    watching.watches(
        away=f"repository:file://{tmp_path}/nothing", builds=str(folder), empty=str(tmp_path / "no-such-folder")
    )
    code, said = watching.once()
    assert (code, "away: failed" in said, "builds: findings" in said, "empty: failed" in said) == (2, True, True, True)
    assert watching.report("builds") == [("log", "")]
    watching.let_be_due()
    repository(tmp_path / "nothing", a="one\n")
    assert "away: clean" in watching.once()[1]


def test_a_mirror_that_is_spoilt_or_of_another_address_is_made_anew(watching: Watching, tmp_path: Path) -> None:
    first, second = repository(tmp_path / "first", a="one\n"), repository(tmp_path / "second", b=shop_key())
    watching.watches(code=f"repository:file://{first}")
    assert watching.once()[0] == 0
    watching.watches(code=f"repository:file://{second}")
    watching.let_be_due()
    assert watching.once()[0] == 1
    assert [path for path, _ in watching.report("code")] == ["b"]
    for mirror in (watching.state / "mirrors").iterdir():
        (mirror / "HEAD").unlink()
    watching.let_be_due()
    assert watching.once()[0] == 1


def test_one_state_is_for_one_watch(watching: Watching, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        watching.watches(far=f"repository:http://127.0.0.1:{silent.getsockname()[1]}/a.git")
        with watching.start() as process:
            connection, _ = silent.accept()
            watching.file = tmp_path / "other.toml"
            watching.watches(home=str(tmp_path / "nowhere"))
            with connection:
                code, said = watching.once()
                process.send_signal(signal.SIGTERM)
                assert process.wait(120) == 0
    assert (code, "another keyturn watch" in said) == (3, True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_at_once_when_asked_to(watching: Watching, tmp_path: Path, number: signal.Signals) -> None:
    """While it waits for what is due next, and while a server does not answer."""
    (tmp_path / "builds").mkdir()
    watching.watches(builds=str(tmp_path / "builds"))
    with watching.start() as process:
        eventually((watching.state / "schedule.json").exists)
        process.send_signal(number)
        assert process.wait(120) == 0
    with socket.create_server(("127.0.0.1", 0)) as silent:
        watching.watches(far=f"repository:http://127.0.0.1:{silent.getsockname()[1]}/a.git")
        with watching.start() as process:
            connection, _ = silent.accept()
            with connection:
                process.send_signal(number)
                assert process.wait(120) == 0
                connection.settimeout(120)
                while connection.recv(4096):
                    continue  # until git, which held it, is gone too
    assert "far" not in (watching.state / "schedule.json").read_text(), "it is due still"


def test_a_clone_that_was_killed_is_made_anew(watching: Watching, tmp_path: Path) -> None:
    """Even while the git of the killed one is still at it."""
    far = repository(tmp_path / "far", a=shop_key())
    watching.watches(far=f"repository:file://{far}")
    slow, told = tmp_path / "bin" / "git", tmp_path / "pid"
    slow.parent.mkdir()
    slow.write_text(SLOW_GIT.format(told=told, git=shutil.which("git")))
    slow.chmod(0o755)
    path = watching.environment["PATH"]
    watching.environment["PATH"] = f"{slow.parent}:{path}"
    with watching.start() as process:
        eventually(lambda: told.exists() and told.read_text().strip() != "")
        process.kill()
    watching.environment["PATH"] = path
    try:
        assert watching.once()[0] == 1
    finally:
        os.kill(int(told.read_text()), signal.SIGKILL)
    assert [name for name, _ in watching.report("far")] == ["a"]
    assert [one.name for one in (watching.state / "mirrors").iterdir() if one.name.startswith(".")] == []
