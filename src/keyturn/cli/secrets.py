"""`keyturn secrets`: secrets that are held, and their versions.  Values never stand in the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from keyturn.cli.dotenv import diff, export, import_file
from keyturn.cli.groups import Commands
from keyturn.cli.output import emit, fields, json_option, table
from keyturn.cli.policy import if_match, limit_option, read_metadata, revision_option
from keyturn.cli.secret_values import raw_value, read_fields, write_raw
from keyturn.cli.session import open_session
from keyturn.cli.wraps import share
from keyturn.errors import InputError

_ABOUT = (
    click.option("--owner", help="Who answers for it."),
    click.option("--purpose", help="What it is for."),
    click.option("--provider", help="Whose API it opens."),
    click.option("--revocation-path", help="Where it is revoked: an address, or what to do."),
    click.option("--next-rotation-at", metavar="TIME", help="When it is to be replaced; 'none' takes it away."),
    click.option("--expires-at", metavar="TIME", help="When it ends; 'none' takes it away."),
    click.option("--versions-max", type=click.IntRange(1, 1000), help="How many versions are kept."),
    click.option("--cas-required/--no-cas-required", default=None, help="Write with --cas only."),
    click.option("--delete-after-seconds", metavar="SECONDS", help="Delete new versions after so long; or 'none'."),
    click.option("--metadata", multiple=True, metavar="NAME=VALUE", help="Takes the place of all before; repeatable."),
)
cas_option = click.option(
    "--cas", type=click.IntRange(min=0), metavar="VERSION", help="Only if this version is current; 0 for none yet."
)
versions_option = click.option("--version", "versions", type=click.IntRange(min=1), multiple=True, help="Repeatable.")
binary_option = click.option("--binary", multiple=True, metavar="NAME=@FILE", help="Keep bytes; repeatable.")
from_json_option = click.option("--from-json", metavar="FILE", help="All fields, as a JSON object; '-' is stdin.")


def _at(kind: str, path: str) -> str:
    return f"/{kind}/{quote(path, safe='/')}"


@click.group(cls=Commands)
def secrets() -> None:
    """Hold secrets for the APIs that you use."""


secrets.add_command(share)


for one in (import_file, export, diff):
    secrets.add_command(one)


@secrets.command()
@click.argument("path")
@click.argument("named", nargs=-1, metavar="[NAME | NAME=@FILE | NAME=-]...")
@binary_option
@from_json_option
@cas_option
@click.option("--pending", is_flag=True, help="Do not make it current yet; `promote` does.")
@json_option
def put(
    *,
    path: str,
    named: tuple[str, ...],
    binary: tuple[str, ...],
    from_json: str | None,
    cas: int | None,
    pending: bool,
    as_json: bool,
) -> None:
    """Write a new version, which holds exactly the fields named.

    A field's value is asked for, or comes from stdin or a file; never from the command line.
    """
    held = read_fields(named, binary, from_json)
    if not held:
        message = "no field is named"
        raise InputError(message, hint="for example `keyturn secrets put production/payments/stripe key`")
    body = {"fields": held, "cas": cas, "pending": pending}
    emit(open_session().put(_at("secrets", path), body, idempotency=True).json, as_json=as_json)


@secrets.command()
@click.argument("path")
@click.argument("named", nargs=-1, metavar="[NAME | NAME=@FILE | NAME=-]...")
@click.option("--unset", multiple=True, metavar="NAME", help="Leave this field out from now on; repeatable.")
@binary_option
@from_json_option
@cas_option
@json_option
def patch(
    *,
    path: str,
    named: tuple[str, ...],
    unset: tuple[str, ...],
    binary: tuple[str, ...],
    from_json: str | None,
    cas: int | None,
    as_json: bool,
) -> None:
    """Write a new version: the current one with some fields changed."""
    changed = read_fields(named, binary, from_json) | dict.fromkeys(unset)
    if not changed:
        message = "no field is named"
        raise InputError(message, hint="name the fields to change, or those to leave out with --unset")
    answer = open_session().patch(_at("secrets", path), {"fields": changed, "cas": cas}, idempotency=True)
    emit(answer.json, as_json=as_json)


@secrets.command()
@click.argument("path")
@click.option("--field", help="Write only this field, as it is; bytes as bytes.")
@click.option("--version", type=click.IntRange(min=1), help="Another version than the current one.")
@click.option("--sequence", type=click.IntRange(min=1), help="The version written as the so-manyeth, pending ones too.")
@click.option("--no-resolve", is_flag=True, help="Leave references to other secrets as they are.")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="With --field: write a private file.")
@json_option
def get(
    *,
    path: str,
    field: str | None,
    version: int | None,
    sequence: int | None,
    no_resolve: bool,
    output: Path | None,
    as_json: bool,
) -> None:
    """Read a version: the current one, unless another is named.  The read is on record before the value arrives."""
    asked = {"version": version, "sequence": sequence, "resolve": "false" if no_resolve else None}
    answer = open_session().get(_at("secrets", path), asked).json
    if field is None:
        if output is not None:
            message = "expected --field with --output"
            raise InputError(message, field="--output")
        emit(answer, as_json=as_json, human=_lines)
    elif field not in answer["fields"]:
        message = f"there is no field {field!r} in this version; there are: {', '.join(answer['fields']) or 'none'}"
        raise InputError(message, field="--field")
    elif as_json:
        emit({"field": field, "value": answer["fields"][field]}, as_json=True)
    else:
        write_raw(answer["fields"][field], output)


@secrets.command("list")
@click.argument("prefix", default="")
@limit_option
@json_option
def list_secrets(*, prefix: str, limit: int | None, as_json: bool) -> None:
    """List secrets whose paths begin so, without what they hold."""
    items = list(open_session().pages("/secrets", {"prefix": prefix or None}, limit=limit))
    columns = ("path", "current_version", "owner", "provider", "next_rotation_at", "expires_at", "updated_at")
    emit({"items": items}, as_json=as_json, human=lambda a: table(a["items"], *columns))


@secrets.command()
@click.argument("folder", default="")
@json_option
def names(*, folder: str, as_json: bool) -> None:
    """Name what lies directly below a folder; the environments without one."""
    answer = open_session().get("/secret-names", {"folder": folder or None}).json
    emit(answer, as_json=as_json, human=lambda a: "\n".join(a["names"]) or "(none)")


@secrets.command()
@click.argument("path")
@json_option
def show(*, path: str, as_json: bool) -> None:
    """Show what is told of a secret, without what it holds."""
    answer = open_session().get(_at("secret-metadata", path)).json
    emit(answer, as_json=as_json, human=lambda a: fields({name: a[name] for name in a if name != "versions"}))


@secrets.command()
@click.argument("path")
@json_option
def versions(*, path: str, as_json: bool) -> None:
    """List the versions of a secret, newest first."""
    answer = open_session().get(_at("secret-metadata", path)).json
    columns = ("number", "sequence", "state", "fields", "created_at", "created_by", "deleted_at", "destroyed_at")
    emit({"items": answer["versions"]}, as_json=as_json, human=lambda a: table(a["items"], *columns))


@secrets.command()
@click.argument("path")
@click.argument("version", type=click.IntRange(min=1))
@cas_option
@json_option
def rollback(*, path: str, version: int, cas: int | None, as_json: bool) -> None:
    """Write what an earlier version holds as a new one."""
    body = {"version": version, "cas": cas}
    emit(open_session().post(_at("secret-rollback", path), body, idempotency=True).json, as_json=as_json)


@secrets.command()
@click.argument("path")
@click.option("--sequence", type=click.IntRange(min=1), help="Which pending version; the newest without it.")
@json_option
def promote(*, path: str, sequence: int | None, as_json: bool) -> None:
    """Make a pending version current, and the current one previous."""
    body = {"sequence": sequence}
    emit(open_session().post(_at("secret-promote", path), body, idempotency=True).json, as_json=as_json)


@secrets.command()
@click.argument("path")
@versions_option
@json_option
def delete(*, path: str, versions: tuple[int, ...], as_json: bool) -> None:
    """Delete versions so that `undelete` brings them back; the current one without --version."""
    _change("secret-delete", path, {"versions": versions or None}, as_json=as_json)


@secrets.command()
@click.argument("path")
@versions_option
@json_option
def undelete(*, path: str, versions: tuple[int, ...], as_json: bool) -> None:
    """Take a deletion back; that of the current version without --version."""
    _change("secret-undelete", path, {"versions": versions or None}, as_json=as_json)


@secrets.command()
@click.argument("path")
@versions_option
@click.option("--sequence", "sequences", type=click.IntRange(min=1), multiple=True, help="A pending one; repeatable.")
@json_option
def destroy(*, path: str, versions: tuple[int, ...], sequences: tuple[int, ...], as_json: bool) -> None:
    """Forget for good what versions hold."""
    if not (versions or sequences):
        message = "name the versions to destroy with --version or --sequence"
        raise click.UsageError(message)
    _change("secret-destroy", path, {"versions": versions or None, "sequences": sequences or None}, as_json=as_json)


@secrets.command()
@click.argument("path")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def remove(*, path: str, yes: bool, as_json: bool) -> None:
    """Destroy every version of a secret and free its path."""
    if not yes:
        click.confirm(f"Destroy every version of {path} for good?", abort=True, err=True)
    emit(open_session().post(_at("secret-remove", path)).json, as_json=as_json)


def _about(command: Any) -> Any:  # noqa: ANN401 -- a click command
    for option in reversed(_ABOUT):
        command = option(command)
    return command


@secrets.command()
@click.argument("path")
@_about
@revision_option
@json_option
def describe(*, path: str, revision: int | None, as_json: bool, metadata: tuple[str, ...], **told: Any) -> None:  # noqa: ANN401 -- values of options
    """Tell about a secret; what is left out stays as it is."""
    body = {name: _told(value) for name, value in told.items() if value is not None}
    if body.get("delete_after_seconds") is not None:
        body["delete_after_seconds"] = _seconds(body["delete_after_seconds"])
    if metadata:
        body["metadata"] = read_metadata(metadata)
    answer = open_session().patch(_at("secret-metadata", path), body, if_match=if_match(revision)).json
    emit(answer, as_json=as_json, human=lambda a: fields({name: a[name] for name in a if name != "versions"}))


@secrets.command()
@click.argument("path")
@json_option
def readers(*, path: str, as_json: bool) -> None:
    """Say who has read which version last, and who has not read the current one."""
    answer = open_session().get(_at("secret-readers", path)).json
    columns = ("principal_name", "subject", "version", "state", "last_at", "reads", "ip_network", "user_agent")
    emit(answer, as_json=as_json, human=lambda a: table(a["items"], *columns))


@secrets.command()
@click.argument("prefix", default="")
@json_option
def reuse(*, prefix: str, as_json: bool) -> None:
    """Name the places that hold the same value, without showing it."""
    answer = open_session().get("/secret-reuse", {"prefix": prefix or None}).json
    emit(answer, as_json=as_json, human=_groups)


def _change(kind: str, path: str, body: dict[str, Any], *, as_json: bool) -> None:
    answer = open_session().post(_at(kind, path), {name: value for name, value in body.items() if value}).json
    columns = ("number", "sequence", "state", "created_at", "deleted_at", "destroyed_at")
    emit(answer, as_json=as_json, human=lambda a: table(a["versions"], *columns))


def _told(value: Any) -> Any:  # noqa: ANN401 -- the value of an option
    return None if value == "none" else value


def _seconds(text: str) -> int:
    if not text.isdecimal():
        message = "expected a whole number of seconds, or none"
        raise InputError(message, field="--delete-after-seconds")
    return int(text)


def _lines(answer: dict[str, Any]) -> str:
    return fields({name: raw_value(value).decode(errors="replace") for name, value in answer["fields"].items()})


def _groups(answer: dict[str, Any]) -> str:
    rows = [{"group": group["group"], **place} for group in answer["items"] for place in group["places"]]
    return table(rows, "group", "path", "field", "version", "owner")
