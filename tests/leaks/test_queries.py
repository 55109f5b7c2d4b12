"""What is asked of findings again and again reads few of them, however many a scanner has reported."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, event, text

from keyturn.leaks import standing, store
from tests.leaks.station import Station

LOOKS: dict[str, Callable[[Connection], object]] = {
    "changed keys": lambda c: standing.touched(c, [("key", "key_1"), ("key", "key_2")]),
    "changed secrets": lambda c: standing.touched(c, [("secret", "sec_1")]),
    "a changed keyspace": lambda c: standing.touched(c, [("keyspace", "ksp_1")]),
    "what a time has ended": lambda c: standing.ended_by_time(c, 1.0, 10),
    "acceptances that are over": lambda c: standing.acceptance_over(c, 1.0, 10),
    "actions that are due": lambda c: store.due_findings(c, 1.0, 10),
    "how many are open": store.open_counts,
}


@contextmanager
def asked(connection: Connection) -> Iterator[list[tuple[str, Any]]]:
    """Note what is asked of the database meanwhile."""
    noted: list[tuple[str, Any]] = []

    def note(_: object, __: object, statement: str, parameters: object, *___: object) -> None:
        noted.append((statement, parameters))

    event.listen(connection, "before_cursor_execute", note)
    try:
        yield noted
    finally:
        event.remove(connection, "before_cursor_execute", note)


@pytest.mark.parametrize("look", sorted(LOOKS))
async def test_no_look_that_is_repeated_reads_every_finding(station: Station, look: str) -> None:
    """A responder looks twice a second in every worker, and findings of scanners are without number."""

    def plans(connection: Connection) -> str:
        postgresql = connection.dialect.name == "postgresql"
        if postgresql:
            connection.execute(text("SET LOCAL enable_seqscan = off"))
        with asked(connection) as noted:
            LOOKS[look](connection)
        how = "EXPLAIN " if postgresql else "EXPLAIN QUERY PLAN "
        return "\n".join(
            str(row)
            for statement, parameters in noted
            for row in connection.exec_driver_sql(how + statement, parameters).all()
        )

    found = await station.desk.database.read(plans)

    assert "ix_finding_" in found
    for whole in ("Seq Scan on finding", "SCAN finding'"):
        assert whole not in found
