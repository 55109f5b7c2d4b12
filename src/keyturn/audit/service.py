"""The reader of the audit log: lists, leaves, exports, checkpoints, proofs, and erasure of content.

Reading is authorised like everything else: `audit.read`, `audit.export` and `audit.erase` on `audit/log`.
An export and an erasure are themselves leaves.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import msgspec

from keyturn.audit import checkpoint
from keyturn.audit.export import Export, Extension
from keyturn.audit.proofs import prove_consistency, prove_inclusion
from keyturn.audit.signing import present_key, presented_key, public_keys
from keyturn.audit.store import (
    LeafRecord,
    Wanted,
    count_unbuilt,
    erase_body,
    find_leaves,
    newest_seq,
    read_leaf,
)
from keyturn.audit.tree import (
    StoredCheckpoint,
    checkpoints_before,
    leaf_index,
    read_checkpoint,
    read_state,
    stored_hash,
)
from keyturn.errors import ConflictError, InputError, IntegrityError, UnavailableError, not_found
from keyturn.kernel.clock import rfc3339
from keyturn.kernel.ids import is_id
from keyturn.kernel.match import check_pattern
from keyturn.kernel.merkle import EMPTY_ROOT, leaf_hash
from keyturn.storage.transaction import ChangeKind
from keyturn.wire.actions import Action
from keyturn.wire.audit import (
    AuditActor,
    AuditFilter,
    AuditLeaf,
    AuditLeafDetail,
    AuditPage,
    AuditPublicKey,
    CheckpointInfo,
    CheckpointPage,
    ConsistencyProof,
    EraseLeaves,
    InclusionProof,
    LatestCheckpoint,
    LeavesErased,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from sqlalchemy import Connection

    from keyturn.audit.leaf import Detail
    from keyturn.audit.ports import Door, Operation
    from keyturn.storage.keyring import Keyring

LOG = "audit/log"
KIND = "audit leaf"
EXTEND_ATTEMPTS = 20
EXTEND_PAUSE_SECONDS = 0.25
BUILD_WAIT_SECONDS = 5.0
_CURSOR = re.compile(r"evt_[0-9A-Za-z]{22}")
_SIZE_CURSOR = re.compile(r"[1-9][0-9]{0,17}")


class AuditService:
    """Reads one workspace's log on behalf of a caller."""

    def __init__(
        self,
        door: Door,
        keyring: Keyring,
        resource: Callable[[str], object],
        *,
        build_wait_seconds: float = BUILD_WAIT_SECONDS,
    ) -> None:
        """Need the door, the keyring, and what names a resource to the door (`keyturn.access.caller.Resource`).

        `build_wait_seconds` is how long an export waits for the tree to hold what was committed before it.
        """
        self._door = door
        self._keyring = keyring
        self._log = resource(LOG)
        self._build_wait_seconds = build_wait_seconds

    async def list(
        self, credentials: object, wanted: AuditFilter | None = None, *, cursor: str | None = None, limit: int = 50
    ) -> AuditPage:
        """List leaves, newest first."""
        narrowed = _wanted(wanted or AuditFilter())
        after = _decoded(cursor, _CURSOR)

        def work(op: Operation) -> AuditPage:
            op.authorise(Action.AUDIT_READ, self._log)
            before: int | None = None
            if after is not None:
                last = read_leaf(op.connection, op.workspace, after)
                if last is None:
                    raise _bad_cursor()
                before = last.seq
            found, following = find_leaves(op.connection, op.workspace, narrowed, before, limit)
            return AuditPage(
                items=tuple(AuditLeaf(**_shown(one)) for one in found),
                next_cursor=None if following is None else _encoded(following.id),
            )

        return await self._door.read(credentials, work)

    async def show(self, credentials: object, leaf_id: str) -> AuditLeafDetail:
        """Show one leaf with its place in the tree and its exact text."""

        def work(op: Operation) -> AuditLeafDetail:
            op.authorise(Action.AUDIT_READ, self._log)
            found = _existing(op, leaf_id)
            place = _place(op.connection, op.workspace, found)
            return AuditLeafDetail(
                **_shown(found),
                index=None if place is None else place[0],
                hash=None if place is None else place[1].hex(),
                body=None if found.body is None else found.body.decode(errors="replace"),
            )

        return await self._door.read(credentials, work)

    async def export(self, credentials: object, *, since: int = 0) -> AsyncIterator[bytes]:
        """Begin an export of everything after the first `since` leaves; yields chunks of JSONL in bounded memory.

        Raises before anything is yielded when the caller may not.  What was committed before the call is in it: the
        tree is waited for, but no longer than a broken one may hold an export up.
        """

        def newest(op: Operation) -> tuple[int, int]:
            op.authorise(Action.AUDIT_EXPORT, self._log)
            signed = read_checkpoint(op.connection, op.workspace)
            return newest_seq(op.connection, op.workspace), 0 if signed is None else signed.seq

        def begin(op: Operation) -> tuple[Export, bytes]:
            op.authorise(Action.AUDIT_EXPORT, self._log)
            with _broken_tree():
                key = present_key(op.connection, self._keyring, op.workspace, op.now)
                export = Export.begin(op.connection, op.workspace, key, since)
            op.record(
                Action.AUDIT_EXPORT,
                LOG,
                kind=ChangeKind.AUDIT,
                entity="",
                detail={"first": export.first, "size": export.to},
            )
            return export, export.opening(op.connection)

        committed, signed = await self._door.read(credentials, newest)
        waited = 0.0
        while signed < committed and waited < self._build_wait_seconds:
            await asyncio.sleep(EXTEND_PAUSE_SECONDS)
            waited += EXTEND_PAUSE_SECONDS
            _, signed = await self._door.read(credentials, newest)
        export, opening = (await self._door.write(credentials, begin)).value
        return self._pages(credentials, export, opening)

    async def _pages(self, credentials: object, export: Export, opening: bytes) -> AsyncIterator[bytes]:
        def page(op: Operation) -> bytes:
            op.authorise(Action.AUDIT_EXPORT, self._log)
            return export.page(op.connection)

        def extend(op: Operation) -> Extension:
            op.authorise(Action.AUDIT_EXPORT, self._log)
            return export.extend(op.connection)

        yield opening
        for _ in range(EXTEND_ATTEMPTS):
            while chunk := await self._door.read(credentials, page):
                yield chunk
            extended = await self._door.read(credentials, extend)
            if extended is Extension.NOT_NEEDED:
                break
            if extended is Extension.NOT_SIGNED_YET:
                await asyncio.sleep(EXTEND_PAUSE_SECONDS)
        yield export.closing()

    async def latest(self, credentials: object) -> LatestCheckpoint:
        """Show the newest checkpoint."""

        def work(op: Operation) -> LatestCheckpoint:
            op.authorise(Action.AUDIT_READ, self._log)
            unbuilt = count_unbuilt(op.connection, op.workspace)
            found = read_checkpoint(op.connection, op.workspace)
            if found is None:
                return LatestCheckpoint(
                    number=0, size=0, root=EMPTY_ROOT.hex(), signed_at=None, note=None, unbuilt=unbuilt
                )
            return LatestCheckpoint(**msgspec.structs.asdict(_checkpoint(found)), unbuilt=unbuilt)

        return await self._door.read(credentials, work)

    async def checkpoints(self, credentials: object, *, cursor: str | None = None, limit: int = 50) -> CheckpointPage:
        """List checkpoints, newest first."""
        below = _decoded(cursor, _SIZE_CURSOR)

        def work(op: Operation) -> CheckpointPage:
            op.authorise(Action.AUDIT_READ, self._log)
            before = None if below is None else int(below)
            found = checkpoints_before(op.connection, op.workspace, before, limit + 1)
            return CheckpointPage(
                items=tuple(_checkpoint(one) for one in found[:limit]),
                next_cursor=_encoded(str(found[limit - 1].size)) if len(found) > limit else None,
            )

        return await self._door.read(credentials, work)

    async def inclusion(self, credentials: object, leaf_id: str, size: int | None = None) -> InclusionProof:
        """Prove that a leaf is in the tree of `size` leaves, the newest signed one by default."""

        def work(op: Operation) -> InclusionProof:
            op.authorise(Action.AUDIT_READ, self._log)
            found = _existing(op, leaf_id)
            place = _place(op.connection, op.workspace, found)
            if place is None:
                raise _not_built(found.id)
            with _broken_tree():
                return prove_inclusion(op.connection, op.workspace, found.id, place[0], size)

        return await self._door.read(credentials, work)

    async def consistency(self, credentials: object, first: int, second: int | None = None) -> ConsistencyProof:
        """Prove that the tree of `second` leaves (by default the newest signed one) begins with that of `first`."""

        def work(op: Operation) -> ConsistencyProof:
            op.authorise(Action.AUDIT_READ, self._log)
            with _broken_tree():
                return prove_consistency(op.connection, op.workspace, first, second)

        return await self._door.read(credentials, work)

    async def public_key(self, credentials: object) -> AuditPublicKey:
        """Show what checkpoints of the workspace are verified with; it is made when it is first asked for."""

        def read(op: Operation) -> AuditPublicKey | None:
            op.authorise(Action.AUDIT_READ, self._log)
            with _broken_tree():
                key = presented_key(op.connection, self._keyring, op.workspace)
            return None if key is None else public_keys(op.connection, op.workspace, key)

        def create(op: Operation) -> AuditPublicKey:
            op.authorise(Action.AUDIT_READ, self._log)
            op.unchanged()
            key = present_key(op.connection, self._keyring, op.workspace, op.now)
            return public_keys(op.connection, op.workspace, key)

        found = await self._door.read(credentials, read)
        return (await self._door.write(credentials, create)).value if found is None else found

    async def erase(self, credentials: object, request: EraseLeaves) -> LeavesErased:
        """Erase the content of leaves; their hashes stay, so the log still verifies.

        Nothing is erased unless all can be: each is in the tree, fits its hash, and is not itself an erasure.
        """

        def work(op: Operation) -> LeavesErased:
            op.authorise(Action.AUDIT_ERASE, self._log)
            erased: list[Detail] = []
            already: list[str] = []
            for leaf_id in dict.fromkeys(request.ids):
                found = _existing(op, leaf_id)
                if found.body is None:
                    already.append(leaf_id)
                    continue
                index, stated = _erasable(op, found)
                erase_body(op.connection, op.workspace, leaf_id)
                erased.append({"hash": stated.hex(), "id": leaf_id, "index": index})
            if not erased:
                op.unchanged()
            else:
                detail: dict[str, Detail] = {"leaves": erased, "reason": request.reason}
                op.record(Action.AUDIT_ERASE, LOG, kind=ChangeKind.AUDIT, entity="", detail=detail)
            done = tuple(leaf_id for leaf_id in dict.fromkeys(request.ids) if leaf_id not in already)
            return LeavesErased(erased=done, already=tuple(already))

        return (await self._door.write(credentials, work)).value


def _erasable(op: Operation, found: LeafRecord) -> tuple[int, bytes]:
    """Return the index and hash of a leaf whose content may go; raises ConflictError."""
    if found.action == Action.AUDIT_ERASE:
        raise ConflictError(f"audit leaf {found.id} records an erasure and stays")
    place = _place(op.connection, op.workspace, found)
    if place is None:
        raise _not_built(found.id)
    if leaf_hash(found.body or b"") != place[1]:
        # Erasing it would destroy the evidence.
        raise ConflictError(
            f"the content of audit leaf {found.id} is not what was signed",
            code="audit_altered",
            hint="run `keyturn audit verify`",
        )
    return place


def _existing(op: Operation, leaf_id: str) -> LeafRecord:
    found = read_leaf(op.connection, op.workspace, leaf_id) if is_id("evt", leaf_id) else None
    if found is None:
        raise not_found(KIND, leaf_id)
    return found


def _place(connection: Connection, workspace: str, found: LeafRecord) -> tuple[int, bytes] | None:
    """Return the index of a leaf and the hash the tree has there; None when it is not in the tree yet."""
    if found.seq > read_state(connection, workspace).built_seq:
        return None
    index = leaf_index(connection, workspace, found.seq)
    with _broken_tree():
        return index, stored_hash(connection, workspace, index)


def _not_built(leaf_id: str) -> ConflictError:
    return ConflictError(
        f"audit leaf {leaf_id} is not in the signed tree yet", code="audit_not_built", hint="try again in a second"
    )


@contextmanager
def _broken_tree() -> Iterator[None]:
    """Turn a tree that does not fit together into an answer, which a failure of ours is not."""
    try:
        yield
    except IntegrityError as error:
        raise UnavailableError(error.message, code="audit_tree_broken", hint="run `keyturn audit verify`") from error


def _wanted(asked: AuditFilter) -> Wanted:
    for name in ("action", "resource"):
        pattern = getattr(asked, name)
        if pattern is not None:
            try:
                check_pattern(pattern)
            except ValueError as error:
                raise InputError(str(error), field=name) from error
    for name in ("actor", "resource_prefix"):
        text = getattr(asked, name)
        if text is not None and not text.isprintable():
            raise InputError("expected text without control characters", field=name)
    return Wanted(
        action=asked.action,
        actor=asked.actor,
        resource=asked.resource,
        resource_prefix=asked.resource_prefix,
        outcome=asked.outcome,
        since=asked.since,
        until=asked.until,
    )


class _Request(msgspec.Struct):
    id: str | None = None
    ip: str | None = None


class _Said(msgspec.Struct):
    action: str
    actor: AuditActor
    outcome: str
    resource: str
    detail: dict[str, Any]
    request: _Request


_said_decoder = msgspec.json.Decoder(_Said)


def _shown(found: LeafRecord) -> dict[str, Any]:
    """Return the fields of a leaf: what its bytes say, or its columns where there are none to read."""
    said = _Said(found.action, AuditActor(id=found.actor), found.outcome, found.resource, {}, _Request())
    if found.body is not None:
        # Bytes that are not ours any more show as their columns; verification names them.
        with suppress(msgspec.DecodeError, UnicodeError):
            said = _said_decoder.decode(found.body)
    return {
        "id": found.id,
        "seq": found.seq,
        "at": rfc3339(found.at),
        "action": said.action,
        "outcome": said.outcome,
        "actor": said.actor,
        "resource": said.resource,
        "detail": said.detail,
        "request_id": said.request.id,
        "ip": said.request.ip,
        "erased": found.body is None,
    }


def _checkpoint(stored: StoredCheckpoint) -> CheckpointInfo:
    return CheckpointInfo(
        number=checkpoint.number_of(stored.note),
        size=stored.size,
        root=stored.root.hex(),
        signed_at=rfc3339(stored.signed_at),
        note=stored.note,
    )


def _encoded(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _decoded(cursor: str | None, shape: re.Pattern[str]) -> str | None:
    if cursor is None:
        return None
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        raise _bad_cursor() from None
    if shape.fullmatch(text) is None:
        raise _bad_cursor()
    return text


def _bad_cursor() -> InputError:
    return InputError("the cursor is not one that a list returned", field="cursor", hint="start from the first page")
