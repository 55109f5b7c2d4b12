"""Which workspace and which environment a request is about.

    X-Vault-Namespace    the workspace; it has to be the token's own
    mount `secret`       the workspace's default environment; any other mount is the environment of that name

Where something is not there, this surface says 404 to a caller who may do that to what is there, and 403 to every
other, so that the answer tells what the caller may do and never what exists.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from keyturn.compat.vault.answers import PERMISSION_DENIED, RefusedAs
from keyturn.vault.paths import check_environment, folder_resource, parse_path
from keyturn.wire.actions import Action

if TYPE_CHECKING:
    from keyturn.access.caller import Resource
    from keyturn.access.door import Door, Operation
    from keyturn.access.known_workspaces import KnownWorkspaces
    from keyturn.access.model import Workspace
    from keyturn.access.service import AccessService
    from keyturn.compat.vault.asking import Ask

SECRET: Final = "secret"  # noqa: S105 -- the name of a mount
PERSON: Final = "user"


@dataclass(frozen=True, slots=True)
class Place:
    """A mount: the environment that it stands for."""

    environment: str

    def path(self, rest: str) -> str:
        """Return the path of a secret below the mount."""
        return f"{self.environment}/{rest}"


class Places:
    """Finds places; asks the database who the caller is only where the answer needs it."""

    def __init__(self, door: Door, access: AccessService, known: KnownWorkspaces) -> None:
        """Need the door, who knows workspaces, and who remembers them."""
        self._door = door
        self._access = access
        self._known = known

    async def of_mount(self, ask: Ask) -> Place:
        """Return the place of the route's mount; raises InputError for a name that no environment can have."""
        return await self.environment(ask, ask.parts["mount"])

    async def environment(self, ask: Ask, mount: str) -> Place:
        """Return the place of a mount; raises InputError for a name that no environment can have."""
        if mount == SECRET:
            return Place((await self.workspace(ask)).default_environment)
        check_environment(mount)
        return Place(mount)

    async def workspace(self, ask: Ask) -> Workspace:
        """Return the caller's workspace; proves nothing about a token that was valid before."""
        return await self._known.of(ask.credentials, self._access)

    async def require_caller(self, ask: Ask) -> None:
        """Raise UnauthenticatedError for a token that is not valid now."""
        await self._access.own_workspace(ask.credentials)

    async def require_namespace(self, ask: Ask) -> None:
        """Raise the refusal of a namespace that is not the caller's workspace."""
        if ask.namespace is not None and (await self.workspace(ask)).name != ask.namespace:
            raise RefusedAs(403, PERMISSION_DENIED, "X-Vault-Namespace is not the workspace of this token")

    async def refuse_absent(self, ask: Ask, action: Action, resource: Resource) -> RefusedAs:
        """Return the answer for what is not there: 404 for a caller who may do the action, else 403."""
        allowed = await self._door.read(ask.credentials, lambda op: _allows(op, action, resource))
        return RefusedAs(404) if allowed else RefusedAs(403, PERMISSION_DENIED)

    async def allowed(self, ask: Ask, asked: list[tuple[Action, Resource]]) -> list[bool]:
        """Tell, one by one, what the caller may do."""
        return await self._door.read(ask.credentials, lambda op: [_allows(op, *one) for one in asked])


def secret_resource(path: str) -> Resource:
    """Return the resource of a secret; raises InputError."""
    return parse_path(path).resource


def folder_of(path: str) -> Resource:
    """Return the resource of a folder; raises InputError."""
    return folder_resource(path)


def _allows(op: Operation, action: Action, resource: Resource) -> bool:
    if action is Action.SECRET_READ and op.caller.kind == PERSON:
        action = Action.SECRET_REVEAL
    return op.allows(action, resource)
