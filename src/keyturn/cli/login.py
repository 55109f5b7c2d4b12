"""`keyturn login`: save an address and a token, after trying them; for a workload, the token that a login gives."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from keyturn.cli.logins import read_file
from keyturn.cli.output import emit, fields, json_option
from keyturn.cli.profiles import Profile, write_profile
from keyturn.cli.session import Session
from keyturn.config import server_url
from keyturn.errors import InputError
from keyturn.kernel.secret import Secret


@click.command()
@click.option("--url", help="Address of the server; KEYTURN_URL, or http://127.0.0.1:8700, without it.")
@click.option("--profile", default="default", show_default=True, help="Name to save it under.")
@click.option("--method", help="Log in as a workload by this method.")
@click.option("--role", help="The role to log in to, by a token or certificate.")
@click.option("--workspace", help="The workspace of the method; `default` without it.")
@click.option("--jwt-file", metavar="FILE", help="The token to log in by; '-' is stdin.")
@click.option("--role-id", help="The role-id of an AppRole.")
@click.option("--secret-id-file", metavar="FILE", help="The secret-id of an AppRole; '-' is stdin.")
@click.option("--token-file", metavar="FILE", help="Write the token there, mode 0600, and save no profile.")
@json_option
def login(
    *,
    url: str | None,
    profile: str,
    method: str | None,
    token_file: str | None,
    as_json: bool,
    **given: str | None,
) -> None:
    """Save an address and a token as a profile; the token is read from standard input or asked for.

    With --method the token is the one that a workload gets for its own: it is short-lived, and no secret is ever read
    from the command line.
    """
    address = server_url(None if url is None else {"KEYTURN_URL": url})
    if method is None:
        token, shown = _given_token(given), None
        who = Session(address, token).get("/whoami").json
    else:
        answer = Session(address, None).post("/login", _assertion(method, given)).json
        token = Secret(answer.pop("token"))
        shown = {name: answer[name] for name in ("token_id", "role", "subject", "ttl_seconds", "expires_at")}
        who = {name: answer[name] for name in ("principal", "principal_kind", "principal_name", "workspace")}
    where: dict[str, Any]
    if token_file is None:
        where = {"profile": profile, "saved_in": str(write_profile(profile, Profile(address, token)))}
    else:
        _write_token(Path(token_file), token)
        where = {"saved_in": token_file}
    emit({**where, "principal": who, **(shown or {})}, as_json=as_json, human=_describe)


def _describe(answer: dict[str, Any]) -> str:
    who = answer["principal"]
    name, workspace = who.get("principal_name") or who["name"], who.get("workspace_name") or who["workspace"]
    return fields({**answer, "principal": f"{name} of workspace {workspace}"})


def _given_token(given: dict[str, str | None]) -> Secret:
    for name, value in given.items():
        if value is not None:
            message = f"--{name.replace('_', '-')} is for a login by --method"
            raise InputError(message, hint="name the method that the workload logs in by")
    text = click.prompt("management token", hide_input=True) if sys.stdin.isatty() else sys.stdin.readline()
    if not text.strip():
        message = "no token was given on standard input"
        raise InputError(message, hint="keyturn login < data/admin-token")
    return Secret(text.strip())


def _assertion(method: str, given: dict[str, str | None]) -> dict[str, Any]:
    body = {"method": method, "role": given["role"], "workspace": given["workspace"], "role_id": given["role_id"]}
    if given["role_id"] is not None or given["secret_id_file"] is not None:
        body["secret_id"] = read_file(given["secret_id_file"] or "-").strip()
    elif given["jwt_file"] is not None:
        body["jwt"] = read_file(given["jwt_file"]).strip()
    return {name: value for name, value in body.items() if value is not None}


def _write_token(path: Path, token: Secret) -> None:
    """Write the token so that nobody else can read it at any time; takes the place of the file in one step."""
    fresh = path.with_name(f"{path.name}.new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(token.reveal() + "\n")
    fresh.replace(path)
