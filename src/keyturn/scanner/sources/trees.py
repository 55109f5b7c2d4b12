"""What stands in a tree."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from keyturn.scanner.model import Notice, Problem
from keyturn.scanner.sources.repository import Repository


def blobs_of(repository: Repository, tree: str, ref: str, notices: list[Notice]) -> Iterator[tuple[bytes, str]]:
    """Yield the paths and names of the blobs of a tree that a ref names; what cannot be read is noticed."""
    ended = repository.attempt("ls-tree", "-r", "-z", "--full-tree", tree)
    if ended.returncode:
        problem = Problem.MISSING if repository.partial else Problem.CORRUPT
        notices.append(Notice(problem, ref, f"tree {tree} cannot be read to its end"))
    for entry in ended.stdout.split(b"\0"):
        described, _, path = entry.partition(b"\t")
        words = described.split(b" ")
        if len(words) == 3 and words[1] == b"blob":
            yield path, words[2].decode("ascii", "replace")


def paths_at(repository: Repository, commit: str) -> Collection[bytes] | None:
    """Return the paths of a commit; None when there is no such."""
    ended = repository.attempt("ls-tree", "-r", "-z", "--full-tree", "--name-only", commit)
    return frozenset(ended.stdout.split(b"\0")) if ended.returncode == 0 else None
