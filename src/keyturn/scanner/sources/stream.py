"""Standard input, or anything else that is read once from its beginning to its end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from keyturn.scanner.model import Batch, Document, Notice, Problem

WHOLE_BYTES_MAX = 1 << 28
BINARY_BYTES_MAX = 1 << 30
PIECE_BYTES = 1 << 24
SURROUNDINGS = 1 << 17

_LOOKED_AT = 1 << 16
_ARCHIVES = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"PK\x03\x04")


class StreamSource:
    """What comes from a stream, as one document under a name.

    What is longer than `whole_bytes_max` is read in pieces, each with surroundings on both sides, when it is text; of
    what is no text, such as an archive, `binary_bytes_max` bytes are read and the rest is noticed.
    The stream can be read once, and by one process.
    """

    def __init__(
        self,
        stream: BinaryIO,
        name: str = "-",
        *,
        whole_bytes_max: int = WHOLE_BYTES_MAX,
        binary_bytes_max: int = BINARY_BYTES_MAX,
        piece_bytes: int = PIECE_BYTES,
        surroundings: int = SURROUNDINGS,
    ) -> None:
        self._stream = stream
        self._name = name
        self._whole_bytes_max = whole_bytes_max
        self._binary_bytes_max = binary_bytes_max
        self._piece_bytes = piece_bytes
        self._surroundings = surroundings

    def batches(self) -> Iterator[Batch | Notice]:
        """Name the stream."""
        yield (self._name,)

    def documents(self, batch: Batch) -> Iterator[Document | Notice]:
        """Read the stream to its end."""
        del batch
        try:
            data = self._stream.read(self._whole_bytes_max + 1)
            if len(data) <= self._whole_bytes_max:
                yield Document(data, self._name)
            elif b"\0" in data[:_LOOKED_AT] or data.startswith(_ARCHIVES):
                yield from self._binary(data)
            else:
                yield from self._pieces(data)
        except OSError as failed:
            yield Notice(Problem.UNREADABLE, self._name, (failed.strerror or "cannot be read").lower())

    def _binary(self, data: bytes) -> Iterator[Document | Notice]:
        data += self._stream.read(max(0, self._binary_bytes_max + 1 - len(data)))
        yield Document(data[: self._binary_bytes_max], self._name)
        if len(data) > self._binary_bytes_max:
            yield Notice(Problem.BOUND, self._name, f"no more than {self._binary_bytes_max} bytes were read")

    def _pieces(self, data: bytes) -> Iterator[Document]:
        lead, line = 0, 1
        while True:
            wanted = lead + self._piece_bytes + self._surroundings - len(data)
            if wanted > 0:
                data += self._stream.read(wanted)
            end = lead + self._piece_bytes
            last = len(data) <= end
            shown = data[: end + self._surroundings]
            tail = 0 if last else len(shown) - end
            yield Document(shown, self._name, first_line=line, lead=lead, tail=tail)
            if last:
                return
            kept = max(0, end - self._surroundings)
            line += data.count(b"\n", 0, kept)
            data, lead = data[kept:], end - kept
