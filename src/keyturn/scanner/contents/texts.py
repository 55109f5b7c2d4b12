"""The texts of what is no archive: as it is, or the views of it in which a key can be seen."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from msgspec import structs

from keyturn.scanner.contents import binaries, logs, scripts
from keyturn.scanner.contents.image import config_texts, is_config
from keyturn.scanner.contents.names import shown
from keyturn.scanner.contents.recognition import Form
from keyturn.scanner.contents.stream import CHUNK
from keyturn.scanner.contents.wide import encoding_of, narrowed
from keyturn.scanner.model import Context, Document

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from keyturn.scanner.contents.budget import Budget
    from keyturn.scanner.contents.compression import Compression
    from keyturn.scanner.contents.stream import Stream
    from keyturn.scanner.model import Bytes

_BINARY: Final = frozenset({Context.BINARY})
_LOG: Final = frozenset({Context.CI_LOG})
_MAP: Final = frozenset({Context.SOURCE_MAP})
_BUNDLE: Final = frozenset({Context.CLIENT_BUNDLE})
_CONFIG: Final = frozenset({Context.IMAGE_CONFIG})
_RESERVE: Final = 64 << 10
_ESCAPE: Final = re.compile(b"\x1b")
_JOIN_MOST: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class Where:
    """The way from the root document to a text, what is known of the place, and the innermost file's name.

    `lines` are those of the root document that are new, as long as the lines are the same.
    """

    members: tuple[str, ...]
    contexts: frozenset[Context]
    name: str
    lines: tuple[tuple[int, int], ...] = ()


class Texts:
    """Makes documents of what stands in one root document."""

    def __init__(self, root: Document, budget: Budget) -> None:
        self._root = root
        self._budget = budget

    def read(self, stream: Stream, where: Where, form: Form | Compression, head: bytes) -> Iterator[Document]:
        """Give the texts of a stream: at once when it is small, else in pieces."""
        rest = stream.rest
        if rest is not None and form is Form.TEXT and not where.members and rest.nbytes == len(self._root.data):
            data: Bytes = self._root.data
        else:
            data = stream.read(self._budget.piece + 1)
        if len(data) > self._budget.piece and not (data is self._root.data and not _is_log(data, head)):
            step = min(CHUNK, self._budget.piece)
            chunks = stream.chunks(step) if data is self._root.data else _chain(bytes(data), stream, step)
            yield from self._large(chunks, where, form, head)
        elif form is Form.WIDE_TEXT:
            text = b"".join(narrowed([bytes(data)], encoding_of(head)))
            yield from self._text(text, where, text[: len(head)])
        elif form is Form.BINARY:
            yield from self._binary(bytes(data), where, head)
        else:
            yield from self._text(data, where, head)

    def wide(self, data: Bytes, where: Where) -> Iterator[Document]:
        """Give the strings of two bytes a character, of what is a text otherwise."""
        text = binaries.wide_strings(data)
        if text:
            yield self._document(text, replace(where, contexts=where.contexts | _BINARY, lines=()))

    def _binary(self, data: bytes, where: Where, head: bytes) -> Iterator[Document]:
        if binaries.is_compiled_python(head):
            text = binaries.strings_of_python(data)
        elif binaries.is_java_class(head):
            text = binaries.strings_of_java(data)
        elif binaries.is_media(head) and len(data) > 2 * binaries.MEDIA_EDGE:
            text = binaries.strings(data[: binaries.MEDIA_EDGE] + b"\0" + data[-binaries.MEDIA_EDGE :])
        else:
            text = b"".join(_strings(_cut(data)))
        # One without strings is a document too: its name may tell that it is a key.
        yield self._document(text, replace(where, contexts=where.contexts | _BINARY, lines=()))

    def _text(self, data: Bytes, where: Where, head: bytes) -> Iterator[Document]:
        if scripts.is_client_bundle(where.name if where.members else self._root.path, head):
            where = replace(where, contexts=where.contexts | _BUNDLE)
        if head[:1] in {b"{", b")"} and len(data) <= scripts.MOST:
            views = self._structured(bytes(data), where, head)
            if views is not None:
                yield from views
                return
        if _is_log(data, head):
            yield from self._log(bytes(data), where, head)
            return
        yield self._document(data, where)

    def _structured(self, data: bytes, where: Where, head: bytes) -> Iterable[Document] | None:
        if scripts.is_source_map(where.name, head):
            sources = scripts.sources_of(data)
            return None if sources is None else self._sources(sources, where)
        if where.name.endswith(".ipynb"):
            cells = scripts.cells_of(data)
            return None if cells is None else [self._document(cells, where)]
        if is_config(data):
            return self._config(data, where)
        return None

    def _sources(self, sources: list[tuple[str, bytes]], where: Where) -> Iterator[Document]:
        for name, text in sources:
            members = (*where.members, shown(name.encode("utf-8", "replace"))) if name else where.members
            yield self._document(text, replace(where, members=members, contexts=where.contexts | _MAP, lines=()))

    def _config(self, data: bytes, where: Where) -> Iterator[Document]:
        for name, text in config_texts(data):
            if text:
                members = (*where.members, name) if name else where.members
                yield self._document(text, replace(where, members=members, contexts=where.contexts | _CONFIG, lines=()))

    def _log(self, raw: bytes, where: Where, head: bytes) -> Iterator[Document]:
        if logs.is_build_log(head) or where.name.endswith(".log"):
            where = replace(where, contexts=where.contexts | _LOG)
        text = logs.plain(raw)
        yield self._document(text, where)
        if len(text) > _JOIN_MOST:
            return
        for token in logs.joined(raw, text):
            yield structs.replace(
                self._document(token.text, where, self._root.first_line + token.line),
                lead=token.start,
                tail=len(token.text) - token.end,
            )

    def _large(
        self, chunks: Iterable[bytes], where: Where, form: Form | Compression, head: bytes
    ) -> Iterator[Document]:
        if form is Form.WIDE_TEXT:
            chunks = narrowed(chunks, encoding_of(head))
        elif form is Form.BINARY:
            where = replace(where, contexts=where.contexts | _BINARY, lines=())
            chunks = _strings(chunks)
        else:
            stamped = logs.is_build_log(head)
            if stamped or (b"\x1b" in head and where.name.endswith(".log")):
                where = replace(where, contexts=where.contexts | _LOG)
            chunks = (logs.plain(part) if stamped or b"\x1b" in part else part for part in _whole_lines(chunks))
        yield from self._pieces(chunks, where)

    def _pieces(self, chunks: Iterable[bytes], where: Where) -> Iterator[Document]:
        """Cut a long text into pieces that show `overlap` bytes of each neighbour."""
        overlap = self._budget.overlap
        parts: list[bytes] = []
        size = lead = 0
        line = self._root.first_line
        for chunk in chunks:
            parts.append(chunk)
            size += len(chunk)
            if size < self._budget.piece + 2 * overlap:
                continue
            data = b"".join(parts)
            yield structs.replace(self._document(data, where, line), lead=lead, tail=overlap)
            line += data.count(b"\n", 0, size - 2 * overlap)
            parts = [data[-2 * overlap :]]
            size, lead = 2 * overlap, overlap
        if size:
            yield structs.replace(self._document(b"".join(parts), where, line), lead=lead)

    def _document(self, data: Bytes, where: Where, line: int | None = None) -> Document:
        root = self._root
        same = data is root.data
        return Document(
            data,
            root.path,
            where.members,
            root.blob,
            root.commit,
            root.committed_at,
            root.first_line if line is None else line,
            where.contexts,
            lead=root.lead if same else 0,
            tail=root.tail if same else 0,
            lines=where.lines,
            before=root.before,
        )


def _is_log(data: Bytes, head: bytes) -> bool:
    return logs.is_build_log(head) or (b"\x1b" in data if isinstance(data, bytes) else bool(_ESCAPE.search(data)))


def _chain(first: bytes, rest: Stream, step: int) -> Iterator[bytes]:
    yield from _cut(first, step)
    yield from rest.chunks(step)


def _cut(data: bytes, step: int = CHUNK) -> Iterator[bytes]:
    for at in range(0, len(data), step):
        yield data[at : at + step]


def _strings(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Give the strings of the chunks of a binary; one that goes over a border is kept whole."""
    kept = b""
    for chunk in chunks:
        data = kept + chunk
        last = data.rfind(b"\0", len(data) - _RESERVE if len(data) > _RESERVE else 0) + 1
        cut = last or len(data)
        kept = data[cut:]
        if text := binaries.strings(data[:cut]):
            yield text + b"\n"
    if text := binaries.strings(kept):
        yield text


def _whole_lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    kept = b""
    for chunk in chunks:
        data = kept + chunk
        cut = data.rfind(b"\n") + 1 or (len(data) if len(data) > _RESERVE else 0)
        kept = data[cut:]
        if cut:
            yield data[:cut]
    yield kept
