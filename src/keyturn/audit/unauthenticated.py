"""Failed authentications, coalesced: one leaf per source network and minute, with a count.

    bad token from 203.0.113.7   --count--> minute 12:04 | 203.0.113.0/24 -> 31
    bad token from 2001:db8::1   --count--> minute 12:04 | 2001:db8::/48  -> 2
    once a minute, and at stop   --flush--> leaves `auth.refused` in the instance's first workspace

Counting touches memory only, so nobody can buy an fsync with a bad token.  Memory and leaves are bounded: the
networks with the most failures get a leaf of their own, the rest share one named `other`; nothing is dropped.
"""

from __future__ import annotations

import asyncio
import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import select

from keyturn.audit.leaf import Actor, Leaf
from keyturn.kernel.clock import rfc3339
from keyturn.storage.rounds import Trouble
from keyturn.storage.schema import workspace
from keyturn.storage.transaction import ChangeKind, Entry
from keyturn.wire.actions import Action

if TYPE_CHECKING:
    from keyturn.storage.database import Database
    from keyturn.storage.transaction import Transaction

MINUTE_SECONDS = 60
NETWORKS_MAX = 1024
"""Networks counted apart in one minute; those that come later are `other`."""

LEAVES_MAX = 32
"""Networks of one minute that get a leaf of their own."""

MINUTES_MAX = 60
"""Minutes kept while the database cannot be written; older ones are added to the next."""

OTHER = "other"
UNKNOWN = "unknown"
LOOK_SECONDS = 1.0
RESOURCE = "~instance/authentication"


@dataclass(frozen=True, slots=True)
class Refusals:
    """How many failed authentications one network made in one minute."""

    minute: int
    """Epoch seconds at which the minute begins."""
    network: str
    count: int


def source_network(ip: str | None) -> str:
    """Return the network failures from `ip` are counted under: /24, /48, or `unknown` for what is not an address."""
    try:
        address = ipaddress.ip_address(ip or "")
    except ValueError:
        return UNKNOWN
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            return str(ipaddress.ip_network((int(address), 48), strict=False))
        address = address.ipv4_mapped
    return str(ipaddress.ip_network((int(address), 24), strict=False))


class Unauthenticated:
    """Counts failures in memory and writes them down once a minute; the door's `UnauthenticatedSink`.

    `count` and `run` belong to one event loop.
    """

    def __init__(self, database: Database) -> None:
        """Write to the first workspace of `database`."""
        self._database = database
        self._minutes: dict[int, dict[str, int]] = {}
        self.total = 0
        """Failures counted since the start."""
        self._trouble = Trouble("refused requests could not be put on record")

    def count(self, ip: str | None, at: float) -> None:
        """Count one failure at epoch seconds `at`; touches memory only, and little of it."""
        self.total += 1
        self._add(int(at) // MINUTE_SECONDS * MINUTE_SECONDS, source_network(ip), 1)

    @property
    def waiting(self) -> int:
        """Failures counted and not yet on record."""
        return sum(sum(networks.values()) for networks in self._minutes.values())

    async def run(self, stop: asyncio.Event) -> None:
        """Write each minute down once it is over, and the last one at stop; a failing write is tried again."""
        while not stop.is_set():
            try:
                await asyncio.wait_for(stop.wait(), LOOK_SECONDS)
            except TimeoutError:
                await self._flush_quietly(self._database.clock.now() - MINUTE_SECONDS)
        await self._flush_quietly(None)

    async def flush(self, through: float | None = None) -> int:
        """Write down the minutes begun at or before `through` (None: all); return how many leaves that made.

        On error the counts are kept.
        """
        ready = sorted(minute for minute in self._minutes if through is None or minute <= through)
        taken = {minute: self._minutes.pop(minute) for minute in ready}
        refusals = [one for minute in ready for one in summarise(minute, taken[minute])]
        if not refusals:
            return 0
        recorded = False
        try:
            recorded = (await self._database.write(lambda transaction: _record(transaction, refusals))).value
        finally:
            if not recorded:
                self._put_back(taken)
        return len(refusals) if recorded else 0

    async def _flush_quietly(self, through: float | None) -> None:
        try:
            await self.flush(through)
        except Exception as error:  # noqa: BLE001 -- whatever it was, the counts are kept and tried again
            self._trouble.met(error)
        else:
            self._trouble.over()

    def _put_back(self, taken: dict[int, dict[str, int]]) -> None:
        for minute, networks in taken.items():
            for network, count in networks.items():
                self._add(minute, network, count)

    def _add(self, minute: int, network: str, count: int) -> None:
        networks = self._minutes.get(minute)
        if networks is None:
            networks = self._minutes[minute] = {}
            if len(self._minutes) > MINUTES_MAX:
                oldest, following = sorted(self._minutes)[:2]
                for name, number in self._minutes.pop(oldest).items():
                    self._add(following, name, number)
                networks = self._minutes[max(minute, following)]
        if network not in networks and len(networks) >= NETWORKS_MAX:
            network = OTHER
        networks[network] = networks.get(network, 0) + count


def summarise(minute: int, networks: dict[str, int]) -> list[Refusals]:
    """Return the networks with the most failures, most first, and the sum of the rest as `other`."""
    named = sorted(((count, name) for name, count in networks.items() if name != OTHER), key=lambda e: (-e[0], e[1]))
    top = [Refusals(minute, name, count) for count, name in named[:LEAVES_MAX]]
    rest = networks.get(OTHER, 0) + sum(count for count, _ in named[LEAVES_MAX:])
    return [*top, Refusals(minute, OTHER, rest)] if rest else top


def _record(transaction: Transaction, refusals: list[Refusals]) -> bool:
    """Leave one leaf each; False, and nothing done, when the instance has no workspace yet."""
    home = transaction.connection.execute(
        select(workspace.c.id).order_by(workspace.c.created_at, workspace.c.id).limit(1)
    ).scalar()
    if home is None:
        return False
    for one in refusals:
        leaf = Leaf(
            workspace=home,
            action=Action.AUTH_REFUSED,
            outcome="denied",
            actor=Actor(one.network, "network", one.network),
            resource=RESOURCE,
            at=transaction.now,
            detail={"count": one.count, "minute": rfc3339(one.minute), "network": one.network},
        )
        transaction.append(Entry(home, ChangeKind.AUDIT, "", leaf.row()))
    return True
