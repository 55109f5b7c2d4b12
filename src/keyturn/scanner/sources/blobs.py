"""Blobs as documents: a batch names blobs, and says what is known of each."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import NamedTuple, cast

from keyturn.scanner.model import Batch, Bytes, Context, Document, Notice, Problem
from keyturn.scanner.sources.objects import ObjectReader, Read
from keyturn.scanner.sources.repository import Repository
from keyturn.scanner.sources.trimming import NEAR, Far, Stretch, holds_block, new_lines, new_stretches

BLOB_BYTES_MAX = 1 << 29
_BATCH_BYTES = 12 << 20
_BYTES_OF_OVERHEAD = 2048
_BASE_BYTES_MAX = 1 << 26


class Part(StrEnum):
    """Which part of a blob is new, and what becomes of the rest."""

    WHOLE = ""
    STRETCHES = "stretches"
    """The rest was scanned, in its earlier version, and is not scanned again."""
    LINES = "lines"
    """The rest was there before; what touches no line that is new is not reported."""


class Blob(NamedTuple):
    """One blob of a batch; `base` is the blob that its new part is told from, `contexts` are joined by commas."""

    name: str
    path: str
    commit: str = ""
    committed_at: str = ""
    base: str = ""
    part: str = Part.WHOLE
    contexts: str = ""


def batches_of(blobs: Sequence[tuple[Blob, int]]) -> Iterator[Batch]:
    """Divide blobs, each with its size, into batches of similar cost, in their order."""
    batch: list[Blob] = []
    cost = 0
    for blob, size in blobs:
        batch.append(blob)
        cost += size + _BYTES_OF_OVERHEAD
        if cost >= _BATCH_BYTES:
            yield tuple(batch)
            batch, cost = [], 0
    if batch:
        yield tuple(batch)


class BlobDocuments:
    """Reads the blobs of batches; every process that does opens a git of its own, and keeps it."""

    def __init__(
        self,
        repository: Repository,
        *,
        context: int = 0,
        far: Far | None = None,
        bytes_max: int = BLOB_BYTES_MAX,
    ) -> None:
        self._repository = repository
        self._context = context
        self._far = far
        self._bytes_max = bytes_max
        self._readers: dict[int, ObjectReader] = {}
        self._contexts: dict[str, frozenset[Context]] = {"": frozenset()}
        self._blocks: dict[str, bool] = {}
        self._reaching: dict[str, bool] = {}
        self._finalizer = weakref.finalize(self, _close, self._readers)

    def documents(self, batch: Batch) -> Iterator[Document | Notice]:
        """Read the blobs of a batch in their order."""
        blobs = [Blob(*cast("tuple[str, ...]", one)) for one in batch]
        self._blocks.clear()
        self._reaching.clear()
        needed: dict[str, int] = {}
        for blob in blobs:
            if blob.base:
                needed[blob.base] = needed.get(blob.base, 0) + 1
        kept: dict[str, bytes] = {}
        reads = self._reader().read(_order(blobs))
        for blob in blobs:
            if blob.base and blob.base not in kept:
                base = next(reads)
                kept[blob.base] = base.data if base.data is not None and base.size <= _BASE_BYTES_MAX else b""
            read = next(reads)
            if blob.name in needed:
                kept[blob.name] = read.data or b""
            yield from self._of_one(blob, read, kept.get(blob.base, b""))
            if blob.base:
                needed[blob.base] -= 1
                if not needed[blob.base]:
                    del needed[blob.base], kept[blob.base]

    def close(self) -> None:
        """End the git of this process."""
        _close(self._readers)

    def _reader(self) -> ObjectReader:
        process = os.getpid()
        if process not in self._readers:
            self._readers[process] = ObjectReader(self._repository, bytes_max=self._bytes_max)
        return self._readers[process]

    def _of_one(self, blob: Blob, read: Read, base: bytes) -> Iterator[Document | Notice]:
        data = read.data
        if data is None:
            yield self._notice(blob, read)
        elif blob.part == Part.STRETCHES and base:
            stretches = self._stretches(blob, data, base)
            if stretches is None:
                yield self._document(blob, data)
                return
            view = memoryview(data)
            for start, end in stretches:
                yield self._document(blob, data[start:end], before=view[:start])
        elif blob.part == Part.LINES and base and b"\0" not in data:
            lines = new_lines(base, data)
            if lines:
                yield self._document(blob, data, lines=lines)
        else:
            yield self._document(blob, data)

    def _stretches(self, blob: Blob, data: bytes, base: bytes) -> list[Stretch] | None:
        """Find what is new; that no block begins in a version is known from what was new in it and from its base."""
        if self._far is not None and len(data) > 2 * NEAR and not self._reaches(self._far, blob, base):
            near = self._stretches_within(blob, data, base, NEAR)
            if near is None:
                return None
            reaching = any(self._far.within(data, start, end) for start, end in near)
            self._reaching[blob.name] = reaching
            if not reaching:
                return near
        return self._stretches_within(blob, data, base, self._context) if self._context else None

    def _reaches(self, far: Far, blob: Blob, base: bytes) -> bool:
        """Tell whether something in the earlier version may reach far; if so, it may in this one."""
        reaching = self._reaching.get(blob.base)
        if reaching is None:
            reaching = self._reaching[blob.base] = far.applies(blob.path) or far.within(base, 0, len(base))
        if reaching:
            self._reaching[blob.name] = True
        return reaching

    def _stretches_within(self, blob: Blob, data: bytes, base: bytes, context: int) -> list[Stretch] | None:
        if len(data) <= 2 * context:
            return None
        blocks = self._blocks.get(blob.base)
        if blocks is None:
            blocks = self._blocks[blob.base] = holds_block(base)
        stretches = new_stretches(base, data, blob.path, context, blocks=blocks)
        if stretches is not None:
            self._blocks[blob.name] = blocks or any(holds_block(data[start:end]) for start, end in stretches)
        return stretches

    def _document(self, blob: Blob, data: bytes, *, before: Bytes = b"", lines: tuple[Stretch, ...] = ()) -> Document:
        contexts = self._contexts.get(blob.contexts)
        if contexts is None:
            contexts = frozenset(Context(name) for name in blob.contexts.split(","))
            self._contexts[blob.contexts] = contexts
        return Document(
            data=data,
            path=blob.path,
            blob=blob.name,
            commit=blob.commit,
            committed_at=float(blob.committed_at) if blob.committed_at else None,
            contexts=contexts,
            lines=lines,
            before=before,
        )

    def _notice(self, blob: Blob, read: Read) -> Notice:
        if read.why == "big":
            detail = f"blob {blob.name} has {read.size} bytes, of which no more than {self._bytes_max} are read"
            return Notice(Problem.BOUND, blob.path, detail)
        if read.why == "missing" and self._repository.partial:
            return Notice(Problem.MISSING, blob.path, f"blob {blob.name} is not in this partial clone")
        return Notice(Problem.CORRUPT, blob.path, f"blob {blob.name} is {read.why}")


def _order(blobs: Sequence[Blob]) -> list[str]:
    """Return what has to be read: each blob, and before it its base when no blob before was that."""
    order: list[str] = []
    uses: dict[str, int] = {}
    for blob in blobs:
        if blob.base:
            uses[blob.base] = uses.get(blob.base, 0) + 1
    there: set[str] = set()
    for blob in blobs:
        if blob.base and blob.base not in there:
            order.append(blob.base)
            there.add(blob.base)
        order.append(blob.name)
        if blob.name in uses:
            there.add(blob.name)
        if blob.base:
            uses[blob.base] -= 1
            if not uses[blob.base]:
                there.discard(blob.base)
                del uses[blob.base]
    return order


def _close(readers: dict[int, ObjectReader]) -> None:
    reader = readers.pop(os.getpid(), None)
    if reader is not None:
        reader.close()
