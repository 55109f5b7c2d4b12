"""The members of an ar archive, which Debian packages and static libraries are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from keyturn.scanner.contents.stream import INHERITED, TRUNCATED, Failure
from keyturn.scanner.contents.tar import TarMember
from keyturn.scanner.model import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keyturn.scanner.contents.budget import Spending
    from keyturn.scanner.contents.stream import Stream

_HEADER: Final = 60


def ar_members(archive: Stream, spending: Spending) -> Iterator[TarMember | Failure]:
    """Give the members in their order; a failure is the last thing that is given."""
    archive.read(8)
    while header := archive.read(_HEADER):
        size = header[48:58].strip()
        if len(header) < _HEADER:
            yield INHERITED if archive.failure else TRUNCATED
            return
        if header[58:] != b"`\n" or not size.isdigit():
            yield Failure(Problem.CORRUPT, "has a damaged ar header; what comes after it was not scanned")
            return
        if not spending.open_member():
            return
        length = int(size)
        end = archive.position + length
        yield TarMember(header[:16].rstrip(b" ").removesuffix(b"/"), length, archive.part(length))
        if not archive.skip(end - archive.position + length % 2):
            return
