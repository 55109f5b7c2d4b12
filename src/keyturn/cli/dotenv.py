"""`keyturn secrets import | export | diff`: between held secrets and `.env` files.  Only `export` shows values."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import click

from keyturn.cli.failure import NO
from keyturn.cli.output import emit, json_option
from keyturn.cli.session import Session, open_session
from keyturn.errors import ForbiddenError, InputError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from keyturn.delivery.dotenv import Dotenv
    from keyturn.delivery.judging import Remark

_FILE: Final = click.Path(path_type=Path, dir_okay=False)


@click.command("import")
@click.argument("file", type=_FILE)
@click.option("--to", "target", required=True, metavar="PATH", help="The secret whose fields the names become.")
@click.option("--each", is_flag=True, help="Make each name a secret of its own below --to, with the field `value`.")
@click.option("--merge", is_flag=True, help="Keep fields of the secret that are not in the file.")
@click.option("--replace", is_flag=True, help="Drop fields of the secret that are not in the file.")
@click.option(
    "--compare", "others", type=_FILE, multiple=True, help="Look for the same values in this file; repeatable."
)
@click.option("--dry-run", is_flag=True, help="Say what would be written, and what is weak or shared; write nothing.")
@json_option
def import_file(
    *,
    file: Path,
    target: str,
    each: bool,
    merge: bool,
    replace: bool,
    others: tuple[Path, ...],
    dry_run: bool,
    as_json: bool,
) -> None:
    """Take the names and values of a .env file into held secrets; nothing in the file is executed or expanded.

    Values that look weak or shared are named, and written all the same.
    """
    if merge and replace:
        raise InputError("--merge and --replace exclude each other")
    found = _read(file)
    if not found.values:
        raise InputError(f"{str(file)!r} names nothing")
    remarks = _remarks(file, found, others, target.partition("/")[0])
    session = open_session()
    if each:
        written = [_put_one(session, target, name, value, dry_run=dry_run) for name, value in found.values.items()]
    else:
        written = [_put_all(session, target, found, merge=merge, replace=replace, dry_run=dry_run)]
    held = [] if dry_run else _held_elsewhere(session, [one["path"] for one in written])
    answer = {"written": not dry_run, "secrets": written, "remarks": [*map(_shown, remarks), *held]}
    emit(answer, as_json=as_json, human=_described)


@click.command()
@click.argument("path")
@click.option(
    "--format",
    "kind",
    type=click.Choice(["dotenv", "json", "shell", "yaml"]),
    default="dotenv",
    show_default=True,
    help="How it is written.",
)
@click.option("--version", type=click.IntRange(min=1), help="Another version than the current one.")
@click.option("--output", "-o", type=_FILE, help="Write this file, with mode 0600, and not to stdout.")
def export(*, path: str, kind: str, version: int | None, output: Path | None) -> None:
    """Write the fields of a secret as a file for other programs; the read is on record."""
    from keyturn.delivery.dotenv import WRITERS
    from keyturn.delivery.files import write_private
    from keyturn.delivery.judging import file_remarks, summary

    answer = open_session().get(f"/secrets/{quote(path, safe='/')}", {"version": version}).json
    text = WRITERS[kind](answer["fields"])
    if output is None:
        sys.stdout.buffer.write(text.encode())
        sys.stdout.buffer.flush()
        return
    write_private(output, text.encode())
    click.echo(f"wrote {output} (version {answer['version']}, {len(answer['fields'])} fields)", err=True)
    if remarks := file_remarks(output):
        click.echo(summary(remarks), err=True)


@click.command()
@click.argument("file", type=_FILE)
@click.argument("path")
@json_option
@click.pass_context
def diff(ctx: click.Context, *, file: Path, path: str, as_json: bool) -> None:
    """Compare a .env file with a secret by names; exit code 1 when they differ.  Values are never shown."""
    from keyturn.delivery.dotenv import compare

    found = _read(file)
    answer = open_session().get(f"/secrets/{quote(path, safe='/')}").json
    difference = compare(found.values, answer["fields"])
    shown = {
        "path": path,
        "version": answer["version"],
        "added": list(difference.added),
        "removed": list(difference.removed),
        "changed": list(difference.changed),
        "same": len(difference.same),
    }
    emit(shown, as_json=as_json, human=_compared)
    ctx.exit(NO if difference else 0)


def _read(file: Path) -> Dotenv:
    from keyturn.delivery.dotenv import parse

    try:
        content = file.read_bytes()
    except OSError as error:
        raise InputError(f"the file {str(file)!r} cannot be read: {error.strerror}") from None
    return parse(content)


def _remarks(file: Path, found: Dotenv, others: Iterable[Path], environment: str) -> list[Remark]:
    from keyturn.delivery.judging import Remark, file_remarks, judge, shared

    remarks = [*file_remarks(file), *judge(found.values, environment)]
    for other in others:
        both = shared({"": found.values, other.name: _read(other).values})
        remarks += [one for one in both if one.name in found.values and f"{other.name}:" in one.text]
    remarks += [Remark(name, "repeated", "stands more than once; the last value counts") for name in found.repeated]
    text = "holds `$` or a backquote, which some programs expand; it is taken as it stands"
    remarks += [Remark(name, "expanded", text) for name in found.expanded]
    return remarks


def _put_all(
    session: Session, path: str, found: Dotenv, *, merge: bool, replace: bool, dry_run: bool
) -> dict[str, Any]:
    """Write one version with the names as fields; refuses to drop fields unless that was said."""
    version, held = _current(session, path)
    dropped = [] if merge else sorted(held - set(found.values))
    if dropped and not replace:
        raise InputError(
            f"{path} has fields that the file has not: {', '.join(dropped[:20])}",
            hint="--merge keeps them, --replace drops them",
        )
    plan = {"path": path, "fields": list(found.values), "new": sorted(set(found.values) - held), "dropped": dropped}
    if dry_run:
        return {**plan, "version": None}
    address = f"/secrets/{quote(path, safe='/')}"
    if merge and version:
        answer = session.patch(address, {"fields": found.values, "cas": version}, idempotency=True).json
    else:
        answer = session.put(address, {"fields": found.values, "cas": version}, idempotency=True).json
    return {**plan, "version": answer["version"]}


def _put_one(session: Session, folder: str, name: str, value: str, *, dry_run: bool) -> dict[str, Any]:
    path = f"{folder.strip('/')}/{name}"
    version = None
    if not dry_run:
        body = {"fields": {"value": value}}
        version = session.put(f"/secrets/{quote(path, safe='/')}", body, idempotency=True).json["version"]
    return {"path": path, "fields": ["value"], "version": version}


def _current(session: Session, path: str) -> tuple[int, set[str]]:
    """Return the number of the current version and the names of its fields; 0 and none without a secret."""
    try:
        found = session.get(f"/secret-metadata/{quote(path, safe='/')}").json
    except NotFoundError:
        return 0, set()
    current = (one for one in found["versions"] if one["number"] == found["current_version"])
    return found["current_version"], {name for one in current for name in one["fields"]}


def _held_elsewhere(session: Session, paths: list[str]) -> list[dict[str, str]]:
    """Return which values are held at other places too, as far as the caller may know."""
    try:
        groups = session.get("/secret-reuse").json["items"]
    except (ForbiddenError, NotFoundError):
        return []
    remarks = []
    for group in groups:
        for place in group["places"]:
            others = sorted(
                {f"{one['path']}#{one['field']}" for one in group["places"] if one["path"] != place["path"]}
            )
            if place["path"] in paths and others:
                text = f"the same value is held at {', '.join(others)}"
                remarks.append({"name": f"{place['path']}#{place['field']}", "kind": "shared", "text": text})
    return remarks


def _shown(remark: Remark) -> dict[str, str]:
    return {"name": remark.name, "kind": remark.kind, "text": remark.text}


def _described(answer: dict[str, Any]) -> str:
    lines = []
    for one in answer["secrets"]:
        outcome = f"wrote version {one['version']}" if answer["written"] else "would write"
        lines.append(f"{one['path']}: {outcome}, {', '.join(one['fields'])}")
        if one.get("dropped"):
            lines.append(f"{one['path']}: without {', '.join(one['dropped'])}")
    return "\n".join([*lines, *(f"note: {one['name']}: {one['text']}" for one in answer["remarks"])])


def _compared(shown: dict[str, Any]) -> str:
    marks = [("+", "added"), ("-", "removed"), ("~", "changed")]
    lines = [f"{mark} {name}" for mark, kind in marks for name in shown[kind]]
    return "\n".join(lines) or f"no difference ({shown['same']} names)"
