"""The replica: keyspaces and keys, complete and in memory.

    keyspaces   id -> KeyspacePolicy                    one object per keyspace, changed in place
    keys        id -> VersionPolicy | tuple of them     a key with one version has no tuple around it
    versions    id -> VersionPolicy                     what a presented key names
    books       workspace -> Book                       its plans and owners, changed in place
    imports     keyspace id -> Imports                  digests and look-up prefixes of imported foreign keys

Records are always current state, so the last one applied wins, and applying one twice changes nothing.  A key
changes by new objects that take the place of the old; whoever still holds an old one holds what was true then.
What a keyspace, plan or owner says holds for all its keys from the moment it is applied, in whatever order records
come: a key may be there before its plan, and is denied until the plan is.

No method gives up control, so tasks of one event loop see every change whole.  A resync is loaded into a
`staging` replica, in as many pieces as the caller likes, while this one goes on answering; `adopt` swaps.

It is thrifty: one flat object per version, one object for all equal scopes, restrictions and states, and
nothing per key that the garbage collector has to walk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from keyturn.errors import BrokenInvariantError
from keyturn.kernel.tokenformat import PEPPER_BYTES_MAX, PEPPER_BYTES_MIN, digest
from keyturn.verify.model import VersionPolicy
from keyturn.verify.rules import FAST_KIND
from keyturn.verify.sharing import Imports, Shared
from keyturn.verify.standing import KeyspacePolicy
from keyturn.verify.terms import Book, OwnerPolicy, PlanPolicy
from keyturn.wire.verification import PRESENTED_MAX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from keyturn.wire.policy import KeyRecord, KeyspaceRecord, OwnerRecord, PlanRecord

NO_VERSIONS: Final[tuple[VersionPolicy, ...]] = ()


class ForeignMatch(msgspec.Struct, frozen=True, gc=False):
    """What a key of foreign shape may be.

    `version` was found by its computed digest; `rules.decide` proves it again.  `candidates` share a declared
    look-up prefix with the presented key; each needs a slow proof, outside this package, and then
    `rules.decide(..., proven=True)`.
    """

    version: VersionPolicy | None
    candidates: tuple[VersionPolicy, ...]


class ReplicaCounts(msgspec.Struct, frozen=True):
    """What a replica holds now, and what was done to it since it began."""

    keyspaces: int
    keys: int
    versions: int
    imported: int
    applied: int
    removed: int
    orphaned: int
    resyncs: int
    plans: int
    owners: int


class Replica:
    """Every keyspace and key of a node, or of the keyspaces that a verifier may replicate."""

    __slots__ = (
        "_books",
        "_imports",
        "_keys",
        "_keyspaces",
        "_owners",
        "_plans",
        "_shared",
        "_versions",
        "applied",
        "orphaned",
        "removed",
        "resyncs",
    )

    def __init__(self, shared: Shared | None = None) -> None:
        """Begin empty; `shared` is what equal policies of another replica are already held in."""
        self._shared = Shared() if shared is None else shared
        self._keyspaces: dict[str, KeyspacePolicy] = {}
        self._keys: dict[str, VersionPolicy | tuple[VersionPolicy, ...]] = {}
        self._versions: dict[str, VersionPolicy] = {}
        self._imports: dict[str, Imports] = {}
        self._books: dict[str, Book] = {}
        self._plans: dict[str, PlanPolicy] = {}
        self._owners: dict[str, OwnerPolicy] = {}
        self.applied = 0
        self.removed = 0
        self.orphaned = 0
        self.resyncs = 0

    # --- asking -------------------------------------------------------------------------------------------------

    def version(self, version_id: str) -> VersionPolicy | None:
        """Return the version of that id, in whatever state; None when it is not known."""
        return self._versions.get(version_id)

    def versions_of(self, key_id: str) -> tuple[VersionPolicy, ...]:
        """Return the versions of a key, in the order of its record; empty when it is not known."""
        held = self._keys.get(key_id, NO_VERSIONS)
        return held if isinstance(held, tuple) else (held,)

    def keyspace(self, keyspace_id: str) -> KeyspacePolicy | None:
        """Return the keyspace of that id."""
        return self._keyspaces.get(keyspace_id)

    def keyspaces(self) -> Iterator[KeyspacePolicy]:
        """Return all keyspaces."""
        return iter(tuple(self._keyspaces.values()))

    def foreign(
        self,
        workspace: str,
        presented: str,
        presented_sha256: bytes,
        keyspace: str | None = None,
        *,
        allowed: Callable[[KeyspacePolicy], bool] | None = None,
    ) -> ForeignMatch:
        """Find what an imported key of foreign shape may be, among the keyspaces of a workspace that take them.

        `keyspace` narrows to one, by name or id.  Keyspaces that `allowed` refuses are not looked at.
        """
        candidates: list[VersionPolicy] = []
        if len(presented) > PRESENTED_MAX:
            return ForeignMatch(None, NO_VERSIONS)
        for keyspace_id, imports in self._imports.items():
            policy = self._keyspaces[keyspace_id]
            if policy.workspace != workspace or not policy.accepts_foreign or policy.system:
                continue
            if keyspace is not None and keyspace not in (policy.id, policy.name):
                continue
            if allowed is not None and not allowed(policy):
                continue
            for number, pepper in policy.peppers.items():
                version = imports.digests.get(digest(pepper, presented_sha256))
                if version is not None and version.standing.pepper == number:
                    return ForeignMatch(version, NO_VERSIONS)
            candidates.extend(imports.candidates(presented))
        return ForeignMatch(None, tuple(candidates))

    def counts(self) -> ReplicaCounts:
        """Return the numbers for metrics."""
        return ReplicaCounts(
            keyspaces=len(self._keyspaces),
            keys=len(self._keys),
            versions=len(self._versions),
            imported=sum(map(len, self._imports.values())),
            applied=self.applied,
            removed=self.removed,
            orphaned=self.orphaned,
            resyncs=self.resyncs,
            plans=len(self._plans),
            owners=len(self._owners),
        )

    # --- changing -----------------------------------------------------------------------------------------------

    def load_keyspace(self, record: KeyspaceRecord) -> KeyspacePolicy:
        """Add a keyspace, or change the one of that id for all its keys at once."""
        policy = self._keyspaces.get(record.id)
        if policy is None:
            policy = self._keyspaces[record.id] = KeyspacePolicy(record.id)
        policy.workspace = record.workspace
        policy.name = record.name
        policy.prefix = record.prefix
        policy.tag = record.tag
        policy.environment = record.environment
        policy.enabled = record.state == "active"
        policy.system = record.system
        policy.accepts_foreign = record.accepts_foreign
        policy.stale_after_seconds = record.stale_after_seconds
        policy.checker = self._shared.checker(record.restrictions)
        policy.peppers = {
            pepper.number: pepper.value
            for pepper in record.peppers
            if PEPPER_BYTES_MIN <= len(pepper.value) <= PEPPER_BYTES_MAX
        }
        policy.shadow = self._shared.checker(record.shadow_restrictions)
        policy.default_plan = record.default_plan
        policy.limits = record.limits
        policy.quotas = record.quotas
        policy.book = self._book(record.workspace)
        policy.stamp = object()
        self.applied += 1
        return policy

    def remove_keyspace(self, keyspace_id: str) -> None:
        """Forget a keyspace and all its keys; costs a walk over every key.  An unknown id changes nothing."""
        policy = self._keyspaces.pop(keyspace_id, None)
        if policy is None:
            return
        policy.enabled = False
        policy.system = True
        self._imports.pop(keyspace_id, None)
        gone = [version for version in self._versions.values() if version.keyspace is policy]
        for version in gone:
            del self._versions[version.id]
            self._keys.pop(version.key_id, None)
        self.removed += 1

    def load_plan(self, record: PlanRecord) -> PlanPolicy:
        """Add a plan, or change the one of that id for all keys on it at once."""
        held = self._plans.get(record.id)
        if held is not None and held.workspace != record.workspace:
            self._drop_plan(record.id)
        plan = self._plans[record.id] = PlanPolicy(
            record.id,
            record.workspace,
            record.name,
            record.scopes,
            record.limits,
            record.quotas,
            self._shared.checker(record.restrictions),
            self._shared.checker(record.shadow_restrictions),
        )
        book = self._book(record.workspace)
        book.plans[record.id] = plan
        self._stamp(book)
        self.applied += 1
        return plan

    def remove_plan(self, plan_id: str) -> None:
        """Forget a plan: keys on it are denied.  An unknown id changes nothing."""
        if self._drop_plan(plan_id):
            self.removed += 1

    def apply_owner(self, record: OwnerRecord | None, owner_id: str) -> None:
        """Take over what holds for an owner; None removes it, and an unknown id then changes nothing."""
        if record is not None and record.id != owner_id:
            raise BrokenInvariantError(f"expected the record of {owner_id}, found that of {record.id}")
        held = self._owners.pop(owner_id, None)
        if record is not None:
            # The new one first: at no moment is there none.
            owner = OwnerPolicy(record.id, record.workspace, record.name, self._shared.owner(record))
            self._owners[record.id] = self._book(record.workspace).owners[record.name] = owner
            self.applied += 1
        elif held is not None:
            self.removed += 1
        if held is not None:
            owners = self._book(held.workspace).owners
            if owners.get(held.name) is held:
                del owners[held.name]

    def apply_key(self, record: KeyRecord | None, key_id: str) -> None:
        """Take over the current state of a key; None, or a record without versions, removes it.

        A key of a keyspace that is not loaded is not held, and counted: it cannot be verified here.
        """
        held = self.versions_of(key_id) if key_id in self._keys else NO_VERSIONS
        if record is None:
            self._forget(key_id, held)
            return
        if record.id != key_id:
            raise BrokenInvariantError(f"expected the record of {key_id}, found that of {record.id}")
        keyspace = self._keyspaces.get(record.keyspace)
        if keyspace is None:
            self._forget(key_id, held)
            self.orphaned += 1
            return
        if not record.versions:
            self._forget(key_id, held)
            return
        versions = self._shared.versions(record, keyspace, held)
        for version in versions:
            self._versions[version.id] = version
        if held:
            self._drop(held)
        self._keys[versions[0].key_id] = versions[0] if len(versions) == 1 else versions
        for version, source in zip(versions, record.versions, strict=True):
            if source.foreign or source.digest_kind != FAST_KIND:
                self._imports.setdefault(keyspace.id, Imports()).add(version, source.lookup)
        self.applied += 1

    def remove_key(self, key_id: str) -> None:
        """Forget a key; an unknown id changes nothing."""
        self.apply_key(None, key_id)

    def _drop_plan(self, plan_id: str) -> bool:
        held = self._plans.pop(plan_id, None)
        if held is None:
            return False
        book = self._book(held.workspace)
        del book.plans[plan_id]
        self._stamp(book)
        return True

    def _book(self, workspace: str) -> Book:
        book = self._books.get(workspace)
        if book is None:
            book = self._books[workspace] = Book()
        return book

    def _stamp(self, book: Book) -> None:
        """Have the terms of all keys of a workspace put together again, when they are next needed."""
        for policy in self._keyspaces.values():
            if policy.book is book:
                policy.stamp = object()

    def _forget(self, key_id: str, held: tuple[VersionPolicy, ...]) -> None:
        self._drop(held)
        if self._keys.pop(key_id, None) is not None:
            self.removed += 1

    def _drop(self, held: tuple[VersionPolicy, ...]) -> None:
        """Take out versions unless something newer has taken their place."""
        for version in held:
            if self._versions.get(version.id) is version:
                del self._versions[version.id]
            imports = self._imports.get(version.keyspace.id)
            if imports is not None:
                imports.drop(version)

    # --- resync -------------------------------------------------------------------------------------------------

    def staging(self) -> Replica:
        """Return an empty replica to load a snapshot into; what equal policies share is shared with this one."""
        return Replica(self._shared)

    def adopt(self, staged: Replica) -> None:
        """Replace everything with what was staged, at once; the staged replica must not be used afterwards."""
        self._keyspaces, self._keys = staged._keyspaces, staged._keys
        self._versions, self._imports = staged._versions, staged._imports
        self._books, self._plans, self._owners = staged._books, staged._plans, staged._owners
        self.applied += staged.applied
        self.orphaned += staged.orphaned
        self.resyncs += 1

    def replace_all(
        self,
        keyspaces: Iterable[KeyspaceRecord],
        keys: Iterable[KeyRecord],
        plans: Iterable[PlanRecord] = (),
        owners: Iterable[OwnerRecord] = (),
    ) -> None:
        """Replace everything with a snapshot; on error nothing is changed.

        Runs to the end without giving up control, which for a million keys is several seconds.  An event loop
        that must go on answering loads `staging()` in pieces and then calls `adopt`.
        """
        staged = self.staging()
        for keyspace in keyspaces:
            staged.load_keyspace(keyspace)
        for plan in plans:
            staged.load_plan(plan)
        for owner in owners:
            staged.apply_owner(owner, owner.id)
        for key in keys:
            staged.apply_key(key, key.id)
        self.adopt(staged)
