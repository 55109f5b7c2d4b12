"""What people may do with balances, over real services on both engines."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import update

from keyturn.access.caller import Credentials
from keyturn.errors import ConflictError, ForbiddenError, IdempotencyError, InputError, NotFoundError
from keyturn.quotas.inspection import discrepancies
from keyturn.quotas.keeper import QuotaKeeper
from keyturn.quotas.service import QuotaService
from keyturn.storage.nodes import database_time
from keyturn.storage.schema import quota_block
from keyturn.verify.spending import QuotaDemand
from keyturn.wire.policy import QuotaRule
from keyturn.wire.quotas import CreditStranded, QuotaBalance, SetBalance, TopUp
from tests.keys.desk import Desk, opened_desk
from tests.quotas.world import spend

MONTHLY = {"name": "monthly", "amount": 100}
CREDITS = {"name": "credits", "amount": 10, "period": "none"}


@dataclass
class Till:
    """A key with two quotas, the keeper that spends them, and the service."""

    desk: Desk
    keeper: QuotaKeeper
    service: QuotaService
    key: str
    folder: Path

    @property
    def admin(self) -> Credentials:
        return self.desk.admin

    async def spend(self, name: str, times: int = 1) -> int:
        """Verify that often; return how often it was admitted."""
        rule = {"monthly": QuotaRule("monthly", 100), "credits": QuotaRule("credits", 10, period="none")}[name]
        asked = QuotaDemand(rule, self.desk.founded.workspace.id, f"key/{self.key}", 1)
        return [(await spend(self.keeper, self.desk.clock.now(), asked)).admitted for _ in range(times)].count(True)

    async def balance(self, name: str) -> QuotaBalance:
        """Return one balance of the key."""
        found = await self.service.list(self.admin, key=self.key)
        return next(one for one in found.items if one.quota == name)

    async def strand(self, name: str) -> None:
        """Lose a node that holds a block."""
        await self.spend(name)
        self.keeper.abandon()
        for path in self.folder.glob("*/*.counters"):
            path.unlink()
        # As if its lease had ended long ago, by the time of either engine.
        await self.desk.database.write(lambda t: t.connection.execute(update(quota_block).values(lease_until=0.0)))
        self.keeper = QuotaKeeper(self.desk.database, self.desk.clock, "nod_2", self.folder / "b")
        await self.keeper.open()
        await self.keeper.sweep()
        self.service = QuotaService(self.desk.door, self.keeper)


@pytest.fixture
async def till(migrated_database_url: str, tmp_path: Path) -> AsyncIterator[Till]:
    async with opened_desk(migrated_database_url) as desk:
        at = await desk.database.read(lambda connection: database_time(connection, desk.clock.now()))
        desk.clock.step(at - desk.clock.now())
        await desk.keyspace(quotas=[MONTHLY])
        key = await desk.key(quotas=[CREDITS])
        keeper = QuotaKeeper(desk.database, desk.clock, "nod_1", tmp_path / "a")
        await keeper.open()
        made = Till(desk, keeper, QuotaService(desk.door, keeper), key.id, tmp_path)
        yield made
        await made.keeper.stop()
        assert await desk.database.read(discrepancies) == []


async def test_balances_are_shown_before_their_first_use_and_after(till: Till) -> None:
    before = {
        one.quota: (one.state, one.available) for one in (await till.service.list(till.admin, key=till.key)).items
    }
    assert before == {"monthly": ("unused", 100), "credits": ("unused", 10)}
    await till.spend("monthly", 3)
    found = await till.balance("monthly")
    assert (found.state, found.granted) == ("open", 100)
    assert found.granted == found.spent + found.leased + found.stranded + found.available


async def test_what_this_process_has_spent_is_shown_at_once_and_counted_once(till: Till) -> None:
    """Whether a spend was reported to the database yet makes no difference to what is shown."""
    for spent in range(1, 6):
        assert await till.spend("monthly") == 1
        assert ((await till.balance("monthly")).spent, (await till.balance("monthly")).remaining) == (
            spent,
            100 - spent,
        )
        if spent % 2:
            till.keeper.renew()
            await till.keeper.tick()
            assert (await till.balance("monthly")).spent == spent
    await till.keeper.recall([])


async def test_a_top_up_is_spendable_at_once(till: Till) -> None:
    assert await till.spend("credits", 12) == 10
    topped = await till.service.top_up(till.admin, TopUp(quota="credits", units=5, key=till.key, note="paid"))
    assert (topped.granted, topped.remaining) == (15, 5)
    assert await till.spend("credits", 12) == 5
    (leaf,) = await till.desk.leaves("quota.credit")
    assert leaf["resource"] == f"key/orders/{till.key}"


async def test_a_top_up_sent_twice_is_done_once(till: Till) -> None:
    request = TopUp(quota="credits", units=5, key=till.key)
    first = await till.service.top_up(till.admin, request, idempotency="one")
    again = await till.service.top_up(till.admin, request, idempotency="one")
    assert first == again
    assert (await till.balance("credits")).granted == 15
    with pytest.raises(IdempotencyError):
        await till.service.top_up(till.admin, TopUp(quota="credits", units=6, key=till.key), idempotency="one")


async def test_units_are_taken_with_a_note_and_never_more_than_there_are(till: Till) -> None:
    await till.spend("credits", 2)
    with pytest.raises(InputError, match="note"):
        await till.service.top_up(till.admin, TopUp(quota="credits", units=-1, key=till.key))
    with pytest.raises(ConflictError, match="8 are available"):
        await till.service.top_up(till.admin, TopUp(quota="credits", units=-9, key=till.key, note="refund"))
    taken = await till.service.top_up(till.admin, TopUp(quota="credits", units=-8, key=till.key, note="refund"))
    assert taken.available == 0
    assert await till.spend("credits") == 0


async def test_a_balance_that_is_set_holds_exactly_that(till: Till) -> None:
    await till.spend("credits", 3)
    assert (
        await till.service.set_balance(till.admin, SetBalance(quota="credits", units=2, key=till.key))
    ).available == 2
    assert await till.spend("credits", 5) == 2
    assert (
        await till.service.set_balance(till.admin, SetBalance(quota="credits", units=4, key=till.key))
    ).available == 4
    assert await till.spend("credits", 9) == 4


async def test_stranded_units_are_credited_by_a_person(till: Till) -> None:
    await till.strand("credits")
    stranded = (await till.balance("credits")).stranded
    assert stranded > 0
    with pytest.raises(ConflictError):
        await till.service.credit(till.admin, CreditStranded(quota="credits", units=stranded + 1, key=till.key))
    credited = await till.service.credit(till.admin, CreditStranded(quota="credits", key=till.key, note="was idle"))
    assert (credited.stranded, credited.granted) == (0, 10)
    assert await till.spend("credits", 20) == 10 - credited.spent


async def test_the_ledger_tells_what_happened_in_pages(till: Till) -> None:
    await till.service.top_up(till.admin, TopUp(quota="credits", units=5, key=till.key, note="paid"))
    await till.spend("credits", 2)
    await till.keeper.recall([])
    await till.service.top_up(till.admin, TopUp(quota="credits", units=-1, key=till.key, note="refund"))
    first = await till.service.ledger(till.admin, "credits", key=till.key, limit=2)
    assert first.next_cursor is not None
    rest = await till.service.ledger(till.admin, "credits", key=till.key, limit=2, cursor=first.next_cursor)
    lines = [(line.kind, line.units) for line in (*first.items, *rest.items)]
    assert lines == [("top_up", -1), ("spend", 2), ("top_up", 5), ("grant", 10)]
    assert first.items[0].note == "refund"
    assert rest.next_cursor is None


async def test_only_who_may_sees_or_changes_a_balance(till: Till) -> None:
    _, stranger = await till.desk.hire("stranger")
    _, reader = await till.desk.hire("reader", ("quota.read", "key/orders/*"))
    _, other = await till.desk.hire("other", ("quota.*", "key/another/*"))
    with pytest.raises(NotFoundError):
        await till.service.list(stranger, key=till.key)
    with pytest.raises(NotFoundError):
        await till.service.top_up(other, TopUp(quota="credits", units=1, key=till.key))
    assert len((await till.service.list(reader, key=till.key)).items) == 2
    with pytest.raises((ForbiddenError, NotFoundError)):
        await till.service.set_balance(reader, SetBalance(quota="credits", units=1, key=till.key))
    tenant = await till.desk.tenant("elsewhere")
    with pytest.raises(NotFoundError):
        await till.service.list(tenant, key=till.key)


async def test_what_does_not_exist_is_not_found(till: Till) -> None:
    with pytest.raises(NotFoundError):
        await till.service.top_up(till.admin, TopUp(quota="nothing", units=1, key=till.key))
    with pytest.raises(NotFoundError):
        await till.service.ledger(till.admin, "monthly", key=till.key, period="1999-01")
    with pytest.raises(InputError):
        await till.service.list(till.admin)
    with pytest.raises(NotFoundError):
        await till.service.list(till.admin, owner="nobody")
    for name in ("", "a\0b", "\ud800", "x" * 257):
        with pytest.raises(InputError):
            await till.service.list(till.admin, owner=name)


async def test_an_owner_has_balances_by_plan(till: Till) -> None:
    await till.desk.plan(quotas=[{"name": "team", "amount": 50, "per": "owner"}])
    key = await till.desk.key(owner="acme")
    rule = QuotaRule("team", 50, per="owner")
    asked = QuotaDemand(rule, till.desk.founded.workspace.id, "owner/acme", 4)
    assert (await spend(till.keeper, till.desk.clock.now(), asked)).admitted
    found = await till.service.list(till.admin, owner="acme")
    assert [(one.quota, one.subject) for one in found.items] == [("team", "owner/acme")]
    assert key.id
    topped = await till.service.top_up(till.admin, TopUp(quota="team", units=7, owner="acme"))
    assert topped.granted == 57
