"""`keyturn login`: save an address and a token, after trying them."""

from __future__ import annotations

import sys

import click

from keyturn.cli.output import emit, json_option
from keyturn.cli.profiles import Profile, write_profile
from keyturn.cli.session import Session
from keyturn.errors import InputError
from keyturn.kernel.secret import Secret


@click.command()
@click.option("--url", default="http://127.0.0.1:8700", show_default=True, help="Address of the server.")
@click.option("--profile", default="default", show_default=True, help="Name to save it under.")
@json_option
def login(*, url: str, profile: str, as_json: bool) -> None:
    """Save an address and a token as a profile; the token is read from standard input or asked for."""
    text = click.prompt("management token", hide_input=True) if sys.stdin.isatty() else sys.stdin.readline()
    if not text.strip():
        message = "no token was given on standard input"
        raise InputError(message, hint="keyturn login < data/admin-token")
    token = Secret(text.strip())
    who = Session(url.rstrip("/"), token).get("/whoami").json
    path = write_profile(profile, Profile(url.rstrip("/"), token))
    emit({"profile": profile, "saved_in": str(path), "principal": who}, as_json=as_json)
