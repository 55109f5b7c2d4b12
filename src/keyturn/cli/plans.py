"""`keyturn plans`: scopes, limits, quotas and restrictions under one name."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import click

from keyturn.cli.allowances import allowance_options, readable
from keyturn.cli.groups import Commands
from keyturn.cli.output import emit, fields, json_option, table
from keyturn.cli.policy import if_match, limit_option, read_restrictions, restrictions_options, revision_option
from keyturn.cli.session import open_session

_SHOWN = (
    "name",
    "id",
    "state",
    "description",
    "scopes",
    "limits",
    "quotas",
    "restrictions",
    "shadow_restrictions",
    "keys",
    "owners",
    "keyspaces",
    "created_at",
    "created_by",
    "updated_at",
    "revision",
    "effective",
    "lag_ms",
    "effective_by",
    "laggards",
)


def _emit(answer: Any, *, as_json: bool) -> None:  # noqa: ANN401 -- JSON
    emit(answer, as_json=as_json, human=lambda a: fields(readable(a), *_SHOWN))


def _path(name: str, *rest: str) -> str:
    return "/".join(("/plans", quote(name, safe=""), *rest))


@click.group(cls=Commands)
def plans() -> None:
    """Manage plans."""


@plans.command()
@click.argument("name")
@click.option("--description", help="What it is for.")
@click.option("--scope", "scopes", multiple=True, help="What every key on it may do; repeatable.")
@restrictions_options
@allowance_options()
@json_option
def create(
    *,
    name: str,
    description: str | None,
    scopes: tuple[str, ...],
    cidrs: tuple[str, ...],
    origins: tuple[str, ...],
    endpoints: tuple[str, ...],
    allowances: dict[str, Any],
    as_json: bool,
) -> None:
    """Create a plan."""
    body: dict[str, Any] = {"name": name, "scopes": scopes, **allowances}
    if description is not None:
        body["description"] = description
    restrictions = read_restrictions(cidrs, origins, endpoints)
    if restrictions is not None:
        body["restrictions"] = restrictions
    _emit(open_session().post("/plans", body, idempotency=True).json, as_json=as_json)


@plans.command("list")
@click.option("--state", type=click.Choice(["active", "retired"]), help="Only in this state.")
@limit_option
@json_option
def list_plans(*, state: str | None, limit: int | None, as_json: bool) -> None:
    """List plans."""
    items = list(open_session().pages("/plans", {"state": state}, limit=limit))
    columns = ("name", "state", "scopes", "limits", "quotas", "description")
    emit({"items": items}, as_json=as_json, human=lambda a: table(map(readable, a["items"]), *columns))


@plans.command()
@click.argument("name")
@json_option
def show(*, name: str, as_json: bool) -> None:
    """Show a plan, and how much was put on it."""
    _emit(open_session().get(_path(name)).json, as_json=as_json)


@plans.command()
@click.argument("name")
@click.option("--description", help="What it is for.")
@click.option("--scope", "scopes", multiple=True, help="What every key on it may do, instead of all before.")
@click.option("--no-scopes", is_flag=True, help="Give no scopes any more.")
@restrictions_options
@click.option("--clear-restrictions", is_flag=True, help="Restrict nothing any more.")
@allowance_options(updating=True)
@revision_option
@json_option
def update(  # noqa: PLR0913 -- each is an option
    *,
    name: str,
    description: str | None,
    scopes: tuple[str, ...],
    no_scopes: bool,
    cidrs: tuple[str, ...],
    origins: tuple[str, ...],
    endpoints: tuple[str, ...],
    clear_restrictions: bool,
    allowances: dict[str, Any],
    revision: int | None,
    as_json: bool,
) -> None:
    """Change a plan for every key on it; limits, quotas and restrictions given take the place of all before."""
    body: dict[str, Any] = dict(allowances)
    if description is not None:
        body["description"] = description
    if scopes or no_scopes:
        body["scopes"] = scopes
    restrictions = read_restrictions(cidrs, origins, endpoints)
    if restrictions is not None or clear_restrictions:
        body["restrictions"] = restrictions
    _emit(open_session().patch(_path(name), body, if_match=if_match(revision)).json, as_json=as_json)


@plans.command()
@click.argument("name")
@click.option("--move-to", help="The plan that everything on it moves to.")
@revision_option
@json_option
def retire(*, name: str, move_to: str | None, revision: int | None, as_json: bool) -> None:
    """Retire a plan, for good."""
    body = {} if move_to is None else {"move_to": move_to}
    reply = open_session().post(_path(name, "retire"), body, if_match=if_match(revision))
    _emit(reply.json, as_json=as_json)
