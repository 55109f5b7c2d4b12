"""`keyturn keys`: issue, verify, rotate and revoke keys.

A secret is never an argument: a key to verify or to import is read from standard input, a prompt or a file.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from keyturn.cli.allowances import allowance_options, readable
from keyturn.cli.failure import NO
from keyturn.cli.groups import Commands
from keyturn.cli.output import cell, emit, fields, json_option, table
from keyturn.cli.policy import (
    if_match,
    limit_option,
    read_metadata,
    read_restrictions,
    restrictions_options,
    revision_option,
)
from keyturn.cli.session import open_session
from keyturn.errors import InputError
from keyturn.wire.keys import BULK_MAX, OVERLAP_SECONDS_DEFAULT, SILENT_SECONDS_DEFAULT, RevokeReason

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_SHOWN = (
    "key",
    "id",
    "version_id",
    "keyspace",
    "environment",
    "name",
    "owner",
    "purpose",
    "state",
    "scopes",
    "restrictions",
    "shadow_restrictions",
    "plan",
    "limits",
    "quotas",
    "metadata",
    "tags",
    "not_before",
    "expires_at",
    "created_at",
    "disabled_at",
    "revoked_at",
    "revoke_reason",
    "last_used_at",
    "revision",
    "effective",
    "lag_ms",
    "effective_by",
    "laggards",
)
_VERSIONS = ("number", "id", "state", "valid_until", "uses", "last_used_at", "ip_network", "user_agent", "endpoint")


@click.group(cls=Commands)
def keys() -> None:
    """Manage issued keys."""


# --- new keys ----------------------------------------------------------------------------------------------------


@keys.command()
@click.argument("keyspace")
@click.option("--owner", required=True, help="Whose key it is.")
@click.option("--purpose", required=True, help="What it is for.")
@click.option("--scope", "scopes", multiple=True, help="What it may do, such as orders:read; repeatable.")
@click.option("--name", help="A name to find it by.")
@click.option("--tag", "tags", multiple=True, help="A tag; repeatable.")
@click.option("--metadata", multiple=True, metavar="NAME=VALUE", help="Told with every verification; repeatable.")
@click.option("--not-before", metavar="TIME", help="Valid from then, RFC 3339.")
@click.option("--expires-at", metavar="TIME", help="Valid until then, RFC 3339.")
@click.option("--expires-in-seconds", type=click.IntRange(min=1), help="Valid for so long.")
@click.option("--plan", help="The plan it is on; without, its owner's or the keyspace's.")
@restrictions_options
@allowance_options()
@json_option
def issue(  # noqa: PLR0913 -- each is an option
    *,
    keyspace: str,
    owner: str,
    purpose: str,
    scopes: tuple[str, ...],
    name: str | None,
    tags: tuple[str, ...],
    metadata: tuple[str, ...],
    not_before: str | None,
    expires_at: str | None,
    expires_in_seconds: int | None,
    plan: str | None,
    cidrs: tuple[str, ...],
    origins: tuple[str, ...],
    endpoints: tuple[str, ...],
    allowances: dict[str, Any],
    as_json: bool,
) -> None:
    """Issue a key; its secret is shown this once."""
    body = {
        "keyspace": keyspace,
        "owner": owner,
        "purpose": purpose,
        "scopes": scopes,
        "name": name,
        "tags": tags,
        "metadata": read_metadata(metadata),
        "not_before": not_before,
        "expires_at": expires_at,
        "expires_in_seconds": expires_in_seconds,
        "plan": plan,
        "restrictions": read_restrictions(cidrs, origins, endpoints),
        **allowances,
    }
    given = {field: value for field, value in body.items() if value is not None}
    _emit(open_session().post("/keys", given, idempotency=True).json, as_json=as_json)


@keys.command("import")
@click.argument("keyspace")
@click.argument("file", type=click.File("r", encoding="utf-8"))
@json_option
def import_keys(*, keyspace: str, file: Iterable[str], as_json: bool) -> None:
    """Import keys in use from FILE (- is standard input), one JSON object a line.

    {"format": "plaintext|sha256_hex|sha256_base64|bcrypt|argon2", "value": …, "owner": …, "purpose": …, "lookup": …}

    Lines are sent 1000 at a time, each thousand as a whole or not at all.
    """
    session = open_session()
    done: list[Any] = []
    for first, part in _parts(file):
        try:
            done.extend(
                session.post("/keys/import", {"keyspace": keyspace, "keys": part}, idempotency=True).json["items"]
            )
        except Exception:
            click.echo(f"{len(done)} keys were imported, none from line {first} on", err=True)
            raise
        if sys.stderr.isatty():
            click.echo(f"{len(done)} keys imported", err=True)
    emit({"items": done}, as_json=as_json, human=lambda a: f"{len(a['items'])} keys imported")


# --- reading -----------------------------------------------------------------------------------------------------


@keys.command("list")
@click.option("--keyspace", help="Only of this keyspace.")
@click.option("--owner", help="Only of this owner.")
@click.option("--state", type=click.Choice(["active", "disabled", "revoked"]), help="Only in this state.")
@click.option("--environment", help="Only of this environment.")
@click.option("--plan", help="Only those put on this plan.")
@click.option("--tag", help="Only with this tag.")
@click.option("--name", help="How the name begins.")
@click.option("--expiring-before", metavar="TIME", help="Only those that expire before then.")
@click.option("--unused-since", metavar="TIME", help="Only those not used since then.")
@limit_option
@json_option
def list_keys(*, limit: int | None, as_json: bool, **filters: str | None) -> None:
    """List keys."""
    items = list(open_session().pages("/keys", filters, limit=limit))
    columns = ("id", "keyspace", "name", "owner", "plan", "state", "expires_at", "last_used_at")
    emit({"items": items}, as_json=as_json, human=lambda a: table(a["items"], *columns))


@keys.command()
@click.argument("key_id")
@json_option
def show(*, key_id: str, as_json: bool) -> None:
    """Show a key, its secret versions and who uses them."""
    _emit(open_session().get(_path(key_id)).json, as_json=as_json)


@keys.command()
@click.option("--env-file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Read it from there.")
@click.option("--variable", default="API_KEY", show_default=True, help="Which variable of the env file.")
@click.option("--scopes", help="Scopes it needs, such as 'orders:read AND (orders:write OR admin)'.")
@click.option("--ip", help="The client's address.")
@click.option("--origin", help="The client's origin.")
@click.option("--method", help="The HTTP method.")
@click.option("--path", help="The path.")
@click.option("--keyspace", help="Only as a key of this keyspace.")
@click.option("--cost", type=click.IntRange(min=0), help="What it charges to limits and quotas; 0 only asks.")
@click.option("--explain", is_flag=True, help="Show every check.")
@json_option
def verify(*, env_file: Path | None, variable: str, explain: bool, as_json: bool, **given: str | int | None) -> int:
    """Verify a key from standard input, a prompt or an env file; the exit code is 1 when it is not valid."""
    key = _read_key() if env_file is None else _key_in(env_file, variable)
    body: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    answer = open_session().post("/verify", {"key": key, "explain": explain, **body}).json
    emit(answer, as_json=as_json, human=_verdict)
    return 0 if answer["valid"] else NO


# --- changes -----------------------------------------------------------------------------------------------------


@keys.command()
@click.argument("key_id")
@click.option("--owner", help="Whose key it is.")
@click.option("--purpose", help="What it is for.")
@click.option("--name", help="A name to find it by; '' takes it away.")
@click.option("--scope", "scopes", multiple=True, help="What it may do, in place of all before; repeatable.")
@click.option("--no-scopes", is_flag=True, help="It may do nothing any more.")
@click.option("--tag", "tags", multiple=True, help="A tag, in place of all before; repeatable.")
@click.option("--metadata", multiple=True, metavar="NAME=VALUE", help="In place of all before; repeatable.")
@click.option("--not-before", metavar="TIME", help="Valid from then; '' takes it away.")
@click.option("--expires-at", metavar="TIME", help="Valid until then; '' takes it away.")
@click.option("--plan", help="The plan it moves to; '' takes it off its own.")
@restrictions_options
@click.option("--clear-restrictions", is_flag=True, help="Restrict nothing any more.")
@allowance_options(updating=True)
@revision_option
@json_option
def update(  # noqa: PLR0913 -- each is an option
    *,
    key_id: str,
    scopes: tuple[str, ...],
    no_scopes: bool,
    tags: tuple[str, ...],
    metadata: tuple[str, ...],
    cidrs: tuple[str, ...],
    origins: tuple[str, ...],
    endpoints: tuple[str, ...],
    clear_restrictions: bool,
    allowances: dict[str, Any],
    revision: int | None,
    as_json: bool,
    **texts: str | None,
) -> None:
    """Change what a key may do and what is known of it."""
    body: dict[str, Any] = {name: value or None for name, value in texts.items() if value is not None} | allowances
    if scopes or no_scopes:
        body["scopes"] = scopes
    if tags:
        body["tags"] = tags
    if metadata:
        body["metadata"] = read_metadata(metadata)
    restrictions = read_restrictions(cidrs, origins, endpoints)
    if restrictions is not None or clear_restrictions:
        body["restrictions"] = restrictions
    _emit(open_session().patch(_path(key_id), body, if_match=if_match(revision)).json, as_json=as_json)


@keys.command()
@click.argument("key_id")
@click.option(
    "--overlap-seconds",
    type=click.IntRange(min=0),
    default=OVERLAP_SECONDS_DEFAULT,
    show_default=True,
    help="How long the old secret stays valid; 0 cuts it at once.",
)
@revision_option
@json_option
def rotate(*, key_id: str, overlap_seconds: int, revision: int | None, as_json: bool) -> None:
    """Give a key a new secret, shown this once."""
    body = {"overlap_seconds": overlap_seconds}
    reply = open_session().post(_path(key_id, "rotate"), body, idempotency=True, if_match=if_match(revision))
    _emit(reply.json, as_json=as_json)


@keys.command()
@click.argument("key_id")
@click.option(
    "--silent-seconds",
    type=click.IntRange(min=0),
    default=SILENT_SECONDS_DEFAULT,
    show_default=True,
    help="Refuse while an old secret was used within this time.",
)
@click.option("--force", is_flag=True, help="Retire it even while it is in use.")
@revision_option
@json_option
def retire(*, key_id: str, silent_seconds: int, force: bool, revision: int | None, as_json: bool) -> None:
    """End the overlap of a rotation early."""
    body = {"silent_seconds": silent_seconds, "force": force}
    _emit(open_session().post(_path(key_id, "retire"), body, if_match=if_match(revision)).json, as_json=as_json)


@keys.command()
@click.argument("key_id")
@revision_option
@json_option
def disable(*, key_id: str, revision: int | None, as_json: bool) -> None:
    """Refuse every secret of a key; reversible."""
    _emit(open_session().post(_path(key_id, "disable"), if_match=if_match(revision)).json, as_json=as_json)


@keys.command()
@click.argument("key_id")
@revision_option
@json_option
def enable(*, key_id: str, revision: int | None, as_json: bool) -> None:
    """Admit a disabled key again."""
    _emit(open_session().post(_path(key_id, "enable"), if_match=if_match(revision)).json, as_json=as_json)


@keys.command()
@click.argument("key_id")
@click.option(
    "--reason",
    type=click.Choice([str(reason) for reason in RevokeReason]),
    default=str(RevokeReason.UNSPECIFIED),
    show_default=True,
    help="Why; key_compromise marks its secrets compromised.",
)
@revision_option
@json_option
def revoke(*, key_id: str, reason: str, revision: int | None, as_json: bool) -> None:
    """Revoke a key, for good."""
    reply = open_session().post(_path(key_id, "revoke"), {"reason": reason}, if_match=if_match(revision))
    _emit(reply.json, as_json=as_json)


def _path(key_id: str, *rest: str) -> str:
    return "/".join(("/keys", quote(key_id, safe=""), *rest))


def _emit(answer: Any, *, as_json: bool) -> None:  # noqa: ANN401 -- JSON
    emit(answer, as_json=as_json, human=_key)


def _key(answer: dict[str, Any]) -> str:
    shown = fields(readable(answer), *_SHOWN)
    rows = [version | {"last_used_at": None} | _last_use(version) for version in answer.get("versions", ())]
    return f"{shown}\n\n{table(rows, *_VERSIONS)}" if rows else shown


def _last_use(version: dict[str, Any]) -> dict[str, Any]:
    used = version.get("last_used")
    return {} if used is None else {"last_used_at": used["at"], **used}


def _verdict(answer: dict[str, Any]) -> str:
    checks = answer.get("checks") or ()
    said = {name: value for name, value in answer.items() if name != "checks"}
    for name in ("limits", "quotas"):
        if said.get(name):
            said[name] = "; ".join(map(_standing, said[name]))
    if "retry_after_seconds" in said:
        said["retry_after_seconds"] = math.ceil(said["retry_after_seconds"])
    shown = fields(said)
    width = max((len(cell(check["check"])) for check in checks), default=0)
    lines = [
        f"  {cell(check['verdict']):<8} {cell(check['check']):<{width}} {cell(check['source'])}"
        + (f"  {cell(check['detail'])}" if check.get("detail") else "")
        for check in checks
    ]
    return "\n".join((shown, *(("checks:", *lines) if lines else ())))


def _standing(report: dict[str, Any]) -> str:
    """Say how a limit or a quota stands: `burst 2 of 3 left, whole in 20 s, shadow`."""
    of = f" of {report['limit']}" if "limit" in report else ""
    parts = [f"{report['name']} {report['remaining']}{of} left"]
    if report.get("reset_seconds"):
        parts.append(f"whole in {math.ceil(report['reset_seconds'])} s")
    if report.get("resets_at"):
        parts.append(f"until {report['resets_at']}")
    parts += [word for word in ("exceeded", "shadow") if report.get(word)]
    return ", ".join(parts)


def _read_key() -> str:
    text: str = click.prompt("key", hide_input=True) if sys.stdin.isatty() else sys.stdin.readline()
    return _required(text.strip(), "keyturn keys verify < file")


def _key_in(env_file: Path, variable: str) -> str:
    for line in env_file.read_text("utf-8").splitlines():
        name, equals, value = line.strip().removeprefix("export ").partition("=")
        if equals and name.strip() == variable:
            return _required(value.strip().strip("'\""), f"give {variable} a value in the file")
    message = f"the file has no variable {variable}"
    raise InputError(message, field="--variable")


def _required(key: str, hint: str) -> str:
    if not key:
        message = "no key was given"
        raise InputError(message, hint=hint)
    return key


def _parts(lines: Iterable[str]) -> Iterator[tuple[int, list[Any]]]:
    """Read a JSON object a line; yield up to 1000 at a time with the number of the first line."""
    part: list[Any] = []
    first = 1
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            part.append(json.loads(line))
        except ValueError:
            # Without its cause: a JSON error holds the line, and the line a secret.
            message = f"line {number} is not a JSON object"
            raise InputError(message, field="FILE") from None
        if len(part) == BULK_MAX:
            yield first, part
            part, first = [], number + 1
    if part:
        yield first, part
