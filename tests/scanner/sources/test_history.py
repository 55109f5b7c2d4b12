from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from keyturn.errors import InputError
from keyturn.scanner.model import Context, Notice, Problem
from keyturn.scanner.sources.git import HistorySource, PushSource, RangeSource, SeenBlobs, open_repository
from keyturn.scanner.sources.messages import COMMIT_MESSAGE, REF_NAMES

if TYPE_CHECKING:
    from tests.scanner.sources.conftest import Clone, Seen, Source

    Reads = Callable[[Source], Seen]
    MakeClone = Callable[..., Clone]

SECRET = b"-".join([b"plan", b"ted", b"secret"])


def filler(lines: int, seed: int = 0) -> bytes:
    return b"".join(b"line %d of %d, which nobody reads\n" % (number, seed) for number in range(lines))


def test_blob_is_given_once_at_a_path_with_the_commit_that_brought_it(clone: Clone, reads: Reads) -> None:
    first = clone.commit(a__txt=b"one\n")
    second = clone.commit(b__txt=SECRET)
    clone.commit(b__txt=b"other\n")
    clone.commit(b__txt=SECRET)
    seen = reads(HistorySource(clone.open()))
    (document,) = seen.holding(SECRET)
    assert (document.path, document.commit) == ("b.txt", second)
    assert document.committed_at == 1_700_000_120
    assert Context.HISTORY in document.contexts
    assert {one.commit for one in seen.documents} > {first, second}
    assert not seen.notices


def test_deleted_file_three_commits_back_is_given_and_says_so(clone: Clone, reads: Reads) -> None:
    brought = clone.commit(secret__env=SECRET, kept__txt=b"k\n")
    (clone.folder / "secret.env").unlink()
    clone.commit()
    clone.commit(kept__txt=b"l\n")
    clone.commit(kept__txt=b"m\n")
    seen = reads(HistorySource(clone.open()))
    (document,) = seen.holding(SECRET)
    assert document.commit == brought
    assert Context.DELETED in document.contexts
    assert all(Context.DELETED not in one.contexts for one in seen.documents if one.path == "kept.txt")


def test_secret_born_in_a_merge_commit_is_given_with_the_merge(clone: Clone, reads: Reads) -> None:
    clone.commit(a__txt=b"base\n")
    clone.git("checkout", "-q", "-b", "side")
    clone.commit(a__txt=b"side\n")
    clone.git("checkout", "-q", "main")
    clone.commit(a__txt=b"main\n")
    with pytest.raises(AssertionError):
        clone.git("merge", "-q", "side")
    merge = clone.commit(a__txt=b"both\n" + SECRET, new__txt=b"new in the merge " + SECRET)
    assert len(clone.git("rev-parse", "HEAD^@").split()) == 2
    seen = reads(HistorySource(clone.open()))
    assert {(one.path, one.commit) for one in seen.holding(SECRET)} == {("a.txt", merge), ("new.txt", merge)}


def test_octopus_merge_is_read(clone: Clone, reads: Reads) -> None:
    clone.commit(a__txt=b"base\n")
    for side in ("one", "two", "three"):
        clone.git("checkout", "-q", "-b", side, "main")
        clone.write(side, side.encode())
        clone.commit()
    clone.git("checkout", "-q", "main")
    clone.commit(main__txt=b"main")
    clone.git("merge", "-q", "--no-commit", "one", "two", "three")
    merge = clone.commit(born__txt=SECRET)
    assert len(clone.git("rev-parse", "HEAD^@").split()) == 4
    (document,) = reads(HistorySource(clone.open())).holding(SECRET)
    assert document.commit == merge


@pytest.mark.parametrize("attributes", ["*.pem -diff", "*.pem binary", "*.pem filter=x diff=y merge=z ident eol=crlf"])
def test_attributes_hide_nothing(clone: Clone, reads: Reads, attributes: str) -> None:
    """A file that git shows no difference of is where other scanners of histories find nothing."""
    clone.write(".gitattributes", attributes.encode())
    clone.commit(key__pem=b"first\n" + SECRET)
    clone.commit(key__pem=b"rotated\n" + SECRET)
    assert len(reads(HistorySource(clone.open())).holding(SECRET)) == 2


def test_binary_renamed_and_odd_paths_are_given(clone: Clone, reads: Reads) -> None:
    clone.write(b"new\nline", b"1" + SECRET)
    clone.write(b"caf\xe9.bin", b"\0\1\2" + SECRET)
    clone.write("Grüße/ключ", b"3" + SECRET)
    clone.write("\x1b[31mred", b"4" + SECRET)
    clone.commit()
    clone.git("mv", "Grüße/ключ", "moved")
    clone.write("moved", b"5" + SECRET)
    clone.commit()
    seen = reads(HistorySource(clone.open()))
    assert {one.path for one in seen.holding(SECRET)} == {
        "new\\x0aline",
        "caf\\xe9.bin",
        "Grüße/ключ",
        "\\x1b[31mred",
        "moved",
    }


def test_every_branch_tag_and_note_is_followed_and_a_single_ref_alone(clone: Clone, reads: Reads) -> None:
    clone.commit(a__txt=b"a")
    clone.git("checkout", "-q", "-b", "other")
    clone.commit(b__txt=b"on a branch " + SECRET)
    clone.git("checkout", "-q", "main")
    clone.git("notes", "add", "-m", "in a note " + SECRET.decode())
    blob = clone.git("hash-object", "-w", "--stdin", given=b"in a tag " + SECRET)
    clone.git("tag", "-a", "-m", "a blob", "blob-tag", blob)
    tree = clone.git(
        "mktree", given=f"100644 blob {clone.git('hash-object', '-w', '--stdin', given=SECRET)}\tin\n".encode()
    )
    clone.git("update-ref", "refs/odd/tree", tree)
    assert len(reads(HistorySource(clone.open())).holding(SECRET)) == 4
    assert not reads(HistorySource(clone.open(), ["main"])).holding(SECRET)
    assert len(reads(HistorySource(clone.open(), ["main", "other"])).holding(SECRET)) == 1


def test_ref_that_is_an_option_or_is_not_there_is_refused(clone: Clone) -> None:
    clone.commit(a__txt=b"a")
    for ref in ("nowhere", "--all", "--output=x", "a b", "main\n--all"):
        with pytest.raises(InputError):
            list(HistorySource(clone.open(), [ref]).batches())
    for revisions in ("nowhere..main", "--all", "--output=x", "main..", "", "a b"):
        if revisions != "main..":
            with pytest.raises(InputError):
                list(RangeSource(clone.open(), revisions).batches())


def test_stashes_are_given_on_request_older_and_untracked_ones_too(clone: Clone, reads: Reads) -> None:
    clone.commit(a__txt=b"a\n")
    clone.write("a.txt", b"older " + SECRET)
    clone.git("stash", "-q")
    clone.write("b.txt", b"untracked " + SECRET)
    clone.git("stash", "-q", "-u")
    assert not reads(HistorySource(clone.open())).holding(SECRET)
    assert {one.path for one in reads(HistorySource(clone.open(), stash=True)).holding(SECRET)} == {"a.txt", "b.txt"}


def test_unreachable_objects_are_given_on_request(clone: Clone, reads: Reads) -> None:
    clone.commit(a__txt=b"a\n")
    lost = clone.commit(lost__txt=b"lost " + SECRET)
    clone.git("reset", "-q", "--hard", "HEAD^")
    clone.write("added.txt", b"added " + SECRET)
    clone.git("add", "added.txt")
    clone.git("rm", "-q", "-f", "added.txt")
    assert not reads(HistorySource(clone.open())).holding(SECRET)
    found = reads(HistorySource(clone.open(), unreachable=True)).holding(SECRET)
    assert {(one.path, one.commit) for one in found if one.commit} == {("lost.txt", lost)}
    assert [one.path for one in found if not one.commit] == [f"objects/{one.blob}" for one in found if not one.commit]
    assert len(found) == 2


def test_detached_head_is_followed(clone: Clone, reads: Reads) -> None:
    clone.commit(a__txt=b"a")
    clone.git("checkout", "-q", "--detach")
    clone.commit(b__txt=SECRET)
    assert len(reads(HistorySource(clone.open())).holding(SECRET)) == 1


def test_empty_repository_holds_nothing(clone: Clone, reads: Reads) -> None:
    seen = reads(HistorySource(clone.open(), stash=True, unreachable=True))
    assert (seen.documents, seen.notices) == ([], [])


def test_bare_and_sha256_repositories_are_read(make_clone: MakeClone, reads: Reads) -> None:
    clone = make_clone("sha256", "--object-format=sha256")
    commit = clone.commit(a__txt=SECRET)
    clone.git("clone", "-q", "--bare", ".", "../bare")
    for folder in (clone.folder, clone.folder.parent / "bare"):
        seen = reads(HistorySource(open_repository(str(folder), {"PATH": os.environ["PATH"]})))
        (document,) = seen.holding(SECRET)
        assert (document.commit, len(document.blob)) == (commit, 64)


def test_worktree_and_its_own_head_are_read(clone: Clone, reads: Reads) -> None:
    clone.commit(a__txt=b"a")
    clone.git("worktree", "add", "-q", "--detach", "../linked")
    linked = type(clone)(clone.folder.parent / "linked", clone.clock)
    linked.commit(b__txt=SECRET)
    assert len(reads(HistorySource(linked.open())).holding(SECRET)) == 1
    assert len(reads(HistorySource(clone.open())).holding(SECRET)) == 1
    subfolder = clone.folder / "sub"
    subfolder.mkdir()
    assert open_repository(str(subfolder), {"PATH": os.environ["PATH"]}).folder == str(clone.folder.resolve())


def test_shallow_clone_is_read_as_far_as_it_goes_and_noticed(clone: Clone, make_clone: MakeClone, reads: Reads) -> None:
    clone.commit(a__txt=b"before")
    clone.commit(a__txt=SECRET)
    clone.commit(b__txt=b"after")
    shallow = make_clone("outer")
    shallow.git("clone", "-q", "--depth", "1", f"file://{clone.folder}", "inner")
    inner = type(clone)(shallow.folder / "inner")
    seen = reads(HistorySource(inner.open()))
    assert len(seen.holding(SECRET)) == 1
    assert seen.problems() == {Problem.MISSING}


@pytest.mark.parametrize("wanted", ["blob:none", "tree:0"])
def test_partial_clone_is_read_without_fetching(clone: Clone, make_clone: MakeClone, reads: Reads, wanted: str) -> None:
    """Reading what is not there must not make git fetch it: the server's address is the repository's to choose."""
    clone.git("config", "uploadpack.allowFilter", "true")
    clone.commit(a__txt=b"gone " + SECRET)
    clone.commit(a__txt=b"here " + SECRET)
    outer = make_clone("outer")
    outer.git("clone", "-q", f"--filter={wanted}", f"file://{clone.folder}", "inner")
    inner = type(clone)(outer.folder / "inner")
    before = inner.git("count-objects", "-v")
    seen = reads(HistorySource(inner.open()))
    assert [one.data for one in seen.holding(SECRET)] == [b"here " + SECRET]
    assert seen.problems() == {Problem.MISSING}
    assert inner.git("count-objects", "-v") == before


def test_submodule_is_noticed(clone: Clone, make_clone: MakeClone, reads: Reads) -> None:
    library = make_clone("library")
    library.commit(a__txt=SECRET)
    clone.git("submodule", "--quiet", "add", str(library.folder), "libs/one")
    clone.commit()
    seen = reads(HistorySource(clone.open()))
    assert [(one.problem, one.path) for one in seen.notices] == [(Problem.MISSING, "libs/one")]
    assert not seen.holding(SECRET)
    pushed = reads(PushSource(clone.open(), [clone.git("rev-parse", "HEAD")], known=()))
    assert [(one.problem, one.path) for one in pushed.notices] == [(Problem.SKIPPED, "libs/one")]
    inner = open_repository(str(clone.folder / "libs" / "one"), {"PATH": os.environ["PATH"]})
    assert len(reads(HistorySource(inner)).holding(SECRET)) == 1


def _object_file(clone: Clone, name: str) -> Path:
    return clone.folder / ".git" / "objects" / name[:2] / name[2:]


def _corrupt(clone: Clone, name: str) -> None:
    path = _object_file(clone, name)
    path.chmod(0o600)
    path.write_bytes(b"no object at all")


@pytest.mark.parametrize("how", ["corrupt", "missing"])
@pytest.mark.parametrize("what", ["HEAD~2:a.txt", "HEAD~1^{tree}", "HEAD~1", "HEAD"])
def test_broken_object_is_an_error_and_hides_no_other(clone: Clone, reads: Reads, what: str, how: str) -> None:
    """A repository that is broken on purpose must not keep the rest of it from being scanned."""
    clone.commit(a__txt=b"first " + SECRET)
    clone.commit(a__txt=b"second", c__txt=b"with the second " + SECRET)
    clone.commit(a__txt=b"third " + SECRET)
    clone.commit(b__txt=b"fourth " + SECRET)
    name = clone.git("rev-parse", what)
    if how == "corrupt":
        _corrupt(clone, name)
    else:
        _object_file(clone, name).unlink()
    seen = reads(HistorySource(clone.open()))
    assert {bytes(one.data) for one in seen.holding(SECRET)} == {
        b"first " + SECRET,
        b"with the second " + SECRET,
        b"third " + SECRET,
        b"fourth " + SECRET,
    }
    assert Problem.CORRUPT in seen.problems()


def test_ref_that_git_passes_over_is_an_error(clone: Clone, reads: Reads) -> None:
    """Git itself warns of a broken ref and goes on without what it led to; the scan would be a pass."""
    clone.commit(a__txt=b"one")
    clone.write(".git/refs/heads/broken", b"no name of an object\n")
    assert [(one.problem, one.path) for one in reads(HistorySource(clone.open())).notices] == [
        (Problem.CORRUPT, "refs/heads/broken")
    ]
    clone.write(".git/packed-refs", b"no ref at all\n")
    assert Problem.CORRUPT in reads(HistorySource(clone.open())).problems()


def test_tree_of_a_tag_that_cannot_be_read_is_an_error(clone: Clone, reads: Reads) -> None:
    clone.write("inner/b", b"two")
    clone.commit(a__txt=b"one")
    tree = clone.git("rev-parse", "HEAD^{tree}")
    clone.git("tag", "tree", tree)
    clone.git("update-ref", "-d", "HEAD")
    _object_file(clone, clone.git("rev-parse", f"{tree}:inner")).unlink()
    assert Problem.CORRUPT in reads(HistorySource(clone.open())).problems()


def test_broken_blob_leaves_the_blobs_after_it(clone: Clone, reads: Reads) -> None:
    for number in range(30):
        clone.write(f"f{number}", b"%d " % number + SECRET)
    clone.commit()
    for number in (0, 7, 8, 29):
        _corrupt(clone, clone.git("rev-parse", f"HEAD:f{number}"))
    seen = reads(HistorySource(clone.open()))
    assert len(seen.holding(SECRET)) == 26
    assert sorted(one.path for one in seen.notices) == ["f0", "f29", "f7", "f8"]


def test_big_blob_is_noticed_and_those_after_it_are_given(clone: Clone, reads: Reads) -> None:
    clone.commit(a__bin=b"\n" * 3_000_000, b__txt=SECRET)
    seen = reads(HistorySource(clone.open(), bytes_max=1_000_000))
    assert [(one.problem, one.path) for one in seen.notices] == [(Problem.BOUND, "a.bin")]
    assert len(seen.holding(SECRET)) == 1


def test_range_gives_what_it_brings_and_says_which_lines(clone: Clone, reads: Reads) -> None:
    clone.commit(a__txt=b"old " + SECRET + b"\nsame\n")
    clone.git("tag", "start")
    clone.commit(a__txt=b"old " + SECRET + b"\nsame\nnew " + SECRET + b"\n")
    clone.commit(b__txt=b"whole\n")
    seen = reads(RangeSource(clone.open(), "start..main"))
    assert {(one.path, one.lines) for one in seen.documents} == {("a.txt", ((3, 3),)), ("b.txt", ())}
    clone.commit(a__txt=b"same\n")
    assert not reads(RangeSource(clone.open(), "HEAD^..HEAD")).documents
    assert not reads(RangeSource(clone.open(), "HEAD..HEAD")).documents


def test_push_gives_what_no_ref_leads_to(clone: Clone, make_clone: MakeClone) -> None:
    server = make_clone("server", "--bare")
    clone.commit(a__txt=b"old " + SECRET)
    clone.git("push", "-q", str(server.folder), "main")
    clone.commit(b__txt=b"pushed " + SECRET)
    answer = server.folder / "answer"
    program = (
        "import os, sys\n"
        "from keyturn.scanner.model import Notice\n"
        "from keyturn.scanner.sources.git import PushSource, open_repository\n"
        "new = [line.split()[1] for line in sys.stdin]\n"
        "source = PushSource(open_repository('.', dict(os.environ)), new)\n"
        "batches = list(source.batches())\n"
        "found = [one.path for batch in batches for one in source.documents(batch)]\n"
        "source.close()\n"
        f"open({str(answer)!r}, 'w').write(repr((found, 'GIT_QUARANTINE_PATH' in os.environ)))\n"
    )
    (server.folder / "hook.py").write_text(program)
    hook = server.folder / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    source = Path(__file__).parents[3] / "src"
    hook.write_text(f"#!/bin/sh\nPYTHONPATH={source} exec {sys.executable} hook.py\n")
    hook.chmod(0o755)
    clone.git("push", "-q", str(server.folder), "main")
    assert answer.read_text() == repr((["b.txt", "commit message"], True))


def test_push_of_a_deletion_and_of_a_tag_of_a_blob(clone: Clone, reads: Reads) -> None:
    clone.commit(a__txt=b"a")
    assert not reads(PushSource(clone.open(), ["0" * 40])).documents
    blob = clone.git("hash-object", "-w", "--stdin", given=SECRET)
    assert len(reads(PushSource(clone.open(), [blob])).holding(SECRET)) == 1


class Store(dict[str, bytes]):
    def read(self, name: str) -> bytes | None:
        return self.get(name)

    def write(self, name: str, data: bytes) -> None:
        self[name] = data


def test_next_scan_leaves_out_what_held_nothing_and_no_finding(clone: Clone, reads: Reads) -> None:
    clone.commit(a__txt=b"clean\n", b__txt=b"dirty " + SECRET)
    store = Store()

    def scan(rules: str = "1") -> set[str]:
        source = HistorySource(clone.open(), seen=SeenBlobs(store, "r", rules), context=4096)
        seen = reads(source)
        source.finished({one.blob for one in seen.holding(SECRET)})
        return seen.paths()

    assert scan() == {"a.txt", "b.txt"}
    assert scan() == {"b.txt"}
    clone.commit(c__txt=b"new\n")
    assert scan() == {"b.txt", "c.txt"}
    assert scan(rules="2") == {"a.txt", "b.txt", "c.txt"}
    assert SECRET not in b"".join(store.values())


def test_same_blob_at_another_path_is_given_there_too(clone: Clone, reads: Reads) -> None:
    """A key beside its copy among the tests would be judged as one of the tests alone."""
    clone.commit(a__txt=SECRET, b__env=SECRET)
    clone.git("mv", "a.txt", "c.txt")
    clone.commit()
    assert reads(HistorySource(clone.open(), context=4096)).paths() == {"a.txt", "b.env", "c.txt"}
    assert reads(PushSource(clone.open(), [clone.git("rev-parse", "HEAD")], known=())).paths() >= {"a.txt", "b.env"}


def test_clean_blob_is_scanned_again_at_another_path(clone: Clone, reads: Reads) -> None:
    """A rule for few paths finds nothing in a copy elsewhere, and would never see the file that it is for."""
    clone.commit(a__txt=b"clean at this path\n")
    store = Store()
    for expected in ({"a.txt"}, set(), {"b.npmrc"}):
        if expected == {"b.npmrc"}:
            clone.commit(b__npmrc=b"clean at this path\n")
        source = HistorySource(clone.open(), seen=SeenBlobs(store, "r", "1"), context=4096)
        assert reads(source).paths() == expected
        source.finished(set())


def test_blob_of_which_something_was_told_is_scanned_again(clone: Clone, reads: Reads) -> None:
    """A bound that was hit is told by every scan, and does not keep the others from being remembered."""
    clone.commit(a__zip=b"one", b__txt=b"two")
    store = Store()
    for expected in ({"a.zip", "b.txt"}, {"a.zip"}, {"a.zip"}):
        source = HistorySource(clone.open(), seen=SeenBlobs(store, "r", "1"), context=4096)
        assert reads(source).paths() == expected
        source.finished(set(), {"a.zip!inner!deep"})


def remembering(clone: Clone, reads: Reads, store: Store, *refs: str) -> list[tuple[str, str]]:
    """Scan as the command does, and return the path and the commit of every document."""
    source = HistorySource(clone.open(), refs, seen=SeenBlobs(store, "r", "1"), context=4096)
    seen = reads(source)
    source.finished({one.blob for one in seen.holding(SECRET)})
    return [(one.path, one.commit) for one in seen.documents]


def test_version_that_held_nothing_new_is_passed_over(clone: Clone, reads: Reads) -> None:
    """What its earlier version held is found in that one."""
    first = clone.commit(a__txt=SECRET + b"\n" + filler(3000))
    clone.commit(a__txt=SECRET + b"\n" + filler(3000) + b"more\n")
    store = Store()
    assert len(remembering(clone, reads, store)) == 2
    assert remembering(clone, reads, store) == [("a.txt", first)]


def test_version_that_is_compared_with_another_is_scanned_again(clone: Clone, reads: Reads) -> None:
    """Of a version only a part is scanned: that it held nothing there does not make all of it clean."""
    clone.commit(a__txt=SECRET + b"\n" + filler(3000))
    clone.commit(a__txt=SECRET + b"\n" + filler(3000) + b"more\n")
    store = Store()
    assert len(remembering(clone, reads, store)) == 2
    tree = clone.git("rev-parse", "HEAD^{tree}")
    alone = clone.git("commit-tree", "-m", "alone", tree)
    clone.git("update-ref", "refs/heads/alone", alone)
    assert ("a.txt", alone) in remembering(clone, reads, store, "alone")


def test_next_scan_asks_for_new_commits_and_those_that_held_something(clone: Clone, reads: Reads) -> None:
    held = clone.commit(a__txt=SECRET)
    for number in range(5):
        clone.commit(b__txt=b"clean %d\n" % number)
    store = Store()
    remembering(clone, reads, store)
    source = HistorySource(clone.open(), seen=SeenBlobs(store, "r", "1"), context=4096)
    assert {one.commit for one in reads(source).documents} == {held}
    planned = source._planned  # noqa: SLF001 -- what was asked for is not seen from outside
    assert {one.commit for one in planned} == {held}
    new = clone.commit(b__txt=b"clean 5 " + SECRET)
    assert remembering(clone, reads, store) == [("a.txt", held), ("b.txt", new)]
    assert remembering(clone, reads, store) == [("a.txt", held), ("b.txt", new)]


def test_a_message_that_held_something_is_given_by_every_scan(clone: Clone, reads: Reads) -> None:
    clone.commit(a__txt=b"clean\n")
    clone.git("commit", "-q", "--allow-empty", "-m", SECRET.decode())
    said = clone.git("rev-parse", "HEAD")
    clone.commit(a__txt=b"clean too\n")
    store = Store()
    for expected in (5, 1, 1):
        seen = reads(source := HistorySource(clone.open(), seen=SeenBlobs(store, "r", "1"), context=4096))
        words = [one for one in seen.words if one.commit]
        assert said in {one.commit for one in words}
        assert len(words) + len(seen.documents) == expected
        source.finished({one.blob for one in words if SECRET in bytes(one.data)})


def test_what_no_ref_leads_to_any_more_is_not_given_again(clone: Clone, reads: Reads) -> None:
    """After a branch was taken back nothing of it is told, and the rest is."""
    held = clone.commit(a__txt=SECRET)
    gone = clone.commit(b__txt=b"gone " + SECRET)
    store = Store()
    assert remembering(clone, reads, store) == [("a.txt", held), ("b.txt", gone)]
    clone.git("reset", "-q", "--hard", held)
    assert remembering(clone, reads, store) == [("a.txt", held)]
    kept = clone.commit(b__txt=b"gone " + SECRET)
    assert remembering(clone, reads, store) == [("a.txt", held), ("b.txt", kept)]


def test_scans_of_different_refs_do_not_hide_anything_from_each_other(clone: Clone, reads: Reads) -> None:
    first = clone.commit(a__txt=SECRET + b" 1")
    clone.git("checkout", "-q", "-b", "side")
    side = clone.commit(a__txt=SECRET + b" 2", s__txt=SECRET)
    clone.git("checkout", "-q", "main")
    other = clone.commit(a__txt=SECRET + b" 2", m__txt=b"clean\n")
    store = Store()
    everything = {("a.txt", first), ("s.txt", side)}
    assert {*remembering(clone, reads, store)} >= everything
    assert {*remembering(clone, reads, store, "main")} == {("a.txt", first), ("a.txt", other)}
    assert {*remembering(clone, reads, store)} >= everything
    assert {*remembering(clone, reads, store, "side")} == {("a.txt", first), ("a.txt", side), ("s.txt", side)}
    assert {*remembering(clone, reads, store)} >= everything


def test_a_submodule_is_told_of_by_every_scan(clone: Clone, reads: Reads) -> None:
    commit = clone.commit(a__txt=b"clean\n")
    clone.git("update-index", "--add", "--cacheinfo", f"160000,{commit},inner")
    clone.git("commit", "-q", "-m", "with a submodule")
    store = Store()
    for _ in range(3):
        source = HistorySource(clone.open(), seen=SeenBlobs(store, "r", "1"), context=4096)
        seen = reads(source)
        assert [(one.problem, one.path) for one in seen.notices] == [(Problem.MISSING, "inner")]
        source.finished(set(), {one.path for one in seen.notices})


def test_a_torn_memory_is_none(clone: Clone, reads: Reads) -> None:
    clone.commit(a__txt=b"clean\n")
    store = Store()
    assert remembering(clone, reads, store)
    assert not remembering(clone, reads, store)
    store.update({name: data[:-5] for name, data in store.items()})
    assert remembering(clone, reads, store)


def test_processes_share_a_source_by_fork(clone: Clone) -> None:
    import multiprocessing

    for number in range(40):
        clone.write(f"f{number}", b"%d\n" % number * 100_000)
    clone.commit()
    source = HistorySource(clone.open())
    batches: list[Any] = list(source.batches())
    assert len(batches) >= 1
    expected = sorted(_names(source, batch) for batch in batches)
    with multiprocessing.get_context("fork").Pool(2, initializer=_share, initargs=(source,)) as pool:
        assert sorted(pool.map(_read_shared, batches)) == expected
    source.close()


def test_abandoned_batch_does_not_mix_with_the_next(clone: Clone) -> None:
    for number in range(10):
        clone.write(f"f{number}", b"%d\n" % number * 50_000)
    clone.commit()
    source = HistorySource(clone.open())
    batch = list(source.batches())[-1]
    assert not isinstance(batch, Notice)
    names = _names(source, batch)
    next(source.documents(batch))
    assert _names(source, batch) == names
    source.close()


_shared: list[HistorySource] = []


def _share(source: HistorySource) -> None:
    _shared.append(source)


def _read_shared(batch: Any) -> list[str]:
    return _names(_shared[0], batch)


def _names(source: HistorySource, batch: Any) -> list[str]:
    names = []
    for one in source.documents(batch):
        if one.path == REF_NAMES:
            continue
        data = bytes(one.data)  # type: ignore[union-attr] # no notice
        kind = "commit" if one.path == COMMIT_MESSAGE else "blob"
        ended = subprocess.run(
            ["/usr/bin/env", "git", "hash-object", "-t", kind, "--stdin"], input=data, capture_output=True, check=True
        )
        assert ended.stdout.decode().strip() == one.blob  # type: ignore[union-attr] # no notice
        names.append(one.blob)  # type: ignore[union-attr] # no notice
    return names
