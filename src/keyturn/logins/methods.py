"""The operations on login methods."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import UNSET

from keyturn.access.idempotency import Attempt, Replay, idempotent
from keyturn.access.moments import require_revision
from keyturn.access.paging import page
from keyturn.errors import CapError, InputError, duplicate, not_found
from keyturn.kernel.ids import new_id
from keyturn.kernel.secret import Secret
from keyturn.logins import certificates, presets, store
from keyturn.logins.answers import method_info
from keyturn.logins.jwk import check_key_set
from keyturn.logins.model import ACTIVE, APPROLE, CERTIFICATE, JWT, KUBERNETES, Method, MethodConfig, method_resource
from keyturn.logins.rights import authorised_method, require_may_let_in
from keyturn.storage.transaction import ChangeKind
from keyturn.wire.actions import Action
from keyturn.wire.keys import PAGE_DEFAULT
from keyturn.wire.logins import (
    METHODS_MAX,
    ROLES_MAX,
    CertificateOptions,
    JwtOptions,
    KubernetesOptions,
    LoginMethodInfo,
    LoginMethodPage,
)

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from keyturn.access.caller import Credentials
    from keyturn.access.door import Door, Operation
    from keyturn.audit.leaf import Detail
    from keyturn.logins.ports import Fetcher
    from keyturn.storage.keyring import Keyring
    from keyturn.wire.logins import CreateLoginMethod, UpdateLoginMethod

REVIEWER: Final = "login-reviewer"
"""The purpose of the sealed token that asks a cluster for reviews; its path is the method's id."""


class MethodService:
    """Ways to log in."""

    def __init__(self, door: Door, keyring: Keyring, fetcher: Fetcher) -> None:
        """Need the door, the keyring that holds reviewer tokens, and who knows which addresses may be asked."""
        self._door = door
        self._keyring = keyring
        self._fetcher = fetcher

    async def create(
        self, credentials: Credentials, request: CreateLoginMethod, *, idempotency: str | None = None
    ) -> LoginMethodInfo:
        """Create a way to log in; raises ConflictError when the name is taken."""
        attempt = Attempt.of(credentials, Action.LOGIN_METHOD_CREATE, idempotency, request)

        def again(op: Operation, method_id: str) -> LoginMethodInfo:
            found = store.method_by_id(op.connection, method_id)
            if found is None:
                raise not_found("login method", method_id)
            return method_info(found)

        def work(op: Operation) -> LoginMethodInfo:
            op.authorise(Action.LOGIN_METHOD_CREATE, method_resource(request.name))
            replay = Replay(LoginMethodInfo, lambda made: made.id, lambda made: again(op, made))
            return idempotent(op, attempt, replay, lambda: self._create(op, request))

        return (await self._door.write(credentials, work, attempt=attempt)).value

    async def list(
        self, credentials: Credentials, *, cursor: str | None = None, limit: int = PAGE_DEFAULT
    ) -> LoginMethodPage:
        """List the methods that the caller may read, oldest first."""

        def work(op: Operation) -> LoginMethodPage:
            found, following = page(
                op,
                lambda after, count: store.methods_after(op.connection, op.workspace, after, count),
                lambda one: op.allows(Action.LOGIN_METHOD_READ, one.resource),
                cursor,
                limit,
                reading=Action.LOGIN_METHOD_READ,
            )
            return LoginMethodPage(items=tuple(method_info(one) for one in found), next_cursor=following)

        return await self._door.read(credentials, work)

    async def read(self, credentials: Credentials, name: str) -> LoginMethodInfo:
        """Show a method; never its reviewer token."""
        return await self._door.read(
            credentials, lambda op: method_info(authorised_method(op, Action.LOGIN_METHOD_READ, name))
        )

    async def name_of(self, credentials: Credentials, method_id: str) -> str | None:
        """Tell the name of a method of the caller's workspace to whoever has its id; None when it is gone."""

        def work(op: Operation) -> str | None:
            found = store.method_by_id(op.connection, method_id)
            return found.name if found is not None and found.workspace == op.workspace else None

        return await self._door.read(credentials, work)

    async def update(
        self, credentials: Credentials, name: str, request: UpdateLoginMethod, *, if_match: int | None = None
    ) -> LoginMethodInfo:
        """Change a method.

        New options decide who is let in by every role, so the caller has to hold what all of them give.
        """

        def work(op: Operation) -> LoginMethodInfo:
            found = authorised_method(op, Action.LOGIN_METHOD_UPDATE, name)
            require_revision(if_match, found.revision)
            return method_info(self._update(op, found, request))

        return (await self._door.write(credentials, work)).value

    async def delete(self, credentials: Credentials, name: str, *, if_match: int | None = None) -> None:
        """Delete a method with its roles; their tokens are refused from the commit on."""

        def work(op: Operation) -> None:
            found = authorised_method(op, Action.LOGIN_METHOD_DELETE, name)
            require_revision(if_match, found.revision)
            roles = store.delete_roles(op.connection, found.id, op.now)
            ended = replace(found, deleted_at=op.now, updated_at=op.now, revision=found.revision + 1)
            store.update_method(op.connection, ended)
            _record(op, Action.LOGIN_METHOD_DELETE, ended, {"roles": roles})

        await self._door.write(credentials, work)

    def reviewer(self, connection: Connection, method: Method) -> Secret:
        """Open the reviewer token of a cluster."""
        return Secret(self._keyring.current(connection, method.workspace, REVIEWER, method.id).value)

    def _create(self, op: Operation, request: CreateLoginMethod) -> LoginMethodInfo:
        if store.method_by_name(op.connection, op.workspace, request.name) is not None:
            raise duplicate("login method", request.name)
        if store.count_methods(op.connection, op.workspace) >= METHODS_MAX:
            raise CapError(f"a workspace has at most {METHODS_MAX} login methods", hint="delete one that is not needed")
        kind = request.kind or (JWT if request.preset else None)
        if kind is None:
            raise InputError("expected a kind, or a preset", field="kind")
        given: dict[str, object] = {
            JWT: request.jwt,
            KUBERNETES: request.kubernetes,
            CERTIFICATE: request.certificate,
        }
        config = self._config(kind, request.preset, given, new=True)
        made = Method(
            id=new_id("lgm", op.now),
            workspace=op.workspace,
            name=request.name,
            kind=kind,
            description=request.description,
            config=config,
            state=ACTIVE,
            created_at=op.now,
            created_by=op.caller.principal,
            updated_at=op.now,
            deleted_at=0.0,
            revision=1,
        )
        store.insert_method(op.connection, made)
        self._keep_reviewer(op, made, request.kubernetes)
        _record(op, Action.LOGIN_METHOD_CREATE, made, {"kind": kind, "preset": request.preset or ""})
        return method_info(made)

    def _update(self, op: Operation, found: Method, request: UpdateLoginMethod) -> Method:
        given: dict[str, object] = {
            kind: None if options is UNSET else options
            for kind, options in (
                (JWT, request.jwt),
                (KUBERNETES, request.kubernetes),
                (CERTIFICATE, request.certificate),
            )
        }
        changed, detail = found, dict[str, "Detail"]()
        if any(options is not None for options in given.values()):
            self._require_holds_roles(op, found)
            _require_same_cluster(found.config.kubernetes, given[KUBERNETES])
            changed = replace(changed, config=self._config(found.kind, found.config.preset, given, new=False))
            detail["options"] = "changed"
            options = given[KUBERNETES]
            self._keep_reviewer(op, found, options if isinstance(options, KubernetesOptions) else None)
        if request.description is not UNSET:
            changed = replace(changed, description=request.description)
            detail["description"] = request.description
        if request.state is not UNSET:
            changed = replace(changed, state=request.state)
            detail["state"] = request.state
        saved = replace(changed, updated_at=op.now, revision=found.revision + 1)
        store.update_method(op.connection, saved)
        _record(op, Action.LOGIN_METHOD_UPDATE, saved, detail)
        return saved

    def _require_holds_roles(self, op: Operation, found: Method) -> None:
        for role in store.roles_after(op.connection, found.id, "", ROLES_MAX):
            require_may_let_in(
                op, Action.LOGIN_METHOD_UPDATE, found.resource, role.principal, role.scopes, role.resources
            )

    def _config(self, kind: str, preset: str | None, given: dict[str, object], *, new: bool) -> MethodConfig:
        for other, options in given.items():
            if options is not None and other != kind:
                raise InputError(f"a method of kind {kind} has no such options", field=other)
        options = given.get(kind)
        if preset is not None and kind != JWT:
            raise InputError("a preset is for the kind jwt", field="preset")
        if kind == APPROLE:
            return MethodConfig()
        if kind == JWT:
            if options is not None and not isinstance(options, JwtOptions):
                raise InputError("expected options of a jwt method", field="jwt")
            return MethodConfig(preset=preset, jwt=self._jwt(options, preset))
        if isinstance(options, KubernetesOptions):
            if new and options.reviewer_token is None:
                raise InputError("expected the reviewer's token", field="kubernetes.reviewer_token")
            self._check_url(options.url, "kubernetes.url")
            _check_ca(options.ca_pem, "kubernetes.ca_pem")
            return MethodConfig(kubernetes=msgspec.structs.replace(options, reviewer_token=None))
        if isinstance(options, CertificateOptions):
            certificates.read_authorities(options.ca_pem, "certificate.ca_pem")
            return MethodConfig(certificate=options)
        raise InputError(f"expected the options of kind {kind}", field=kind)

    def _jwt(self, given: JwtOptions | None, preset: str | None) -> JwtOptions:
        options = presets.complete(given, preset)
        for url, field in ((options.jwks_url, "jwt.jwks_url"), (options.discovery_url, "jwt.discovery_url")):
            if url is not None:
                self._check_url(url, field)
        _check_ca(options.ca_pem, "jwt.ca_pem")
        if options.jwks is not None:
            check_key_set(options.jwks, "jwt.jwks")
        return options

    def _check_url(self, url: str, field: str) -> None:
        try:
            self._fetcher.check(url)
        except InputError as error:
            raise InputError(error.message, field=field, hint=error.hint) from None

    def _keep_reviewer(self, op: Operation, method: Method, options: KubernetesOptions | None) -> None:
        if options is not None and options.reviewer_token is not None:
            token = options.reviewer_token.encode()
            self._keyring.create(op.connection, op.workspace, REVIEWER, method.id, op.now, token)


def _require_same_cluster(before: KubernetesOptions | None, after: object) -> None:
    """Refuse another cluster without a reviewer of its own.

    Whoever may change the address of a cluster must not have the reviewer's token sent to it.
    """
    if not isinstance(after, KubernetesOptions) or before is None or after.reviewer_token is not None:
        return
    if (after.url, after.ca_pem) != (before.url, before.ca_pem):
        raise InputError(
            "expected the reviewer's token again, since the cluster is at another place",
            field="kubernetes.reviewer_token",
        )


def _check_ca(pem: str | None, field: str) -> None:
    if pem is not None:
        certificates.read_authorities(pem, field)


def _record(op: Operation, action: Action, method: Method, detail: dict[str, Detail]) -> None:
    op.record(action, method.resource.name, kind=ChangeKind.LOGIN, entity=method.id, detail=detail)
