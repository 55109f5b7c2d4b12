"""`sys/auth/<approle>` and `auth/<approle>/role/…`: administration of AppRoles and their secret-ids.

A role of theirs gives policies; a role of ours makes whoever logs in a principal, whose grants count, and its policies
are scopes that narrow them.  A role written here without `principal` is for the service of the role's own name, which
is created when there is none, and may do nothing until it is granted something.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from keyturn.compat.vault import durations
from keyturn.compat.vault.answers import NOTHING, Answer, RefusedAs
from keyturn.compat.vault.bodies import MethodBody, RoleBody, SecretIdBody
from keyturn.compat.vault.refusing import refuse_given
from keyturn.compat.vault.tokens import scopes_of
from keyturn.compat.vault.translation import words
from keyturn.errors import ConflictError, InputError, NotFoundError
from keyturn.http.body import printable
from keyturn.kernel.clock import parse_rfc3339
from keyturn.logins.model import method_resource, role_resource
from keyturn.wire.access import CreatePrincipal
from keyturn.wire.actions import Action
from keyturn.wire.logins import (
    MAX_TTL_SECONDS_DEFAULT,
    ApproleBinding,
    CreateLoginMethod,
    CreateLoginRole,
    IssueSecretId,
    UpdateLoginRole,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping

    from keyturn.access.principals import PrincipalService
    from keyturn.compat.vault.asking import Ask
    from keyturn.compat.vault.places import Places
    from keyturn.compat.vault.routing import Table
    from keyturn.logins.service import LoginService
    from keyturn.wire.logins import LoginRoleInfo, SecretIdInfo

T = TypeVar("T")

APPROLE: Final = "approle"
NAMES_MAX: Final = 10_000
_TOKEN_TYPES: Final = frozenset({None, "", "service", "default", "default-service"})


class ApproleOperations:
    """The routes of AppRole administration."""

    def __init__(self, logins: LoginService, principals: PrincipalService, places: Places) -> None:
        """Need the logins, the principals, and who knows what the caller may do."""
        self._logins = logins
        self._places = places
        self._principals = principals

    def table(self) -> Table:
        """Return each route's functions."""
        role = "auth/{method}/role/{role}"
        return {
            "sys/auth/{method}": {"write": self.enable, "delete": self.disable},
            "auth/{method}/role": {"list": self.list_roles},
            role: {"read": self.read, "write": self.write, "delete": self.delete},
            f"{role}/role-id": {"read": self.read_role_id, "write": self.write_role_id},
            f"{role}/secret-id": {"write": self.issue, "list": self.list_accessors},
            f"{role}/secret-id/lookup": {"write": self.find},
            f"{role}/secret-id/destroy": {"write": self.destroy},
            f"{role}/secret-id-accessor/lookup": {"write": self.read_accessor},
            f"{role}/secret-id-accessor/destroy": {"write": self.destroy_accessor},
        }

    # --- the method --------------------------------------------------------------------------------------------------

    async def enable(self, ask: Ask) -> Answer:
        """Create the login method, of the kind AppRole; the other kinds have more to say than this can."""
        kind = ask.fields(MethodBody).type
        if kind != APPROLE:
            raise InputError(
                f"type: expected {APPROLE}",
                field="type",
                hint="create other login methods with `keyturn login-methods create`",
            )
        name = ask.parts["method"]
        if name == "token":
            raise RefusedAs(400, "path is already in use at token/")
        try:
            await self._logins.methods.create(
                ask.credentials, _checked({"name": name, "kind": APPROLE}, CreateLoginMethod)
            )
        except ConflictError:
            raise RefusedAs(400, f"path is already in use at {name}/") from None
        return NOTHING

    async def disable(self, ask: Ask) -> Answer:
        """Delete the login method with its roles, and with them whatever logged in by it."""
        try:
            await self._logins.methods.delete(ask.credentials, ask.parts["method"])
        except NotFoundError:
            raise await self._places.refuse_absent(
                ask, Action.LOGIN_METHOD_DELETE, method_resource(ask.parts["method"])
            ) from None
        return NOTHING

    # --- roles -------------------------------------------------------------------------------------------------------

    async def list_roles(self, ask: Ask) -> Answer:
        """Name the roles that the caller may read."""
        found: list[str] = []
        cursor: str | None = None
        while len(found) < NAMES_MAX:
            page = await self._logins.roles.list(ask.credentials, ask.parts["method"], cursor=cursor, limit=200)
            found.extend(one.name for one in page.items)
            cursor = page.next_cursor
            if cursor is None:
                break
        if not found:
            raise RefusedAs(404)
        return Answer(data={"keys": sorted(found)})

    async def read(self, ask: Ask) -> Answer:
        """Show a role."""
        role = await self._or_absent(ask, Action.LOGIN_ROLE_READ, self._role(ask))
        return Answer(data=_shown(role))

    async def write(self, ask: Ask) -> Answer:
        """Create or change a role; what is left out stays, or is as it is by default."""
        body = ask.fields(RoleBody)
        _refuse(body)
        try:
            held = await self._role(ask)
        except NotFoundError:
            await self._create(ask, body)
            return NOTHING
        changes = {**_bounds(ask.body, body), "approle": _binding(ask.body, body, held.approle, held.role_id)}
        if body.principal is not None and body.principal != held.principal:
            raise InputError(
                "principal: it never changes", field="principal", hint="delete the role, and write it anew"
            )
        await self._logins.roles.update(
            ask.credentials, ask.parts["method"], ask.parts["role"], _checked(changes, UpdateLoginRole)
        )
        return NOTHING

    async def delete(self, ask: Ask) -> Answer:
        """Delete a role, and with it whatever logged in by it."""
        work = self._logins.roles.delete(ask.credentials, ask.parts["method"], ask.parts["role"])
        await self._or_absent(ask, Action.LOGIN_ROLE_DELETE, work)
        return NOTHING

    async def read_role_id(self, ask: Ask) -> Answer:
        """Tell the role-id."""
        role = await self._or_absent(ask, Action.LOGIN_ROLE_READ, self._role(ask))
        return Answer(data={"role_id": role.role_id})

    async def write_role_id(self, ask: Ask) -> Answer:
        """Choose the role-id."""
        role_id = ask.fields(RoleBody).role_id
        if not role_id:
            raise RefusedAs(400, "missing role_id")
        held = await self._or_absent(ask, Action.LOGIN_ROLE_UPDATE, self._role(ask))
        changes = {"approle": {**msgspec.to_builtins(held.approle or ApproleBinding()), "role_id": role_id}}
        await self._logins.roles.update(
            ask.credentials, ask.parts["method"], ask.parts["role"], _checked(changes, UpdateLoginRole)
        )
        return NOTHING

    async def _role(self, ask: Ask) -> LoginRoleInfo:
        return await self._logins.roles.read(ask.credentials, ask.parts["method"], ask.parts["role"])

    async def _create(self, ask: Ask, body: RoleBody) -> None:
        name = ask.parts["role"]
        values = _bounds(ask.body, body)
        ttl = values.get("ttl_seconds", 0)
        if "max_ttl_seconds" not in values and ttl > MAX_TTL_SECONDS_DEFAULT:
            values["max_ttl_seconds"] = ttl
        binding = _binding(ask.body, body, None, body.role_id)
        request = _checked(
            {**values, "name": name, "principal": body.principal or name, "approle": binding}, CreateLoginRole
        )
        await self._logins.methods.read(ask.credentials, ask.parts["method"])
        try:
            await self._logins.roles.create(ask.credentials, ask.parts["method"], request)
        except InputError as error:
            if body.principal is not None or error.field != "principal":
                raise
            await self._principals.create(ask.credentials, CreatePrincipal(kind="service", name=name))
            await self._logins.roles.create(ask.credentials, ask.parts["method"], request)

    # --- secret-ids --------------------------------------------------------------------------------------------------

    async def issue(self, ask: Ask) -> Answer:
        """Make a secret-id."""
        body = ask.fields(SecretIdBody)
        refuse_given(secret_id=body.secret_id, token_bound_cidrs=words(body.token_bound_cidrs))
        values: dict[str, Any] = {"metadata": _metadata(body)}
        if "ttl" in ask.body:
            values["ttl_seconds"] = durations.seconds(body.ttl, "ttl") or None
        if body.num_uses is not None:
            values["uses"] = body.num_uses or None
        if words(body.cidr_list):
            values["cidrs"] = words(body.cidr_list)
        work = self._logins.secret_ids.issue(
            ask.credentials, ask.parts["method"], ask.parts["role"], _checked(values, IssueSecretId)
        )
        made = await self._or_absent(ask, Action.SECRET_ID_ISSUE, work)
        data = {
            "secret_id": made.secret_id,
            "secret_id_accessor": made.id,
            "secret_id_num_uses": made.uses or 0,
            "secret_id_ttl": made.ttl_seconds or 0,
        }
        return Answer(data=data)

    async def list_accessors(self, ask: Ask) -> Answer:
        """Name the secret-ids of a role that still open it, by their accessors."""
        found: list[str] = []
        cursor: str | None = None
        while len(found) < NAMES_MAX:
            work = self._logins.secret_ids.list(
                ask.credentials, ask.parts["method"], ask.parts["role"], cursor=cursor, limit=200
            )
            page = await self._or_absent(ask, Action.SECRET_ID_READ, work)
            found.extend(one.id for one in page.items if one.state == "active")
            cursor = page.next_cursor
            if cursor is None:
                break
        if not found:
            raise RefusedAs(404)
        return Answer(data={"keys": found})

    async def find(self, ask: Ask) -> Answer:
        """Show what is known of a secret-id, by itself; uses none of its uses."""
        return Answer(data=_secret_id(await self._found(ask)))

    async def destroy(self, ask: Ask) -> Answer:
        """Revoke a secret-id, by itself."""
        found = await self._found(ask)
        await self._revoke(ask, found.id)
        return NOTHING

    async def read_accessor(self, ask: Ask) -> Answer:
        """Show what is known of a secret-id, by its accessor."""
        work = self._logins.secret_ids.read(ask.credentials, ask.parts["method"], ask.parts["role"], _accessor(ask))
        return Answer(data=_secret_id(await self._or_absent(ask, Action.SECRET_ID_READ, work)))

    async def destroy_accessor(self, ask: Ask) -> Answer:
        """Revoke a secret-id, by its accessor."""
        await self._revoke(ask, _accessor(ask))
        return NOTHING

    async def _revoke(self, ask: Ask, accessor: str) -> None:
        work = self._logins.secret_ids.revoke(ask.credentials, ask.parts["method"], ask.parts["role"], accessor)
        await self._or_absent(ask, Action.SECRET_ID_REVOKE, work)

    async def _found(self, ask: Ask) -> SecretIdInfo:
        given = ask.fields(SecretIdBody).secret_id
        if not given:
            raise RefusedAs(400, "missing secret_id")
        work = self._logins.secret_ids.find(ask.credentials, ask.parts["method"], ask.parts["role"], given)
        return await self._or_absent(ask, Action.SECRET_ID_READ, work)

    async def _or_absent(self, ask: Ask, action: Action, work: Awaitable[T]) -> T:
        """Await the work; what is not there answers 404 to a caller who may do that to the role, else 403."""
        try:
            return await work
        except NotFoundError:
            resource = role_resource(ask.parts["method"], ask.parts["role"])
            raise await self._places.refuse_absent(ask, action, resource) from None


def _refuse(body: RoleBody) -> None:
    if not body.bind_secret_id:
        raise InputError("bind_secret_id: a role needs secret-ids here", field="bind_secret_id")
    refuse_given(
        local_secret_ids=body.local_secret_ids or body.enable_local_secret_ids,
        token_num_uses=body.token_num_uses,
        token_period=durations.seconds(body.token_period, "token_period"),
        period=durations.seconds(body.period, "period"),
        token_type=None if body.token_type in _TOKEN_TYPES else body.token_type,
    )


def _bounds(given: Mapping[str, Any], body: RoleBody) -> dict[str, Any]:
    """Return what bounds the tokens of a role, as far as it is given; 0 stands for the default and is left out."""
    values: dict[str, Any] = {}
    if "token_policies" in given or "policies" in given:
        values["scopes"] = scopes_of(words(body.token_policies or body.policies))
    if "token_bound_cidrs" in given:
        values["cidrs"] = words(body.token_bound_cidrs)
    if ttl := durations.seconds(body.token_ttl, "token_ttl"):
        values["ttl_seconds"] = ttl
    most = [
        found
        for name in ("token_max_ttl", "token_explicit_max_ttl")
        if (found := durations.seconds(getattr(body, name), name))
    ]
    if most:
        values["max_ttl_seconds"] = min(most)
    return values


def _binding(
    given: Mapping[str, Any], body: RoleBody, held: ApproleBinding | None, role_id: str | None
) -> dict[str, Any]:
    values: dict[str, Any] = msgspec.to_builtins(held or ApproleBinding())
    values["role_id"] = body.role_id or role_id
    if "secret_id_ttl" in given:
        values["secret_id_ttl_seconds"] = durations.seconds(body.secret_id_ttl, "secret_id_ttl") or None
    if "secret_id_num_uses" in given:
        values["secret_id_uses"] = body.secret_id_num_uses or None
    if "secret_id_bound_cidrs" in given or "bound_cidr_list" in given:
        values["secret_id_cidrs"] = words(body.secret_id_bound_cidrs or body.bound_cidr_list)
    return values


def _shown(role: LoginRoleInfo) -> dict[str, Any]:
    binding = role.approle or ApproleBinding()
    return {
        "bind_secret_id": True,
        "local_secret_ids": False,
        "principal": role.principal,
        "secret_id_bound_cidrs": list(binding.secret_id_cidrs) or None,
        "secret_id_num_uses": binding.secret_id_uses or 0,
        "secret_id_ttl": binding.secret_id_ttl_seconds or 0,
        "token_bound_cidrs": list(role.cidrs),
        "token_explicit_max_ttl": 0,
        "token_max_ttl": role.max_ttl_seconds,
        "token_no_default_policy": False,
        "token_num_uses": 0,
        "token_period": 0,
        "token_policies": list(role.scopes),
        "token_ttl": role.ttl_seconds,
        "token_type": "default",
    }


def _secret_id(info: SecretIdInfo) -> dict[str, Any]:
    ttl = 0
    if info.expires_at is not None:
        ttl = max(0, int(parse_rfc3339(info.expires_at) - parse_rfc3339(info.created_at)))
    return {
        "cidr_list": list(info.cidrs),
        "creation_time": info.created_at,
        "expiration_time": info.expires_at or "0001-01-01T00:00:00Z",
        "last_updated_time": info.last_used_at or info.created_at,
        "metadata": info.metadata,
        "secret_id_accessor": info.id,
        "secret_id_num_uses": info.uses_left or 0,
        "secret_id_ttl": ttl,
        "token_bound_cidrs": [],
    }


def _metadata(body: SecretIdBody) -> dict[str, str]:
    if not isinstance(body.metadata, str):
        return body.metadata or {}
    try:
        return msgspec.json.decode(body.metadata or "{}", type=dict[str, str])
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise InputError("metadata: expected a JSON object of texts", field="metadata") from None


def _accessor(ask: Ask) -> str:
    accessor = ask.fields(SecretIdBody).secret_id_accessor
    if not accessor:
        raise RefusedAs(400, "missing secret_id_accessor")
    return accessor


def _checked(values: dict[str, Any], kind: type[T]) -> T:
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        raise InputError(printable(str(error)).replace("`", "").replace("$.", "")) from None
