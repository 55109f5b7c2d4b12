"""Which blobs were scanned before and held nothing, so that the next scan of a history is short.

A blob that held something is not among them: it is scanned again, and its findings are found again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

_FORMAT = b"keyturn seen blobs 2\n"


class Store(Protocol):
    """What outlives a run; `keyturn.scanner.cache.Cache` is one."""

    def read(self, name: str) -> bytes | None:
        """Return what was written under a name; None when nothing was."""
        ...

    def write(self, name: str, data: bytes) -> object:
        """Write something under a name, whole or not at all."""
        ...


class SeenBlobs:
    """The names of the blobs of one repository that held nothing, for one set of rules and settings.

    A name is that of a blob at a path, as its source makes it.
    `digest` stands for everything that a finding depends on besides the blob: another one knows no blob.
    """

    def __init__(self, store: Store, repository: str, digest: str) -> None:
        import hashlib

        named = hashlib.blake2b(f"{repository}\0{digest}".encode(), digest_size=20)
        self._store = store
        self._name = f"seen-{named.hexdigest()}"
        self._clean = self._load()

    def __contains__(self, blob: str) -> bool:
        return blob in self._clean

    def __len__(self) -> int:
        return len(self._clean)

    def add(self, blobs: Iterable[str]) -> None:
        """Keep the names of blobs that were scanned whole and held nothing."""
        grown = self._clean | frozenset(blobs)
        if len(grown) > len(self._clean):
            self._clean = grown
            self._store.write(self._name, _FORMAT + "\n".join(sorted(grown)).encode())

    def _load(self) -> frozenset[str]:
        data = self._store.read(self._name)
        if data is None or not data.startswith(_FORMAT):
            return frozenset()
        return frozenset(data[len(_FORMAT) :].decode("ascii", "replace").split())
