"""Which commit introduced which blob, and where.

Commits are taken from the oldest to the newest, each after its parents, and compared with their parents: a blob is
introduced by the first that has it at a path where no parent has it.  A commit with several parents is compared with
all of them at once, and what is born in a merge is what differs from each; a commit without parents is compared with
nothing, and so is one where a shallow clone ends.  So every blob of every tree is met, with one line for each change.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from keyturn.scanner.sources.repository import Repository

if TYPE_CHECKING:
    from concurrent.futures import Future

_COMMITS_AT_ONCE = 2500
_BROKEN_MAX = 50
_COMPARE = ("diff-tree", "--stdin", "-r", "--root", "-c", "--always", "--raw", "-z", "--no-renames", "--no-abbrev")
_GITLINK = b"160000"


class Introduction(msgspec.Struct, frozen=True):
    """A blob, the path and the commit that brought it, and the blob that was there before; `base` may be empty."""

    blob: str
    path: bytes
    commit: str
    base: str


class Broken(msgspec.Struct):
    """What could not be compared: the commits, and whether those after them were left out too."""

    commits: list[str] = []
    gave_up: bool = False


def introductions(
    repository: Repository, commits: Sequence[str], broken: Broken, submodules: dict[bytes, str]
) -> Iterator[Introduction]:
    """Name every blob that some commits bring, in the order of the commits.

    Those that git cannot compare, for want of a tree, are added to `broken`; paths of submodules to `submodules`, each
    with the first commit that has it.
    """
    slices = [commits[first : first + _COMMITS_AT_ONCE] for first in range(0, len(commits), _COMMITS_AT_ONCE)]
    zero = repository.zero.encode()
    for part, (out, ok) in zip(slices, _ahead(lambda some: _compare(repository, some), slices), strict=True):
        yield from parse(out, zero, submodules)
        if not ok:
            yield from _mend(repository, part, out, broken, submodules)
        if broken.gave_up:
            return


def _mend(
    repository: Repository, commits: Sequence[str], out: bytes, broken: Broken, submodules: dict[bytes, str]
) -> Iterator[Introduction]:
    """Go on after the commit that git stopped at: git names a commit when it has compared it."""
    rest = commits
    ok = False
    while not ok:
        done = sum(1 for token in out.split(b"\0") if len(token) == len(repository.zero) and token[:1] != b":")
        broken.commits.extend(rest[done : done + 1])
        rest = rest[done + 1 :]
        broken.gave_up = len(broken.commits) > _BROKEN_MAX
        if not rest or broken.gave_up:
            return
        out, ok = _compare(repository, rest)
        yield from parse(out, repository.zero.encode(), submodules)


def _compare(repository: Repository, commits: Sequence[str]) -> tuple[bytes, bool]:
    ended = repository.attempt(*_COMPARE, given="\n".join([*commits, ""]).encode())
    return ended.stdout, ended.returncode == 0


def _ahead(
    work: Callable[[Sequence[str]], tuple[bytes, bool]], pieces: Sequence[Sequence[str]]
) -> Iterator[tuple[bytes, bool]]:
    """Let git work on the next pieces while one is read."""
    if len(pieces) < 2:
        yield from map(work, pieces)
        return
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(max_workers=2) as threads:
        waiting: deque[Future[tuple[bytes, bool]]] = deque()
        for piece in pieces:
            waiting.append(threads.submit(work, piece))
            if len(waiting) > 2:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def parse(out: bytes, zero: bytes, submodules: dict[bytes, str]) -> Iterator[Introduction]:
    r"""Read what `git diff-tree --raw -z` writes.

    <commit> \0
    :<mode> <mode> <name> <name> <status> \0 <path> \0                      one parent
    ::<mode>... <mode> <name>... <name> <statuses> \0 <path> \0             so many colons, so many parents
    """
    commit = ""
    tokens = iter(out.split(b"\0"))
    for token in tokens:
        if not token.startswith(b":"):
            commit = token.decode("ascii", "replace") or commit
            continue
        path = next(tokens, b"")
        words = token.split(b" ")
        parents = 1
        while words[0].startswith(b":" * (parents + 1)):
            parents += 1
        if len(words) < 2 * parents + 3:
            continue
        blob, base = words[2 * parents + 1], words[parents + 1]
        if words[parents] == _GITLINK:
            submodules.setdefault(path, commit)
        elif blob != zero:
            known = base != zero and words[0].lstrip(b":") != _GITLINK
            yield Introduction(blob.decode(), path, commit, base.decode() if known else "")
