"""Folders and files of the system."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from fnmatch import translate

from keyturn.errors import InputError
from keyturn.scanner.model import Batch, Document, Notice, Problem
from keyturn.scanner.sources.names import readable
from keyturn.scanner.sources.reading import Bounds, read_file

_BATCH_BYTES = 4 << 20
_BATCH_FILES = 500
_BYTES_OF_OVERHEAD = 4096


class FolderSource:
    """Every regular file in some folders, and files that are named themselves; `.git` is left out.

    Symbolic links are noticed and not followed, unless `follow_links`; then no folder is entered twice.  A path that
    was given is followed, and is an error when it cannot be read: it was asked for.  A file is read once, however many
    of the paths lead to it; one with several names (hard links) is read under each.
    `exclude` are patterns as of a shell: one without `/` is for any name on the way to a file, one with a `/` for the
    path from the folder on; `*` stands for any characters, `/` too.  A folder that is excluded is not entered.
    `bytes_max` leaves out bigger files, with a notice.
    A path in a document is relative to the folder; with several paths, it begins with the one that was given.
    """

    def __init__(
        self,
        paths: Sequence[str],
        *,
        follow_links: bool = False,
        exclude: Sequence[str] = (),
        bytes_max: int = 0,
    ) -> None:
        self._paths = tuple(os.fsencode(path) for path in paths)
        self._bounds = Bounds(bytes_max=bytes_max, follow_links=follow_links)
        self._bounds_of_given = Bounds(bytes_max=bytes_max, follow_links=True, given=True)
        self._follow = follow_links
        self._excluded = _compiled(exclude)
        self._seen: set[bytes] = set()
        self._entered: set[tuple[int, int]] = set()

    def batches(self) -> Iterator[Batch | Notice]:
        """Name every file; raises `InputError` for a path that is not there."""
        for path in self._paths:
            if not os.path.lexists(path):
                raise InputError(f"{readable(path)} is not there", field="paths")
        self._seen.clear()
        self._entered.clear()
        for number, path in enumerate(self._paths):
            yield from self._batches_of(str(number), path)

    def documents(self, batch: Batch) -> Iterator[Document | Notice]:
        """Read the files of a batch."""
        root = self._paths[int(batch[0])] if isinstance(batch[0], str) else b""
        prefix = self._prefix(root)
        for path in batch[1:]:
            if isinstance(path, bytes):
                bounds = self._bounds_of_given if path == root else self._bounds
                yield from read_file(path, readable(path[prefix:]), bounds)

    def _prefix(self, root: bytes) -> int:
        if len(self._paths) > 1 or not os.path.isdir(root):
            return 2 if root.startswith(b"./") else 0
        return len(os.path.join(root, b""))

    def _batches_of(self, number: str, root: bytes) -> Iterator[Batch | Notice]:
        batch: list[str | bytes] = [number]
        cost = 0
        for found in self._walk(root):
            if isinstance(found, Notice):
                yield found
                continue
            path, size = found
            batch.append(path)
            cost += size + _BYTES_OF_OVERHEAD
            if cost >= _BATCH_BYTES or len(batch) > _BATCH_FILES:
                yield tuple(batch)
                batch, cost = [number], 0
        if len(batch) > 1:
            yield tuple(batch)

    def _walk(self, root: bytes) -> Iterator[tuple[bytes, int] | Notice]:
        if not os.path.isdir(root):
            if self._is_first(root):
                yield root, 0
            return
        prefix = self._prefix(root)
        begun = len(os.path.join(root, b""))
        folders = [root]
        while folders:
            folder = folders.pop()
            if not self._enter(folder):
                continue
            try:
                with os.scandir(folder) as listing:
                    entries = sorted(listing, key=_name)
            except OSError as failed:
                yield Notice(Problem.UNREADABLE, readable(folder[prefix:]) or ".", (failed.strerror or "").lower())
                continue
            inner: list[bytes] = []
            yield from self._sort_out(entries, inner, prefix, begun)
            folders.extend(reversed(inner))

    def _sort_out(
        self, entries: Sequence[os.DirEntry[bytes]], inner: list[bytes], prefix: int, begun: int
    ) -> Iterator[tuple[bytes, int] | Notice]:
        for entry in entries:
            path = entry.path
            if self._excluded is not None and self._excluded.search(os.fsdecode(b"/" + path[begun:])):
                continue
            if entry.is_symlink() and not self._follow:
                yield Notice(Problem.SKIPPED, readable(path[prefix:]), "a symbolic link")
            elif self._is_folder(entry):
                if entry.name != b".git":
                    inner.append(path)
            elif self._is_first(path):
                yield path, _size(entry)

    def _is_folder(self, entry: os.DirEntry[bytes]) -> bool:
        try:
            return entry.is_dir(follow_symlinks=self._follow)
        except OSError:
            return False  # a link to itself: reading it fails too, and says so

    def _enter(self, folder: bytes) -> bool:
        if not self._follow and len(self._paths) == 1:
            return True
        try:
            status = os.stat(folder)
        except OSError:
            return True  # listing it fails too, and says so
        known = (status.st_dev, status.st_ino) in self._entered
        self._entered.add((status.st_dev, status.st_ino))
        return not known

    def _is_first(self, path: bytes) -> bool:
        if len(self._paths) == 1 and not self._follow:
            return True
        real = os.path.realpath(path)
        known = real in self._seen
        self._seen.add(real)
        return not known


def _name(entry: os.DirEntry[bytes]) -> bytes:
    return entry.name


def _size(entry: os.DirEntry[bytes]) -> int:
    try:
        return entry.stat().st_size
    except OSError:
        return 0  # reading it fails too, and says so


def _compiled(patterns: Sequence[str]) -> re.Pattern[str] | None:
    parts = []
    for pattern in patterns:
        body = translate(pattern.strip("/")).removesuffix(r"\Z").removesuffix(r"\z")
        parts.append(f"^/{body}(?:/|$)" if "/" in pattern.rstrip("/") else f"/{_within_a_name(body)}(?:/|$)")
    return re.compile("|".join(parts), re.DOTALL) if parts else None


def _within_a_name(body: str) -> str:
    return body.replace(".*", "[^/]*")
