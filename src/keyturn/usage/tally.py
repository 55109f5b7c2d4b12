"""The tally: how much a process has counted and written, kept where `kill -9` does not reach.

    counted    in the process's counter file: one store for each verification
    written    in the database: changed in the very transaction that writes the counts
    lost       counted - written, of a process that is gone

A process that ends well removes its file; whatever starts next reads those that are left and puts the loss on record.
Recording is idempotent by the node's id, so that it does not matter who finds a file, or how often.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog
from sqlalchemy import select

from keyturn.errors import KeyturnError, StorageError
from keyturn.storage.counter_file import CounterFile, name_of, orphans, path_of
from keyturn.storage.schema import usage_loss, usage_writer
from keyturn.storage.upsert import insert_on_conflict

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy import Connection

    from keyturn.storage.database import Database
    from keyturn.storage.transaction import Transaction

PREFIX: Final = "usage"
_SLOT: Final = "usage"

_log = structlog.get_logger("keyturn")


class Tally:
    """The two numbers of one process; in memory alone until `keep`, and after `close`."""

    def __init__(self) -> None:
        """Start at zero."""
        self._file: CounterFile | None = None
        self.cells = memoryview(bytearray(16)).cast("Q")
        """Counted, and written."""

    def keep(self, folder: Path, node: str) -> None:
        """From now on keep the numbers in a file; without one, when it cannot be made, a loss would be unknown."""
        try:
            file = CounterFile.create(path_of(folder, PREFIX, node), slots=1)
        except StorageError as error:
            _log.warning("usage is counted in memory alone", reason=error.message, next=error.hint)
            return
        word = file.first_word(file.slot(_SLOT) or 0)
        cells = file.words[word : word + 2]
        cells[0], cells[1] = self.cells
        self._file, self.cells = file, cells

    def close(self, *, settled: bool) -> None:
        """Let go of the file; it is removed when all it says is in the database too."""
        file, self._file = self._file, None
        if file is None:
            return
        cells, self.cells = self.cells, memoryview(bytearray(self.cells.tobytes())).cast("Q")
        cells.release()
        if settled:
            file.remove()
        else:
            file.close()


async def recover(database: Database, folder: Path) -> int:
    """Put on record what processes that were killed had counted and not written; return how much that is.

    A file whose loss could not be recorded stays for the next start.
    """
    lost = 0
    for file in orphans(folder, PREFIX):
        node = name_of(file.path, PREFIX)
        counted, written = next(((slot.first, slot.second) for slot in file if slot.id == _SLOT), (0, 0))
        try:
            committed = await database.write(_recording(node, counted, written))
        except KeyturnError as error:
            _log.warning("a loss of usage could not be recorded", node=node, reason=error.message)
            file.close()
            continue
        file.remove()
        lost += committed.value
        log = _log.warning if committed.value else _log.info
        log("usage of a killed process was settled", node=node, counted=counted, lost=committed.value)
    return lost


def left_behind(folder: Path) -> int:
    """Return how many processes were killed whose loss is not on record yet."""
    found = 0
    for file in orphans(folder, PREFIX):
        file.close()
        found += 1
    return found


def record_end(connection: Connection, node: str, counted: int, written: int, now: float) -> int:
    """Put on record that a node has ended; return how much it has lost.  A node ends once."""
    stored = connection.execute(select(usage_writer.c.written).where(usage_writer.c.node == node)).scalar()
    # The database is right about what was written: the file says it a moment later.
    written = written if stored is None else int(stored)
    lost = max(0, counted - written)
    connection.execute(usage_writer.delete().where(usage_writer.c.node == node))
    if not lost:
        return 0
    insert = insert_on_conflict(connection, usage_loss).on_conflict_do_nothing()
    row = {"node": node, "at": now, "counted": counted, "written": written, "lost": lost}
    return lost if connection.execute(insert, row).rowcount else 0


def _recording(node: str, counted: int, written: int) -> Callable[[Transaction], int]:
    def unit(transaction: Transaction) -> int:
        return record_end(transaction.connection, node, counted, written, transaction.now)

    return unit
