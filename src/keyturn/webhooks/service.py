"""Endpoints: creating them, changing them, their secrets, switching them off, and deleting them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from msgspec import UNSET

from keyturn.access.caller import Resource
from keyturn.access.idempotency import Attempt, Replay, idempotent
from keyturn.access.moments import require_revision
from keyturn.access.paging import page
from keyturn.errors import CapError, duplicate, not_found
from keyturn.kernel.ids import new_id
from keyturn.storage.change_log import read_head
from keyturn.storage.transaction import ChangeKind
from keyturn.webhooks import delivery_store, outbox, store
from keyturn.webhooks.answers import webhook_info, webhook_secret
from keyturn.webhooks.guard import parse_url
from keyturn.webhooks.model import ACTIVE, ASKED, DELETED, DISABLED, Endpoint
from keyturn.webhooks.rules import check_patterns
from keyturn.webhooks.signature import encode_secret
from keyturn.wire.actions import Action
from keyturn.wire.keys import PAGE_DEFAULT
from keyturn.wire.webhooks import (
    ENDPOINTS_MAX,
    CreateWebhook,
    RotateWebhookSecret,
    UpdateWebhook,
    WebhookInfo,
    WebhookPage,
    WebhookSecret,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from keyturn.access.caller import Credentials
    from keyturn.access.door import Door, Operation
    from keyturn.audit.leaf import Detail
    from keyturn.storage.keyring import Keyring
    from keyturn.webhooks.guard import Network


class WebhookService:
    """The operations on endpoints."""

    def __init__(self, door: Door, keyring: Keyring, allowed: Sequence[Network] = ()) -> None:
        """Need the door, the keyring that holds secrets, and the networks that endpoints may be in besides."""
        self._door = door
        self._keyring = keyring
        self._allowed = tuple(allowed)

    async def create(
        self, credentials: Credentials, request: CreateWebhook, *, idempotency: str | None = None
    ) -> WebhookSecret:
        """Create an endpoint and its secret; raises ConflictError when the name is taken."""
        attempt = Attempt.of(credentials, Action.WEBHOOK_CREATE, idempotency, request)

        def work(op: Operation) -> WebhookSecret:
            op.authorise(Action.WEBHOOK_CREATE, Resource(f"webhook/{request.name}"))
            replay = Replay(WebhookSecret, lambda made: made.id, lambda made: _again(op, made))
            return idempotent(op, attempt, replay, lambda: self._create(op, request))

        return (await self._door.write(credentials, work, attempt=attempt)).value

    async def show(self, credentials: Credentials, name: str) -> WebhookInfo:
        """Show an endpoint; never its secret."""
        return await self._door.read(
            credentials, lambda op: webhook_info(authorised_endpoint(op, Action.WEBHOOK_READ, name))
        )

    async def list(
        self, credentials: Credentials, *, cursor: str | None = None, limit: int = PAGE_DEFAULT
    ) -> WebhookPage:
        """List the endpoints that the caller may read, oldest first."""

        def work(op: Operation) -> WebhookPage:
            found, following = page(
                op,
                lambda after, count: store.list_endpoints(op.connection, op.workspace, after, count),
                lambda one: op.allows(Action.WEBHOOK_READ, Resource(one.resource)),
                cursor,
                limit,
                reading=Action.WEBHOOK_READ,
            )
            return WebhookPage(items=tuple(webhook_info(one) for one in found), next_cursor=following)

        return await self._door.read(credentials, work)

    async def update(
        self, credentials: Credentials, name: str, request: UpdateWebhook, *, if_match: int | None = None
    ) -> WebhookInfo:
        """Change address, event patterns or description; what waits goes to the new address."""

        def change(found: Endpoint) -> Endpoint:
            changed = found
            if request.description is not UNSET:
                changed = replace(changed, description=request.description)
            if request.events is not UNSET:
                changed = replace(changed, events=check_patterns(request.events))
            if request.url is not UNSET:
                parse_url(request.url, self._allowed)
                changed = replace(changed, url=request.url)
            return changed

        return await self._change(credentials, name, change, if_match)

    async def disable(self, credentials: Credentials, name: str, *, if_match: int | None = None) -> WebhookInfo:
        """Send nothing any more; events become dead letters until it is enabled again."""

        def change(found: Endpoint) -> Endpoint:
            return found if found.state == DISABLED else replace(found, state=DISABLED, state_reason=ASKED)

        return await self._change(credentials, name, change, if_match)

    async def enable(self, credentials: Credentials, name: str, *, if_match: int | None = None) -> WebhookInfo:
        """Send again: what waited, and what happens from now on."""

        def change(found: Endpoint) -> Endpoint:
            return (
                replace(found, state=ACTIVE, state_reason=None, failing_since=None) if found.state != ACTIVE else found
            )

        return await self._change(credentials, name, change, if_match)

    async def delete(self, credentials: Credentials, name: str, *, if_match: int | None = None) -> WebhookInfo:
        """End an endpoint for good; what waited is cancelled, and its name is free again."""

        def work(op: Operation) -> WebhookInfo:
            found = authorised_endpoint(op, Action.WEBHOOK_DELETE, name)
            require_revision(if_match, found.revision)
            cancelled = delivery_store.cancel_pending(op.connection, found.id, op.now)
            changed = replace(found, state=DELETED, state_reason=ASKED, deleted_at=op.now, overlap_until=None)
            return webhook_info(_save(op, Action.WEBHOOK_DELETE, changed, {"cancelled": cancelled}))

        return (await self._door.write(credentials, work)).value

    async def rotate_secret(
        self,
        credentials: Credentials,
        name: str,
        request: RotateWebhookSecret,
        *,
        if_match: int | None = None,
        idempotency: str | None = None,
    ) -> WebhookSecret:
        """Make a new secret; the one before counts too until the overlap ends, and any older one no longer."""
        attempt = Attempt.of(credentials, Action.WEBHOOK_UPDATE, idempotency, name, "rotate-secret", request)

        def work(op: Operation) -> WebhookSecret:
            found = authorised_endpoint(op, Action.WEBHOOK_UPDATE, name)

            def rotate() -> WebhookSecret:
                require_revision(if_match, found.revision)
                made = self._keyring.create(op.connection, op.workspace, store.SECRET, found.id, op.now)
                for key in self._keyring.all(op.connection, op.workspace, store.SECRET, found.id):
                    if key.number < made.number - 1 or (key.number < made.number and not request.overlap_seconds):
                        self._keyring.retire(op.connection, op.workspace, store.SECRET, found.id, key.number)
                until = op.now + request.overlap_seconds if request.overlap_seconds else None
                detail: dict[str, Detail] = {"secret": made.number, "overlap_seconds": request.overlap_seconds}
                saved = _save(op, Action.WEBHOOK_UPDATE, replace(found, overlap_until=until), detail)
                return webhook_secret(saved, encode_secret(made.value))

            replay = Replay(WebhookSecret, lambda made: made.id, lambda made: _again(op, made))
            return idempotent(op, attempt, replay, rotate)

        return (await self._door.write(credentials, work, attempt=attempt)).value

    def _create(self, op: Operation, request: CreateWebhook) -> WebhookSecret:
        events = check_patterns(request.events)
        parse_url(request.url, self._allowed)
        if store.load_endpoint(op.connection, op.workspace, request.name) is not None:
            raise duplicate("webhook", request.name)
        if store.count_endpoints(op.connection, op.workspace) >= ENDPOINTS_MAX:
            raise CapError(f"a workspace has at most {ENDPOINTS_MAX} webhooks", hint="delete one that is not needed")
        made = Endpoint(
            id=new_id("whk", op.now),
            workspace=op.workspace,
            name=request.name,
            url=request.url,
            description=request.description,
            events=events,
            state=ACTIVE,
            state_reason=None,
            failing_since=None,
            overlap_until=None,
            since_seq=read_head(op.connection).seq,
            created_at=op.now,
            created_by=op.caller.principal,
            updated_at=op.now,
            deleted_at=0.0,
            revision=1,
        )
        store.insert_endpoint(op.connection, made)
        secret = self._keyring.create(op.connection, op.workspace, store.SECRET, made.id, op.now)
        op.record(
            Action.WEBHOOK_CREATE,
            made.resource,
            kind=ChangeKind.WEBHOOK,
            entity=made.id,
            detail={"events": list(events)},
        )
        return webhook_secret(made, encode_secret(secret.value))

    async def _change(
        self, credentials: Credentials, name: str, change: Callable[[Endpoint], Endpoint], if_match: int | None
    ) -> WebhookInfo:
        def work(op: Operation) -> WebhookInfo:
            found = authorised_endpoint(op, Action.WEBHOOK_UPDATE, name)
            require_revision(if_match, found.revision)
            changed = change(found)
            if changed == found:
                op.unchanged()
                return webhook_info(found)
            outbox.catch_up(op.connection, op.now)
            return webhook_info(_save(op, Action.WEBHOOK_UPDATE, changed, _difference(found, changed)))

        return (await self._door.write(credentials, work)).value


def authorised_endpoint(op: Operation, action: Action, name: str) -> Endpoint:
    """Load an endpoint for an action; one that the caller may not know of answers as if there were none."""
    found = store.load_endpoint(op.connection, op.workspace, name)
    resource = None if found is None else Resource(found.resource)
    op.authorise(action, resource, kind="webhook", name=name, absent=Resource(f"webhook/{name}"))
    if found is None:
        raise not_found("webhook", name)
    return found


def _save(op: Operation, action: Action, changed: Endpoint, detail: dict[str, Detail]) -> Endpoint:
    saved = replace(changed, revision=changed.revision + 1, updated_at=op.now)
    store.update_endpoint(op.connection, saved)
    op.record(action, saved.resource, kind=ChangeKind.WEBHOOK, entity=saved.id, detail=detail)
    return saved


def _again(op: Operation, endpoint_id: str) -> WebhookSecret:
    found = store.load_by_id(op.connection, endpoint_id)
    if found is None:
        raise not_found("webhook", endpoint_id)
    return webhook_secret(found, None)


def _difference(was: Endpoint, now: Endpoint) -> dict[str, Detail]:
    found: dict[str, Detail] = {}
    if was.state != now.state:
        found["state"] = now.state
    if was.description != now.description:
        found["description"] = now.description
    if was.events != now.events:
        found["events"] = list(now.events)
    if was.url != now.url:
        found["url"] = "changed"
    return found
