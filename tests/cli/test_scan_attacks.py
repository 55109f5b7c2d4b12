"""What hostile folders, repositories and files try: to run, to be passed over, to speak through a report."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from keyturn.cli.scan_options import ScanOptions
from keyturn.cli.scan_setup import judged_by
from keyturn.errors import InputError
from tests.scanner.scanning import shop_key

RULES = """
[[rule]]
id = "shop-key"
title = "Shop key"
provider = "shop"
regex = '''\\b(shop_[0-9a-z]{24})\\b'''
examples = ["key = shop_{{alnum:24}}"]
counter_examples = ["key = shop_{{alnum:23}}"]
"""


class Place:
    """A folder to scan, and rules that are read fast."""

    def __init__(self, home: Path) -> None:
        self.home, self.folder = home, home / "scanned"
        self.folder.mkdir()
        (home / "rules.toml").write_text(RULES)
        self.environment = {"PATH": os.environ["PATH"], "HOME": str(home), "GIT_CONFIG_GLOBAL": os.devnull}

    def run(self, *command: str, given: str = "") -> subprocess.CompletedProcess[str]:
        """Run a program in the folder."""
        return subprocess.run(
            command, cwd=self.folder, env=self.environment, input=given, capture_output=True, text=True, check=False
        )

    def scan(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Scan by the few rules."""
        command = (sys.executable, "-P", "-m", "keyturn", "scan", "--rules", str(self.home / "rules.toml"))
        return self.run(*command, *arguments)

    def git(self, *arguments: str) -> None:
        """Run git; it has to succeed."""
        identity = ("-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false")
        done = self.run("git", *identity, *arguments)
        assert done.returncode == 0, done.stderr


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Return an empty folder to scan."""
    return Place(tmp_path)


def test_a_module_in_the_scanned_repository_is_not_imported_by_its_hook(place: Place) -> None:
    """Git runs hooks in the work tree: a `click.py` there would be ours to run, and would pass every commit."""
    place.git("init", "-q", "--template=")
    assert place.run(sys.executable, "-P", "-m", "keyturn", "hooks", "install", "pre-commit").returncode == 0
    (place.folder / "click.py").write_text("open('ran', 'w').close()\nraise SystemExit(0)\n")
    (place.folder / "a.py").write_text("token = '" + "Zq8" * 3 + "kW3vB7nR2xT9pL4m" + "'\n")
    place.git("add", "a.py")
    hook = next(path for path in place.folder.glob(".git/hooks/pre-commit"))
    assert place.run(str(hook)).returncode == 1
    assert not (place.folder / "ran").exists()


def test_a_server_whose_settings_cannot_be_read_refuses_the_push(place: Place) -> None:
    """Without its settings a server would let through what they forbid, by the default."""
    place.git("init", "-q", "--bare", "--template=")
    with (place.folder / "config").open("a") as config:
        config.write("[keyturn]\n\tbypass = never\n[broken\n")
    lines = f"{'0' * 40} {'1' * 40} refs/heads/main\n"
    done = place.run(sys.executable, "-P", "-m", "keyturn", "hooks", "run", "pre-receive", given=lines)
    assert done.returncode == 2
    assert "cannot be read" in done.stderr


def test_a_report_names_the_policy_of_what_was_scanned(place: Place) -> None:
    """What is scanned may say what may pass: whoever reads that nothing was found has to see that it did."""
    (place.folder / ".keyturn").mkdir()
    (place.folder / ".keyturn/leaks.toml").write_text('version = 1\n[[rule]]\nverdict = "allow"\n')
    (place.folder / "a.py").write_text(shop_key())
    done = place.scan(".")
    assert done.returncode == 0
    assert "1 judged before or allowed" in done.stdout
    assert f"note: judged by {place.folder}/.keyturn/leaks.toml" in done.stdout
    told = json.loads(place.scan(".", "--format", "json").stdout)
    assert told["judged_by"] == [f"{place.folder}/.keyturn/leaks.toml"]


def test_a_policy_of_another_user_above_what_is_scanned_is_refused(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In /tmp anybody may make a `.keyturn` that lets everything pass."""
    (place.home / ".keyturn").mkdir()
    (place.home / ".keyturn/leaks.toml").write_text('version = 1\n[[rule]]\nverdict = "allow"\n')
    options = ScanOptions(paths=(str(place.folder),))
    assert judged_by(options)
    real = Path.stat
    other = os.stat_result((0o100644, 1, 1, 1, os.geteuid() + 1, 0, 0, 0, 0, 0))

    def stat(path: Path, **given: Any) -> os.stat_result:
        return other if path.name == "leaks.toml" else real(path, **given)

    monkeypatch.setattr(Path, "stat", stat)
    with pytest.raises(InputError, match="belongs to another user"):
        judged_by(options)
