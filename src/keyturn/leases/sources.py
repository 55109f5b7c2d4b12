"""Sources and their roles: create, show, change, delete, and look whether a source answers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from msgspec import UNSET

from keyturn.access.caller import Resource
from keyturn.access.idempotency import Attempt, Replay, idempotent
from keyturn.access.moments import require_revision
from keyturn.access.paging import page
from keyturn.access.shares import Shares
from keyturn.errors import CapError, ConflictError, InputError, UnavailableError, duplicate, not_found
from keyturn.kernel.ids import new_id
from keyturn.leases import lease_store, store
from keyturn.leases.answers import role_info, source_info
from keyturn.leases.asking import failure_of
from keyturn.leases.creation import authorised_role
from keyturn.leases.model import ACTIVE, Role, Source, role_resource, source_resource
from keyturn.leases.rules import require_times
from keyturn.storage.transaction import ChangeKind
from keyturn.wire.actions import Action
from keyturn.wire.keys import PAGE_DEFAULT
from keyturn.wire.leases import (
    CreateCredentialRole,
    CreateSource,
    CredentialRoleInfo,
    CredentialRolePage,
    SourceCheck,
    SourceInfo,
    SourcePage,
    UpdateCredentialRole,
    UpdateSource,
)

if TYPE_CHECKING:
    from keyturn.access.caller import Credentials
    from keyturn.access.door import Door, Operation
    from keyturn.audit.leaf import Detail
    from keyturn.leases.ports import Connector, Connectors
    from keyturn.storage.keyring import Keyring

SOURCES_MAX: Final = 200
CHECK_SECONDS: Final = 15.0
CHECKS_EACH: Final = 8
"""How many checks of one workspace are under way at once in this worker."""
_MACHINE: Final = Resource("~instance/credential_source/machine")
_NO_PLACES: Final = frozenset({"username", "database"})
"""Settings that may change without the secrets given again; any other may say where they are sent."""


@dataclass(frozen=True, slots=True)
class _Reach:
    """How a source is reached."""

    workspace: str
    connector: Connector
    connection: dict[str, Any] = field(repr=False)


class SourceService:
    """The operations on sources and roles."""

    def __init__(self, door: Door, keyring: Keyring, connectors: Connectors) -> None:
        """Need the door, the keyring that seals, and the connectors."""
        self._door = door
        self._keyring = keyring
        self._connectors = connectors
        self._shares = Shares(CHECKS_EACH)

    async def create(
        self, credentials: Credentials, request: CreateSource, *, idempotency: str | None = None
    ) -> SourceInfo:
        """Create a source; unless told otherwise, connect to it first.

        One that borrows the rights of the server's machine takes a right over the installation.
        """
        attempt = Attempt.of(credentials, Action.CREDENTIAL_SOURCE_CREATE, idempotency, request)
        connector = self._connector(request.kind)
        resource = Resource(source_resource(request.name))
        # Before anything is connected to: what answers where is not for everybody to find out.

        def allowed(op: Operation) -> str:
            op.authorise(Action.CREDENTIAL_SOURCE_CREATE, resource)
            return op.workspace

        workspace = await self._door.read(credentials, allowed)
        connection = connector.read_connection(request.connection)
        borrows = connector.borrows(connection)
        if borrows:
            await self._door.read(credentials, lambda op: op.authorise(Action.CREDENTIAL_SOURCE_CREATE, _MACHINE))
        if request.check:
            await self._require_reachable(_Reach(workspace, connector, connection))

        def work(op: Operation) -> SourceInfo:
            op.authorise(Action.CREDENTIAL_SOURCE_CREATE, resource)
            if borrows:
                op.authorise(Action.CREDENTIAL_SOURCE_CREATE, _MACHINE)
            replay = Replay(SourceInfo, lambda made: made.id, lambda made: self._again(op, made))
            return idempotent(op, attempt, replay, lambda: self._create(op, request, connector, connection))

        return (await self._door.write(credentials, work, attempt=attempt)).value

    async def list(
        self, credentials: Credentials, *, cursor: str | None = None, limit: int = PAGE_DEFAULT
    ) -> SourcePage:
        """List sources, oldest first."""

        def work(op: Operation) -> SourcePage:
            found, following = page(
                op,
                lambda after, count: store.list_sources(op.connection, op.workspace, after, count),
                lambda one: op.allows(Action.CREDENTIAL_SOURCE_READ, Resource(one.resource)),
                cursor,
                limit,
                reading=Action.CREDENTIAL_SOURCE_READ,
            )
            return SourcePage(items=tuple(self._shown(one) for one in found), next_cursor=following)

        return await self._door.read(credentials, work)

    async def show(self, credentials: Credentials, name: str) -> SourceInfo:
        """Show a source."""
        return await self._door.read(
            credentials, lambda op: self._shown(_authorised_source(op, Action.CREDENTIAL_SOURCE_READ, name))
        )

    async def check(self, credentials: Credentials, name: str) -> SourceCheck:
        """Connect to a source and say what came of it; it takes the right to change the source."""

        def work(op: Operation) -> _Reach:
            found = _authorised_source(op, Action.CREDENTIAL_SOURCE_UPDATE, name)
            opened = store.open_connection(op.connection, self._keyring, found)
            return _Reach(op.workspace, self._connector(found.kind), opened)

        error = await self._error_of(await self._door.read(credentials, work))
        return SourceCheck(reachable=error is None, error=error)

    async def update(
        self, credentials: Credentials, name: str, request: UpdateSource, *, if_match: int | None = None
    ) -> SourceInfo:
        """Change a source; a connection takes the place of the whole one before but secrets that it leaves out."""
        given = request.connection

        def prepare(op: Operation) -> _Reach | None:
            found = _authorised_source(op, Action.CREDENTIAL_SOURCE_UPDATE, name)
            require_revision(if_match, found.revision)
            if given is UNSET:
                return None
            connector = self._connector(found.kind)
            kept = store.open_connection(op.connection, self._keyring, found)
            secrets = {one: kept[one] for one in connector.secret_settings if one in kept}
            moved = _moved(found, connector, given, secrets)
            if connector.borrows(moved):
                op.authorise(Action.CREDENTIAL_SOURCE_UPDATE, _MACHINE)
            return _Reach(op.workspace, connector, moved)

        reach = await self._door.read(credentials, prepare)
        if reach is not None and request.check:
            await self._require_reachable(reach)

        def work(op: Operation) -> SourceInfo:
            found = _authorised_source(op, Action.CREDENTIAL_SOURCE_UPDATE, name)
            require_revision(if_match, found.revision)
            changed = found
            detail: dict[str, Detail] = {}
            if request.description is not UNSET and request.description != found.description:
                changed, detail["description"] = replace(changed, description=request.description), request.description
            if reach is not None:
                shown, secrets = _parted(reach.connector, reach.connection)
                changed = replace(changed, connection=shown, secrets=tuple(sorted(secrets)))
                store.seal_secrets(op.connection, self._keyring, changed, secrets, op.now)
                detail["connection"] = "changed"
            if not detail:
                op.unchanged()
                return self._shown(found)
            saved = replace(changed, revision=found.revision + 1, updated_at=op.now)
            store.update_source(op.connection, saved)
            _record_source(op, Action.CREDENTIAL_SOURCE_UPDATE, saved, detail)
            return self._shown(saved)

        return (await self._door.write(credentials, work)).value

    async def delete(self, credentials: Credentials, name: str, *, if_match: int | None = None) -> SourceInfo:
        """Delete a source whose leases are over; its name is free again."""

        def work(op: Operation) -> SourceInfo:
            found = _authorised_source(op, Action.CREDENTIAL_SOURCE_DELETE, name)
            require_revision(if_match, found.revision)
            if lease_store.has_live(op.connection, found.id):
                raise ConflictError(
                    f"the source {name} has leases whose accounts may exist",
                    hint=f"end them with `keyturn leases revoke-prefix {name}`, and resolve irrevocable ones",
                )
            saved = replace(found, deleted_at=op.now, updated_at=op.now, revision=found.revision + 1)
            store.update_source(op.connection, saved)
            _record_source(op, Action.CREDENTIAL_SOURCE_DELETE, saved, {})
            return self._shown(saved)

        return (await self._door.write(credentials, work)).value

    # --- roles ---------------------------------------------------------------------------------------------------

    async def create_role(
        self, credentials: Credentials, source: str, request: CreateCredentialRole, *, idempotency: str | None = None
    ) -> CredentialRoleInfo:
        """Create a role of a source."""
        attempt = Attempt.of(credentials, Action.CREDENTIAL_ROLE_CREATE, idempotency, source, request)

        def work(op: Operation) -> CredentialRoleInfo:
            of = store.load_source(op.connection, op.workspace, source)
            resource = Resource(role_resource(source, request.name))
            op.authorise(
                Action.CREDENTIAL_ROLE_CREATE,
                None if of is None else resource,
                kind="credential source",
                name=source,
                absent=resource,
            )
            if of is None:
                raise not_found("credential source", source)
            replay = Replay(
                CredentialRoleInfo,
                lambda made: made.id,
                lambda made: role_info(store.load_roles_by_id(op.connection, [made])[made]),
            )
            return idempotent(op, attempt, replay, lambda: self._create_role(op, of, request))

        return (await self._door.write(credentials, work, attempt=attempt)).value

    async def list_roles(
        self, credentials: Credentials, source: str, *, cursor: str | None = None, limit: int = PAGE_DEFAULT
    ) -> CredentialRolePage:
        """List the roles of a source, oldest first."""

        def work(op: Operation) -> CredentialRolePage:
            of = store.load_source(op.connection, op.workspace, source)
            found, following = page(
                op,
                lambda after, count: [] if of is None else store.list_roles(op.connection, of, after, count),
                lambda one: op.allows(Action.CREDENTIAL_ROLE_READ, Resource(one.resource)),
                cursor,
                limit,
                reading=Action.CREDENTIAL_ROLE_READ,
            )
            return CredentialRolePage(items=tuple(role_info(one) for one in found), next_cursor=following)

        return await self._door.read(credentials, work)

    async def show_role(self, credentials: Credentials, source: str, name: str) -> CredentialRoleInfo:
        """Show a role."""
        return await self._door.read(
            credentials, lambda op: role_info(authorised_role(op, Action.CREDENTIAL_ROLE_READ, source, name)[1])
        )

    async def update_role(
        self,
        credentials: Credentials,
        source: str,
        name: str,
        request: UpdateCredentialRole,
        *,
        if_match: int | None = None,
    ) -> CredentialRoleInfo:
        """Change a role; leases that were made keep their times, and are dropped in the role's new way."""

        def work(op: Operation) -> CredentialRoleInfo:
            of, found = authorised_role(op, Action.CREDENTIAL_ROLE_UPDATE, source, name)
            require_revision(if_match, found.revision)
            given = {
                part: value
                for part in ("ttl_seconds", "max_ttl_seconds", "leases_max")
                if (value := getattr(request, part)) is not UNSET
            }
            changed = replace(found, **given)
            config = found.config if request.config is UNSET else request.config
            changed = self._checked(of, replace(changed, config=config))
            if changed == found:
                op.unchanged()
                return role_info(found)
            saved = replace(changed, revision=found.revision + 1, updated_at=op.now)
            store.update_role(op.connection, saved)
            _record_role(op, Action.CREDENTIAL_ROLE_UPDATE, saved, _role_detail(saved))
            return role_info(saved)

        return (await self._door.write(credentials, work)).value

    async def delete_role(
        self, credentials: Credentials, source: str, name: str, *, if_match: int | None = None
    ) -> CredentialRoleInfo:
        """Delete a role; leases that were made live on until they end."""

        def work(op: Operation) -> CredentialRoleInfo:
            _, found = authorised_role(op, Action.CREDENTIAL_ROLE_DELETE, source, name)
            require_revision(if_match, found.revision)
            saved = replace(found, deleted_at=op.now, updated_at=op.now, revision=found.revision + 1)
            store.update_role(op.connection, saved)
            _record_role(op, Action.CREDENTIAL_ROLE_DELETE, saved, {})
            return role_info(saved)

        return (await self._door.write(credentials, work)).value

    # --- parts ---------------------------------------------------------------------------------------------------

    async def _require_reachable(self, reach: _Reach) -> None:
        error = await self._error_of(reach)
        if error is not None:
            raise UnavailableError(
                f"the source does not answer as it should: {error}",
                code="provider_failed",
                hint="correct the connection, or say `check: false`",
            )

    async def _error_of(self, reach: _Reach) -> str | None:
        return await failure_of(
            lambda session: session.check(),
            reach.connector,
            reach.connection,
            self._shares.place(reach.workspace),
            CHECK_SECONDS,
        )

    def _connector(self, kind: str) -> Connector:
        found = self._connectors.get(kind)
        if found is None:
            known = ", ".join(self._connectors.kinds())
            raise InputError(f"there is no connector {kind!r}", field="kind", hint=f"installed are: {known}")
        return found

    def _create(
        self, op: Operation, request: CreateSource, connector: Connector, connection: dict[str, Any]
    ) -> SourceInfo:
        if store.load_source(op.connection, op.workspace, request.name) is not None:
            raise duplicate("source", request.name)
        if store.count_sources(op.connection, op.workspace) >= SOURCES_MAX:
            raise CapError(f"a workspace has at most {SOURCES_MAX} sources", hint="delete one that is not needed")
        shown, secrets = _parted(connector, connection)
        made = Source(
            id=new_id("src", op.now),
            workspace=op.workspace,
            name=request.name,
            kind=request.kind,
            description=request.description,
            connection=shown,
            secrets=tuple(sorted(secrets)),
            state=ACTIVE,
            created_at=op.now,
            created_by=op.caller.principal,
            updated_at=op.now,
            deleted_at=0.0,
            revision=1,
        )
        store.insert_source(op.connection, made)
        store.seal_secrets(op.connection, self._keyring, made, secrets, op.now)
        _record_source(op, Action.CREDENTIAL_SOURCE_CREATE, made, {"kind": made.kind})
        return self._shown(made)

    def _again(self, op: Operation, source_id: str) -> SourceInfo:
        found = store.load_source_by_id(op.connection, source_id)
        if found is None:
            raise not_found("credential source", source_id)
        return self._shown(found)

    def _create_role(self, op: Operation, of: Source, request: CreateCredentialRole) -> CredentialRoleInfo:
        if store.load_role(op.connection, of, request.name) is not None:
            raise duplicate("role", request.name)
        made = self._checked(
            of,
            Role(
                id=new_id("cro", op.now),
                workspace=op.workspace,
                source=of.id,
                source_name=of.name,
                name=request.name,
                config=request.config,
                ttl_seconds=request.ttl_seconds,
                max_ttl_seconds=request.max_ttl_seconds,
                leases_max=request.leases_max,
                created_at=op.now,
                created_by=op.caller.principal,
                updated_at=op.now,
                deleted_at=0.0,
                revision=1,
            ),
        )
        store.insert_role(op.connection, made)
        _record_role(op, Action.CREDENTIAL_ROLE_CREATE, made, _role_detail(made))
        return role_info(made)

    def _checked(self, of: Source, role: Role) -> Role:
        require_times(role.ttl_seconds, role.max_ttl_seconds)
        config = self._connector(of.kind).read_role(role.config, role.ttl_seconds, role.max_ttl_seconds)
        return replace(role, config=config)

    def _shown(self, of: Source) -> SourceInfo:
        return source_info(of, self._connectors.get(of.kind))


def _authorised_source(op: Operation, action: Action, name: str) -> Source:
    found = store.load_source(op.connection, op.workspace, name)
    resource = None if found is None else Resource(found.resource)
    op.authorise(action, resource, kind="credential source", name=name, absent=Resource(source_resource(name)))
    if found is None:
        raise not_found("credential source", name)
    return found


def _moved(found: Source, connector: Connector, given: dict[str, Any], secrets: dict[str, Any]) -> dict[str, Any]:
    """Return the new connection: secrets that it leaves out stay, as long as they go to the same place as before.

    Whoever may change the address of a source must not have the password of the old one sent to it.
    """
    kept = {name: value for name, value in secrets.items() if name not in given and value}
    moved = connector.read_connection({**kept, **given})
    places = {*moved, *found.connection} - _NO_PLACES - connector.secret_settings
    if kept and any(moved.get(place) != found.connection.get(place) for place in places):
        raise InputError(
            f"expected {', '.join(sorted(kept))} again, since the connection goes to another place",
            field="connection",
        )
    return moved


def _parted(connector: Connector, connection: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tell what is secret of a connection from what is not."""
    secret = {name: value for name, value in connection.items() if name in connector.secret_settings}
    return {name: value for name, value in connection.items() if name not in secret}, secret


def _record_source(op: Operation, action: Action, of: Source, detail: dict[str, Detail]) -> None:
    op.record(action, of.resource, kind=ChangeKind.CREDENTIAL, entity=of.id, detail=detail)


def _record_role(op: Operation, action: Action, of: Role, detail: dict[str, Detail]) -> None:
    op.record(action, of.resource, kind=ChangeKind.CREDENTIAL, entity=of.id, detail=detail)


def _role_detail(of: Role) -> dict[str, Detail]:
    return {
        "ttl_seconds": of.ttl_seconds,
        "max_ttl_seconds": of.max_ttl_seconds,
        "leases_max": of.leases_max,
    }
