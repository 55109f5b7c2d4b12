"""`keyturn wrap`, `unwrap` and `secrets share`: hand something over once.

What is wrapped comes from stdin, and so does the token of a wrap, or from a prompt or a file; never from an argument.
"""

from __future__ import annotations

import json
import sys
from typing import IO, Any
from urllib.parse import quote

import click

from keyturn.cli.output import emit, fields, json_option
from keyturn.cli.profiles import read_profile
from keyturn.cli.session import Session, open_session
from keyturn.config import load_settings
from keyturn.errors import ConflictError, GoneError, InputError

_SHOWN = ("id", "token", "creation_path", "ttl_seconds", "expires_at")


@click.command()
@click.option("--ttl-seconds", type=click.IntRange(min=1), help="How long it can be opened; 5 minutes without it.")
@json_option
def wrap(*, ttl_seconds: int | None, as_json: bool) -> None:
    """Wrap a JSON object from stdin; whoever first opens it with the token gets it."""
    try:
        data = json.load(sys.stdin)
    except ValueError:
        data = None
    if not isinstance(data, dict):
        message = "expected a JSON object on stdin"
        raise InputError(message, hint="""for example echo '{"password": "…"}' | keyturn wrap""")
    body = {"data": data} | ({} if ttl_seconds is None else {"ttl_seconds": ttl_seconds})
    answer = open_session().post("/wraps", body, idempotency=True).json
    emit(answer, as_json=as_json, human=lambda a: fields(a, *_SHOWN))


@click.command()
@click.option("--file", "source", type=click.File(), help="Read the token from a file; '-' is stdin.")
@click.option("--expect", metavar="CREATION_PATH", help="Open it only if this is what made it.")
@click.option("--lookup", is_flag=True, help="Only tell what it is; it stays closed.")
@click.option("--rewrap", is_flag=True, help="Wrap the same anew under another token.")
@json_option
def unwrap(*, source: IO[str] | None, expect: str | None, lookup: bool, rewrap: bool, as_json: bool) -> None:
    """Open a wrap, once, and print the JSON object in it; needs no management token.

    The token is read from stdin, a prompt or a file.
    """
    if lookup and (rewrap or expect is not None):
        message = "--lookup opens nothing, so neither --expect nor --rewrap goes with it"
        raise InputError(message)
    named = {"token": _token(source)}
    session = _anonymous_session()
    if lookup:
        emit(session.post("/wraps/lookup", named).json, as_json=as_json)
        return
    if expect is not None:
        _require_made_by(session, named, expect)
    if rewrap:
        emit(session.post("/wraps/rewrap", named).json, as_json=as_json, human=lambda a: fields(a, *_SHOWN))
        return
    emit(session.post("/wraps/open", named).json, as_json=as_json, human=_opened)


@click.command()
@click.argument("path")
@click.option("--ttl-seconds", type=click.IntRange(min=1), help="How long it can be opened; an hour without it.")
@click.option("--version", type=click.IntRange(min=1), help="Another version than the current one.")
@json_option
def share(*, path: str, ttl_seconds: int | None, version: int | None, as_json: bool) -> None:
    """Wrap what a secret holds now, for somebody without any right here."""
    given = {"ttl_seconds": ttl_seconds, "version": version}
    body = {name: value for name, value in given.items() if value is not None}
    answer = open_session().post(f"/secret-share/{quote(path, safe='/')}", body).json
    emit(answer, as_json=as_json, human=lambda a: fields(a, *_SHOWN))


def _token(source: IO[str] | None) -> str:
    if source is not None:
        text = source.read()
    else:
        text = click.prompt("wrap token", hide_input=True) if sys.stdin.isatty() else sys.stdin.readline()
    if not text.strip():
        message = "no wrap token was given"
        raise InputError(message, hint="give it on stdin, at the prompt, or with --file")
    return str(text.strip())


def _require_made_by(session: Session, named: dict[str, str], expect: str) -> None:
    try:
        found = session.post("/wraps/lookup", named).json["creation_path"]
    except GoneError:
        return  # whoever opens it is told, and the alarm that a look-up does not give is on record
    if found != expect:
        raise ConflictError(
            f"expected a wrap made by {expect}, found one made by {found}",
            code="unexpected_wrap",
            hint="it was not opened; ask whoever sent it",
        )


def _anonymous_session() -> Session:
    """Open a session that presents no bearer token: whoever opens a wrap need not have one."""
    settings = load_settings()
    profile = None if settings.token is not None else read_profile(settings.profile or "default")
    return Session(settings.url if profile is None else profile.url, None)


def _opened(answer: dict[str, Any]) -> str:
    return json.dumps(answer["data"], indent=2, ensure_ascii=False)
