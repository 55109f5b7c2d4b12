"""No balance is ever overspent, whatever happens to nodes, answers and clocks; and no unit is lost without a line."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, func, select

from keyturn.kernel.clock import Clock
from keyturn.quotas import store
from keyturn.quotas.calendar import span_of
from keyturn.quotas.exchange import GRACE_SECONDS, LEASE_SECONDS
from keyturn.quotas.keeper import QuotaKeeper
from keyturn.quotas.model import account_id
from keyturn.storage.change_log import start_log
from keyturn.storage.schema import quota_line
from keyturn.verify.spending import Reservation
from keyturn.wire.policy import QuotaRule
from tests.quotas.world import WORKSPACE, FakeDatabase, World, demand, kill, spend

SUBJECTS = ("key/key_1", "key/key_2")
RULES = (
    QuotaRule("calls", 60, period="day"),
    QuotaRule("credits", 90, period="none", refill_amount=40, refill_every="week"),
)
Admitted = Counter[tuple[str, str]]
Held = list[tuple[QuotaKeeper, Reservation, list[tuple[str, str]], int]]


@dataclass
class Story:
    """What was admitted by account, and who is still alive."""

    world: World
    chance: random.Random
    admitted: Admitted = field(default_factory=Counter)
    nodes: list[tuple[QuotaKeeper, str]] = field(default_factory=list)
    dead: list[str] = field(default_factory=list)
    held: Held = field(default_factory=list)
    restored: bool = False

    async def step(self) -> None:
        """Let one thing happen."""
        does = self.chance.choices(
            (self.spend, self.release, self.pass_time, self.kill, self.begin, self.tick, self.sweep, self.trouble),
            (60, 6, 8, 2, 3, 8, 5, 3),
        )[0]
        await does()

    async def spend(self) -> None:
        """Spend on one account, or on two at once, and count what was admitted."""
        if not self.nodes:
            return
        keeper, _ = self.chance.choice(self.nodes)
        # The node's own clock, which may be wrong.
        now = keeper.clock.now()
        rules = self.chance.sample(RULES, self.chance.choice((1, 1, 2)))
        cost = self.chance.choice((0, 1, 1, 1, 2, 7))
        subject = self.chance.choice(SUBJECTS)
        found = await spend(keeper, now, *(demand(rule, cost, subject) for rule in rules))
        if found.admitted:
            charged = [(subject, account_id(WORKSPACE, subject, r.name, span_of(r.period, now).name)) for r in rules]
            for name in charged:
                self.admitted[name] += cost
            self.held.append((keeper, found, charged, cost))

    async def release(self) -> None:
        """Give back what a limit refused: at once, as verify does."""
        if self.held:
            keeper, found, charged, _ = self.held[-1]
            if any(keeper is one for one, _ in self.nodes):
                before = [holding.spent for holding, _ in found.blocks]  # type: ignore[attr-defined]
                keeper.release(found)
                after = [holding.spent for holding, _ in found.blocks]  # type: ignore[attr-defined]
                for name, one, other in zip(charged, before, after, strict=False):
                    self.admitted[name] -= one - other
            self.held.pop()

    async def pass_time(self) -> None:
        """Let seconds, a lease, or days pass; or move somebody's clock."""
        self.world.elapsed.advance(
            self.chance.choice((0.3, 1, 5, 25, LEASE_SECONDS + GRACE_SECONDS + 2, 40_000, 90_000))
        )
        if self.chance.random() < 0.4:
            self.world.database.clock.step(self.chance.choice((-90_000, -70, -3, 3, 70, 90_000)))
        if self.nodes and self.chance.random() < 0.4:
            move(self.chance.choice(self.nodes)[0].clock, self.chance.choice((-90_000, -70, -3, 3, 70, 90_000)))

    async def kill(self) -> None:
        """Kill a node; its folder may be lost with it."""
        if len(self.nodes) > 1:
            keeper, folder = self.nodes.pop(self.chance.randrange(len(self.nodes)))
            kill(keeper)
            if self.chance.random() < 0.7:
                self.dead.append(folder)

    async def begin(self) -> None:
        """Start a node: in a folder of its own, or in that of one that has died."""
        if len(self.nodes) < 4:
            folder = self.dead.pop() if self.dead and self.chance.random() < 0.7 else f"f{self.world.made}"
            self.nodes.append((await self.world.node(folder), folder))

    async def tick(self) -> None:
        """Let a node do what it does once a second; others may be paused meanwhile."""
        if self.nodes:
            await self.chance.choice(self.nodes)[0].tick()

    async def sweep(self) -> None:
        """Let the elected node forfeit and refill."""
        database = self.world.database
        if self.nodes and not database.away and not database.lose_answers:
            await self.chance.choice(self.nodes)[0].sweep()

    async def trouble(self) -> None:
        """Take the database away, let it lose answers, give it a new log as a restore does, or bring it back."""
        database = self.world.database
        database.away = self.chance.random() < 0.3
        database.lose_answers = self.chance.random() < 0.3
        if self.chance.random() < 0.1:
            database.maintain(lambda c: start_log(c, database.clock.now()))
            self.restored = True

    def faults(self) -> dict[str, object]:
        """Compare what was admitted with what was granted, and every sum with its parts; return what does not agree."""
        database = self.world.database
        granted = database.maintain(lambda c: store.accounts(c, [account for _, account in self.admitted]))
        overspent = {
            name: units
            for (_, name), units in self.admitted.items()
            if units > (granted[name].granted + lapsed(database, name) if name in granted else 0)
        }
        found: dict[str, object] = {
            "discrepancies": database.discrepancies(),
            # Nothing had to be granted afterwards to make it add up.
            "adjustments": database.maintain(adjustments),
            "overspent": overspent,
        }
        return {name: fault for name, fault in found.items() if fault}

    async def settle(self) -> None:
        """Bring every node that can come back back, and stop all of them."""
        database = self.world.database
        database.away = database.lose_answers = False
        self.world.elapsed.advance(1)
        for keeper, _ in self.nodes:
            # As it does by itself every half minute: the database may have been away when it started.
            await keeper.settle_orphans()
            await keeper.stop()
        for folder in self.dead:
            await (await self.world.node(folder)).stop()


def move(clock: Clock, seconds: float) -> None:
    """Move a node's clock, as learning another database time does."""
    here = clock.boottime()
    clock.learn(clock.now() + seconds, here, here)


def adjustments(connection: Connection) -> int:
    """Return how many lines adjust a balance; no rule changes in these stories."""
    return connection.execute(select(func.count()).where(quota_line.c.kind == "adjust")).scalar_one()


def lapsed(database: FakeDatabase, account: str) -> int:
    """Return what an account was granted and lost again with time."""
    lines = database.maintain(lambda c: store.lines(c, account, None, 10_000))
    return -sum(line.granted for line in lines if line.kind == "lapse")


async def tell(folder: Path, seed: int, steps: int) -> dict[str, object]:
    """Let a story happen, and return the faults that were found on the way or at its end."""
    story = Story(World(folder), random.Random(seed))
    await story.begin()
    for number in range(steps):
        await story.step()
        if number % 10 == 0 and (found := story.faults()):
            return found
    await story.settle()
    return story.faults()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_what_is_admitted_never_exceeds_the_balance(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    """Kills, pauses past a lease, clock steps, lost answers and restored logs, in any order."""
    assert asyncio.run(tell(tmp_path_factory.mktemp("story"), seed, 120)) == {}


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_what_every_node_settles_is_what_was_admitted(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    """When every node that was killed comes back with its file, nothing is stranded and all is counted to the unit.

    After a restore a block may be stranded that no file counts, for a node may have spent and settled it already in
    what was lost; what was admitted is still counted.
    """

    async def run() -> None:
        story = Story(World(tmp_path_factory.mktemp("story")), random.Random(seed))
        await story.begin()
        for _ in range(80):
            await story.step()
            # A node that dies leaves its folder to another.
            alive = {folder for _, folder in story.nodes}
            gone = {path.name for path in story.world.folder.iterdir()} - alive
            story.dead = sorted(gone)
        await story.settle()
        found = story.world.database.maintain(lambda c: store.accounts(c, [name for _, name in story.admitted]))
        for (_, name), units in story.admitted.items():
            account = found.get(name)
            assert (units, 0) == ((account.spent, account.leased) if account else (0, 0))
            assert story.restored or account is None or account.stranded == 0

    asyncio.run(run())
