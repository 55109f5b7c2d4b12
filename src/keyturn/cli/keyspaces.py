"""`keyturn keyspaces`: the APIs whose keys are issued."""

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
    "prefix",
    "tag",
    "environment",
    "description",
    "stale_after_seconds",
    "restrictions",
    "shadow_restrictions",
    "default_plan",
    "limits",
    "quotas",
    "accepts_foreign",
    "peppers",
    "created_at",
    "created_by",
    "revision",
    "effective",
    "lag_ms",
    "effective_by",
    "laggards",
)


def _emit(answer: Any, *, as_json: bool) -> None:  # noqa: ANN401 -- JSON
    emit(answer, as_json=as_json, human=lambda a: fields(readable(a), *_SHOWN))


def _path(name: str, *rest: str) -> str:
    return "/".join(("/keyspaces", quote(name, safe=""), *rest))


@click.group(cls=Commands)
def keyspaces() -> None:
    """Manage keyspaces."""


@keyspaces.command()
@click.argument("name")
@click.option("--prefix", required=True, help="How every key begins: 2-16 of a-z0-9.")
@click.option("--environment", required=True, help="development, staging, production or your own.")
@click.option("--tag", help="What stands for the environment in every key; needed for some of your own.")
@click.option("--description", default="", help="What it is for.")
@click.option("--stale-after-seconds", type=int, help="How long a node may go without news; 1-3600, default 60.")
@click.option("--default-plan", help="The plan of every key that has none, and whose owner has none.")
@restrictions_options
@allowance_options()
@json_option
def create(  # noqa: PLR0913 -- each is an option
    *,
    name: str,
    prefix: str,
    environment: str,
    tag: str | None,
    description: str,
    stale_after_seconds: int | None,
    default_plan: str | None,
    cidrs: tuple[str, ...],
    origins: tuple[str, ...],
    endpoints: tuple[str, ...],
    allowances: dict[str, Any],
    as_json: bool,
) -> None:
    """Create a keyspace."""
    body = {
        "name": name,
        "prefix": prefix,
        "environment": environment,
        "tag": tag,
        "description": description,
        "stale_after_seconds": stale_after_seconds,
        "default_plan": default_plan,
        "restrictions": read_restrictions(cidrs, origins, endpoints),
        **allowances,
    }
    given = {field: value for field, value in body.items() if value is not None}
    _emit(open_session().post("/keyspaces", given, idempotency=True).json, as_json=as_json)


@keyspaces.command("list")
@limit_option
@json_option
def list_keyspaces(*, limit: int | None, as_json: bool) -> None:
    """List keyspaces."""
    items = list(open_session().pages("/keyspaces", limit=limit))
    columns = ("name", "prefix", "tag", "environment", "state", "stale_after_seconds", "created_at")
    emit({"items": items}, as_json=as_json, human=lambda a: table(a["items"], *columns))


@keyspaces.command()
@click.argument("name")
@json_option
def show(*, name: str, as_json: bool) -> None:
    """Show a keyspace and its peppers."""
    _emit(open_session().get(_path(name)).json, as_json=as_json)


@keyspaces.command()
@click.argument("name")
@click.option("--description", help="What it is for.")
@click.option("--stale-after-seconds", type=int, help="How long a node may go without news; 1-3600.")
@click.option("--default-plan", help="The plan of every key that has none; '' takes it away.")
@restrictions_options
@click.option("--clear-restrictions", is_flag=True, help="Restrict nothing any more.")
@allowance_options(updating=True)
@revision_option
@json_option
def update(  # noqa: PLR0913 -- each is an option
    *,
    name: str,
    description: str | None,
    stale_after_seconds: int | None,
    default_plan: str | None,
    cidrs: tuple[str, ...],
    origins: tuple[str, ...],
    endpoints: tuple[str, ...],
    clear_restrictions: bool,
    allowances: dict[str, Any],
    revision: int | None,
    as_json: bool,
) -> None:
    """Change a keyspace; limits, quotas and restrictions given take the place of all before."""
    body: dict[str, Any] = dict(allowances)
    if default_plan is not None:
        body["default_plan"] = default_plan or None
    if description is not None:
        body["description"] = description
    if stale_after_seconds is not None:
        body["stale_after_seconds"] = stale_after_seconds
    restrictions = read_restrictions(cidrs, origins, endpoints)
    if restrictions is not None or clear_restrictions:
        body["restrictions"] = restrictions
    _emit(open_session().patch(_path(name), body, if_match=if_match(revision)).json, as_json=as_json)


@keyspaces.command()
@click.argument("name")
@revision_option
@json_option
def disable(*, name: str, revision: int | None, as_json: bool) -> None:
    """Refuse every key of a keyspace; reversible."""
    _emit(open_session().post(_path(name, "disable"), if_match=if_match(revision)).json, as_json=as_json)


@keyspaces.command()
@click.argument("name")
@revision_option
@json_option
def enable(*, name: str, revision: int | None, as_json: bool) -> None:
    """Admit the keys of a disabled keyspace again."""
    _emit(open_session().post(_path(name, "enable"), if_match=if_match(revision)).json, as_json=as_json)


@keyspaces.command("rotate-pepper")
@click.argument("name")
@revision_option
@json_option
def rotate_pepper(*, name: str, revision: int | None, as_json: bool) -> None:
    """Make a new pepper; old digests move to it as their keys are used."""
    path = _path(name, "rotate-pepper")
    _emit(open_session().post(path, idempotency=True, if_match=if_match(revision)).json, as_json=as_json)


@keyspaces.command("retire-pepper")
@click.argument("name")
@click.option("--number", type=click.IntRange(min=1), help="Which one; without, all that are not needed.")
@revision_option
@json_option
def retire_pepper(*, name: str, number: int | None, revision: int | None, as_json: bool) -> None:
    """Retire previous peppers that no key needs any more."""
    body = {} if number is None else {"number": number}
    _emit(open_session().post(_path(name, "retire-pepper"), body, if_match=if_match(revision)).json, as_json=as_json)


@keyspaces.command()
@click.argument("name")
@click.option(
    "--format",
    "form",
    type=click.Choice(["github", "gitleaks", "trufflehog", "kingfisher"]),
    required=True,
    help="The scanner that it is for.",
)
def pattern(*, name: str, form: str) -> None:
    """Print the format of a keyspace's keys as a rule of another scanner."""
    click.echo(open_session().get(_path(name, "pattern"), {"format": form}).json["text"], nl=False)
