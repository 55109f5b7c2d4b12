"""`keyturn audit`: read the log, export it, prove it, and verify it, with or without the server.

    keyturn audit verify                                              what the server shows fits together
    keyturn audit verify --public-key key.txt --since checkpoint.txt  and has only grown since then
    keyturn audit verify --export log.jsonl --public-key key.txt      offline

`verify` exits with 0 when all is well, 1 when tampering was found, 2 when it could not be decided.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import click

from keyturn.cli.failure import NO, USAGE, print_failure
from keyturn.cli.groups import Commands
from keyturn.cli.output import cell, emit, fields, json_option, table
from keyturn.cli.session import open_session
from keyturn.errors import ConflictError, InputError, KeyturnError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from keyturn.audit.findings import Report
    from keyturn.cli.session import Session

PROGRESS_EVERY = 10_000
T = TypeVar("T")

_PATH = click.Path(path_type=Path, dir_okay=False)


@click.group(cls=Commands)
def audit() -> None:
    """Read, export and verify the audit log."""


@audit.command("list")
@click.option("--action", help="A pattern over actions, such as 'key.*'.")
@click.option("--actor", help="The id of who acted.")
@click.option("--resource", help="A pattern over resources, such as 'key/orders/*'.")
@click.option("--resource-prefix", help="How the resource's name begins.")
@click.option("--outcome", type=click.Choice(["allowed", "denied", "failed"]), help="Only what ended so.")
@click.option("--since", metavar="TIME", help="At or after this time, as 2026-01-02T03:04:05Z.")
@click.option("--until", metavar="TIME", help="Before this time.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="Show at most this many.")
@json_option
def list_leaves(*, limit: int, as_json: bool, **wanted: str | None) -> None:
    """List what was done and what was refused, newest first."""
    items = list(open_session().pages("/audit", wanted, limit=limit))
    emit({"items": items}, as_json=as_json, human=lambda answer: _leaf_table(answer["items"]))


@audit.command("show")
@click.argument("leaf_id", metavar="LEAF")
@json_option
def show(*, leaf_id: str, as_json: bool) -> None:
    """Show one leaf and its place in the tree."""
    from urllib.parse import quote

    emit(open_session().get(f"/audit/leaves/{quote(leaf_id, safe='')}").json, as_json=as_json)


@audit.command("export")
@click.option("--output", type=_PATH, required=True, help="The file to write; it must not exist yet.")
@click.option("--since", type=click.IntRange(min=0), default=0, help="Leave out this many leaves.")
@json_option
def export(*, output: Path, since: int, as_json: bool) -> None:
    """Export the signed log as JSONL, complete or not at all."""
    session = open_session()
    partial = output.with_name(f"{output.name}.partial")
    if output.exists():
        raise ConflictError(f"{output} exists already", hint="name another file")
    count, ended = 0, False
    try:
        with _private(partial) as file:
            for line in _counted(session.lines("/audit/export", {"since": since})):
                file.write(f"{line}\n".encode())
                count += line.startswith('{"index"')
                ended = line.startswith('{"end":true')
            file.flush()
            os.fsync(file.fileno())
        if not ended:
            raise ConflictError("the export was cut off before its end", hint="try again")
        partial.rename(output)
    finally:
        partial.unlink(missing_ok=True)
    answer = {"output": str(output), "leaves": count, "since": since}
    emit(answer, as_json=as_json, human=lambda a: f"{a['leaves']} leaves written to {a['output']}")


@audit.command("verify")
@click.option("--export", "export_file", type=_PATH, help="Verify this file instead of the server.")
@click.option("--public-key", type=_PATH, help="File with the public key, kept apart from the server.")
@click.option("--since", type=_PATH, help="Checkpoint kept from earlier, or the file of a sink.")
@click.option("--save-checkpoint", type=_PATH, help="Write the newest proven checkpoint here, when all is well.")
@click.option("--save-public-key", type=_PATH, help="Write the key that signs now here, when all is well.")
@json_option
def verify(
    *,
    export_file: Path | None,
    public_key: Path | None,
    since: Path | None,
    save_checkpoint: Path | None,
    save_public_key: Path | None,
    as_json: bool,
) -> int:
    """Verify the log from the bytes of its leaves.

    Against the server: that what it shows fits together and, with --since, has only grown since that checkpoint;
    then only what came after it is read.  With --export, offline.  Without --public-key the server's own key is used.
    When the signing key was rotated, any key it ever had will do: handovers lead from one to the next.
    """
    try:
        report = _verified(export_file, public_key, since)
        if report.ok and report.latest is not None and save_checkpoint is not None:
            _write_whole(save_checkpoint, report.latest)
        if report.ok and save_public_key is not None:
            _write_whole(save_public_key, f"{report.verifier_key}\n")
    except (KeyturnError, OSError) as error:
        _print_error(error)
        return USAGE
    emit(_document(report, pinned=public_key is not None), as_json=as_json, human=_report_text)
    return 0 if report.ok else NO


@audit.command("public-key")
@json_option
def show_public_key(*, as_json: bool) -> None:
    """Show the public key that checkpoints are verified with; keep it apart from the server."""
    emit(open_session().get("/audit/public-key").json, as_json=as_json, human=lambda a: str(a["verifier_key"]))


@audit.command("rotate-key")
@json_option
def rotate_key(*, as_json: bool) -> None:
    """Make a new key to sign checkpoints with; who verifies with the one before can follow."""
    emit(open_session().post("/audit/rotate-key", {}).json, as_json=as_json, human=_keys_text)


@audit.command("retire-keys")
@json_option
def retire_keys(*, as_json: bool) -> None:
    """Destroy the private halves of the keys that signed before; what they signed still verifies."""
    emit(open_session().post("/audit/retire-keys", {}).json, as_json=as_json, human=_keys_text)


@audit.command("checkpoint")
@json_option
def show_checkpoint(*, as_json: bool) -> None:
    """Show the newest signed checkpoint; keep it apart from the server, and give it to `verify --since`."""
    answer = open_session().get("/audit/checkpoint").json
    emit(answer, as_json=as_json, human=lambda a: str(a["note"] or "nothing is signed yet").rstrip("\n"))


@audit.command("prove")
@click.argument("leaf_id", metavar="LEAF")
@click.option("--size", type=click.IntRange(min=1), help="The size of the tree; by default the newest signed.")
@json_option
def prove(*, leaf_id: str, size: int | None, as_json: bool) -> None:
    """Show the proof that a leaf is in the signed tree."""
    emit(open_session().get("/audit/proofs/inclusion", {"leaf": leaf_id, "size": size}).json, as_json=as_json)


@audit.command("erase")
@click.argument("leaf_ids", metavar="LEAF…", nargs=-1, required=True)
@click.option("--reason", required=True, help="Why; it stays in the log.")
@click.confirmation_option("--yes", prompt="Erase the content of these leaves for good?")
@json_option
def erase(*, leaf_ids: tuple[str, ...], reason: str, as_json: bool) -> None:
    """Erase the content of leaves for good; their hashes stay."""
    emit(open_session().post("/audit/erase", {"ids": leaf_ids, "reason": reason}).json, as_json=as_json)


def _verified(export_file: Path | None, public_key: Path | None, since: Path | None) -> Report:
    from keyturn.audit.verification import verify_export, verify_server

    key = None if public_key is None else _key_in(public_key.read_text("utf-8"))
    newest, others = (None, []) if since is None else _checkpoints_in(since)
    if export_file is None:
        return verify_server(_fetching(open_session()), key, newest, witnesses=others)
    if key is None:
        raise InputError("--export needs --public-key", hint="save it once: keyturn audit public-key > key.txt")
    with export_file.open("rb") as file:
        return verify_export(_counted(file), key, newest, witnesses=others)


def _checkpoints_in(file: Path) -> tuple[str, list[str]]:
    """Return the newest checkpoint of a file, and the others."""
    from keyturn.audit.checkpoint import notes_in, size_of

    notes = notes_in(file.read_text("utf-8"))
    if not notes:
        raise InputError(f"{file} holds no checkpoint", field="--since")
    try:
        newest = max(notes, key=size_of)
    except KeyturnError as error:
        raise InputError(f"{file} holds something that is no checkpoint: {error.message}", field="--since") from error
    return newest, [note for note in notes if note != newest]


def _key_in(text: str) -> str:
    """Return the key of a file: the bare text, or the document of `public-key --json`."""
    import json

    if text.lstrip().startswith("{"):
        with contextlib.suppress(ValueError, KeyError):
            return str(json.loads(text)["verifier_key"])
    return text.strip()


def _fetching(session: Session) -> Callable[[str, Mapping[str, object]], Iterator[str]]:
    def fetch(path: str, parameters: Mapping[str, object]) -> Iterator[str]:
        lines = session.lines(path, parameters)
        return _counted(lines) if path == "/audit/export" else lines

    return fetch


def _counted(lines: Iterable[T]) -> Iterator[T]:
    """Show progress on a terminal."""
    show = sys.stderr.isatty()
    count = 0
    for line in lines:
        yield line
        count += 1
        if show and count % PROGRESS_EVERY == 0:
            click.echo(f"\r{count} lines", nl=False, err=True)
    if show and count >= PROGRESS_EVERY:
        click.echo("\r", nl=False, err=True)


def _document(report: Report, *, pinned: bool) -> dict[str, Any]:
    from dataclasses import asdict

    return {"ok": report.ok, **asdict(report), "key_pinned": pinned}


def _report_text(answer: dict[str, Any]) -> str:
    """Lay a report out for people."""
    shown = [fields({name: answer[name] for name in ("origin", "first", "size", "leaves", "checkpoints", "erased")})]
    shown.extend(f"{one['kind']}: {cell(one['message'])}" for one in answer["findings"])
    if answer["findings_left_out"]:
        shown.append(f"and {answer['findings_left_out']} more")
    shown.extend(f"unproven: leaves {first} to {last}" for first, last in answer["unproven"])
    if not answer["ok"]:
        shown.append("TAMPERED: keep a copy of the database and of the export as they are")
    elif answer["key_pinned"]:
        shown.append("ok")
    else:
        shown.append("ok, under the key the server shows; give --public-key to hold it to one you kept")
    return "\n".join(shown)


def _leaf_table(items: list[dict[str, Any]]) -> str:
    rows = [{**item, "actor": item["actor"].get("name") or item["actor"]["id"]} for item in items]
    return table(rows, "at", "outcome", "action", "actor", "resource", "id")


def _keys_text(answer: dict[str, Any]) -> str:
    return f"{table(answer['keys'], 'number', 'state', 'created_at')}\nverified with {answer['verifier_key']}"


def _print_error(error: KeyturnError | OSError) -> None:
    if isinstance(error, KeyturnError):
        print_failure(error)
    else:
        click.echo(f"error: {error.filename}: {(error.strerror or 'cannot be read').lower()}", err=True)


def _write_whole(file: Path, text: str) -> None:
    """Replace a file by its new content, or leave it as it is."""
    partial = file.with_name(f"{file.name}.partial")
    try:
        partial.write_text(text, "utf-8")
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def _private(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb")
