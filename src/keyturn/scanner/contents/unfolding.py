"""What is compressed in a few bytes, as one text: for decoders, which meet it inside of other texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from keyturn.scanner.contents.budget import MIB, Budget, Spending
from keyturn.scanner.contents.compression import Compression, inflate
from keyturn.scanner.contents.stream import Stream
from keyturn.scanner.contents.zips import zip_members
from keyturn.scanner.model import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keyturn.scanner.contents.stream import Failure

_MOST: Final = 64 * MIB


def unfold(raw: bytes, name: str, budget: Budget) -> tuple[bytes, bool]:
    """Return what comes out, and whether a bound cut it; nothing when it is not what it begins like."""
    bounds = replace(budget, bytes=min(_MOST, budget.bytes), growth=0, ratio_free=MIB)
    spending = Spending.of(bounds, 0)
    parts: list[bytes] = []
    cut = False
    for stream in _streams(raw, name, spending):
        parts.extend(stream.chunks())
        cut |= _is_bound(stream.failure)
    return b"\n".join(parts) if name == "zip" else b"".join(parts), cut or bool(spending.hit)


def _streams(raw: bytes, name: str, spending: Spending) -> Iterator[Stream]:
    if name != "zip":
        yield inflate(Stream.of(raw), Compression(name), spending)
        return
    for member in zip_members(memoryview(raw), spending):
        if hasattr(member, "stream"):
            yield member.stream


def _is_bound(failure: Failure | None) -> bool:
    return failure is not None and failure.problem is Problem.BOUND
