"""The operations on the roles of login methods."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from msgspec import UNSET

from keyturn.access import rules
from keyturn.access.idempotency import Attempt, Replay, idempotent
from keyturn.access.moments import require_revision
from keyturn.access.paging import page
from keyturn.access.principals import known_by
from keyturn.errors import CapError, ConflictError, InputError, duplicate, not_found
from keyturn.kernel.ids import new_id
from keyturn.kernel.secret import random_base62
from keyturn.logins import claims, store
from keyturn.logins.answers import role_info
from keyturn.logins.model import APPROLE, CERTIFICATE, JWT, KUBERNETES, LoginRole, Method, RoleConfig, role_resource
from keyturn.logins.rights import authorised_role, require_may_let_in
from keyturn.storage.transaction import ChangeKind
from keyturn.verify.networks import parse_network
from keyturn.wire.actions import Action
from keyturn.wire.keys import PAGE_DEFAULT
from keyturn.wire.logins import ROLES_MAX, ApproleBinding, LoginRoleInfo, LoginRolePage

if TYPE_CHECKING:
    from collections.abc import Iterable

    from keyturn.access.caller import Credentials
    from keyturn.access.door import Door, Operation
    from keyturn.access.model import Principal
    from keyturn.audit.leaf import Detail
    from keyturn.wire.logins import (
        CertificateBinding,
        CreateLoginRole,
        JwtBinding,
        KubernetesBinding,
        UpdateLoginRole,
    )

_KINDS: Final = (JWT, KUBERNETES, CERTIFICATE, APPROLE)


class LoginRoleService:
    """Which identities become which principal."""

    def __init__(self, door: Door) -> None:
        """Need the door."""
        self._door = door

    async def create(
        self, credentials: Credentials, method: str, request: CreateLoginRole, *, idempotency: str | None = None
    ) -> LoginRoleInfo:
        """Create a role; raises a recorded ForbiddenError when its tokens could do what the caller cannot."""
        attempt = Attempt.of(credentials, Action.LOGIN_ROLE_CREATE, idempotency, method, request)

        def again(op: Operation, held: Method, role_id: str) -> LoginRoleInfo:
            found = store.role_by_id(op.connection, op.workspace, role_id)
            if found is None:
                raise not_found("login role", role_id)
            return role_info(held, found)

        def work(op: Operation) -> LoginRoleInfo:
            held = store.method_by_name(op.connection, op.workspace, method)
            place = role_resource(method, request.name)
            op.authorise(
                Action.LOGIN_ROLE_CREATE,
                None if held is None else place,
                kind="login method",
                name=method[:64],
                absent=place,
            )
            if held is None:
                raise not_found("login method", method[:64])
            replay = Replay(LoginRoleInfo, lambda made: made.id, lambda made: again(op, held, made))
            return idempotent(op, attempt, replay, lambda: _create(op, held, request))

        return (await self._door.write(credentials, work, attempt=attempt)).value

    async def list(
        self, credentials: Credentials, method: str, *, cursor: str | None = None, limit: int = PAGE_DEFAULT
    ) -> LoginRolePage:
        """List the roles of a method that the caller may read, oldest first; an unknown method has none."""

        def work(op: Operation) -> LoginRolePage:
            held = store.method_by_name(op.connection, op.workspace, method)
            if held is None:
                return LoginRolePage(items=(), next_cursor=None)
            found, following = page(
                op,
                lambda after, count: store.roles_after(op.connection, held.id, after, count),
                lambda one: op.allows(Action.LOGIN_ROLE_READ, role_resource(held.name, one.name)),
                cursor,
                limit,
                reading=Action.LOGIN_ROLE_READ,
            )
            return LoginRolePage(items=tuple(role_info(held, one) for one in found), next_cursor=following)

        return await self._door.read(credentials, work)

    async def read(self, credentials: Credentials, method: str, role: str) -> LoginRoleInfo:
        """Show a role; `role_id` of an AppRole is in it."""
        return await self._door.read(
            credentials, lambda op: role_info(*authorised_role(op, Action.LOGIN_ROLE_READ, method, role))
        )

    async def update(
        self,
        credentials: Credentials,
        method: str,
        role: str,
        request: UpdateLoginRole,
        *,
        if_match: int | None = None,
    ) -> LoginRoleInfo:
        """Change a role; who is let in by it can do no more than the caller."""

        def work(op: Operation) -> LoginRoleInfo:
            held, found = authorised_role(op, Action.LOGIN_ROLE_UPDATE, method, role)
            require_revision(if_match, found.revision)
            return role_info(held, _update(op, held, found, request))

        return (await self._door.write(credentials, work)).value

    async def delete(self, credentials: Credentials, method: str, role: str, *, if_match: int | None = None) -> None:
        """Delete a role; its tokens are refused from the commit on."""

        def work(op: Operation) -> None:
            held, found = authorised_role(op, Action.LOGIN_ROLE_DELETE, method, role)
            require_revision(if_match, found.revision)
            ended = replace(found, deleted_at=op.now, updated_at=op.now, revision=found.revision + 1)
            store.update_role(op.connection, ended)
            _record(op, Action.LOGIN_ROLE_DELETE, held, ended, {})

        await self._door.write(credentials, work)


def _create(op: Operation, held: Method, request: CreateLoginRole) -> LoginRoleInfo:
    if store.role_by_name(op.connection, held.id, request.name) is not None:
        raise duplicate("login role", request.name)
    if store.count_roles(op.connection, held.id) >= ROLES_MAX:
        raise CapError(f"a login method has at most {ROLES_MAX} roles", hint="delete one that is not needed")
    principal = _principal(op, request.principal)
    given = {kind: getattr(request, kind) for kind in _KINDS}
    config = _config(held.kind, given, _cidrs(request.cidrs, "cidrs"))
    made = LoginRole(
        id=new_id("lgr", op.now),
        workspace=op.workspace,
        method=held.id,
        name=request.name,
        role_id=_role_id(op, config.approle),
        principal=principal.id,
        config=config,
        scopes=tuple(dict.fromkeys(request.scopes)),
        resources=tuple(dict.fromkeys(request.resources)),
        ttl_seconds=request.ttl_seconds,
        max_ttl_seconds=request.max_ttl_seconds,
        tokens_max=request.tokens_max,
        leases_max=request.leases_max,
        created_at=op.now,
        created_by=op.caller.principal,
        updated_at=op.now,
        deleted_at=0.0,
        revision=1,
    )
    _check(op, Action.LOGIN_ROLE_CREATE, held, made)
    store.insert_role(op.connection, made)
    detail: dict[str, Detail] = {
        "principal": made.principal,
        "scopes": list(made.scopes),
        "resources": list(made.resources),
    }
    _record(op, Action.LOGIN_ROLE_CREATE, held, made, detail)
    return role_info(held, made)


def _update(op: Operation, held: Method, found: LoginRole, request: UpdateLoginRole) -> LoginRole:
    given = {kind: getattr(request, kind) for kind in _KINDS}
    asked = {kind: binding for kind, binding in given.items() if binding is not UNSET}
    config = found.config
    if asked:
        config = _config(held.kind, {kind: asked.get(kind) for kind in _KINDS}, config.cidrs)
    if request.cidrs is not UNSET:
        held_bindings = {kind: getattr(config, kind) for kind in _KINDS}
        config = _config(held.kind, held_bindings, _cidrs(request.cidrs, "cidrs"))
    plain: dict[str, Any] = {
        name: getattr(request, name)
        for name in ("scopes", "resources", "ttl_seconds", "max_ttl_seconds", "tokens_max", "leases_max")
        if getattr(request, name) is not UNSET
    }
    role_id = found.role_id
    if config.approle is not None and config.approle.role_id not in (None, found.role_id):
        role_id = _role_id(op, config.approle)
    changed = replace(found, config=config, role_id=role_id, **plain)
    _check(op, Action.LOGIN_ROLE_UPDATE, held, changed)
    saved = replace(changed, updated_at=op.now, revision=found.revision + 1)
    store.update_role(op.connection, saved)
    names = {*asked, *plain, *(["cidrs"] if request.cidrs is not UNSET else [])}
    detail: dict[str, Detail] = {"changed": [*sorted(names)]}
    _record(op, Action.LOGIN_ROLE_UPDATE, held, saved, detail)
    return saved


def _check(op: Operation, action: Action, held: Method, role: LoginRole) -> None:
    rules.check_scopes(role.scopes, role.resources)
    if role.max_ttl_seconds < role.ttl_seconds:
        raise InputError("expected max_ttl_seconds to be no less than ttl_seconds", field="max_ttl_seconds")
    place = role_resource(held.name, role.name)
    require_may_let_in(op, action, place, role.principal, role.scopes, role.resources)


def _principal(op: Operation, reference: str) -> Principal:
    """Return the principal of an id or a name; one that the caller may not know of answers as if there were none."""
    found = known_by(op, reference)
    if found is None:
        raise InputError(f"there is no principal {reference!r}", field="principal", hint="name one by its id or name")
    if found.kind not in ("service", "agent"):
        raise InputError(
            f"expected a service or an agent, found a {found.kind}",
            field="principal",
            hint="make a principal of kind service for the workload",
        )
    if found.state != "active":
        message = f"principal {found.id} is {found.state}"
        raise ConflictError(message, code="principal_disabled", hint="enable the principal first")
    return found


def _config(kind: str, given: dict[str, Any], cidrs: tuple[str, ...]) -> RoleConfig:
    for other, binding in given.items():
        if binding is not None and other != kind:
            raise InputError(f"a role of a {kind} method has no such binding", field=other)
    binding = given.get(kind)
    if kind == APPROLE:
        binding = binding or ApproleBinding()
        _cidrs(binding.secret_id_cidrs, "approle.secret_id_cidrs")
    elif binding is None:
        raise InputError("expected which identities the role lets in", field=kind)
    elif kind == JWT:
        _check_jwt(binding)
    elif kind == KUBERNETES:
        _check_kubernetes(binding)
    else:
        _check_certificate(binding)
    return RoleConfig(**{kind: binding}, cidrs=cidrs)


def _check_jwt(binding: JwtBinding) -> None:
    if not binding.audiences:
        raise InputError(
            "expected an audience", field="jwt.audiences", hint="the one that workloads ask their issuer for"
        )
    if not binding.claims:
        raise InputError("expected a bound claim", field="jwt.claims", hint="bind `sub`, or what names one workload")
    for name, given in binding.claims.items():
        _check_patterns(claims.as_patterns(given), f"jwt.claims.{name}"[:160])


def _check_kubernetes(binding: KubernetesBinding) -> None:
    _check_patterns(binding.namespaces, "kubernetes.namespaces")
    _check_patterns(binding.service_accounts, "kubernetes.service_accounts")


def _check_certificate(binding: CertificateBinding) -> None:
    if not (binding.names or binding.subjects):
        raise InputError("expected `names` or `subjects` of certificates", field="certificate.names")
    _check_patterns(binding.names, "certificate.names")
    _check_patterns(binding.subjects, "certificate.subjects")
    if any(len(one.replace(":", "")) != 64 for one in binding.issuers):
        raise InputError("expected SHA-256 fingerprints: 64 hexadecimal digits", field="certificate.issuers")


def _check_patterns(patterns: Iterable[str], field: str) -> None:
    for pattern in patterns:
        claims.check_pattern(pattern, field)


def _cidrs(given: tuple[str, ...], field: str) -> tuple[str, ...]:
    for one in given:
        try:
            parse_network(one)
        except ValueError as error:
            raise InputError(f"{error}, in {one!r}", field=field) from None
    return tuple(dict.fromkeys(given))


def _role_id(op: Operation, binding: ApproleBinding | None) -> str:
    """Return the id that clients name the role by: the one asked for, or a new one."""
    asked = None if binding is None else binding.role_id
    if asked is None:
        return f"role-{random_base62(24)}"
    if store.role_by_role_id(op.connection, op.workspace, asked) is not None:
        raise ConflictError("another role has this role_id", code="duplicate", field="approle.role_id")
    return asked


def _record(op: Operation, action: Action, held: Method, role: LoginRole, detail: dict[str, Detail]) -> None:
    op.record(action, role_resource(held.name, role.name).name, kind=ChangeKind.LOGIN, entity=role.id, detail=detail)
