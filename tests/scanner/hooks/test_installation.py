from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from keyturn.errors import ConflictError
from keyturn.scanner.hooks.installation import Hook, install, uninstall


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def run(path: Path, given: str = "") -> tuple[int, str]:
    done = subprocess.run([path, "argument"], input=given, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


@pytest.mark.parametrize("hook", list(Hook))
def test_a_hook_runs_its_command_and_tells_its_exit_code(tmp_path: Path, hook: Hook) -> None:
    ours = script(tmp_path / "ours here", "echo ours; exit 1")
    installed = install(tmp_path / "hooks", hook, [str(ours)])
    assert installed.local is None
    assert run(installed.path) == (1, "ours\n")


@pytest.mark.parametrize("hook", list(Hook))
def test_a_hook_that_was_there_runs_first_and_both_get_what_git_gives(tmp_path: Path, hook: Hook) -> None:
    folder = tmp_path / "hooks"
    folder.mkdir()
    script(folder / hook, 'echo "theirs $1 $(cat)"')
    ours = script(tmp_path / "ours", 'echo "ours $1 $(cat)"')
    installed = install(folder, hook, [str(ours)])
    install(folder, hook, [str(ours)])
    assert installed.local == folder / f"{hook}.local"
    lines = "a b c\nd e f" if hook is not Hook.PRE_COMMIT else ""
    assert run(installed.path, lines) == (0, f"theirs argument {lines}\nours argument {lines}\n")


@pytest.mark.parametrize("hook", list(Hook))
def test_a_hook_that_was_there_and_refuses_is_obeyed(tmp_path: Path, hook: Hook) -> None:
    folder = tmp_path / "hooks"
    folder.mkdir()
    script(folder / hook, "exit 3")
    ours = script(tmp_path / "ours", "echo ours")
    assert run(install(folder, hook, [str(ours)]).path) == (3, "")


def test_taking_out_puts_back_what_was_there(tmp_path: Path) -> None:
    theirs = script(tmp_path / Hook.PRE_COMMIT, "echo theirs")
    before = theirs.read_text()
    install(tmp_path, Hook.PRE_COMMIT, ["true"])
    assert uninstall(tmp_path, Hook.PRE_COMMIT)
    assert theirs.read_text() == before
    assert not uninstall(tmp_path, Hook.PRE_COMMIT)
    assert theirs.read_text() == before


def test_two_foreign_hooks_are_left_alone(tmp_path: Path) -> None:
    theirs = script(tmp_path / Hook.PRE_COMMIT, "echo theirs")
    script(tmp_path / "pre-commit.local", "echo older")
    with pytest.raises(ConflictError):
        install(tmp_path, Hook.PRE_COMMIT, ["true"])
    assert "theirs" in theirs.read_text()


def test_a_hook_that_is_a_link_is_replaced_and_its_target_kept(tmp_path: Path) -> None:
    target = script(tmp_path / "shared", "echo shared")
    (tmp_path / Hook.PRE_COMMIT).symlink_to(target)
    install(tmp_path, Hook.PRE_COMMIT, ["true"])
    assert "shared" in target.read_text()
    assert (tmp_path / "pre-commit.local").is_symlink()
