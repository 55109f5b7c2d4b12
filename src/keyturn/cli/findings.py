"""`keyturn findings`: what has leaked, whose it is, and what was decided about it."""

from __future__ import annotations

import hashlib
import sys
from typing import Any, Final
from urllib.parse import quote

import click

from keyturn.cli.groups import Commands
from keyturn.cli.output import emit, fields, json_option, table
from keyturn.cli.policy import if_match, limit_option, revision_option
from keyturn.cli.session import open_session
from keyturn.kernel import tokenformat

_STATES: Final = ("open", "confirmed", "rotated", "false_positive", "accepted")
_CERTAINTIES: Final = ("own", "held", "provider", "generic")
_COLUMNS: Final = ("id", "state", "certainty", "owner", "key", "secret_path", "action", "action_state", "last_seen_at")
_AT_ONCE: Final = 10_000


@click.group(cls=Commands)
def findings() -> None:
    """Look at what has leaked, and decide about it."""


@findings.command("list")
@click.option("--state", type=click.Choice(_STATES), help="Only those that stand so.")
@click.option("--certainty", type=click.Choice(_CERTAINTIES), help="Only those that are so sure.")
@click.option("--key", help="Only of this key, by its id.")
@click.option("--secret", help="Only of this held secret, by its id or path.")
@click.option("--owner", help="Only of this owner.")
@click.option("--keyspace", help="Only of keys of this keyspace.")
@click.option("--source", help="Only those that this source has reported.")
@limit_option
@json_option
def list_findings(*, limit: int | None, as_json: bool, **filters: str | None) -> None:
    """List findings, oldest first."""
    items = list(open_session().pages("/findings", filters, limit=limit))
    emit({"items": items}, as_json=as_json, human=lambda a: table(a["items"], *_COLUMNS))


@findings.command()
@click.argument("finding")
@json_option
def show(*, finding: str, as_json: bool) -> None:
    """Show a finding with its places and its history."""
    emit(open_session().get(_path(finding)).json, as_json=as_json, human=_detail)


@findings.command()
@json_option
@click.pass_context
def match(ctx: click.Context, *, as_json: bool) -> None:
    """Read values from stdin, a line each, and tell whose they are; only their digests are sent.

    Exit code 1 when one of them is an issued key or a held secret.
    """
    given = sys.stdin.buffer.read()
    lines = given.decode("utf-8", "surrogateescape").splitlines()
    values = [(number, line.strip()) for number, line in enumerate(lines, start=1) if line.strip()]
    session = open_session()
    found: list[dict[str, Any]] = []
    for start in range(0, len(values), _AT_ONCE):
        candidates = [_candidate(value) for _, value in values[start : start + _AT_ONCE]]
        matches = session.post("/leaks/match", {"candidates": candidates}).json["matches"]
        found += [{"line": values[start + one.pop("index")][0]} | one for one in matches]
    columns = ("line", "certainty", "works", "owner", "key", "secret_path", "next_command")
    emit({"matches": found}, as_json=as_json, human=lambda a: table(a["matches"], *columns))
    ctx.exit(1 if found else 0)


@findings.command()
@click.argument("finding")
@click.option("--note", default="", help="Why.")
@revision_option
@json_option
def confirm(*, finding: str, note: str, revision: int | None, as_json: bool) -> None:
    """State that a finding is a leak."""
    _decide(finding, {"decision": "confirm", "note": note}, revision, as_json=as_json)


@findings.command()
@click.argument("finding")
@click.option("--note", default="", help="Why.")
@revision_option
@json_option
def dismiss(*, finding: str, note: str, revision: int | None, as_json: bool) -> None:
    """State that a finding is no leak; an action that is due is dropped."""
    _decide(finding, {"decision": "dismiss", "note": note}, revision, as_json=as_json)


@findings.command()
@click.argument("finding")
@click.option("--until", help="Until when, such as 2027-01-01T00:00:00Z; for good without it.")
@click.option("--note", default="", help="Why.")
@revision_option
@json_option
def accept(*, finding: str, until: str | None, note: str, revision: int | None, as_json: bool) -> None:
    """Leave a finding as it is; an action that is due is dropped."""
    body = {"decision": "accept", "note": note} | ({} if until is None else {"until": until})
    _decide(finding, body, revision, as_json=as_json)


@findings.command()
@click.argument("finding")
@click.option("--note", default="", help="Why.")
@revision_option
@json_option
def reopen(*, finding: str, note: str, revision: int | None, as_json: bool) -> None:
    """Take a decision back."""
    _decide(finding, {"decision": "reopen", "note": note}, revision, as_json=as_json)


@findings.command()
@click.argument("finding")
@click.option("--note", default="", help="How one knows.")
@revision_option
@json_option
def close(*, finding: str, note: str, revision: int | None, as_json: bool) -> None:
    """State that what leaked works no more; of an issued key or held secret the server knows it by itself."""
    _decide(finding, {"decision": "close", "note": note}, revision, as_json=as_json)


@findings.command()
@click.option("--source", help="Only of this source.")
@limit_option
@json_option
def scans(*, source: str | None, limit: int | None, as_json: bool) -> None:
    """List the scans that were reported, oldest first, and which are overdue."""
    items = list(open_session().pages("/leak-scans", {"source": source}, limit=limit))
    columns = ("source", "kind", "reported_at", "next_due_at", "overdue")
    emit({"items": items}, as_json=as_json, human=lambda a: table(a["items"], *columns))


def _decide(finding: str, body: dict[str, Any], revision: int | None, *, as_json: bool) -> None:
    answer = open_session().post(_path(finding, "decide"), body, if_match=if_match(revision)).json
    emit(answer, as_json=as_json, human=_detail)


def _path(finding: str, *rest: str) -> str:
    return "/".join(("/findings", quote(finding, safe=""), *rest))


def _candidate(value: str) -> dict[str, Any]:
    digest = hashlib.sha256(value.encode("utf-8", "surrogateescape")).hexdigest()
    return {"digest": digest, "version": tokenformat.version_id_of(value), "length": len(value)}


def _detail(answer: dict[str, Any]) -> str:
    parts = [fields({name: value for name, value in answer["finding"].items() if value not in ("", None)})]
    parts.append(table(answer["places"], "source", "path", "line", "commit", "last_seen_at"))
    parts.append(table(answer["history"], "at", "actor", "event", "detail"))
    return "\n\n".join(parts)
