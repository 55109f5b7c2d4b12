"""A simulated database with nodes around it, every message in pieces: for the freshness simulation."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

from keyturn.verify.freshness import Freshness, Sent

LONGEST = 10.0
STALE_AFTER = {"strict": 4.0, "usual": LONGEST}


@dataclass
class Row:
    """A node in the registry."""

    log_id: str = ""
    applied: int = -1
    confirmed_at: float = 0.0


@dataclass
class Revocation:
    key: str
    keyspace: str
    log_id: str
    seq: int
    committed_at: float
    effective_at: float = inf

    @property
    def effective_by(self) -> float:
        return self.committed_at + STALE_AFTER[self.keyspace]


@dataclass
class Confirm:
    sent: Sent
    written: bool = False
    head: tuple[str, int] | None = None


@dataclass
class Verification:
    key: str
    received_at: float
    admits: bool


@dataclass
class Node:
    name: str
    freshness: Freshness
    revoked: frozenset[str] = frozenset()
    confirms: list[Confirm] = field(default_factory=list)
    read: tuple[str, int, frozenset[str]] | None = None
    snapshot: tuple[str, int, frozenset[str]] | None = None
    verifications: list[Verification] = field(default_factory=list)


class World:
    """One database and the nodes around it; database time and boottime run alike."""

    def __init__(self, make: type[Freshness]) -> None:
        self.make = make
        self.now = 1000.0
        self.log_id, self.head = "log_0", 0
        self.issued = 0
        self.revocations: list[Revocation] = []
        self.registry: dict[str, Row] = {}
        self.nodes: list[Node] = []
        self.head_before_write = False
        self.checks_again = True
        self.decides_again = True

    def revoked(self) -> frozenset[str]:
        return frozenset(revocation.key for revocation in self.revocations)

    def start_node(self) -> None:
        name = f"node_{len(self.registry)}"
        self.registry[name] = Row(confirmed_at=self.now)
        self.nodes.append(Node(name, self.make()))

    def stop_node(self, node: Node) -> None:
        """Kill a node; the registry is not told."""
        self.nodes.remove(node)

    def commit(self) -> None:
        self.head += 1

    def revoke(self, keyspace: str) -> None:
        self.head += 1
        self.issued += 1
        key = f"{keyspace}-{self.issued}"
        self.revocations.append(Revocation(key, keyspace, self.log_id, self.head, self.now))

    def restart_log(self) -> None:
        self.log_id = f"log_{int(self.log_id[4:]) + 1}"

    def ask(self, revocation: Revocation) -> None:
        """Read the registry as `revoke` does, and remember when it said effective."""
        laggards = [
            row
            for row in self.registry.values()
            if row.confirmed_at + STALE_AFTER[revocation.keyspace] > self.now
            and (row.log_id != revocation.log_id or row.applied < revocation.seq)
        ]
        if not laggards:
            revocation.effective_at = min(revocation.effective_at, self.now)

    def send(self, node: Node) -> None:
        node.confirms.append(Confirm(node.freshness.sending(self.now)))

    def write(self, node: Node, confirm: Confirm) -> None:
        """The database executes a confirm: the registry row first, then the head, and time may pass between."""
        row = self.registry[node.name]
        if self.head_before_write and confirm.head is None:
            confirm.head = (self.log_id, self.head)
        elif not confirm.written:
            confirm.written = True
            row.log_id, row.applied, row.confirmed_at = confirm.sent.log_id, confirm.sent.applied, self.now
        else:
            confirm.head = (self.log_id, self.head)

    def answer(self, node: Node, confirm: Confirm) -> None:
        node.confirms.remove(confirm)
        if confirm.written and confirm.head is not None:
            node.freshness.confirmed(confirm.sent, *confirm.head, LONGEST)

    def follow(self, node: Node) -> None:
        """Read the news, then apply it: two steps, with anything between them."""
        if node.read is None:
            node.read = (self.log_id, self.head, self.revoked())
            return
        log_id, head, revoked = node.read
        node.read = None
        node.freshness.observed(log_id, head)
        if not node.freshness.resync_needed:
            node.revoked = revoked
            node.freshness.advanced(head)

    def load(self, node: Node) -> None:
        """Read a snapshot, then adopt it."""
        if node.snapshot is None:
            node.snapshot = (self.log_id, self.head, self.revoked())
            return
        log_id, seq, node.revoked = node.snapshot
        node.snapshot = None
        node.read = None
        node.freshness.loaded(log_id, seq)

    def receive(self, node: Node, revocation: Revocation) -> None:
        """A verification arrives, is found fresh or not, and is decided by what the replica says."""
        if node.freshness.fresh(self.now, STALE_AFTER[revocation.keyspace]):
            admits = revocation.key not in node.revoked
            node.verifications.append(Verification(revocation.key, self.now, admits))

    def finish(self, node: Node, verification: Verification) -> None:
        """Decide by what was applied meanwhile, check freshness again, admit; nothing promised may be broken by it."""
        node.verifications.remove(verification)
        keyspace = verification.key.partition("-")[0]
        still = not self.decides_again or verification.key not in node.revoked
        again = not self.checks_again or node.freshness.fresh(self.now, STALE_AFTER[keyspace])
        if not (verification.admits and still and again):
            return
        for revocation in self.revocations:
            if revocation.key == verification.key:
                assert verification.received_at < revocation.effective_at, "received after effective, and admitted"
                assert self.now < revocation.effective_by, "admitted after effective_by"


def ready(world: World) -> Node:
    """Start a node that is fresh."""
    world.start_node()
    node = world.nodes[-1]
    world.load(node)
    world.load(node)
    confirm_at_once(world, node)
    assert node.freshness.fresh(world.now, LONGEST)
    return node


def confirm_at_once(world: World, node: Node) -> None:
    world.send(node)
    confirm = node.confirms[-1]
    world.write(node, confirm)
    world.write(node, confirm)
    world.answer(node, confirm)
