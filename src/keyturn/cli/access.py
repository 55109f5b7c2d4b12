"""`keyturn workspaces`, `principals`, `roles` and `grants`: who may do what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from keyturn.cli.groups import Commands
from keyturn.cli.output import emit, fields, json_option, table
from keyturn.cli.session import Reply, open_session
from keyturn.errors import InputError, not_found
from keyturn.wire.capabilities import CAPABILITIES, actions_of, path_resource

if TYPE_CHECKING:
    from keyturn.cli.session import Session

_PAIR = "NAME=VALUE"

limit_option = click.option("--limit", type=click.IntRange(min=1), help="Show at most this many.")
if_match_option = click.option(
    "--revision", type=click.IntRange(min=0), help="Change it only while it has this revision."
)


def _segment(text: str) -> str:
    """Quote an argument as one segment of a path."""
    return quote(text, safe="")


def _if_match(revision: int | None) -> str | None:
    return None if revision is None else f'"{revision}"'


def _metadata(pairs: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name and equals):
            message = f"expected {_PAIR}, found {pair!r}"
            raise InputError(message, field="--metadata")
        found[name] = value
    return found


def _principal_id(session: Session, text: str) -> str:
    """Return the id of a principal given by id or by name."""
    if text.startswith("prn_"):
        return text
    for found in session.pages("/principals", {"name": text}, limit=1):
        return str(found["id"])
    raise not_found("principal", text)


def _show(reply: Reply, *, as_json: bool) -> None:
    emit(reply.json, as_json=as_json)


# --- workspaces ----------------------------------------------------------------------------------


@click.group(cls=Commands)
def workspaces() -> None:
    """Manage workspaces: tenants that share nothing."""


@workspaces.command("create")
@click.argument("name")
@click.option("--keys-max", type=click.IntRange(min=0), help="Cap of issued keys.")
@click.option("--keys-per-owner-max", type=click.IntRange(min=0), help="Cap of issued keys of each owner.")
@click.option("--admin", default="admin", show_default=True, help="Name of its administrator.")
@json_option
def create_workspace(
    *, name: str, keys_max: int | None, keys_per_owner_max: int | None, admin: str, as_json: bool
) -> None:
    """Create a workspace; its administrator's token is shown this once."""
    body = {"name": name, "keys_max": keys_max, "keys_per_owner_max": keys_per_owner_max, "admin": admin}
    _show(open_session().post("/workspaces", body, idempotency=True), as_json=as_json)


@workspaces.command("list")
@limit_option
@json_option
def list_workspaces(*, limit: int | None, as_json: bool) -> None:
    """List workspaces."""
    items = list(open_session().pages("/workspaces", limit=limit))
    emit({"items": items}, as_json=as_json, human=lambda a: table(a["items"], "name", "state", "id", "created_at"))


@workspaces.command("show")
@click.argument("name")
@json_option
def show_workspace(*, name: str, as_json: bool) -> None:
    """Show a workspace."""
    _show(open_session().get(f"/workspaces/{_segment(name)}"), as_json=as_json)


@workspaces.command("update")
@click.argument("name")
@click.option("--keys-max", type=click.IntRange(min=0), help="New cap of issued keys.")
@click.option("--no-keys-max", is_flag=True, help="Lift the cap of issued keys.")
@click.option("--keys-per-owner-max", type=click.IntRange(min=0), help="New cap of issued keys of each owner.")
@click.option("--no-keys-per-owner-max", is_flag=True, help="Lift the cap of issued keys of each owner.")
@click.option("--default-environment", help="What the mount `secret` of Vault's clients stands for.")
@click.option("--state", type=click.Choice(["active", "disabled"]), help="Enable or disable it.")
@if_match_option
@json_option
def update_workspace(
    *,
    name: str,
    keys_max: int | None,
    no_keys_max: bool,
    keys_per_owner_max: int | None,
    no_keys_per_owner_max: bool,
    default_environment: str | None,
    state: str | None,
    revision: int | None,
    as_json: bool,
) -> None:
    """Change a workspace's caps or default environment, or disable or enable it."""
    body: dict[str, Any] = {}
    if keys_max is not None or no_keys_max:
        body["keys_max"] = None if no_keys_max else keys_max
    if keys_per_owner_max is not None or no_keys_per_owner_max:
        body["keys_per_owner_max"] = None if no_keys_per_owner_max else keys_per_owner_max
    if default_environment is not None:
        body["default_environment"] = default_environment
    if state is not None:
        body["state"] = state
    reply = open_session().patch(f"/workspaces/{_segment(name)}", body, if_match=_if_match(revision))
    _show(reply, as_json=as_json)


# --- principals ----------------------------------------------------------------------------------


@click.group(cls=Commands)
def principals() -> None:
    """Manage principals (by id or name) and their tokens."""


@principals.command("create")
@click.argument("name")
@click.option("--kind", type=click.Choice(["user", "service", "agent"]), required=True, help="What it is.")
@click.option("--metadata", multiple=True, metavar=_PAIR, help="Something to know about it; repeatable.")
@json_option
def create_principal(*, name: str, kind: str, metadata: tuple[str, ...], as_json: bool) -> None:
    """Create a principal; it may do nothing until it is granted something."""
    body = {"name": name, "kind": kind, "metadata": _metadata(metadata)}
    _show(open_session().post("/principals", body, idempotency=True), as_json=as_json)


@principals.command("list")
@click.option("--kind", type=click.Choice(["user", "service", "agent"]), help="Only this kind.")
@click.option("--state", type=click.Choice(["active", "disabled"]), help="Only those in this state.")
@limit_option
@json_option
def list_principals(*, kind: str | None, state: str | None, limit: int | None, as_json: bool) -> None:
    """List principals."""
    items = list(open_session().pages("/principals", {"kind": kind, "state": state}, limit=limit))
    emit({"items": items}, as_json=as_json, human=lambda a: table(a["items"], "id", "kind", "name", "state"))


@principals.command("show")
@click.argument("principal")
@json_option
def show_principal(*, principal: str, as_json: bool) -> None:
    """Show a principal."""
    session = open_session()
    _show(session.get(f"/principals/{_segment(_principal_id(session, principal))}"), as_json=as_json)


@principals.command("update")
@click.argument("principal")
@click.option("--name", help="New name.")
@click.option("--metadata", multiple=True, metavar=_PAIR, help="New metadata, in place of all of the old; repeatable.")
@if_match_option
@json_option
def update_principal(
    *, principal: str, name: str | None, metadata: tuple[str, ...], revision: int | None, as_json: bool
) -> None:
    """Change a principal's name or metadata."""
    session = open_session()
    body: dict[str, Any] = {} if name is None else {"name": name}
    if metadata:
        body["metadata"] = _metadata(metadata)
    path = f"/principals/{_segment(_principal_id(session, principal))}"
    _show(session.patch(path, body, if_match=_if_match(revision)), as_json=as_json)


@principals.command("disable")
@click.argument("principal")
@json_option
def disable_principal(*, principal: str, as_json: bool) -> None:
    """Refuse every token of a principal; reversible."""
    session = open_session()
    _show(session.post(f"/principals/{_segment(_principal_id(session, principal))}/disable"), as_json=as_json)


@principals.command("enable")
@click.argument("principal")
@json_option
def enable_principal(*, principal: str, as_json: bool) -> None:
    """Let a disabled principal act again."""
    session = open_session()
    _show(session.post(f"/principals/{_segment(_principal_id(session, principal))}/enable"), as_json=as_json)


@principals.group("tokens", cls=Commands)
def tokens() -> None:
    """Manage the management tokens of a principal."""


@tokens.command("issue")
@click.argument("principal")
@click.option("--name", required=True, help="What the token is for.")
@click.option("--scope", "scopes", multiple=True, help="Only actions that match, such as key.*; repeatable.")
@click.option("--resource", "resources", multiple=True, help="Only resources that match; repeatable.")
@click.option("--expires-at", metavar="TIME", help="When it ends, RFC 3339.")
@click.option("--expires-in-seconds", type=click.IntRange(min=1), help="When it ends, from now.")
@json_option
def issue_token(
    *,
    principal: str,
    name: str,
    scopes: tuple[str, ...],
    resources: tuple[str, ...],
    expires_at: str | None,
    expires_in_seconds: int | None,
    as_json: bool,
) -> None:
    """Issue a management token; it is shown this once."""
    session = open_session()
    body: dict[str, Any] = {"name": name, "scopes": scopes, "resources": resources}
    if expires_at is not None:
        body["expires_at"] = expires_at
    if expires_in_seconds is not None:
        body["expires_in_seconds"] = expires_in_seconds
    path = f"/principals/{_segment(_principal_id(session, principal))}/tokens"
    _show(session.post(path, body, idempotency=True), as_json=as_json)


@tokens.command("list")
@click.argument("principal")
@limit_option
@json_option
def list_tokens(*, principal: str, limit: int | None, as_json: bool) -> None:
    """List the tokens of a principal; never their secrets."""
    session = open_session()
    items = list(session.pages(f"/principals/{_segment(_principal_id(session, principal))}/tokens", limit=limit))
    emit({"items": items}, as_json=as_json, human=lambda a: table(a["items"], "id", "name", "state", "expires_at"))


@tokens.command("revoke")
@click.argument("principal")
@click.argument("token_id")
@json_option
def revoke_token(*, principal: str, token_id: str, as_json: bool) -> None:
    """Revoke a token, for good."""
    session = open_session()
    path = f"/principals/{_segment(_principal_id(session, principal))}/tokens/{_segment(token_id)}/revoke"
    _show(session.post(path), as_json=as_json)


# --- roles ---------------------------------------------------------------------------------------


@click.group(cls=Commands)
def roles() -> None:
    """Manage roles: what is granted to a role, its members may do."""


@roles.command("create")
@click.argument("name")
@click.option("--description", default="", help="What it is for.")
@json_option
def create_role(*, name: str, description: str, as_json: bool) -> None:
    """Create a role without grants or members."""
    body = {"name": name, "description": description}
    _show(open_session().post("/roles", body, idempotency=True), as_json=as_json)


@roles.command("list")
@limit_option
@json_option
def list_roles(*, limit: int | None, as_json: bool) -> None:
    """List roles."""
    items = list(open_session().pages("/roles", limit=limit))
    emit({"items": items}, as_json=as_json, human=lambda a: table(a["items"], "name", "description", "id"))


@roles.command("show")
@click.argument("name")
@json_option
def show_role(*, name: str, as_json: bool) -> None:
    """Show a role with its members."""
    _show(open_session().get(f"/roles/{_segment(name)}"), as_json=as_json)


@roles.command("assign")
@click.argument("name")
@click.argument("principal")
@json_option
def assign_role(*, name: str, principal: str, as_json: bool) -> None:
    """Make a principal a member of a role."""
    session = open_session()
    body = {"principal": _principal_id(session, principal)}
    _show(session.post(f"/roles/{_segment(name)}/members", body), as_json=as_json)


@roles.command("unassign")
@click.argument("name")
@click.argument("principal")
@json_option
def unassign_role(*, name: str, principal: str, as_json: bool) -> None:
    """End a principal's membership of a role."""
    session = open_session()
    member = _segment(_principal_id(session, principal))
    _show(session.post(f"/roles/{_segment(name)}/members/{member}/remove"), as_json=as_json)


# --- grants --------------------------------------------------------------------------------------


@click.group(cls=Commands)
def grants() -> None:
    """Manage grants, and explain a decision."""


@grants.command("create")
@click.option("--principal", help="Whom to grant it to, by id or name.")
@click.option("--role", help="The role to grant it to.")
@click.option("--action", "actions", multiple=True, help="Such as key.issue or key.*; repeatable.")
@click.option(
    "--capability",
    "capabilities",
    multiple=True,
    type=click.Choice(sorted(CAPABILITIES)),
    help="Actions on secrets that go together; repeatable.",
)
@click.option("--resource", help="Such as key/orders/* or *.")
@click.option("--path", metavar="PATTERN", help="Secrets, such as production/payments/*; in place of --resource.")
@click.option("--environment", "environments", multiple=True, help="Only resources of this environment; repeatable.")
@click.option("--cidr", "cidrs", multiple=True, help="Only callers from this network; repeatable.")
@click.option("--not-before", metavar="TIME", help="Only from then on, RFC 3339.")
@click.option("--not-after", metavar="TIME", help="Only until then, RFC 3339.")
@json_option
def create_grant(
    *,
    principal: str | None,
    role: str | None,
    actions: tuple[str, ...],
    capabilities: tuple[str, ...],
    resource: str | None,
    path: str | None,
    as_json: bool,
    **given: tuple[str, ...] | str | None,
) -> None:
    """Grant actions on a resource pattern; nobody grants more than they hold."""
    if not (actions or capabilities) or (resource is None) == (path is None):
        message = "expected --action or --capability, and one of --resource and --path"
        raise InputError(message, hint="for example --capability read --path 'production/payments/*'")
    session = open_session()
    conditions = {name: value for name, value in given.items() if value is not None}
    body = {
        "principal": None if principal is None else _principal_id(session, principal),
        "role": role,
        "actions": (*actions, *actions_of(capabilities)),
        "resource": resource if path is None else path_resource(path),
        "conditions": conditions,
    }
    _show(session.post("/grants", body, idempotency=True), as_json=as_json)


@grants.command("list")
@click.option("--principal", help="Only those of this principal and of its roles.")
@click.option("--role", help="Only those of this role.")
@click.option("--state", type=click.Choice(["active", "revoked"]), help="Only those in this state.")
@limit_option
@json_option
def list_grants(
    *, principal: str | None, role: str | None, state: str | None, limit: int | None, as_json: bool
) -> None:
    """List grants, revoked ones too."""
    session = open_session()
    of = None if principal is None else _principal_id(session, principal)
    items = list(session.pages("/grants", {"principal": of, "role": role, "state": state}, limit=limit))
    columns = ("id", "principal", "role", "actions", "resource", "state")
    emit({"items": items}, as_json=as_json, human=lambda a: table(a["items"], *columns))


@grants.command("show")
@click.argument("grant_id")
@json_option
def show_grant(*, grant_id: str, as_json: bool) -> None:
    """Show a grant."""
    _show(open_session().get(f"/grants/{_segment(grant_id)}"), as_json=as_json)


@grants.command("revoke")
@click.argument("grant_id")
@json_option
def revoke_grant(*, grant_id: str, as_json: bool) -> None:
    """Revoke a grant, for good."""
    _show(open_session().post(f"/grants/{_segment(grant_id)}/revoke"), as_json=as_json)


@grants.command("explain")
@click.argument("action")
@click.argument("resource")
@click.option("--principal", help="Whom to ask about, by id or name; without it, the caller itself.")
@click.option("--environment", help="Environment of the resource.")
@click.option("--ip", help="Address that a call would come from.")
@click.option("--at", metavar="TIME", help="When it would be made, RFC 3339.")
@json_option
def explain(
    *,
    action: str,
    resource: str,
    principal: str | None,
    environment: str | None,
    ip: str | None,
    at: str | None,
    as_json: bool,
) -> None:
    """Say whether a principal may do ACTION to RESOURCE, and why."""
    session = open_session()
    body = {
        "action": action,
        "resource": resource,
        "principal": None if principal is None else _principal_id(session, principal),
        "environment": environment,
        "ip": ip,
        "at": at,
    }
    emit(session.post("/access/explain", body).json, as_json=as_json, human=_explanation)


def _explanation(answer: dict[str, Any]) -> str:
    head = fields(answer, "allowed", "reason", "principal", "action", "resource")
    return f"{head}\n\n{table(answer['considered'], 'applies', 'source', 'subject', 'reason')}"
