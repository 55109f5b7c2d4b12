"""The history of a repository, a range of it, and what is being pushed: every blob, and who brought it.

A blob is read with the first commit that had it, once for each path at which it stood: whether it is a finding, and
whether that may stand, depends on the path too.  The versions of one path follow each other, oldest first,
so that git unpacks them fast, and so that only what is new in each has to be scanned (see `trimming`).
What the commits and tags say is scanned too (see `messages`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from keyturn.scanner.model import Batch, Context, Document, Notice, Problem
from keyturn.scanner.sources.attribution import Broken, Introduction, introductions
from keyturn.scanner.sources.blobs import BLOB_BYTES_MAX, Blob, BlobDocuments, Part, batches_of
from keyturn.scanner.sources.commits import (
    Commits,
    commits_in,
    commits_of,
    commits_since,
    every_commit,
    every_ref,
    named_by_refs,
    resolve,
)
from keyturn.scanner.sources.messages import messages, names_batch, names_document
from keyturn.scanner.sources.names import readable
from keyturn.scanner.sources.objects import every_object, sizes
from keyturn.scanner.sources.repository import Repository, refuse_what_waits
from keyturn.scanner.sources.seen import SeenBlobs, Walked
from keyturn.scanner.sources.trees import blobs_of, paths_at

if TYPE_CHECKING:
    from keyturn.scanner.sources.trimming import Far


@dataclass(slots=True)
class _Found:
    """What the commits brought, by blob, and what is to be said of it; `further` is the same at other paths."""

    first: dict[str, Introduction]
    further: dict[tuple[str, bytes], Introduction]
    broken: Broken
    submodules: dict[bytes, str]
    notices: list[Notice]


class _CommitSource:
    """What the sources of commits share: from commits to blobs to batches to documents."""

    part = Part.LINES
    sweeps = False
    of_submodules = Problem.MISSING

    def __init__(
        self,
        repository: Repository,
        *,
        context: int = 0,
        far: Far | None = None,
        bytes_max: int = BLOB_BYTES_MAX,
    ) -> None:
        self._repository = repository
        self._reading = BlobDocuments(repository, context=context, far=far, bytes_max=bytes_max)
        self._seen: SeenBlobs | None = None
        self._planned: list[Blob] = []
        self._followed: Commits | None = None
        self._with_submodules: Collection[str] = ()

    def documents(self, batch: Batch) -> Iterator[Document | Notice]:
        """Read the blobs of a batch."""
        names = names_document(batch)
        return self._reading.documents(batch) if names is None else iter([names])

    def close(self) -> None:
        """End the git of this process, and remove the private directory."""
        self._reading.close()
        self._repository.close()

    def _batches(self, commits: Commits, tip: str, refs: Iterable[str] = ()) -> Iterator[Batch | Notice]:
        yield from commits.notices
        names = names_batch(refs)
        if names:
            yield names
        found = _introduced(self._repository, commits)
        yield from self._notices(found)
        blobs = self._blobs(found, commits, paths_at(self._repository, tip))
        blobs.extend(messages(self._repository, commits, stray=self.sweeps))
        if self.sweeps or not commits.whole or found.broken.commits:
            blobs.extend(_strays(self._repository, found.first.keys()))
        elif not (commits.notices or commits.blobs or commits.trees):
            self._followed = commits
        seen = self._seen
        if seen is not None:
            self._with_submodules = frozenset(found.submodules.values())
            wanted = [one for one in blobs if not seen.held_nothing(one.name, one.path, one.base)]
        else:
            wanted = blobs
        sized = sizes(self._repository, [one.name for one in wanted])
        if self._repository.partial:
            absent = {one.name for one in wanted if one.name not in sized}
            wanted = [one for one in wanted if one.name not in absent]
            blobs = [one for one in blobs if one.name not in absent]
            if absent:
                yield Notice(Problem.MISSING, "", f"{len(absent)} blobs are not in this partial clone")
        self._planned = blobs
        yield from batches_of([(blob, sized.get(blob.name, ("", 0))[1]) for blob in wanted])

    def _blobs(self, found: _Found, commits: Commits, present: Collection[bytes] | None) -> list[Blob]:
        times = commits.times
        by_path: dict[bytes, list[Introduction]] = {}
        for one in (*found.first.values(), *found.further.values()):
            by_path.setdefault(one.path, []).append(one)
        blobs = []
        for path, versions in by_path.items():
            shown = readable(path)
            contexts = Context.HISTORY.value
            if present is not None and path not in present:
                contexts += f",{Context.DELETED.value}"
            for one in versions:
                base = self._base(one, found)
                if not base and commits.resumed and self._seen is not None and self._seen.knows(one.base, shown):
                    base = one.base
                part = self.part if base else Part.WHOLE
                blobs.append(Blob(one.blob, shown, one.commit, times.get(one.commit, ""), base, part, contexts))
        return blobs

    def _base(self, one: Introduction, found: _Found) -> str:
        """Return the version that is compared with: for a scan of a part, one that is scanned itself, at this path."""
        if self.part is Part.LINES:
            return one.base
        base = found.first.get(one.base)
        at_path = base is not None and (base.path == one.path or (one.base, one.path) in found.further)
        return one.base if at_path else ""

    def _notices(self, found: _Found) -> Iterator[Notice]:
        yield from found.notices
        for path in sorted(found.submodules):
            detail = "a submodule: its own repository is to be scanned by itself"
            yield Notice(self.of_submodules, readable(path), detail)
        problem = Problem.MISSING if self._repository.partial else Problem.CORRUPT
        for commit in found.broken.commits:
            detail = f"commit {commit} lacks a tree: what it brought is scanned without path and commit"
            yield Notice(problem, "", detail)
        if found.broken.gave_up:
            yield Notice(problem, "", "too many commits lack a tree: the rest is scanned without path and commit")


class HistorySource(_CommitSource):
    """Every blob of a history: of every ref, or of some.

    `stash` adds what is stashed, older stashes too; `unreachable` what no ref leads to any more.
    `context` is how much surrounds what is new in a version, see `trimming.surroundings`; 0 scans every version whole.
    With `far` it is less where that does not match, see `trimming.reaching_far`.
    `seen` leaves out what held nothing the last time; `finished` has to be told what held something this time.
    """

    part = Part.STRETCHES

    def __init__(
        self,
        repository: Repository,
        refs: Sequence[str] = (),
        *,
        stash: bool = False,
        unreachable: bool = False,
        seen: SeenBlobs | None = None,
        context: int = 0,
        far: Far | None = None,
        bytes_max: int = BLOB_BYTES_MAX,
    ) -> None:
        super().__init__(repository, context=context, far=far, bytes_max=bytes_max)
        self._refs = tuple(refs)
        self._stash = stash
        self.sweeps = unreachable
        self._seen = seen
        if not context:
            self.part = Part.WHOLE

    def batches(self) -> Iterator[Batch | Notice]:
        """Name every blob; raises `InputError` for a ref that there is not."""
        repository = self._repository
        refuse_what_waits(repository)
        if repository.shallow:
            yield Notice(Problem.MISSING, "", "the clone is shallow: what is before its first commits is not here")
        notices: list[Notice] = []
        if self._refs:
            tips = {resolve(repository, ref): ref for ref in self._refs}
        else:
            tips = named_by_refs(repository, notices, stash=self._stash)
        yield from notices
        commits = None
        if self._seen is not None and not (self.sweeps or repository.shallow or repository.partial):
            commits = commits_since(repository, tips, self._seen.walked)
        commits = commits or commits_of(repository, tips)
        if self.sweeps:
            _join(commits, every_commit(repository))
        tip = resolve(repository, self._refs[0]) if self._refs else "HEAD"
        yield from self._batches(commits, tip, self._refs or every_ref(repository))

    def finished(self, holding: Collection[str], troubled: Iterable[str] = ()) -> None:
        """Keep the blobs that held nothing, for the next scan; only to be called when all was scanned.

        `troubled` are paths of which something is to be told, and is to be told the next time too: their blobs count as
        holding something.
        """
        if self._seen is None:
            return
        again = {start for path in troubled for start in _starts(path)}
        bases: dict[tuple[str, str], str | None] = {}
        held = set(self._with_submodules)
        for one in self._planned:
            holds = one.name in holding or one.path in again
            bases[one.name, one.path] = None if holds else one.base
            if holds:
                held.add(one.commit)
        followed = self._followed
        if followed is None or self._repository.shallow or self._repository.partial:
            self._seen.add(bases, Walked())
        else:
            self._seen.add(bases, Walked(followed.ends, tuple(name for name in followed.names if name in held)))


class RangeSource(_CommitSource):
    """What a range of commits, such as `main..feature`, brings: in each blob, the lines that are new."""

    def __init__(self, repository: Repository, revisions: str, *, bytes_max: int = BLOB_BYTES_MAX) -> None:
        super().__init__(repository, bytes_max=bytes_max)
        self._revisions = revisions

    def batches(self) -> Iterator[Batch | Notice]:
        """Name every blob of the range; raises `InputError` when it is none."""
        if self._repository.shallow:
            yield Notice(Problem.MISSING, "", "the clone is shallow: commits of the range may not be here")
        commits = commits_in(self._repository, self._revisions)
        yield from self._batches(commits, commits.names[-1] if commits.names else "HEAD")


class PushSource(_CommitSource):
    """What a push would bring: what the new objects lead to and what is `known` does not.

    For a `pre-receive` hook that is what no ref leads to, and the repository has to be opened with the hook's
    environment, which names the quarantine; for `pre-push` it is what no ref of the remote leads to.
    `refs` are the names that it gives to what is new.
    What a submodule holds is not a part of the push, so it is not missing from it.
    """

    of_submodules = Problem.SKIPPED

    def __init__(
        self,
        repository: Repository,
        new: Sequence[str],
        *,
        known: Sequence[str] = ("--all",),
        refs: Sequence[str] = (),
        bytes_max: int = BLOB_BYTES_MAX,
    ) -> None:
        super().__init__(repository, bytes_max=bytes_max)
        self._refs = tuple(refs)
        self._new = tuple(name for name in new if name.strip("0"))
        self._known = tuple(known)

    def batches(self) -> Iterator[Batch | Notice]:
        """Name every blob that is new."""
        commits = commits_of(self._repository, {name: name for name in self._new}, self._known)
        yield from self._batches(commits, commits.names[-1] if commits.names else "HEAD", self._refs)


def _introduced(repository: Repository, commits: Commits) -> _Found:
    found = _Found({}, {}, Broken(), {}, [])
    for one in introductions(repository, commits.names, found.broken, found.submodules):
        if found.first.setdefault(one.blob, one).path != one.path:
            found.further.setdefault((one.blob, one.path), one)
    for blob, ref in commits.blobs:
        found.first.setdefault(blob, Introduction(blob, ref.encode(), "", ""))
    for tree, ref in commits.trees:
        for path, blob in blobs_of(repository, tree, ref, found.notices):
            found.first.setdefault(blob, Introduction(blob, path, "", ""))
    return found


def _starts(path: str) -> Iterator[str]:
    """Yield a path, and every path that it may be a member of."""
    parts = path.split("!")
    return ("!".join(parts[:count]) for count in range(1, len(parts) + 1))


def _strays(repository: Repository, known: Collection[str]) -> Iterator[Blob]:
    """Return the blobs that no commit was found for."""
    for name, kind, _ in every_object(repository):
        if kind == "blob" and name not in known:
            yield Blob(name, f"objects/{name}", contexts=Context.HISTORY.value)


def _join(commits: Commits, others: Commits) -> None:
    """Add what is in `others` alone, in its order; what a ref leads to stays first, and is what it is attributed to."""
    for name in others.names:
        if name not in commits.times:
            commits.names.append(name)
            commits.times[name] = others.times[name]
    commits.notices.extend(_new(others.notices, commits.notices))
    commits.whole = commits.whole and others.whole


def _new(notices: Iterable[Notice], known: Collection[Notice]) -> list[Notice]:
    return [notice for notice in notices if notice not in known]
