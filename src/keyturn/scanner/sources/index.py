"""What is staged for the next commit, and the files of a work tree that git knows or would add."""

from __future__ import annotations

import os
from collections.abc import Iterator

from keyturn.errors import InputError
from keyturn.scanner.model import Batch, Context, Document, Notice, Problem
from keyturn.scanner.sources.attribution import parse
from keyturn.scanner.sources.blobs import BLOB_BYTES_MAX, Blob, BlobDocuments, Part, batches_of
from keyturn.scanner.sources.names import readable
from keyturn.scanner.sources.reading import Bounds, read_file
from keyturn.scanner.sources.repository import Repository

_BATCH_FILES = 500
_COMPARE = ("diff-index", "--cached", "--raw", "-z", "--no-renames", "--no-abbrev", "--no-ext-diff")


class StagedSource:
    """What the next commit would bring: every staged blob whole, with the lines that HEAD's version does not have."""

    def __init__(self, repository: Repository, *, bytes_max: int = BLOB_BYTES_MAX) -> None:
        self._repository = repository
        self._reading = BlobDocuments(repository, bytes_max=bytes_max)

    def batches(self) -> Iterator[Batch | Notice]:
        """Name every staged blob; before the first commit, that is all there is in the index."""
        repository = self._repository
        ended = repository.attempt(*_COMPARE, "HEAD", "--")
        out = ended.stdout if ended.returncode == 0 else repository.run(*_COMPARE, repository.empty_tree, "--")
        submodules: dict[bytes, str] = {}
        blobs = [
            Blob(one.blob, readable(one.path), base=one.base, part=Part.LINES, contexts=Context.STAGED.value)
            for one in parse(out, repository.zero.encode(), submodules)
        ]
        for path in sorted(submodules):
            yield Notice(Problem.MISSING, readable(path), "a submodule: its own repository is to be scanned by itself")
        yield from batches_of([(blob, 0) for blob in blobs])

    def documents(self, batch: Batch) -> Iterator[Document | Notice]:
        """Read the blobs of a batch."""
        return self._reading.documents(batch)

    def close(self) -> None:
        """End the git of this process, and remove the private directory."""
        self._reading.close()
        self._repository.close()


class WorkTreeSource:
    """The files of a work tree as they are now: those that git tracks, and those that it does not and would not ignore.

    A file that is tracked and deleted is left out; nothing outside of the work tree is read.
    """

    def __init__(self, repository: Repository, *, bytes_max: int = 0) -> None:
        self._repository = repository
        self._folder = os.fsencode(repository.folder)
        self._bounds = Bounds(bytes_max=bytes_max)
        self._inside: dict[bytes, bool] = {}

    def batches(self) -> Iterator[Batch | Notice]:
        """Name every file; raises `InputError` for a bare repository and `GitError` for an index that is broken."""
        if not self._folder:
            raise InputError("a bare repository has no work tree", hint="scan its history")
        out = self._repository.run("ls-files", "-z", "--cached", "--others", "--exclude-standard", in_folder=True)
        paths = [path for path in dict.fromkeys(out.split(b"\0")) if path]
        for first in range(0, len(paths), _BATCH_FILES):
            yield tuple(paths[first : first + _BATCH_FILES])

    def documents(self, batch: Batch) -> Iterator[Document | Notice]:
        """Read the files of a batch."""
        for path in batch:
            if isinstance(path, bytes):
                yield from self._read(path)

    def close(self) -> None:
        """Remove the private directory."""
        self._repository.close()

    def _read(self, path: bytes) -> Iterator[Document | Notice]:
        full = os.path.join(self._folder, path)
        if not self._is_inside(os.path.dirname(full)):
            yield Notice(Problem.SKIPPED, readable(path), "behind a symbolic link, or outside of the work tree")
        elif os.path.isdir(full) and not os.path.islink(full):
            detail = "a repository in this one: it is to be scanned by itself"
            yield Notice(Problem.MISSING, readable(path), detail)
        elif os.path.lexists(full):
            yield from read_file(full, readable(path), self._bounds)

    def _is_inside(self, folder: bytes) -> bool:
        """Tell whether a folder is reached without links: an index may hold a path that git would not write."""
        known = self._inside.get(folder)
        if known is None:
            real = os.path.realpath(folder)
            known = real == folder or not os.path.exists(folder)
            known = known and (real + b"/").startswith(os.path.join(self._folder, b""))
            self._inside[folder] = known
        return known
