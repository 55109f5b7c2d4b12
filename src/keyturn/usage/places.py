"""Under which values a count is stored: cleaned, and capped for each key, each keyspace and each hour.

    told: ip, user agent, method, path, country
      `-> endpoint, country, network, agent       of the key
      `-> endpoint, country, network, agent       of its keyspace as a whole

A group (keyspace, key or none, dimension, hour) holds as many values as `CAPS` says; further ones are `other`, so that
the sum stays exact.  Which values a group holds is in the database.  Memory remembers where a count goes (`Places`);
what it does not know is decided in the transaction that writes it, against the rows that are there by then.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final

from sqlalchemy import select

from keyturn.storage.schema import usage_dimension
from keyturn.usage import rules
from keyturn.usage.rules import OTHER
from keyturn.wire.usage import Dimension, Period

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection

TOLD: Final = (Dimension.ENDPOINT, Dimension.COUNTRY, Dimension.IP_NETWORK, Dimension.USER_AGENT)
CAPS: Final = {
    Dimension.ENDPOINT: 100,
    Dimension.COUNTRY: 250,
    Dimension.IP_NETWORK: 50,
    Dimension.USER_AGENT: 50,
}
"""Values of a key within an hour."""

KEYSPACE_CAPS: Final = {dimension: 5 * cap for dimension, cap in CAPS.items()}
"""Values of a keyspace as a whole within an hour."""

ASKED_MAX: Final = 500
REMEMBERED_MAX: Final = 65_536
FULL_MAX: Final = 16_384

Told = tuple["str | None", "str | None", "str | None", "str | None", "str | None"]
"""IP address, user agent, method, path, country."""

Where = tuple[str, str, int, Told]
"""Keyspace id, key id, start of the hour, what was told."""

Place = tuple["str | None", ...]
"""Endpoint, country, network and agent of the key, then those of the keyspace."""

Group = tuple[str, str, Dimension, int]
NOWHERE: Final[Place] = (None,) * 8


class Places:
    """Remembers where counts go; bounded, and only ever a copy of what the database says."""

    def __init__(self) -> None:
        """Remember nothing yet."""
        self._known: dict[Where, Place] = {}
        self._full: dict[Group, frozenset[str]] = {}

    def find(self, where: Where) -> Place | None:
        """Return where such a count goes, or None when the database has to tell."""
        place = self._known.get(where)
        if place is not None:
            return place
        values = values_of(where[3])
        if values == NOWHERE[:4]:
            return NOWHERE
        if not self._full:
            return None
        keyspace, key, hour, _ = where
        found: list[str | None] = []
        # Without a database only when every group is full: 10 000 endpoints must not cost 10 000 queries.
        for level in (key, ""):
            for dimension, value in zip(TOLD, values, strict=True):
                if value is None:
                    found.append(None)
                    continue
                held = self._full.get((keyspace, level, dimension, hour))
                if held is None:
                    return None
                found.append(value if value in held else OTHER)
        return tuple(found)

    def remember(self, places: dict[Where, Place], full: dict[Group, frozenset[str]]) -> None:
        """Take over what a transaction that is durable now has decided."""
        if len(self._known) + len(places) > REMEMBERED_MAX:
            self._known.clear()
        self._known.update(places)
        if len(self._full) + len(full) > FULL_MAX:
            self._full.clear()
        self._full.update(full)


def values_of(told: Told) -> tuple[str | None, str | None, str | None, str | None]:
    """Return endpoint, country, network and agent as they are stored."""
    ip, agent, method, path, country = told
    _, network, agent, endpoint = rules.describe(ip, agent, method, path)
    return endpoint, rules.country(country), network, agent


def decide(connection: Connection, asked: Iterable[Where]) -> tuple[dict[Where, Place], dict[Group, frozenset[str]]]:
    """Decide where counts go that nobody knew a place for; return also which groups are full now.

    To be called in the transaction that stores them.
    """
    wheres = list(asked)
    held = _stored(connection, wheres)
    places = {where: _place(where, held) for where in wheres}
    full = {group: frozenset(own) for group, own in held.items() if len(own) >= _cap(group)}
    return places, full


def _place(where: Where, held: dict[Group, set[str]]) -> Place:
    keyspace, key, hour, told = where
    values = values_of(told)
    found: list[str | None] = []
    for level, caps in ((key, CAPS), ("", KEYSPACE_CAPS)):
        for dimension, value in zip(TOLD, values, strict=True):
            if value is None:
                found.append(None)
                continue
            own = held[keyspace, level, dimension, hour]
            if value not in own and len(own) < caps[dimension]:
                own.add(value)
            found.append(value if value in own else OTHER)
    return tuple(found)


def _cap(group: Group) -> int:
    return (CAPS if group[1] else KEYSPACE_CAPS)[group[2]]


def _stored(connection: Connection, wheres: list[Where]) -> defaultdict[Group, set[str]]:
    """Return what the groups hold: one query for many keys, since an hour begins for all of them at once."""
    held: defaultdict[Group, set[str]] = defaultdict(set)
    keyspaces = sorted({where[0] for where in wheres})
    hours = sorted({where[2] for where in wheres})
    keys = ["", *sorted({where[1] for where in wheres})]
    table = usage_dimension.c
    for first in range(0, len(keys) if wheres else 0, ASKED_MAX):
        rows = connection.execute(
            select(table.keyspace, table.key, table.dimension, table.start, table.value)
            .distinct()
            .where(
                table.keyspace.in_(keyspaces),
                table.key.in_(keys[first : first + ASKED_MAX]),
                table.dimension.in_([str(one) for one in TOLD]),
                table.period == str(Period.HOUR),
                table.start.in_(hours),
                table.value != OTHER,
            )
        )
        for keyspace, key, dimension, hour, value in rows:
            held[keyspace, key, Dimension(dimension), hour].add(value)
    return held
