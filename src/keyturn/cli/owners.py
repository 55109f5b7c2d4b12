"""`keyturn owners`: what holds for all keys of an owner."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import click

from keyturn.cli.allowances import allowance_options, readable
from keyturn.cli.groups import Commands
from keyturn.cli.output import emit, fields, json_option, table
from keyturn.cli.policy import if_match, limit_option, revision_option
from keyturn.cli.session import open_session

_SHOWN = (
    "name",
    "resource",
    "plan",
    "limits",
    "quotas",
    "keys",
    "updated_at",
    "updated_by",
    "revision",
    "effective",
    "lag_ms",
    "effective_by",
    "laggards",
)


def _emit(answer: Any, *, as_json: bool) -> None:  # noqa: ANN401 -- JSON
    emit(answer, as_json=as_json, human=lambda a: fields(readable(a), *_SHOWN))


def owner_path(name: str) -> str:
    """Return the path of an owner; dots too are encoded, since `.` and `..` mean something else in a path."""
    return "/owners/" + quote(name, safe="").replace(".", "%2E")


@click.group(cls=Commands)
def owners() -> None:
    """Manage what holds for all keys of an owner."""


@owners.command("list")
@click.option("--plan", help="Only those on this plan.")
@limit_option
@json_option
def list_owners(*, plan: str | None, limit: int | None, as_json: bool) -> None:
    """List the owners that something was set for."""
    items = list(open_session().pages("/owners", {"plan": plan}, limit=limit))
    columns = ("name", "plan", "limits", "quotas", "updated_at")
    emit({"items": items}, as_json=as_json, human=lambda a: table(map(readable, a["items"]), *columns))


@owners.command()
@click.argument("name")
@json_option
def show(*, name: str, as_json: bool) -> None:
    """Show what was set for an owner."""
    _emit(open_session().get(owner_path(name)).json, as_json=as_json)


@owners.command()
@click.argument("name")
@click.option("--plan", help="The plan of all its keys that have none of their own; '' takes it away.")
@allowance_options(updating=True, shadow=False)
@revision_option
@json_option
def update(*, name: str, plan: str | None, allowances: dict[str, Any], revision: int | None, as_json: bool) -> None:
    """Change what holds for all keys of an owner; limits and quotas given take the place of all before."""
    body: dict[str, Any] = dict(allowances)
    if plan is not None:
        body["plan"] = plan or None
    _emit(open_session().patch(owner_path(name), body, if_match=if_match(revision)).json, as_json=as_json)
