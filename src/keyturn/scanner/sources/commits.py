"""Which commits there are to look at, oldest first, and what else refs name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from keyturn.errors import InputError
from keyturn.scanner.model import Notice, Problem
from keyturn.scanner.sources.names import readable
from keyturn.scanner.sources.objects import ObjectReader, every_object
from keyturn.scanner.sources.repository import GitError, Repository
from keyturn.scanner.sources.seen import Walked

_COMMIT_BYTES_MAX = 1 << 24
_BROKEN_REF = b"ignoring broken ref "


@dataclass(slots=True)
class Commits:
    """Commits, each after its parents, and their times; `blobs` and `trees` are what refs name besides commits.

    `tips` are the refs by what they name, which may be a tag.
    `whole` is false when git could not follow the history: then there may be objects that no commit here leads to.
    `ends` are the commits that were followed; with `resumed`, back to what was followed by an earlier scan.
    """

    names: list[str] = field(default_factory=list)
    times: dict[str, str] = field(default_factory=dict)
    blobs: list[tuple[str, str]] = field(default_factory=list)
    trees: list[tuple[str, str]] = field(default_factory=list)
    tips: dict[str, str] = field(default_factory=dict)
    notices: list[Notice] = field(default_factory=list)
    whole: bool = True
    ends: frozenset[str] = frozenset()
    resumed: bool = False


def resolve(repository: Repository, revision: str) -> str:
    """Return the name of the object that a revision means; raises `InputError` when it means none."""
    ended = repository.attempt("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{object}}")
    if ended.returncode or "\n" in revision:
        raise InputError(f"{revision!r} names nothing in this repository", field="ref")
    return ended.stdout.decode("ascii", "replace").strip()


def named_by_refs(repository: Repository, notices: list[Notice], *, stash: bool) -> dict[str, str]:
    """Return what every ref, HEAD and the HEAD of every worktree name, with a name for each; stashes only if wanted.

    Refs that git cannot read, and therefore passes over, are added to the notices.
    """
    tips: dict[str, str] = {}
    listed = repository.attempt("for-each-ref", "--format=%(objectname) %(refname)")
    if listed.returncode:
        notices.append(Notice(Problem.CORRUPT, "", "git cannot list the refs: what they lead to may be left out"))
    for said in listed.stderr.split(b"\n"):
        _, passed_over, ref = said.partition(_BROKEN_REF)
        if passed_over:
            notices.append(Notice(Problem.CORRUPT, readable(ref), "a broken ref: what it led to may be left out"))
    for line in listed.stdout.split(b"\n"):
        target, _, ref = line.partition(b" ")
        if ref and (stash or ref != b"refs/stash"):
            tips.setdefault(target.decode("ascii", "replace"), readable(ref))
    heads = ["HEAD", *_heads_of_worktrees(repository)]
    given = "\n".join([*heads, ""]).encode("utf-8", "surrogateescape")
    answers = repository.attempt("cat-file", "--batch-check", given=given).stdout.split(b"\n")
    for head, answer in zip(heads, answers, strict=False):
        words = answer.split(b" ")
        if len(words) == 3:
            tips.setdefault(words[0].decode("ascii", "replace"), head)
    if stash:
        ended = repository.attempt("rev-list", "--walk-reflogs", "--ignore-missing", "refs/stash", "--")
        for name in ended.stdout.decode("ascii", "replace").split():
            tips.setdefault(name, "refs/stash")
    return tips


def every_ref(repository: Repository) -> list[str]:
    """Return the names of all refs."""
    listed = repository.attempt("for-each-ref", "--format=%(refname)").stdout
    return [line for line in listed.decode("utf-8", "surrogateescape").split("\n") if line]


def commits_of(repository: Repository, tips: dict[str, str], excluded: Sequence[str] = ()) -> Commits:
    """Follow what some refs name, to the root or to what is excluded; `--all` there stands for every ref."""
    found = Commits(tips=tips)
    wanted = _peel(repository, tips, found)
    if wanted:
        _walk(repository, wanted, excluded, found)
    found.ends = frozenset(wanted)
    return found


def commits_since(repository: Repository, tips: dict[str, str], before: Walked) -> Commits | None:
    """Follow what some refs name to what was followed before, and add those commits that held something then.

    Returns None when refs name more than commits, or when something that was followed is not behind them any more.
    """
    found = Commits(tips=tips, resumed=True)
    wanted = _peel(repository, tips, found)
    found.ends = frozenset(wanted)
    if not before.ends or found.blobs or found.trees or found.notices:
        return None
    if before.held:
        given = "\n".join([*before.held, ""]).encode()
        ended = repository.attempt("rev-list", "--no-walk=unsorted", "--timestamp", "--stdin", given=given)
        if ended.returncode:
            return None
        _add(found, ended.stdout)
    if found.ends == before.ends:
        return found
    lost = repository.attempt("rev-list", "--max-count=1", "--stdin", given=_between(before.ends, found.ends))
    if lost.returncode or lost.stdout:
        return None
    options = ("--topo-order", "--reverse", "--timestamp", "--stdin")
    ended = repository.attempt("rev-list", *options, given=_between(found.ends, before.ends))
    _add(found, ended.stdout)
    return None if ended.returncode else found


def _between(wanted: Iterable[str], excluded: Iterable[str]) -> bytes:
    return "".join([*(f"{name}\n" for name in wanted), *(f"^{name}\n" for name in excluded)]).encode()


def commits_in(repository: Repository, revisions: str) -> Commits:
    """Follow a range as git writes it, such as `main..feature`; raises `InputError` when it is none."""
    if not revisions or revisions.startswith("-") or any(character.isspace() for character in revisions):
        raise InputError(f"{revisions!r} is not a range of commits", field="range", hint="write A..B")
    found = Commits()
    try:
        out = repository.run(
            "rev-list", "--topo-order", "--reverse", "--timestamp", "--end-of-options", revisions, "--"
        )
    except GitError as failed:
        raise InputError(
            f"{revisions!r} is not a range of commits that are in this repository",
            field="range",
            hint="fetch more of the history if the clone is shallow",
            internal=failed.internal,
        ) from failed
    _add(found, out)
    return found


def every_commit(repository: Repository) -> Commits:
    """Return every commit there is, whether a ref leads to it or not."""
    names = [name for name, kind, _ in every_object(repository) if kind == "commit"]
    found = Commits()
    if names:
        _walk(repository, names, (), found)
    return found


def _heads_of_worktrees(repository: Repository) -> Iterable[str]:
    listed = repository.attempt("worktree", "list", "--porcelain", "-z").stdout
    for word in listed.split(b"\0"):
        if word.startswith(b"HEAD "):
            yield word[5:].decode("ascii", "replace")


def _peel(repository: Repository, tips: dict[str, str], found: Commits) -> list[str]:
    """Sort what refs name by its kind, behind any tags."""
    names = list(tips)
    given = "".join(f"{name}^{{}}\n" for name in names).encode()
    answers = repository.attempt("cat-file", "--batch-check", given=given).stdout.decode("ascii", "replace").split("\n")
    commits: list[str] = []
    for name, answer in zip(names, [*answers, *[""] * len(names)], strict=False):
        words = answer.split(" ")
        if len(words) != 3 or words[1] == "missing":
            problem = Problem.MISSING if repository.partial else Problem.CORRUPT
            found.notices.append(Notice(problem, tips[name], f"object {name} is missing or corrupt"))
            found.whole = False
        elif words[1] == "commit":
            commits.append(words[0])
        else:
            (found.blobs if words[1] == "blob" else found.trees).append((words[0], tips[name]))
    return commits


def _walk(repository: Repository, wanted: Sequence[str], excluded: Sequence[str], found: Commits) -> None:
    """List commits; before git 2.42, what is excluded could not be given on standard input by an option."""
    arguments = ("rev-list", "--topo-order", "--reverse", "--timestamp", "--ignore-missing", "--stdin")
    options = ("--not", *excluded) if excluded else ()
    ended = repository.attempt(*arguments, *options, given="\n".join([*wanted, ""]).encode())
    if ended.returncode == 0:
        _add(found, ended.stdout)
        return
    found.whole = False
    found.notices.append(Notice(Problem.CORRUPT, "", "git cannot follow the history to its end: a commit is broken"))
    _add_unordered(repository, found)


def _add(found: Commits, out: bytes) -> None:
    for line in out.decode("ascii", "replace").split("\n"):
        time, _, name = line.partition(" ")
        if name:
            found.names.append(name)
            found.times[name] = time


def _add_unordered(repository: Repository, found: Commits) -> None:
    """Take every commit that can be read, by time: their order is a guess, and no commit is left out."""
    names = [name for name, kind, _ in every_object(repository) if kind == "commit"]
    reader = ObjectReader(repository, bytes_max=_COMMIT_BYTES_MAX)
    try:
        for read in reader.read(names):
            if read.data is not None:
                found.times[read.name] = _time_of(read.data)
    finally:
        reader.close()
    found.names.extend(sorted(found.times, key=lambda name: int(found.times[name])))


def _time_of(commit: bytes) -> str:
    for line in commit.split(b"\n"):
        if line.startswith(b"committer "):
            words = line.rsplit(b" ", 2)
            return words[1].decode("ascii", "replace") if len(words) == 3 and words[1].isdigit() else "0"
        if not line:
            break
    return "0"
