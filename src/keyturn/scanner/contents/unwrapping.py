"""Goes through what is packed into each other: compressions, archives, images, down to the texts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, TypeAlias

from keyturn.scanner.contents.ar import ar_members
from keyturn.scanner.contents.beginnings import HEAD
from keyturn.scanner.contents.budget import Spending
from keyturn.scanner.contents.compression import Compression, inflate
from keyturn.scanner.contents.image import Later, Layer, begins_like_image, is_layer_name, layout_of
from keyturn.scanner.contents.names import shown
from keyturn.scanner.contents.recognition import Form, recognise, told_of
from keyturn.scanner.contents.stream import Failure, Stream
from keyturn.scanner.contents.tar import tar_members
from keyturn.scanner.contents.texts import Texts, Where
from keyturn.scanner.contents.zips import ZipRefusal, has_directory, zip_members
from keyturn.scanner.model import Context, Notice, Problem

if TYPE_CHECKING:
    from keyturn.scanner.contents.budget import Budget
    from keyturn.scanner.contents.image import Layout, Part
    from keyturn.scanner.model import Document

Opened: TypeAlias = Iterator["Document | Notice"]

_ARCHIVE: Final = frozenset({Context.ARCHIVE})
_LAYER: Final = frozenset({Context.IMAGE_LAYER})
_DELETED: Final = frozenset({Context.DELETED})
_ZERO: Final = re.compile(b"\0")
_NOTICES_MOST: Final = 100
_ENDINGS: Final = (".gz", ".bz2", ".xz", ".zst", ".lzma", ".z")


@dataclass(frozen=True, slots=True)
class _Level:
    """Where the unwrapping is: `where` of the texts, how deep, and the layer of an image that is being read."""

    where: Where
    depth: int = 0
    layer: Layer | None = field(default=None, compare=False)


class Unwrapping:
    """One root document, and what was used of its budget."""

    def __init__(self, document: Document, budget: Budget) -> None:
        self._document = document
        self._budget = budget
        self._spending = Spending.of(budget, len(document.data))
        self._texts = Texts(document, budget)

    def root(self) -> Opened:
        """Give everything that is in the document; a bound on the whole is told last."""
        document = self._document
        where = Where((), document.contexts, document.path.rpartition("/")[2], document.lines)
        told = 0
        for found in self._open(Stream.of(self._document.data), _Level(where)):
            told += isinstance(found, Notice)
            if told <= _NOTICES_MOST or not isinstance(found, Notice):
                yield found
        if told > _NOTICES_MOST:
            detail = f"has {told - _NOTICES_MOST} more members that were not scanned, or not whole"
            yield Notice(Problem.CORRUPT, document.path, detail)
        if self._spending.hit:
            yield Notice(Problem.BOUND, self._document.path, self._spending.hit)

    def _open(self, stream: Stream, level: _Level) -> Opened:
        head = stream.peek(HEAD)
        form = recognise(head, level.where.name)
        if not head:
            pass
        elif form is Form.CLOSED:
            yield self._notice(level, Failure(Problem.CLOSED, "is an archive of a format that is not opened"))
        elif form in {Form.TEXT, Form.WIDE_TEXT, Form.BINARY}:
            yield from self._plain(stream, level, form, head)
            if told := told_of(head):
                yield self._notice(level, Failure(*told))
        elif level.depth >= self._budget.depth:
            detail = f"stands in {level.depth} archives; deeper ones are not opened"
            yield self._notice(level, Failure(Problem.BOUND, detail))
        elif isinstance(form, Compression):
            yield from self._compressed(stream, level, form)
        elif form is Form.TAR:
            yield from self._tar(stream, level, head)
        elif form is Form.ZIP:
            yield from self._zip(stream, level)
        else:
            yield from self._ar(stream, level)
        if stream.failure and not stream.failure.inherited:
            yield self._notice(level, stream.failure)

    def _plain(self, stream: Stream, level: _Level, form: Form | Compression, head: bytes) -> Opened:
        rest = stream.rest if form in {Form.BINARY, Form.TEXT} else None
        yield from self._texts.read(stream, level.where, form, head)
        if rest is None or (form is Form.TEXT and _ZERO.search(rest) is None):
            return
        if form is Form.TEXT:
            yield from self._texts.wide(rest, level.where)
        if level.depth < self._budget.depth and has_directory(rest):
            yield from self._zip(Stream.of(rest), level)

    def _compressed(self, stream: Stream, level: _Level, form: Compression) -> Opened:
        name = level.where.name
        for ending in _ENDINGS:
            name = name.removesuffix(ending)
        inner = replace(level, where=replace(level.where, name=name, lines=()), depth=level.depth + 1)
        yield from self._open(inflate(stream, form, self._spending), inner)

    def _tar(self, stream: Stream, level: _Level, head: bytes) -> Opened:
        if level.layer is None and stream.rest is not None and begins_like_image(head):
            layout = layout_of(stream.rest, Spending.of(self._budget, 0))
            if layout is not None:
                yield from self._image(stream.rest, level, layout)
                return
        extra = _LAYER if level.layer is not None or is_layer_name(_full_name(self._document, level)) else _ARCHIVE
        for member in tar_members(stream, self._spending):
            if isinstance(member, Failure):
                if not member.inherited:
                    yield self._notice(level, member)
                return
            name = shown(member.name, self._budget.name)
            hidden = level.layer is not None and level.layer.meet(name)
            if member.size:
                yield from self._open(member.stream, self._inside(level, name, extra | _DELETED if hidden else extra))
            if self._spending.hit:
                return

    def _image(self, archive: memoryview, level: _Level, layout: Layout) -> Opened:
        for failure in layout.failures:
            yield self._notice(level, failure)
        layers: set[str] = set()
        marks = not layout.shared
        for image in layout.images:
            later = Later()
            for name in image:
                if name in layers:
                    continue
                layers.add(name)
                inner = self._inside(level, shown(name.encode("utf-8", "replace")), _LAYER)
                layer = Layer(later if marks else Later())
                yield from self._open(_part(archive, layout.parts[name]), replace(inner, layer=layer))
                layer.close()
        for name, part in layout.parts.items():
            if name not in layers and part.size and self._spending.open_member():
                inner = self._inside(level, shown(name.encode("utf-8", "replace")), _ARCHIVE)
                yield from self._open(_part(archive, part), inner)

    def _zip(self, stream: Stream, level: _Level) -> Opened:
        data = stream.rest
        if data is None:
            held = stream.read(self._budget.held + 1)
            if len(held) > self._budget.held:
                detail = f"is a zip archive of more than {self._budget.held} bytes inside of another"
                yield self._notice(level, Failure(Problem.BOUND, detail))
                return
            data = memoryview(held)
        for member in zip_members(data, self._spending):
            name = shown(member.name, self._budget.name)
            inner = self._inside(level, name, _ARCHIVE) if name else level
            if isinstance(member, ZipRefusal):
                if not (stream.failure and not name):
                    yield self._notice(inner, member.failure)
            else:
                yield from self._open(member.stream, inner)
            if self._spending.hit:
                return

    def _ar(self, stream: Stream, level: _Level) -> Opened:
        for member in ar_members(stream, self._spending):
            if isinstance(member, Failure):
                if not member.inherited:
                    yield self._notice(level, member)
                return
            inner = self._inside(level, shown(member.name, self._budget.name), _ARCHIVE)
            yield from self._open(member.stream, inner)
            if self._spending.hit:
                return

    def _inside(self, level: _Level, name: str, contexts: frozenset[Context]) -> _Level:
        where = level.where
        inner = Where((*where.members, name), where.contexts | contexts, name.rpartition("/")[2])
        return _Level(inner, level.depth + 1)

    def _notice(self, level: _Level, failure: Failure) -> Notice:
        path = "!".join((self._document.path, *level.where.members))
        return Notice(failure.problem, path, failure.detail)


def _part(archive: memoryview, part: Part) -> Stream:
    return Stream.of(archive[part.start : part.start + part.size])


def _full_name(document: Document, level: _Level) -> str:
    return level.where.members[-1] if level.where.members else document.path
