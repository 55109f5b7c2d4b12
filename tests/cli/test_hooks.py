"""Hooks in real repositories, by the real git: what stops a commit, a push, and what a server lets in."""

from __future__ import annotations

import io
import json
import os
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest
import yaml

from keyturn.kernel.tokenformat import mint
from keyturn.scanner.hooks.bypass import RECORD

pytestmark = pytest.mark.slow

ROOT: Final = Path(__file__).parents[2]
PRE_COMMIT_FIELDS: Final = frozenset(
    {"id", "name", "description", "entry", "language", "pass_filenames", "always_run", "require_serial", "stages"}
    | {"minimum_pre_commit_version", "args", "files", "types", "verbose", "language_version"}
)
"""Source: pre-commit.com, "Creating new hooks"."""


class Hand:
    """Somebody who works with git, at home in a folder."""

    def __init__(self, home: Path, cache: Path) -> None:
        self.home = home
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "KEYTURN"))
        }
        self.environment |= {"HOME": str(home), "XDG_CACHE_HOME": str(cache), "GIT_CONFIG_NOSYSTEM": "1"}

    def run(
        self,
        *command: str,
        folder: Path | None = None,
        ok: bool | None = True,
        environment: Mapping[str, str] | None = None,
    ) -> str:
        done = subprocess.run(
            command,
            cwd=folder or self.home,
            env=self.environment | dict(environment or {}),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        said = done.stdout + done.stderr
        assert ok is None or (done.returncode == 0) == ok, said
        return said

    def git(self, folder: Path, *arguments: str, ok: bool = True) -> str:
        return self.run("git", *arguments, folder=folder, ok=ok)

    def keyturn(self, *arguments: str, folder: Path | None = None, ok: bool | None = True) -> str:
        return self.run(sys.executable, "-P", "-m", "keyturn", *arguments, folder=folder, ok=ok)

    def repository(self, name: str) -> Path:
        folder = self.home / name
        self.run("git", "init", "-q", "--template=", str(folder))
        return folder

    def commit(self, folder: Path, message: str = "change", *, ok: bool = True) -> str:
        self.git(folder, "add", "-A")
        return self.git(folder, "commit", "-qm", message, ok=ok)


@pytest.fixture(scope="session")
def furnished(tmp_path_factory: pytest.TempPathFactory, rules_cache: Path) -> Path:
    """A home with a server's bare repository, which has the hook, and a clone of it that has pushed one commit."""
    hand = Hand(tmp_path_factory.mktemp("furnished"), rules_cache)
    for name, value in (("user.email", "ann@example.com"), ("user.name", "Ann"), ("init.defaultBranch", "main")):
        hand.run("git", "config", "--global", name, value)
    server, clone = hand.home / "server.git", hand.home / "clone"
    hand.run("git", "init", "-q", "--bare", "--template=", str(server))
    hand.git(server, "config", "receive.advertisePushOptions", "true")
    hand.keyturn("hooks", "install", "pre-receive", "--repository", str(server))
    hand.run("git", "clone", "-q", "--template=", str(server), str(clone))
    hand.git(clone, "remote", "set-url", "origin", "../server.git")
    (clone / "readme").write_text("hello\n")
    hand.commit(clone)
    hand.git(clone, "push", "-q", "origin", "HEAD:main")
    return hand.home


@pytest.fixture
def hand(tmp_path: Path, furnished: Path, rules_cache: Path) -> Hand:
    return Hand(Path(shutil.copytree(furnished, tmp_path / "home")), rules_cache)


@pytest.fixture
def server(hand: Hand) -> Path:
    """A bare repository with the hook, as one on a git server."""
    return hand.home / "server.git"


@pytest.fixture
def clone(hand: Hand) -> Path:
    return hand.home / "clone"


def key() -> str:
    return mint("acme", "live").key.reveal()


def heads(hand: Hand, server: Path) -> str:
    return hand.run("git", "for-each-ref", "--format=%(objectname)", folder=server)


def fingerprints(said: str) -> list[str]:
    return [line.split()[-1] for line in said.splitlines() if " fingerprint " in line]


def push(hand: Hand, clone: Path, *arguments: str, ok: bool = True) -> str:
    return hand.git(clone, "push", "origin", *(arguments or ("HEAD:main",)), ok=ok)


# --- before a commit -------------------------------------------------------------------------------------------------


def test_a_key_that_is_staged_is_not_committed(hand: Hand) -> None:
    folder = hand.repository("work")
    hand.keyturn("hooks", "install", "pre-commit", "--repository", str(folder))
    (folder / "readme").write_text("hello\n")
    hand.commit(folder)
    secret = key()
    (folder / "settings.py").write_text(f'KEY = "{secret}"\n')
    said = hand.commit(folder, ok=False)
    assert "settings.py:1" in said
    assert secret not in said
    (folder / "settings.py").write_text('KEY = os.environ["KEY"]\n')
    hand.commit(folder)


def test_the_hook_of_the_pre_commit_framework_is_what_it_reads(hand: Hand) -> None:
    """It installs the repository as a Python package, and runs the entry where git stands, with git's environment."""
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    assert (hook["id"], hook["language"], hook["entry"]) == ("keyturn", "python", "keyturn scan --staged")
    assert (hook["pass_filenames"], hook["always_run"], hook["stages"]) == (False, True, ["pre-commit"])
    assert hook["name"]
    assert set(hook) <= PRE_COMMIT_FIELDS
    program, *arguments = hook["entry"].split()
    assert program in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]

    folder = hand.repository("work")
    for name in ("a", "b"):
        (folder / name).write_text("nothing\n")
    hand.commit(folder)
    hooks = folder / ".git" / "hooks"
    hooks.mkdir()
    command = shlex.join([sys.executable, "-P", "-m", program, *arguments])
    (hooks / "pre-commit").write_text(f'#!/bin/sh\nexport GIT_DIR="$(git rev-parse --git-dir)"\nexec {command}\n')
    (hooks / "pre-commit").chmod(0o755)
    (folder / "a").write_text(f"KEY={key()}\n")
    (folder / "b").write_text("changed\n")
    assert "a:1" in hand.git(folder, "commit", "-qam", "all", ok=False)
    assert "a:1" in hand.git(folder, "commit", "-qm", "one", "a", ok=False)
    hand.git(folder, "commit", "-qm", "another", "b")


def test_nothing_of_the_repository_is_run(hand: Hand) -> None:
    """A file may be named like a module that we import."""
    folder = hand.repository("work")
    for hook in ("pre-commit", "pre-push"):
        hand.keyturn("hooks", "install", hook, "--repository", str(folder))
    (folder / "keyturn").mkdir()
    for name in ("copy.py", "click.py", "keyturn/__init__.py", "sitecustomize.py"):
        (folder / name).write_text("import os\n\nos._exit(0)\n")
    (folder / "a").write_text(f"KEY={key()}\n")
    assert "a:1" in hand.commit(folder, ok=False)
    hand.git(folder, "commit", "-qnm", "unseen")
    hand.git(folder, "remote", "add", "origin", "../plain.git")
    hand.run("git", "init", "-q", "--bare", "--template=", str(hand.home / "plain.git"))
    assert "a:1" in push(hand, folder, ok=False)


def test_what_a_commit_takes_beside_the_index_is_seen_and_nothing_else(hand: Hand) -> None:
    """`git commit -a` and `git commit FILE` build an index of their own, and name it in the environment."""
    folder = hand.repository("work")
    for name in ("a", "b"):
        (folder / name).write_text("nothing\n")
    hand.commit(folder)
    hand.keyturn("hooks", "install", "pre-commit", "--repository", str(folder))
    (folder / "a").write_text(f"KEY={key()}\n")
    (folder / "b").write_text("changed\n")
    assert "a:1" in hand.git(folder, "commit", "-qam", "all", ok=False)
    assert "a:1" in hand.git(folder, "commit", "-qm", "one", "a", ok=False)
    hand.git(folder, "commit", "-qm", "another", "b")
    hand.git(folder, "add", "a")
    (folder / "b").write_text("changed again\n")
    hand.git(folder, "commit", "-qm", "only this", "--only", "b")
    assert "a:1" in hand.git(folder, "commit", "-qm", "with what is staged", "--include", "b", ok=False)


def test_the_repository_that_git_names_is_the_one_that_is_looked_at(hand: Hand) -> None:
    """A git directory beside its work tree, a work tree within that of another repository, and a linked one."""
    outer = hand.repository("outer")
    inner, directory = outer / "inner", hand.home / "inner.git"
    inner.mkdir()
    hand.run("git", "init", "-q", "--template=", "--bare", str(directory))
    hand.git(directory, "config", "core.bare", "false")
    named = ("git", f"--git-dir={directory}", f"--work-tree={inner}")
    hand.keyturn("hooks", "install", "pre-commit", "--repository", str(directory))
    (inner / "a").write_text("nothing\n")
    hand.run(*named, "add", "a", folder=inner)
    hand.run(*named, "commit", "-qm", "one", folder=inner)
    (inner / "a").write_text(f"KEY={key()}\n")
    assert "a:1" in hand.run(*named, "commit", "-qam", "two", folder=inner, ok=False)
    linked = hand.home / "linked"
    hand.run("git", f"--git-dir={directory}", "worktree", "add", "-q", str(linked))
    (linked / "a").write_text(f"KEY={key()}\n")
    assert "a:1" in hand.git(linked, "commit", "-qam", "three", ok=False)


def test_an_index_that_lies_elsewhere_is_the_one_that_is_looked_at(hand: Hand) -> None:
    folder = hand.repository("work")
    (folder / "a").write_text("nothing\n")
    hand.commit(folder)
    (folder / "a").write_text(f"KEY={key()}\n")
    elsewhere = {"GIT_INDEX_FILE": str(hand.home / "index")}
    hand.run("git", "add", "a", folder=folder, environment=elsewhere)
    scan = (sys.executable, "-P", "-m", "keyturn", "scan", "--staged")
    assert "a:1" in hand.run(*scan, folder=folder, ok=False, environment=elsewhere)
    hand.run(*scan, folder=folder)


def test_a_hook_is_installed_where_git_looks_for_it(hand: Hand, tmp_path: Path) -> None:
    folder = hand.repository("elsewhere")
    hand.git(folder, "config", "core.hooksPath", str(hand.home / "shared hooks"))
    hand.keyturn("hooks", "install", "pre-commit", "--repository", str(folder))
    assert (hand.home / "shared hooks" / "pre-commit").exists()
    (folder / "a").write_text(f"KEY={key()}\n")
    hand.commit(folder, ok=False)
    hand.keyturn("hooks", "uninstall", "pre-commit", "--repository", str(folder))
    hand.commit(folder)
    (tmp_path / "plain").mkdir()
    nowhere = ("hooks", "install", "pre-commit", "--repository", str(tmp_path / "plain"))
    assert "no git repository" in hand.keyturn(*nowhere, ok=False)


def test_pre_push_stops_before_anything_leaves(hand: Hand) -> None:
    remote, folder = hand.home / "plain.git", hand.home / "work"
    hand.run("git", "init", "-q", "--bare", "--template=", str(remote))
    hand.run("git", "clone", "-q", "--template=", str(remote), str(folder))
    hand.keyturn("hooks", "install", "pre-push", "--repository", str(folder))
    (folder / "readme").write_text("hello\n")
    hand.commit(folder)
    push(hand, folder)
    secret = key()
    (folder / "a").write_text(f"KEY={secret}\n")
    hand.commit(folder)
    said = push(hand, folder, ok=False)
    assert "a:1" in said
    assert secret not in said
    assert len(heads(hand, remote).split()) == 1
    hand.git(folder, "reset", "-q", "--hard", "HEAD~1")
    (folder / "b").write_text("nothing\n")
    hand.commit(folder)
    push(hand, folder)


# --- on a server -----------------------------------------------------------------------------------------------------


def test_a_push_with_a_key_is_refused_and_leaves_nothing(hand: Hand, server: Path, clone: Path) -> None:
    before, secret = heads(hand, server), key()
    (clone / "deploy.sh").write_text(f"export KEY={secret}\n")
    hand.commit(clone, "with a key")
    (clone / "deploy.sh").unlink()
    hand.commit(clone, "without it")
    said = push(hand, clone, ok=False)
    assert "deploy.sh:1" in said
    assert "keyturn-issued-key" in said
    assert secret not in said
    assert heads(hand, server) == before


def test_a_push_with_a_key_in_a_message_or_a_name_is_refused(hand: Hand, server: Path, clone: Path) -> None:
    before, secret = heads(hand, server), key()
    hand.git(clone, "commit", "-q", "--allow-empty", "-m", f"use {secret}")
    said = push(hand, clone, ok=False)
    assert "commit message" in said
    hand.git(clone, "reset", "-q", "--hard", "HEAD~1")
    hand.git(clone, "checkout", "-qb", secret)
    hand.git(clone, "commit", "-q", "--allow-empty", "-m", "clean")
    said += push(hand, clone, f"HEAD:refs/heads/{secret}", ok=False)
    assert "ref names" in said
    assert "keyturn-issued-key" in said
    assert heads(hand, server) == before


def test_a_key_born_in_a_merge_is_seen(hand: Hand, clone: Path) -> None:
    hand.git(clone, "checkout", "-qb", "side")
    (clone / "side").write_text("side\n")
    hand.commit(clone)
    hand.git(clone, "checkout", "-q", "-")
    (clone / "main").write_text("main\n")
    hand.commit(clone)
    hand.git(clone, "merge", "-q", "--no-commit", "--no-ff", "side")
    (clone / "merged").write_text(f"KEY={key()}\n")
    hand.commit(clone, "merge")
    assert "merged:1" in push(hand, clone, ok=False)


def test_a_tag_and_a_new_branch_are_seen_and_a_deletion_is_let_be(hand: Hand, clone: Path) -> None:
    (clone / "a").write_text(f"KEY={key()}\n")
    hand.commit(clone)
    hand.git(clone, "tag", "-am", "v1", "v1")
    assert "a:1" in push(hand, clone, "v1", ok=False)
    assert "a:1" in push(hand, clone, "HEAD:refs/heads/new", ok=False)
    hand.git(clone, "reset", "-q", "--hard", "HEAD~1")
    push(hand, clone, "HEAD:refs/heads/old")
    push(hand, clone, ":refs/heads/old")


def test_what_the_push_brings_allows_nothing(hand: Hand, clone: Path) -> None:
    """Comments, a policy and a baseline in the pushed files are of whoever pushes."""
    (clone / "a").write_text(f"KEY={key()}\n")
    hand.keyturn("scan", ".", "--write-baseline", str(clone / "baseline"), folder=clone)
    folder = clone / ".keyturn"
    folder.mkdir()
    (clone / "baseline").rename(folder / "baseline.toml")
    (folder / "leaks.toml").write_text('version = 1\n[[rule]]\nverdict = "allow"\n')
    (clone / "b").write_text(f"KEY={key()}  # keyturn:allow *\n")
    hand.commit(clone)
    said = push(hand, clone, ok=False)
    assert "a:1" in said
    assert "b:1" in said


def test_a_bypass_needs_a_reason_is_on_record_and_can_be_forbidden(hand: Hand, server: Path, clone: Path) -> None:
    (clone / "a").write_text(f"KEY={key()}\n")
    hand.commit(clone)
    (one,) = fingerprints(push(hand, clone, ok=False))
    asked = ("HEAD:main", "-o", f"keyturn.allow={one}")
    reason = ("-o", "keyturn.reason=a sample of a vendor")
    assert "reason" in push(hand, clone, *asked, ok=False)
    push(hand, clone, "HEAD:main", "-o", f"keyturn.allow={'0' * 40}", *reason, ok=False)
    hand.git(server, "config", "keyturn.bypass", "never")
    assert "nothing through" in push(hand, clone, *asked, *reason, ok=False)
    assert not (server / RECORD).exists()
    hand.git(server, "config", "keyturn.bypass", "reason")
    assert "on record" in push(hand, clone, *asked, *reason)
    (line,) = [json.loads(text) for text in (server / RECORD).read_text().splitlines()]
    assert (line["fingerprints"], line["reason"], line["refs"][0]["ref"]) == (
        [one],
        "a sample of a vendor",
        "refs/heads/main",
    )


def test_policy_baseline_rules_and_cache_of_the_server_hold(hand: Hand, server: Path, clone: Path) -> None:
    policy, rules, own = hand.home / "leaks.toml", hand.home / "rules.toml", hand.home / "own cache"
    policy.write_text('version = 1\n[[rule]]\npaths = ["samples/**"]\nverdict = "allow"\n')
    rules.write_text("[[rules]]\nid = 'shop'\ndescription = 'd'\nregex = 'shop_[0-9a-z]{24}'\n")
    hand.git(server, "config", "keyturn.policy", str(policy))
    (clone / "samples").mkdir()
    (clone / "samples" / "a").write_text(f"KEY={key()}\n")
    hand.commit(clone)
    push(hand, clone)
    for name, value in (("rules", rules), ("cache", own)):
        hand.git(server, "config", f"keyturn.{name}", str(value))
    (clone / "b").write_text(f"KEY={'_'.join(('shop', 'k7' * 12))}\n")
    hand.commit(clone)
    assert "b:1" in push(hand, clone, ok=False)
    assert list(own.iterdir())
    baseline = hand.home / "baseline.toml"
    hand.keyturn("scan", "b", "--rules", str(rules), "--write-baseline", str(baseline), folder=clone)
    hand.git(server, "config", "keyturn.baseline", str(baseline))
    push(hand, clone)


def test_what_a_bound_keeps_from_being_scanned_is_refused_unless_the_server_says_otherwise(
    hand: Hand, server: Path, clone: Path
) -> None:
    nested = b"nothing"
    for _ in range(12):
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr("inner.zip", nested)
        nested = packed.getvalue()
    (clone / "a.zip").write_bytes(nested)
    hand.commit(clone)
    assert "a.zip" in push(hand, clone, ok=False)
    hand.git(server, "config", "keyturn.bounds", "pass")
    (clone / "b").write_text(f"KEY={key()}\n")
    hand.commit(clone)
    assert "b:1" in push(hand, clone, ok=False)
    hand.git(clone, "reset", "-q", "--hard", "HEAD~1")
    push(hand, clone)


def test_a_hook_that_cannot_do_its_work_refuses(hand: Hand, server: Path, clone: Path) -> None:
    before = heads(hand, server)
    (clone / "a").write_text("nothing\n")
    hand.commit(clone)
    for name, value in (("keyturn.policy", "/nowhere"), ("keyturn.bounds", "maybe"), ("keyturn.rules", "/nowhere")):
        hand.git(server, "config", name, value)
        assert value in push(hand, clone, ok=False)
        hand.git(server, "config", "--unset", name)
    assert heads(hand, server) == before
    push(hand, clone)
