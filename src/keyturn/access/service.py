"""The access service: workspaces, principals, roles and grants, who the caller is, and why a decision is as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from keyturn.access import rules, store
from keyturn.access.caller import Caller, Resource
from keyturn.access.grants import GrantService, conditions_info
from keyturn.access.moments import epoch_of
from keyturn.access.principals import PrincipalService, authorised
from keyturn.access.roles import RoleService
from keyturn.access.workspaces import WorkspaceService
from keyturn.errors import BrokenInvariantError, InputError
from keyturn.kernel.match import check_name
from keyturn.verify.networks import parse_network
from keyturn.wire.access import AccessExplained, ConsideredGrant, ExplainAccess, HeldGrant, WhoAmI
from keyturn.wire.actions import Action

if TYPE_CHECKING:
    from keyturn.access.caller import Credentials
    from keyturn.access.door import Door, Operation
    from keyturn.access.model import Workspace
    from keyturn.access.ports import SystemKeyspace, TokenIssuer


class AccessService:
    """Everything of access, by noun."""

    def __init__(self, door: Door, tokens: TokenIssuer, keyspaces: SystemKeyspace) -> None:
        """Need the door, and what makes a new workspace's first token."""
        self._door = door
        self.workspaces = WorkspaceService(door, tokens, keyspaces)
        self.principals = PrincipalService(door)
        self.roles = RoleService(door)
        self.grants = GrantService(door)

    async def whoami(self, credentials: Credentials) -> WhoAmI:
        """Say who the bearer is and what it holds; every authenticated caller may ask."""
        return await self._door.read(credentials, _whoami)

    async def own_workspace(self, credentials: Credentials) -> Workspace:
        """Return the caller's workspace, for edges that need its name or its default environment."""
        return await self._door.read(credentials, _own_workspace)

    async def explain(self, credentials: Credentials, request: ExplainAccess) -> AccessExplained:
        """Decide about a principal as the door would, and say why.

        Every caller may ask about itself, its token's bounds included; about others it takes `grant.explain`.
        Their tokens' bounds are not considered.  Names no resource's existence: only the name is looked at.
        """
        _check_question(request)
        at = epoch_of(request.at, "at")

        def work(op: Operation) -> AccessExplained:
            caller, disabled = _subject(op, request)
            resource = Resource(request.resource, request.environment)
            found = rules.explain(caller, request.action, resource, op.now if at is None else at)
            return AccessExplained(
                allowed=found.allowed and not disabled,
                reason="the principal is disabled" if disabled else found.reason,
                principal=caller.principal,
                action=request.action,
                resource=request.resource,
                considered=tuple(
                    ConsideredGrant(source=one.source, subject=one.subject, applies=one.applies, reason=one.reason)
                    for one in found.considered
                ),
            )

        return await self._door.read(credentials, work)


def _check_question(request: ExplainAccess) -> None:
    try:
        check_name(request.resource)
    except ValueError as error:
        raise InputError(str(error), field="resource") from None
    if request.ip is None:
        return
    try:
        parse_network(request.ip)
    except ValueError as error:
        raise InputError(str(error), field="ip") from None
    if "/" in request.ip:
        raise InputError("expected one address, found a network", field="ip")


def _subject(op: Operation, request: ExplainAccess) -> tuple[Caller, bool]:
    """Return the caller that the question is about, and whether it is disabled."""
    own = op.caller
    if request.principal is None or request.principal == own.principal:
        return msgspec.structs.replace(own, ip=own.ip if request.ip is None else request.ip), False
    found = authorised(op, Action.GRANT_EXPLAIN, request.principal)
    caller = Caller(
        workspace=op.workspace,
        principal=found.id,
        kind=found.kind,
        name=found.name,
        token_id=None,
        token_scopes=(),
        token_resources=(),
        grants=tuple(store.load_grants(op.connection, op.workspace, found.id)),
        ip=request.ip,
    )
    return caller, found.state != "active"


def _own_workspace(op: Operation) -> Workspace:
    found = store.workspace_by_id(op.connection, op.workspace)
    if found is None:
        message = "an authenticated caller has no workspace"
        raise BrokenInvariantError(message)
    return found


def _whoami(op: Operation) -> WhoAmI:
    caller = op.caller
    workspace = _own_workspace(op)
    return WhoAmI(
        principal=caller.principal,
        kind=caller.kind,
        name=caller.name,
        workspace=workspace.id,
        workspace_name=workspace.name,
        token_id=caller.token_id,
        scopes=caller.token_scopes,
        resources=caller.token_resources,
        grants=tuple(
            HeldGrant(
                id=grant.id,
                subject=grant.subject,
                actions=grant.actions,
                resource=grant.resource,
                conditions=conditions_info(grant.conditions),
            )
            for grant in caller.grants
        ),
    )
