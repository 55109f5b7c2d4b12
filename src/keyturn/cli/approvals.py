"""`keyturn guards` and `keyturn approvals`: what needs a second principal, asking for it, and deciding."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import click

from keyturn.cli.groups import Commands
from keyturn.cli.output import emit, json_option, table
from keyturn.cli.policy import limit_option
from keyturn.cli.session import open_session
from keyturn.errors import InputError

_STATES = ("pending", "approved", "denied", "expired")


def _at(kind: str, name: str, *rest: str) -> str:
    return "/".join((f"/{kind}", quote(name, safe=""), *rest))


@click.group(cls=Commands)
def guards() -> None:
    """Hold actions on paths back until a second principal approves."""


@guards.command("create")
@click.argument("pattern")
@click.option("--action", "actions", multiple=True, help="Such as secret.reveal; repeatable; without it, the default.")
@click.option("--valid-seconds", type=click.IntRange(min=60), help="How long an approval holds; an hour without it.")
@click.option("--description", default="", help="Why.")
@json_option
def create_guard(
    *, pattern: str, actions: tuple[str, ...], valid_seconds: int | None, description: str, as_json: bool
) -> None:
    """Guard the paths of PATTERN, such as 'production/payments/*'."""
    body: dict[str, Any] = {"pattern": pattern, "description": description}
    if actions:
        body["actions"] = actions
    if valid_seconds is not None:
        body["valid_seconds"] = valid_seconds
    emit(open_session().post("/guards", body, idempotency=True).json, as_json=as_json)


@guards.command("list")
@limit_option
@json_option
def list_guards(*, limit: int | None, as_json: bool) -> None:
    """List guards, revoked ones too."""
    items = list(open_session().pages("/guards", limit=limit))
    columns = ("id", "pattern", "actions", "valid_seconds", "revoked_at")
    emit({"items": items}, as_json=as_json, human=lambda a: table(a["items"], *columns))


@guards.command("show")
@click.argument("guard_id")
@json_option
def show_guard(*, guard_id: str, as_json: bool) -> None:
    """Show a guard."""
    emit(open_session().get(_at("guards", guard_id)).json, as_json=as_json)


@guards.command("revoke")
@click.argument("guard_id")
@json_option
def revoke_guard(*, guard_id: str, as_json: bool) -> None:
    """Revoke a guard; needs an approval of its own."""
    emit(open_session().post(_at("guards", guard_id, "revoke")).json, as_json=as_json)


@click.group(cls=Commands)
def approvals() -> None:
    """Ask for the approval of a second principal, and decide what others ask for."""


@approvals.command()
@click.argument("path", required=False)
@click.option("--action", help="Such as secret.reveal.")
@click.option("--guard", "guard_id", help="In place of a path: the guard to revoke.")
@click.option("--reason", required=True, help="Why; whoever decides reads it.")
@json_option
def request(*, path: str | None, action: str | None, guard_id: str | None, reason: str, as_json: bool) -> None:
    """Ask that an action on PATH be approved."""
    if (path is None) == (guard_id is None) or (path is not None and action is None):
        message = "expected a path and --action, or --guard"
        raise InputError(message, hint="for example production/payments/stripe --action secret.reveal")
    body = {"action": action or "guard.revoke", "reason": reason, "path": path, "guard": guard_id}
    emit(open_session().post("/approvals", body).json, as_json=as_json)


@approvals.command("list")
@click.option("--state", type=click.Choice(_STATES), help="Only those that stand so.")
@limit_option
@json_option
def list_approvals(*, state: str | None, limit: int | None, as_json: bool) -> None:
    """List your own requests, and those that you may decide or read."""
    items = list(open_session().pages("/approvals", {"state": state}, limit=limit))
    columns = ("id", "requester", "action", "resource", "reason", "state", "valid_until", "uses")
    emit({"items": items}, as_json=as_json, human=lambda a: table(a["items"], *columns))


@approvals.command()
@click.argument("approval_id")
@json_option
def show(*, approval_id: str, as_json: bool) -> None:
    """Show a request and what became of it."""
    emit(open_session().get(_at("approvals", approval_id)).json, as_json=as_json)


@approvals.command()
@click.argument("approval_id")
@click.argument("decision", type=click.Choice(["approve", "deny"]))
@click.option("--reason", required=True, help="Why.")
@json_option
def decide(*, approval_id: str, decision: str, reason: str, as_json: bool) -> None:
    """Approve or deny a request of somebody else; what was approved can still be denied."""
    body = {"approve": decision == "approve", "reason": reason}
    emit(open_session().post(_at("approvals", approval_id, "decide"), body).json, as_json=as_json)
