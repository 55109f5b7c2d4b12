from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from keyturn.errors import ConfigError, InputError
from keyturn.scanner.model import Context, Problem
from keyturn.scanner.sources.git import StagedSource, WorkTreeSource, open_repository

if TYPE_CHECKING:
    from tests.scanner.sources.conftest import Clone, Seen, Source

    Reads = Callable[[Source], Seen]
    MakeClone = Callable[..., Clone]

SECRET = b"-".join([b"plan", b"ted", b"secret"])


def test_staged_is_what_is_in_the_index_and_says_which_lines_are_new(clone: Clone, reads: Reads) -> None:
    clone.commit(a__txt=b"one\n" + SECRET + b"\ntwo\n", b__txt=b"b\n", c__txt=b"c\n")
    clone.write("a.txt", b"zero\none\n" + SECRET + b"\ntwo\nthree\n")
    clone.write("new.bin", b"\0" + SECRET)
    clone.git("add", "-A")
    clone.write("a.txt", b"only in the work tree")
    clone.write("b.txt", b"not staged")
    (clone.folder / "c.txt").unlink()
    clone.git("rm", "-q", "--cached", "c.txt")
    seen = reads(StagedSource(clone.open()))
    assert {(one.path, one.lines) for one in seen.documents} == {("a.txt", ((1, 1), (5, 5))), ("new.bin", ())}
    assert all(one.contexts == {Context.STAGED} for one in seen.documents)
    assert seen.documents[0].data == b"zero\none\n" + SECRET + b"\ntwo\nthree\n"


def test_before_the_first_commit_all_that_is_staged_is_new(clone: Clone, make_clone: MakeClone, reads: Reads) -> None:
    for repository in (clone, make_clone("other", "--object-format=sha256")):
        repository.write("a.txt", SECRET)
        repository.git("add", "-A")
        seen = reads(StagedSource(repository.open()))
        assert [(one.path, one.lines) for one in seen.documents] == [("a.txt", ())]


def test_index_that_git_names_to_a_hook_is_the_one_that_is_read(clone: Clone, reads: Reads) -> None:
    """`git commit -a` and `git commit <path>` make an index of their own, and the hook has to look at that."""
    clone.commit(a__txt=b"a\n")
    clone.write("a.txt", SECRET)
    other = clone.folder / ".git" / "next-index-1.lock"
    clone.git("add", "a.txt", GIT_INDEX_FILE=str(other))
    assert not reads(StagedSource(clone.open())).documents
    assert len(reads(StagedSource(clone.open(GIT_INDEX_FILE=str(other)))).holding(SECRET)) == 1


def test_staged_submodule_is_noticed(clone: Clone, make_clone: MakeClone, reads: Reads) -> None:
    library = make_clone("library")
    library.commit(a__txt=SECRET)
    clone.commit(a__txt=b"a")
    clone.git("submodule", "--quiet", "add", str(library.folder), "libs/one")
    seen = reads(StagedSource(clone.open()))
    assert seen.paths() == {".gitmodules"}
    assert [(one.problem, one.path) for one in seen.notices] == [(Problem.MISSING, "libs/one")]


def test_work_tree_is_what_git_tracks_or_would_add(clone: Clone, make_clone: MakeClone, reads: Reads) -> None:
    library = make_clone("library")
    library.commit(a__txt=SECRET)
    clone.write(".gitignore", b"ignored*\n!ignored-not\n")
    clone.commit(a__txt=b"a", gone__txt=b"g", ignored__not=b"")
    clone.git("submodule", "--quiet", "add", str(library.folder), "libs/one")
    clone.write("a.txt", b"changed " + SECRET)
    clone.write("untracked/b.txt", SECRET)
    clone.write("ignored", SECRET)
    clone.write(b"caf\xe9\n", SECRET)
    (clone.folder / "gone.txt").unlink()
    os.mkfifo(clone.folder / "fifo")
    clone.write(".git/info/exclude", b"excluded\n")
    clone.write("excluded", SECRET)
    seen = reads(WorkTreeSource(clone.open()))
    assert {one.path for one in seen.holding(SECRET)} == {"a.txt", "untracked/b.txt", "caf\\xe9\\x0a"}
    assert (Problem.MISSING, "libs/one") in {(one.problem, one.path) for one in seen.notices}


def test_list_of_the_user_of_what_is_ignored_is_followed(clone: Clone, reads: Reads) -> None:
    clone.commit(a__txt=b"a")
    home = clone.folder.parent / "home"
    (home / ".config" / "git").mkdir(parents=True)
    (home / ".config" / "git" / "ignore").write_text("*.swp\n")
    clone.write("b.swp", SECRET)
    assert reads(WorkTreeSource(clone.open(HOME=str(home)))).paths() == {"a.txt"}
    assert reads(WorkTreeSource(clone.open())).paths() == {"a.txt", "b.swp"}


def test_bare_repository_has_no_work_tree(make_clone: MakeClone) -> None:
    source = WorkTreeSource(make_clone("bare", "--bare").open())
    with pytest.raises(InputError):
        list(source.batches())
    source.close()


def test_folder_that_is_in_no_repository_is_refused(clone: Clone) -> None:
    environment = {"PATH": os.environ["PATH"]}
    with pytest.raises(InputError, match="not in a git repository"):
        open_repository(str(clone.folder.parent), environment)
    with pytest.raises(InputError, match="not a folder"):
        open_repository(str(clone.folder / "nowhere"), environment)
    (clone.folder.parent / "odd").mkdir()
    (clone.folder.parent / "odd" / ".git").write_text("gitdir: nowhere\n")
    with pytest.raises(InputError, match="not there"):
        open_repository(str(clone.folder.parent / "odd"), environment)


def test_without_git_it_says_so(clone: Clone) -> None:
    with pytest.raises(ConfigError, match="git was not found"):
        open_repository(str(clone.folder), {"PATH": str(clone.folder)})
