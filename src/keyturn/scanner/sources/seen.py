"""What of a history was scanned before and held nothing, so that the next scan of it is short.

A blob that held something is not passed over: it is scanned again, and its findings are found again.
Kept are digests and names of commits alone: of the paths, of which one may be a secret, nothing is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final, Protocol

import msgspec

_DIGEST_BYTES: Final = 16
_HELD: Final = b"\0" * _DIGEST_BYTES
_ENTRY_BYTES: Final = 2 * _DIGEST_BYTES


class Store(Protocol):
    """What outlives a run; `keyturn.scanner.cache.Cache` is one."""

    def read(self, name: str) -> bytes | None:
        """Return what was written under a name; None when nothing was."""
        ...

    def write(self, name: str, data: bytes) -> object:
        """Write something under a name, whole or not at all."""
        ...


class Walked(msgspec.Struct, frozen=True):
    """Commits that were followed to the root, all that they lead to was scanned; `held` brought what held something."""

    ends: frozenset[str] = frozenset()
    held: tuple[str, ...] = ()


class _Kept(msgspec.Struct, frozen=True):
    walked: Walked
    entries: bytes


class SeenBlobs:
    """What one scan after the other has seen of a repository, for one set of rules and settings.

    A blob is known by the path at which it stood and by the version that it was compared with: what held nothing in
    comparison with one may hold something in comparison with another, or as a whole.
    `digest` stands for everything that a finding depends on besides: another one knows no blob.
    """

    def __init__(self, store: Store, repository: str, digest: str) -> None:
        named = hashlib.blake2b(f"{repository}\0{digest}".encode(), digest_size=20)
        self._store = store
        self._name = f"seen-{named.hexdigest()}"
        self._bases: dict[bytes, bytes] = {}
        self.walked = Walked()
        self._load()

    def __len__(self) -> int:
        return len(self._bases)

    def knows(self, blob: str, path: str) -> bool:
        """Tell whether a blob was scanned at a path, whatever it held."""
        return _digest(blob, path) in self._bases

    def held_nothing(self, blob: str, path: str, base: str) -> bool:
        """Tell whether a blob held nothing in comparison with some version, or as a whole when there is none."""
        return self._bases.get(_digest(blob, path)) == _digest(base, "")

    def add(self, blobs: Mapping[tuple[str, str], str | None], walked: Walked) -> None:
        """Keep blobs, each with its path, and what each was compared with; None for one that held something.

        `walked` is to be empty when something of what the commits lead to may not have been scanned.
        """
        before = len(self._bases), self.walked
        self._bases |= {_digest(*one): _HELD if base is None else _digest(base, "") for one, base in blobs.items()}
        self.walked = walked
        if before != (len(self._bases), walked):
            entries = b"".join(part for pair in self._bases.items() for part in pair)
            self._store.write(self._name, msgspec.msgpack.encode(_Kept(walked, entries)))

    def _load(self) -> None:
        data = self._store.read(self._name)
        if data is None:
            return
        try:
            kept = msgspec.msgpack.decode(data, type=_Kept)
        except msgspec.MsgspecError:
            return
        self.walked = kept.walked
        entries = kept.entries
        self._bases = {
            entries[at : at + _DIGEST_BYTES]: entries[at + _DIGEST_BYTES : at + _ENTRY_BYTES]
            for at in range(0, len(entries), _ENTRY_BYTES)
        }


def _digest(blob: str, path: str) -> bytes:
    said = f"{blob}\0{path}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(said, digest_size=_DIGEST_BYTES).digest()
