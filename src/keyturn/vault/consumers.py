"""Who has received which version of which secret.

    first read    a row, in the transaction that puts the read on record: before the value leaves
    later reads   added up in memory, and to the row once a second

So who has read what is complete whatever happens.  A process that is killed loses at most what it added up in the last
second, which is only how often and when last: the audit log has each read itself.

A consumer is a principal with the subject it logged in as.  Of where a read came from the network is kept (/24, /48)
and the user agent, cut to 128 characters.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import msgspec
from sqlalchemy import case, select

from keyturn.kernel.redact import scrub
from keyturn.storage.schema import principal, secret_read, secret_version
from keyturn.storage.upsert import insert_on_conflict
from keyturn.wire.secrets import SecretState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy import Connection

KNOWN_MAX: Final = 100_000
USER_AGENT_CHARACTERS_MAX: Final = 128
READERS_MAX: Final = 10_000
_V4_BITS: Final = 24
_V6_BITS: Final = 48

Key = tuple[str, int, str]
"""Secret id, sequence, consumer."""


class Tally(msgspec.Struct, gc=False):
    """Reads of one version by one consumer that are not in the database yet."""

    workspace: str
    principal: str
    subject: str
    first_at: float
    last_at: float
    reads: int
    ip_network: str
    user_agent: str

    def add(self, later: Tally) -> None:
        """Add what came after."""
        self.reads += later.reads
        if later.last_at >= self.last_at:
            self.last_at, self.ip_network, self.user_agent = later.last_at, later.ip_network, later.user_agent


class Read(msgspec.Struct, frozen=True, gc=False):
    """One read that is about to be committed."""

    key: Key
    tally: Tally


@dataclass(frozen=True, slots=True)
class Reader:
    """A consumer's reads of one version, with what is known of both."""

    consumer: str
    principal: str
    principal_name: str
    subject: str
    number: int | None
    sequence: int
    state: SecretState
    first_at: float
    last_at: float
    reads: int
    ip_network: str
    user_agent: str


class Consumers:
    """Knows which rows are there, and adds up; used by one batch of reads at a time."""

    def __init__(self) -> None:
        """Know of no row."""
        self._known: dict[Key, None] = {}
        self._added: dict[Key, Tally] = {}

    def __len__(self) -> int:
        return len(self._added)

    def write_first(self, connection: Connection, reads: Iterable[Read]) -> None:
        """Write the rows of reads that may be first ones, in the transaction of the batch."""
        first: dict[Key, Tally] = {}
        for read in reads:
            if read.key in self._known:
                continue
            held = first.get(read.key)
            if held is None:
                tally = read.tally
                first[read.key] = Tally(
                    tally.workspace,
                    tally.principal,
                    tally.subject,
                    tally.first_at,
                    tally.last_at,
                    tally.reads,
                    tally.ip_network,
                    tally.user_agent,
                )
            else:
                held.add(read.tally)
        if first:
            _upsert(connection, first)

    def committed(self, reads: Iterable[Read]) -> None:
        """Take note of reads that are on record: what was written is known, the others are added up."""
        new: list[Key] = []
        for read in reads:
            if read.key not in self._known:
                new.append(read.key)
                continue
            held = self._added.get(read.key)
            if held is None:
                self._added[read.key] = read.tally
            else:
                held.add(read.tally)
        if len(self._known) + len(new) > KNOWN_MAX:
            self._known.clear()
        self._known.update(dict.fromkeys(new))

    def take(self) -> dict[Key, Tally]:
        """Hand over what was added up; the caller stores it with `store`, or gives it back."""
        added, self._added = self._added, {}
        return added

    def give_back(self, taken: Mapping[Key, Tally]) -> None:
        """Take back what could not be stored."""
        for key, tally in taken.items():
            newer = self._added.get(key)
            if newer is not None:
                tally.add(newer)
            self._added[key] = tally


def store(connection: Connection, taken: Mapping[Key, Tally]) -> None:
    """Add to the rows of consumers; one that was never written is written."""
    _upsert(connection, taken)


def list_readers(connection: Connection, secret_id: str) -> Sequence[Reader]:
    """Return who has read a secret: by consumer, the newest version first."""
    rows = connection.execute(
        select(
            secret_read,
            principal.c.name,
            secret_version.c.number,
            secret_version.c.state,
        )
        .join(
            secret_version,
            (secret_version.c.secret == secret_read.c.secret) & (secret_version.c.sequence == secret_read.c.sequence),
        )
        .outerjoin(principal, principal.c.id == secret_read.c.principal)
        .where(secret_read.c.secret == secret_id)
        .order_by(secret_read.c.consumer, secret_read.c.sequence.desc())
        .limit(READERS_MAX)
    ).all()
    return [
        Reader(
            consumer=row.consumer,
            principal=row.principal,
            principal_name=row.name or "",
            subject=row.subject,
            number=row.number,
            sequence=row.sequence,
            state=SecretState(row.state),
            first_at=row.first_at,
            last_at=row.last_at,
            reads=row.reads,
            ip_network=row.ip_network,
            user_agent=row.user_agent,
        )
        for row in rows
    ]


def laggards(readers: Iterable[Reader], current: int) -> tuple[str, ...]:
    """Return the consumers whose newest version read is older than the current one."""
    newest: dict[str, int] = {}
    for reader in readers:
        newest[reader.consumer] = max(newest.get(reader.consumer, 0), reader.number or 0)
    return tuple(sorted(consumer for consumer, number in newest.items() if 0 < number < current))


@lru_cache(maxsize=4096)
def network_of(ip: str | None) -> str:
    """Return the network of an address, as it is kept; empty when there is none."""
    if ip is None:
        return ""
    try:
        address = ipaddress.ip_address(ip)
    except ValueError:
        return ""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            return str(ipaddress.ip_network((int(address), _V6_BITS), strict=False))
        address = address.ipv4_mapped
    return str(ipaddress.ip_network((int(address), _V4_BITS), strict=False))


@lru_cache(maxsize=4096)
def agent_of(text: str | None) -> str:
    """Return a user agent as it is kept; scrubbed before it is cut, or half a credential could be left."""
    if text is None:
        return ""
    shown = "".join(character if character.isprintable() else " " for character in scrub(text[:8192]))
    return " ".join(shown.split())[:USER_AGENT_CHARACTERS_MAX]


def _upsert(connection: Connection, tallies: Mapping[Key, Tally]) -> None:
    statement = _statements.get(connection.dialect.name)
    if statement is None:
        statement = _statements[connection.dialect.name] = _upsert_statement(connection)
    # In one order everywhere, so that two nodes never wait for each other's rows.
    connection.execute(statement, [_row(key, tallies[key]) for key in sorted(tallies)])


def _upsert_statement(connection: Connection) -> Any:  # noqa: ANN401 -- one of two dialects' inserts
    insert = insert_on_conflict(connection, secret_read)
    later = insert.excluded.last_at >= secret_read.c.last_at

    def newer(name: str) -> Any:  # noqa: ANN401 -- an expression
        return case((later, insert.excluded[name]), else_=secret_read.c[name])

    return insert.on_conflict_do_update(
        index_elements=["secret", "sequence", "consumer"],
        set_={
            "reads": secret_read.c.reads + insert.excluded.reads,
            **{name: newer(name) for name in ("last_at", "ip_network", "user_agent")},
        },
    )


# By dialect; building it costs more than running it.
_statements: Final[dict[str, Any]] = {}


def _row(key: Key, tally: Tally) -> dict[str, object]:
    secret_id, sequence, consumer = key
    return {
        "workspace": tally.workspace,
        "secret": secret_id,
        "sequence": sequence,
        "consumer": consumer,
        "principal": tally.principal,
        "subject": tally.subject,
        "first_at": tally.first_at,
        "last_at": tally.last_at,
        "reads": tally.reads,
        "ip_network": tally.ip_network,
        "user_agent": tally.user_agent,
    }
