"""`keyturn leak-intakes`, `keyturn leaked-key`: leaks that are reported from outside."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import click

from keyturn.cli.groups import Commands
from keyturn.cli.output import emit, fields, json_option, table
from keyturn.cli.policy import if_match, limit_option, revision_option
from keyturn.cli.session import Session, open_session
from keyturn.config import load_settings
from keyturn.errors import InputError

_FILE: Final = click.Path(path_type=Path, dir_okay=False)


def _path(name: str, *rest: str) -> str:
    return "/".join(("/leak-intakes", *(quote(part, safe="") for part in (name, *rest))))


@click.group("leak-intakes", cls=Commands)
def leak_intakes() -> None:
    """Let partners outside report leaked keys, signed."""


@leak_intakes.command()
@click.argument("name")
@click.option("--keys", type=_FILE, help="Pin these keys: a list as GitHub publishes it, JSON; `-` is stdin.")
@click.option("--keys-url", default="", help="Read the keys there; by default where GitHub publishes its own.")
@click.option("--description", default="", help="What it is for.")
@json_option
def create(*, name: str, keys: Path | None, keys_url: str, description: str, as_json: bool) -> None:
    """Create an intake, and show the address that its reports are posted to."""
    body = {"name": name, "keys": _read_keys(keys), "keys_url": keys_url, "description": description}
    emit(open_session().post("/leak-intakes", body, idempotency=True).json, as_json=as_json)


@leak_intakes.command("list")
@limit_option
@json_option
def list_intakes(*, limit: int | None, as_json: bool) -> None:
    """List intakes."""
    items = list(open_session().pages("/leak-intakes", limit=limit))
    emit(
        {"items": items},
        as_json=as_json,
        human=lambda a: table(a["items"], "name", "kind", "state", "path", "keys_url"),
    )


@leak_intakes.command()
@click.argument("name")
@json_option
def show(*, name: str, as_json: bool) -> None:
    """Show an intake."""
    emit(open_session().get(_path(name)).json, as_json=as_json)


@leak_intakes.command()
@click.argument("name")
@click.option("--keys", type=_FILE, help="Pin these keys instead; `-` is stdin.")
@click.option("--keys-url", help="Read the keys there from now on.")
@click.option("--description", help="What it is for.")
@click.option("--state", type=click.Choice(["active", "disabled"]), help="Take reports, or none.")
@revision_option
@json_option
def update(
    *,
    name: str,
    keys: Path | None,
    keys_url: str | None,
    description: str | None,
    state: str | None,
    revision: int | None,
    as_json: bool,
) -> None:
    """Change an intake."""
    given = {
        "keys": None if keys is None else _read_keys(keys),
        "keys_url": keys_url,
        "description": description,
        "state": state,
    }
    body = {field: value for field, value in given.items() if value is not None}
    emit(open_session().patch(_path(name), body, if_match=if_match(revision)).json, as_json=as_json)


@leak_intakes.command()
@click.argument("name")
@revision_option
@json_option
def delete(*, name: str, revision: int | None, as_json: bool) -> None:
    """Delete an intake: its address takes no reports any more."""
    emit(open_session().post(_path(name, "delete"), if_match=if_match(revision)).json, as_json=as_json)


@click.group("leaked-key", cls=Commands)
def leaked_key() -> None:
    """Ask whether a key that you have come upon is one of a server's, and report it; needs no token."""


@leaked_key.command()
@json_option
def check(*, as_json: bool) -> None:
    """Tell whether the key on stdin is one of ours, and works."""
    answer = _session().post("/leaked-keys/check", {"key": _read_key()}).json
    emit(answer, as_json=as_json, human=lambda shown: fields(shown, "ours", "works", "id"))


@leaked_key.command()
@click.option("--where", default="", help="Where you found it.")
@json_option
def report(*, where: str, as_json: bool) -> None:
    """Report the key on stdin: unless its owners have decided otherwise, it is revoked."""
    emit(_session().post("/leaked-keys/report", {"key": _read_key(), "where": where}).json, as_json=as_json)


def _session() -> Session:
    return Session(load_settings().url, None)


def _read_key() -> str:
    if sys.stdin.isatty():
        text: str = click.prompt("Key", hide_input=True, err=True)
    else:
        text = sys.stdin.read(8192)
    if not text.strip():
        raise InputError("expected a key on standard input", field="key")
    return text.strip()


def _read_keys(path: Path | None) -> list[dict[str, Any]]:
    if path is None:
        return []
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text()
        listed = json.loads(text)["public_keys"]
        return [{"key_identifier": one["key_identifier"], "key": one["key"]} for one in listed]
    except OSError as error:
        raise InputError(f"the file {str(path)!r} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise InputError(f'{path} is no list of keys: expected {{"public_keys": [...]}}', field="keys") from None
