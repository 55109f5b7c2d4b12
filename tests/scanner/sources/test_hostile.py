from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from keyturn.errors import InputError
from keyturn.scanner.model import Problem
from keyturn.scanner.sources.git import (
    HistorySource,
    RangeSource,
    StagedSource,
    WorkTreeSource,
    open_repository,
)

if TYPE_CHECKING:
    from tests.scanner.sources.conftest import Clone, Seen, Source

    Reads = Callable[[Source], Seen]

SECRET = b"-".join([b"plan", b"ted", b"secret"])
HOOKS = (
    "pre-commit",
    "post-checkout",
    "reference-transaction",
    "post-index-change",
    "fsmonitor-watchman",
    "pre-auto-gc",
)


@pytest.fixture
def hostile(clone: Clone) -> tuple[Clone, Path]:
    """A repository in which every setting that names a program names one that leaves a mark."""
    mark = clone.folder.parent / "mark"
    script = clone.folder.parent / "script"
    script.write_text(f"#!/bin/sh\necho $0 $@ >> {mark}\n")
    script.chmod(0o755)
    clone.write(".gitattributes", b"* filter=evil diff=evil merge=evil textconv=evil\n")
    clone.commit(a__txt=b"first\n")
    clone.commit(a__txt=b"second " + SECRET, b__txt=b"b\n")
    clone.write("b.txt", b"staged " + SECRET)
    clone.git("add", "b.txt")
    clone.write("c.txt", b"untracked " + SECRET)
    for hook in HOOKS:
        path = clone.folder / ".git" / "hooks" / hook
        path.parent.mkdir(exist_ok=True)
        path.write_text(script.read_text())
        path.chmod(0o755)
    run = str(script)
    clone.write(
        ".git/config",
        f"""
[core]
    repositoryformatversion = 1
    fsmonitor = {run}
    hooksPath = {clone.folder}/.git/hooks
    pager = {run}
    editor = {run}
    sshCommand = {run}
    gitProxy = {run}
    askPass = {run}
    alternateRefsCommand = {run}
    attributesFile = {clone.folder}/.gitattributes
    worktree = {clone.folder.parent}
    untrackedCache = true
[include]
    path = {clone.folder}/included
[diff]
    external = {run}
[diff "evil"]
    textconv = {run}
    command = {run}
    cachetextconv = true
[filter "evil"]
    clean = {run}
    smudge = {run}
    process = {run}
    required = true
[merge "evil"]
    driver = {run}
[gpg]
    program = {run}
[log]
    showSignature = true
[credential]
    helper = !{run}
[pager]
    log = {run}
    diff-tree = {run}
[alias]
    cat-file = !{run}
    diff-tree = !{run}
    rev-list = !{run}
[extensions]
    partialClone = evil
    worktreeConfig = true
[remote "evil"]
    url = ext::{run} %S
    promisor = true
    partialclonefilter = blob:none
    uploadpack = {run}
    vcs = evil
[protocol]
    allow = always
[uploadpack]
    packObjectsHook = {run}
[submodule]
    recurse = true
""".encode(),
    )
    clone.write("included", f"[core]\n\tfsmonitor = {run}\n".encode())
    clone.write(".git/config.worktree", f"[core]\n\tfsmonitor = {run}\n".encode())
    return clone, mark


def everything(clone: Clone, reads: Reads) -> list[Seen]:
    return [
        reads(HistorySource(clone.open(), stash=True, unreachable=True, context=4096)),
        reads(RangeSource(clone.open(), "HEAD^..HEAD")),
        reads(StagedSource(clone.open())),
        reads(WorkTreeSource(clone.open())),
    ]


def test_settings_of_a_scanned_repository_run_nothing(hostile: tuple[Clone, Path], reads: Reads) -> None:
    """Who scans what a stranger sent must not run what the stranger wrote."""
    clone, mark = hostile
    seen = everything(clone, reads)
    assert not mark.exists()
    assert [len(one.holding(SECRET)) for one in seen] == [2, 1, 1, 3]


def test_programs_of_the_mark_would_run_without_the_precautions(hostile: tuple[Clone, Path]) -> None:
    """The test above proves something only if git does run what this repository names."""
    clone, mark = hostile
    with suppress(AssertionError):  # whether git goes on after that does not matter here
        clone.git("show", "--ext-diff", "--textconv", "HEAD")
    assert mark.exists()


def test_missing_objects_are_fetched_from_nowhere(hostile: tuple[Clone, Path], reads: Reads) -> None:
    """Git fetches what a partial clone lacks from an address that the repository names, by a program that it names."""
    clone, mark = hostile
    oid = clone.git("rev-parse", "HEAD~1:a.txt")
    (clone.folder / ".git" / "objects" / oid[:2] / oid[2:]).unlink()
    mark.unlink(missing_ok=True)
    seen = everything(clone, reads)
    assert not mark.exists()
    assert Problem.MISSING in seen[0].problems()


def test_replacements_and_grafts_hide_nothing(clone: Clone, reads: Reads) -> None:
    """Both let a repository show another history than the one it has."""
    clone.commit(a__txt=b"first\n")
    clone.commit(a__txt=b"then " + SECRET)
    clone.commit(a__txt=b"last\n")
    hidden = clone.git("rev-parse", "HEAD~1:a.txt")
    clone.git("replace", hidden, clone.git("rev-parse", "HEAD:a.txt"))
    clone.write(".git/info/grafts", clone.git("rev-parse", "HEAD").encode() + b"\n")
    assert len(reads(HistorySource(clone.open())).holding(SECRET)) == 1


def test_commit_graph_that_lies_hides_nothing(clone: Clone, reads: Reads) -> None:
    clone.commit(a__txt=b"first " + SECRET)
    clone.commit(a__txt=b"last\n")
    clone.git("commit-graph", "write", "--reachable")
    graph = clone.folder / ".git" / "objects" / "info" / "commit-graph"
    graph.chmod(0o600)
    graph.write_bytes(graph.read_bytes().replace(bytes.fromhex(clone.git("rev-parse", "HEAD~1^{tree}")), b"\0" * 20))
    assert len(reads(HistorySource(clone.open())).holding(SECRET)) == 1


def test_index_that_names_files_outside_reads_none_of_them(clone: Clone, reads: Reads) -> None:
    outside = clone.folder.parent / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(SECRET)
    clone.commit(a__txt=b"a")
    clone.write("link/secret", b"before")
    clone.git("add", "-A")
    (clone.folder / "link" / "secret").unlink()
    (clone.folder / "link").rmdir()
    (clone.folder / "link").symlink_to(outside)
    (clone.folder / "direct").symlink_to(outside / "secret")
    seen = reads(WorkTreeSource(clone.open()))
    assert not seen.holding(SECRET)
    assert {(one.problem, one.path) for one in seen.notices} == {
        (Problem.SKIPPED, "link"),
        (Problem.SKIPPED, "link/secret"),
        (Problem.SKIPPED, "direct"),
    }


def test_environment_of_the_caller_reaches_no_program(clone: Clone, reads: Reads) -> None:
    """A hook's environment may name programs to git too; only quarantine and index are taken from it."""
    mark = clone.folder.parent / "mark"
    clone.commit(a__txt=SECRET)
    program = f"sh -c 'touch {mark}'"
    repository = clone.open(
        GIT_EXTERNAL_DIFF=program,
        GIT_PAGER=program,
        GIT_CONFIG_COUNT="1",
        GIT_CONFIG_KEY_0="core.fsmonitor",
        GIT_CONFIG_VALUE_0=program,
        GIT_DIR="/nonexistent",
        GIT_OBJECT_DIRECTORY="/nonexistent",
        GIT_INDEX_FILE="/nonexistent/index",
        GIT_TRACE=str(mark),
        LD_PRELOAD="/nonexistent.so",
    )
    assert len(reads(HistorySource(repository)).holding(SECRET)) == 1
    assert not mark.exists()


def test_git_in_a_relative_folder_of_the_path_is_not_run(clone: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    clone.commit(a__txt=b"a")
    (clone.folder / "git").write_text("#!/bin/sh\ntouch mark\n")
    (clone.folder / "git").chmod(0o755)
    monkeypatch.chdir(clone.folder)
    repository = open_repository(".", {"PATH": f".:{os.environ['PATH']}"})
    assert repository.git.startswith("/")
    assert str(clone.folder) not in repository.git
    repository.close()


def test_private_directory_is_gone_afterwards(clone: Clone, reads: Reads) -> None:
    clone.commit(a__txt=b"a")
    repository = clone.open()
    shadow = Path(repository.shadow)
    assert shadow.stat().st_mode & 0o777 == 0o700
    reads(HistorySource(repository))
    assert not shadow.exists()
    assert (clone.folder / ".git" / "objects").exists()
    forgotten = clone.open()
    shadow = Path(forgotten.shadow)
    del forgotten
    assert not shadow.exists()


@pytest.mark.parametrize("name", ["HEAD", "config", "commondir"])
def test_fifo_in_a_git_directory_does_not_hang(clone: Clone, name: str) -> None:
    clone.commit(a__txt=b"a")
    path = clone.folder / ".git" / name
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    if name == "HEAD":
        with pytest.raises(Exception, match="HEAD"):
            clone.open()
    else:
        clone.open().close()


@pytest.mark.parametrize(
    "name", ["index", "packed-refs", "refs/heads/x", "objects/aa/" + "b" * 38, "objects/info/alternates"]
)
def test_fifo_where_git_would_wait_is_refused(clone: Clone, name: str) -> None:
    clone.commit(a__txt=b"a")
    path = clone.folder / ".git" / name
    path.unlink(missing_ok=True)
    path.parent.mkdir(exist_ok=True)
    os.mkfifo(path)
    repository = clone.open()
    with pytest.raises(InputError, match="not a regular file"):
        list(HistorySource(repository).batches())
    repository.close()


def test_objects_of_a_shared_clone_are_read(clone: Clone, reads: Reads) -> None:
    clone.commit(a__txt=SECRET)
    clone.git("clone", "-q", "--shared", ".", "../shared")
    shared = open_repository(str(clone.folder.parent / "shared"), {"PATH": os.environ["PATH"]})
    assert len(reads(HistorySource(shared)).holding(SECRET)) == 1
