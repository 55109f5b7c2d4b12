"""Lists cost what a page costs, not what the table holds, and tell nothing of what their caller may not see."""

import base64
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, create_engine, insert

from keyturn.access import rules
from keyturn.access.caller import Caller, Conditions, Grant, Resource
from keyturn.access.door import Operation
from keyturn.access.paging import EXAMINED_MAX, FETCHED, SEALED, page
from keyturn.errors import InputError
from keyturn.kernel.secret import random_bytes
from keyturn.storage.schema import metadata, workspace_key
from keyturn.wire.actions import Action

NOW = 1_767_225_600.0
ROWS = 2 * EXAMINED_MAX + 350


@dataclass(frozen=True)
class Row:
    id: str

    @property
    def resource(self) -> Resource:
        return Resource(f"plan/{self.id}")


@dataclass
class Table:
    """Rows in order of id, and how many of them were read."""

    rows: list[Row] = field(default_factory=lambda: [Row(f"pln_{number:05}") for number in range(ROWS)])
    read: int = 0

    def fetch(self, after: str, count: int) -> list[Row]:
        found = [row for row in self.rows if row.id > after][:count]
        self.read += len(found)
        return found


def caller(*patterns: str, principal: str = "prn_one", action: str = "plan.read") -> Caller:
    grants = tuple(
        Grant(f"grn_{number}", principal, (action,), pattern, Conditions()) for number, pattern in enumerate(patterns)
    )
    return Caller("wsp_one", principal, "service", principal, None, (), (), grants)


@pytest.fixture
def connection() -> Iterator[Connection]:
    engine = create_engine("sqlite://")
    metadata.create_all(engine, tables=[workspace_key])
    with engine.connect() as connection:
        connection.execute(
            insert(workspace_key).values(
                id="wsk_one",
                workspace="wsp_one",
                kek_id="kek_one",
                wrapped=random_bytes(40),
                created_at=NOW,
                state="open",
            )
        )
        yield connection
    engine.dispose()


def turn(
    connection: Connection, table: Table, by: Caller, cursor: str | None = None, limit: int = 50
) -> tuple[list[str], str | None]:
    op = Operation(connection, NOW, by, None)
    found, following = page(
        op, table.fetch, lambda row: op.allows(Action.PLAN_READ, row.resource), cursor, limit, reading=Action.PLAN_READ
    )
    return [row.id for row in found], following


@pytest.mark.parametrize("limit", [1, 50, 200])
def test_page_reads_no_more_than_its_bound_and_the_next_goes_on(connection: Connection, limit: int) -> None:
    """SECURITY: who may see little or nothing cannot make the server read the whole table for one request."""
    seen: list[str] = []
    table, cursor, turns = Table(), None, 0
    wanted = [f"pln_{number:05}" for number in (3, EXAMINED_MAX + 7, ROWS - 1)]
    by = caller(*(f"plan/{one}" for one in wanted))
    while turns == 0 or cursor is not None:
        before = table.read
        found, cursor = turn(connection, table, by, cursor, limit)
        seen, turns = seen + found, turns + 1
        assert table.read - before <= EXAMINED_MAX + FETCHED

    assert seen == wanted
    assert turns > 2


def test_who_may_read_nothing_of_the_kind_costs_no_query(connection: Connection) -> None:
    table = Table()

    assert turn(connection, table, caller("*", action="key.read")) == ([], None)
    assert turn(connection, table, caller()) == ([], None)
    assert table.read == 0


def test_cursor_of_a_short_page_names_nothing_the_caller_may_not_know(connection: Connection) -> None:
    """SECURITY: the place a bounded page ended at is sealed, for this caller."""
    table = Table()
    mine = caller("plan/none")
    _, cursor = turn(connection, table, mine)

    assert cursor is not None
    assert cursor.startswith(SEALED)
    assert b"pln_" not in base64.urlsafe_b64decode(cursor[1:] + "===")
    assert turn(connection, table, mine, cursor)[1] != cursor
    for stranger, forged in [(caller("plan/none", principal="prn_two"), cursor), (mine, cursor[:-3] + "AAA")]:
        with pytest.raises(InputError):
            turn(connection, table, stranger, forged)


SEGMENTS = st.sampled_from(["orders", "ord", "o", "a=2E", "*", "~x"])
PATTERNS = st.one_of(
    st.builds(lambda parts: "/".join(["key", *parts]), st.lists(SEGMENTS, min_size=1, max_size=3)),
    st.sampled_from(["*", "key/*", "*/orders", "keyspace/orders", "*/orders/*"]),
)


@given(
    patterns=st.lists(PATTERNS, max_size=4),
    name=st.builds("/".join, st.lists(SEGMENTS.filter(lambda one: one != "*"), min_size=1, max_size=3)),
)
def test_whatever_is_allowed_begins_as_the_reach_says(patterns: list[str], name: str) -> None:
    """SECURITY and use: a query narrowed by the reach of a caller leaves out nothing that it may see."""
    by = caller(*patterns, action="key.read")
    reach = rules.reach(by, Action.KEY_READ, "key", NOW)

    if rules.may(by, Action.KEY_READ, Resource(f"key/{name}"), NOW):
        assert rules.holds_somewhere(by, Action.KEY_READ, NOW)
        assert reach is None or any(name.startswith(one) for one in reach)


def test_who_holds_very_many_grants_is_not_narrowed() -> None:
    """A database takes an expression of only so many parts: more beginnings than that would be an error, not a list."""
    within = [
        caller(*(f"secret/production/app{n}" for n in range(count)), action="secret.list") for count in (100, 101)
    ]
    reaches = [rules.reach(by, Action.SECRET_LIST, "secret", NOW) for by in within]

    assert [None if one is None else len(one) for one in reaches] == [rules.REACH_MAX, None]
