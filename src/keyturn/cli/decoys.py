"""`keyturn decoys`: keys and secrets whose use is an alarm."""

from __future__ import annotations

from urllib.parse import quote

import click

from keyturn.cli.groups import Commands
from keyturn.cli.output import emit, json_option, table
from keyturn.cli.policy import if_match, limit_option, revision_option
from keyturn.cli.session import open_session


def _path(name: str, *rest: str) -> str:
    return "/".join(("/decoys", *(quote(part, safe="") for part in (name, *rest))))


@click.group(cls=Commands)
def decoys() -> None:
    """Plant keys and secrets that nothing uses, and be told of any use."""


@decoys.command()
@click.argument("name")
@click.option("--keyspace", required=True, help="Whose keys it looks like.")
@click.option("--owner", default="security", show_default=True, help="Who is told of its use.")
@click.option("--planted-at", default="", help="Where you put it.")
@json_option
def issue(*, name: str, keyspace: str, owner: str, planted_at: str, as_json: bool) -> None:
    """Make a key that is refused whoever presents it, and show it once."""
    body = {"name": name, "kind": "issued", "keyspace": keyspace, "owner": owner, "planted_at": planted_at}
    emit(open_session().post("/decoys", body, idempotency=True).json, as_json=as_json)


@decoys.command()
@click.argument("name")
@click.argument("path")
@click.option("--like", help="The id of a detection rule whose keys it looks like; see `keyturn rules list`.")
@click.option("--field", default="api_key", show_default=True, help="The field that it stands in.")
@click.option("--planted-at", default="", help="Where else you put it.")
@json_option
def hold(*, name: str, path: str, like: str | None, field: str, planted_at: str, as_json: bool) -> None:
    """Hold a secret that opens nothing at a path where there is none, and show its value once."""
    body = {"name": name, "kind": "held", "path": path, "field": field, "planted_at": planted_at}
    if like is not None:
        body["like"] = like
    emit(open_session().post("/decoys", body, idempotency=True).json, as_json=as_json)


@decoys.command("list")
@limit_option
@json_option
def list_decoys(*, limit: int | None, as_json: bool) -> None:
    """List decoys."""
    items = list(open_session().pages("/decoys", limit=limit))
    columns = ("name", "kind", "state", "planted_at", "tripped_count", "last_tripped_at")
    emit({"items": items}, as_json=as_json, human=lambda a: table(a["items"], *columns))


@decoys.command()
@click.argument("name")
@json_option
def show(*, name: str, as_json: bool) -> None:
    """Show a decoy, how often it was used, and by whom last."""
    emit(open_session().get(_path(name)).json, as_json=as_json)


@decoys.command()
@click.argument("name")
@revision_option
@json_option
def retire(*, name: str, revision: int | None, as_json: bool) -> None:
    """Be told of a decoy's use no more; the key stays disabled, the secret where it is."""
    emit(open_session().post(_path(name, "retire"), if_match=if_match(revision)).json, as_json=as_json)
