"""Decoys: no use of one goes without its alarm, whatever verifiers say of it and whatever befalls another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from sqlalchemy import select

from keyturn.access.caller import Credentials
from keyturn.access.door import Operation
from keyturn.errors import ConflictError
from keyturn.kernel.clock import rfc3339
from keyturn.kernel.secret import Secret
from keyturn.leaks.decoy_watch import DecoyWatch
from keyturn.leaks.decoys import DecoyService
from keyturn.leaks.matching import Matching
from keyturn.leaks.possession import PossessionService
from keyturn.storage.schema import key_version
from keyturn.storage.transaction import ChangeKind, Transaction
from keyturn.usage.store import CallerRow, add_callers
from keyturn.vault.approvals import ApprovalService
from keyturn.vault.fingerprints import Fingerprints
from keyturn.vault.writing import Writing
from keyturn.wire.actions import Action
from keyturn.wire.decoys import CreateDecoy, DecoyCreated, DecoyInfo
from tests.leaks.station import Station

BEYOND_EVERY_CALENDAR = 2.0**40


@dataclass
class Garden:
    """Where decoys are planted and looked after."""

    station: Station
    decoys: DecoyService
    watch: DecoyWatch

    @property
    def admin(self) -> Credentials:
        return self.station.admin

    async def plant(self, name: str = "one", **given: Any) -> DecoyCreated:
        """Make a decoy, an issued one unless it says otherwise."""
        document = {"name": name, "kind": "issued", "keyspace": "orders"} | given
        return await self.decoys.create(self.admin, msgspec.convert(document, type=CreateDecoy))

    async def hold(self, name: str = "two", path: str = "production/backup/aws") -> DecoyCreated:
        """Hold a decoy."""
        request = {"name": name, "kind": "held", "path": path}
        return await self.decoys.create(self.admin, msgspec.convert(request, type=CreateDecoy))

    async def verify(self, key: str | None, *, at: float, times: int = 1, caller: str = "somebody") -> None:
        """Count verifications, as a verifier has told of them."""

        def work(transaction: Transaction) -> None:
            version = transaction.connection.execute(select(key_version.c.id).where(key_version.c.key == key)).scalar()
            assert key is not None
            assert version is not None
            workspace = self.station.desk.founded.workspace.id
            row = CallerRow(version, caller, key, workspace, at, at, "198.51.100.0/24", "curl", "GET /", times)
            add_callers(transaction.connection, [row], frozenset())

        await self.station.desk.database.write(work)

    async def read(self, path: str) -> None:
        """Put a read of a held secret on record."""

        def work(op: Operation) -> None:
            op.record(Action.SECRET_READ, f"secret/{path}", kind=ChangeKind.AUDIT, entity="")

        await self.station.desk.door.write(self.admin, work)

    async def shown(self, name: str) -> DecoyInfo:
        """Show a decoy."""
        return await self.decoys.show(self.admin, name)

    async def alarms(self) -> int:
        """Return how many alarms are on record."""
        return len(await self.station.desk.leaves("system.decoy_tripped"))


@pytest.fixture
async def garden(station: Station) -> Garden:
    desk = station.desk
    approvals = ApprovalService(desk.door)
    writing = Writing(desk.keyring, Fingerprints(desk.keyring), approvals)
    await desk.keyspace()
    return Garden(
        station,
        DecoyService(desk.door, desk.keyring, writing, approvals),
        DecoyWatch(desk.database, "nod_first"),
    )


async def test_every_use_of_an_issued_decoy_is_told_once(garden: Garden) -> None:
    made = await garden.plant()
    await garden.verify(made.keyspace_key, at=garden.station.desk.clock.now(), times=3)

    assert [await garden.watch.look_once() for _ in range(2)] == [1, 0]

    shown = await garden.shown("one")
    assert (str(shown.state), shown.tripped_count, await garden.alarms()) == ("tripped", 3, 1)


async def test_a_use_that_a_late_batch_tells_of_alarms(garden: Garden) -> None:
    """What a verifier in an application counted an hour ago is news, although another use was told of since."""
    made = await garden.plant()
    now = garden.station.desk.clock.now()
    await garden.verify(made.keyspace_key, at=now)
    await garden.watch.look_once()
    await garden.verify(made.keyspace_key, at=now - 3600, caller="another")

    assert await garden.watch.look_once() == 1
    assert (await garden.shown("one")).tripped_count == 2


@pytest.mark.parametrize("at", [BEYOND_EVERY_CALENDAR, 4_000_000_000.0])
async def test_a_verifier_that_lies_about_the_time_silences_no_decoy(garden: Garden, at: float) -> None:
    """Regression: a time that no calendar has ended the watch, and a later one hid what followed."""
    made = await garden.plant()
    await garden.verify(made.keyspace_key, at=at)
    assert [await garden.watch.look_once() for _ in range(2)] == [1, 0]
    await garden.verify(made.keyspace_key, at=garden.station.desk.clock.now())

    assert await garden.watch.look_once() == 1
    assert await garden.alarms() == 2
    last = (await garden.shown("one")).last_tripped_at
    assert last is not None
    assert last < "2200"


async def test_a_decoy_that_fails_silences_no_other(garden: Garden, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = await garden.plant("one"), await garden.plant("two")
    for made in (first, second):
        await garden.verify(made.keyspace_key, at=1.0)
    failures = iter([True])

    def failing(at: float) -> str:
        if next(failures, False):
            raise ValueError("a bug of our own")
        return rfc3339(at)

    monkeypatch.setattr("keyturn.leaks.decoy_watch.rfc3339", failing)

    assert [await garden.watch.look_once() for _ in range(3)] == [1, 1, 0]
    assert garden.watch.health.failures == 1
    assert await garden.alarms() == 2


async def test_a_held_decoy_alarms_for_every_read_on_record(garden: Garden) -> None:
    await garden.hold()
    assert await garden.watch.look_once() == 0
    await garden.read("production/backup/aws")
    await garden.read("production/backup/aws")
    await garden.read("production/backup/gcp")

    assert [await garden.watch.look_once() for _ in range(2)] == [1, 0]
    assert (await garden.shown("two")).tripped_count == 2


async def test_two_watchers_tell_of_a_use_once(garden: Garden) -> None:
    made = await garden.plant()
    other = DecoyWatch(garden.station.desk.database, "nod_second")
    await garden.verify(made.keyspace_key, at=1.0)

    assert await garden.watch.look_once() + await other.look_once() == 1
    assert await garden.alarms() == 1


@pytest.mark.parametrize("asked", ["check", "report"])
async def test_asking_whether_a_decoy_works_is_a_use_of_it(garden: Garden, asked: str) -> None:
    """Else whoever found a key could learn, unnoticed, that it is refused, and leave it alone."""
    made = await garden.plant()
    desk = garden.station.desk
    matching = Matching(desk.keyring, Fingerprints(desk.keyring))
    possession = PossessionService(desk.database, matching, garden.station.leaks, desk.clock.boottime)
    presented = Secret(str(made.value))

    shown = await getattr(possession, asked)(presented, ip="198.51.100.9")
    assert (shown.ours, shown.works) == (True, False)

    assert await garden.watch.look_once() == 1
    told = await garden.shown("one")
    assert told.last_trip is not None
    assert (told.last_trip.ip_network, told.last_trip.endpoint) == ("198.51.100.0/24", f"POST /leaked-keys/{asked}")
    await garden.decoys.retire(garden.admin, "one")
    await getattr(possession, asked)(presented, ip="198.51.100.9")
    assert await garden.watch.look_once() == 0


async def test_a_decoy_that_is_watched_is_not_made_a_working_key(garden: Garden) -> None:
    made = await garden.plant()
    keys, key = garden.station.desk.keys, str(made.keyspace_key)
    with pytest.raises(ConflictError) as refused:
        await keys.enable(garden.admin, key)
    assert refused.value.code == "is_decoy"

    await garden.decoys.retire(garden.admin, "one")
    assert str((await keys.enable(garden.admin, key)).state) == "active"
