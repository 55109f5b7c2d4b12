"""Decoys: keys and secrets that nothing uses, planted where only somebody who looks for keys would find them.

An issued decoy is a key that is disabled from the start: whoever presents it is refused, and is noticed.  A held decoy
is a secret whose value looks like a key of a provider, and opens nothing: whoever reads it is noticed.

Making one needs the right to make what it looks like, `key.issue` or `secret.put`, besides `decoy.create`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from keyturn.access.caller import Resource
from keyturn.access.idempotency import Attempt, Replay, idempotent
from keyturn.access.moments import require_revision
from keyturn.access.paging import page
from keyturn.errors import CapError, InputError, duplicate, not_found
from keyturn.kernel.clock import rfc3339
from keyturn.kernel.ids import new_id
from keyturn.kernel.secret import random_base62
from keyturn.keys import issuing, lifecycle
from keyturn.keys.leaked import key_named
from keyturn.leaks import decoy_store as store
from keyturn.leaks.decoy_store import Decoy
from keyturn.scanner.ruleset.checksums import CHECKSUMS
from keyturn.scanner.ruleset.load import shipped_rules
from keyturn.scanner.ruleset.samples import expand
from keyturn.storage.change_log import read_head
from keyturn.storage.transaction import ChangeKind
from keyturn.vault.paths import parse_path
from keyturn.wire.actions import Action
from keyturn.wire.decoys import (
    DECOYS_MAX,
    CreateDecoy,
    DecoyCreated,
    DecoyInfo,
    DecoyKind,
    DecoyPage,
    DecoyState,
)
from keyturn.wire.keys import PAGE_DEFAULT, IssueKey
from keyturn.wire.secrets import PutSecret

if TYPE_CHECKING:
    from keyturn.access.caller import Credentials
    from keyturn.access.door import Door, Operation
    from keyturn.audit.leaf import Detail
    from keyturn.storage.keyring import Keyring
    from keyturn.vault.ports import Approvals
    from keyturn.vault.writing import Writing

PURPOSE = "decoy"
LIKE_DEFAULT = "github-personal-access-token"


class DecoyService:
    """The operations on decoys."""

    def __init__(self, door: Door, keyring: Keyring, writing: Writing, approvals: Approvals) -> None:
        """Need the door, what issues keys, and what writes secrets."""
        self._door = door
        self._keyring = keyring
        self._writing = writing
        self._approvals = approvals

    async def create(
        self, credentials: Credentials, request: CreateDecoy, *, idempotency: str | None = None
    ) -> DecoyCreated:
        """Make a decoy and show, once, what is to be planted.

        Raises InputError when what its kind needs is missing, ConflictError when its name or path is taken.
        """
        _check(request)
        value = "" if request.kind is DecoyKind.ISSUED else sample_of(request.like or LIKE_DEFAULT)
        attempt = Attempt.of(credentials, Action.DECOY_CREATE, idempotency, request)

        def work(op: Operation) -> DecoyCreated:
            op.authorise(Action.DECOY_CREATE, Resource(f"decoy/{request.name}"))
            replay = Replay(DecoyCreated, lambda made: made.id, lambda made: _again(op, made))
            return idempotent(op, attempt, replay, lambda: self._create(op, request, value))

        return (await self._door.write(credentials, work, attempt=attempt)).value

    async def show(self, credentials: Credentials, name: str) -> DecoyInfo:
        """Show a decoy and its last use."""
        return await self._door.read(credentials, lambda op: _info(_authorised(op, Action.DECOY_READ, name)))

    async def list(
        self, credentials: Credentials, *, cursor: str | None = None, limit: int = PAGE_DEFAULT
    ) -> DecoyPage:
        """List the decoys that the caller may read, oldest first."""

        def work(op: Operation) -> DecoyPage:
            found, following = page(
                op,
                lambda after, count: store.list_decoys(op.connection, op.workspace, after, count),
                lambda one: op.allows(Action.DECOY_READ, Resource(one.resource)),
                cursor,
                limit,
                reading=Action.DECOY_READ,
            )
            return DecoyPage(items=tuple(map(_info, found)), next_cursor=following)

        return await self._door.read(credentials, work)

    async def retire(self, credentials: Credentials, name: str, *, if_match: int | None = None) -> DecoyInfo:
        """Be told of its use no more; the key stays disabled and the secret stays where it is."""

        def work(op: Operation) -> DecoyInfo:
            found = _authorised(op, Action.DECOY_RETIRE, name)
            require_revision(if_match, found.revision)
            if found.state is DecoyState.RETIRED:
                op.unchanged()
                return _info(found)
            changed = replace(found, state=DecoyState.RETIRED, revision=found.revision + 1)
            store.update_decoy(op.connection, changed)
            op.record(Action.DECOY_RETIRE, changed.resource, kind=ChangeKind.DECOY, entity=changed.id)
            return _info(changed)

        return (await self._door.write(credentials, work)).value

    def _create(self, op: Operation, request: CreateDecoy, value: str) -> DecoyCreated:
        if store.load_decoy(op.connection, op.workspace, request.name) is not None:
            raise duplicate("decoy", request.name)
        if store.count_decoys(op.connection, op.workspace) >= DECOYS_MAX:
            raise CapError(f"a workspace has at most {DECOYS_MAX} decoys", hint="retire one that is not needed")
        key = secret = ""
        if request.kind is DecoyKind.ISSUED:
            key, value = self._issue(op, request)
        else:
            secret = self._hold(op, request, value)
        made = Decoy(
            id=new_id("dcy", op.now),
            workspace=op.workspace,
            kind=request.kind,
            key=key,
            secret=secret,
            name=request.name,
            planted_at=request.planted_at,
            state=DecoyState.WATCHED,
            created_at=op.now,
            created_by=op.caller.principal,
            tripped_count=0,
            first_tripped_at=None,
            last_tripped_at=None,
            last_trip=None,
            seen_seq=read_head(op.connection).seq,
            revision=1,
        )
        store.insert_decoy(op.connection, made)
        detail: dict[str, Detail] = {"kind": made.kind.value, "of": made.key or made.secret}
        op.record(Action.DECOY_CREATE, made.resource, kind=ChangeKind.DECOY, entity=made.id, detail=detail)
        return _created(made, value)

    def _issue(self, op: Operation, request: CreateDecoy) -> tuple[str, str]:
        wanted = IssueKey(keyspace=str(request.keyspace), owner=request.owner, purpose=PURPOSE, name=request.name)
        key_id = new_id("key", op.now)
        targets = issuing.Keyspaces(op)
        targets.authorise(Action.KEY_ISSUE, wanted.keyspace, key_id)
        issued = issuing.issue_all(op, self._keyring, targets, [wanted], [key_id])[0]
        key = key_named(op, key_id)
        if key is None:
            raise not_found("key", key_id)
        lifecycle.disable(op, key)
        return key_id, str(issued.key)

    def _hold(self, op: Operation, request: CreateDecoy, value: str) -> str:
        place = parse_path(str(request.path))
        op.authorise(Action.SECRET_PUT, place.resource, kind="secret", name=place.text)
        self._approvals.require(op, Action.SECRET_PUT, place)
        # Check-and-set 0: a decoy never takes the place of a secret that somebody uses.
        self._writing.put(op, place, PutSecret(fields={request.field: value}, cas=0))
        return place.text


def sample_of(rule_id: str) -> str:
    """Return a value that looks like a key of this rule; raises InputError when there is no such rule."""
    rule = next((one for one in shipped_rules() if one.id == rule_id and one.examples), None)
    if rule is None:
        raise InputError(f"no rule is called {rule_id}", field="like", hint="`keyturn rules list` names them")
    check_of = CHECKSUMS[rule.checksum].check_of if rule.checksum else None
    return _secret_in(rule.regex, rule.secret_group, expand(rule.examples[0], random_base62(43), check_of))


def _secret_in(regex: str, group: int, text: str) -> str:
    import re2

    found = re2.search(regex, text)
    if found is None:
        return text
    chosen = group or next((n for n, part in enumerate(found.groups(), 1) if part), 0)
    return str(found.group(chosen))


def _check(request: CreateDecoy) -> None:
    issued = request.kind is DecoyKind.ISSUED
    needed = "keyspace" if issued else "path"
    if getattr(request, needed) is None:
        raise InputError(f"a decoy that is {request.kind.value} needs a {needed}", field=needed)
    for name in ("path", "like") if issued else ("keyspace",):
        if getattr(request, name) is not None:
            raise InputError(f"a decoy that is {request.kind.value} has no {name}", field=name)


def _authorised(op: Operation, action: Action, name: str) -> Decoy:
    found = store.load_decoy(op.connection, op.workspace, name)
    resource = None if found is None else Resource(found.resource)
    op.authorise(action, resource, kind="decoy", name=name, absent=Resource(f"decoy/{name}"))
    if found is None:
        raise not_found("decoy", name)
    return found


def _again(op: Operation, decoy_id: str) -> DecoyCreated:
    found = store.load_by_id(op.connection, decoy_id)
    if found is None:
        raise not_found("decoy", decoy_id)
    return _created(found, None)


def _created(one: Decoy, value: str | None) -> DecoyCreated:
    info = _info(one)
    return DecoyCreated(**{name: getattr(info, name) for name in DecoyInfo.__struct_fields__}, value=value)


def _info(one: Decoy) -> DecoyInfo:
    return DecoyInfo(
        id=one.id,
        name=one.name,
        kind=one.kind,
        state=one.state,
        planted_at=one.planted_at,
        keyspace_key=one.key or None,
        secret_path=one.secret or None,
        tripped_count=one.tripped_count,
        first_tripped_at=None if one.first_tripped_at is None else rfc3339(one.first_tripped_at),
        last_tripped_at=None if one.last_tripped_at is None else rfc3339(one.last_tripped_at),
        last_trip=one.last_trip,
        created_at=rfc3339(one.created_at),
        created_by=one.created_by,
        revision=one.revision,
    )
