"""`keyturn credential-sources`, `credential-roles` and `leases`: credentials that are made on demand."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click
import msgspec

from keyturn.cli.groups import Commands
from keyturn.cli.output import emit, json_option, table
from keyturn.cli.policy import if_match, limit_option, revision_option
from keyturn.cli.session import open_session
from keyturn.errors import InputError

_STATES = ("intent", "active", "revoking", "abandoned", "lingering", "revoked", "failed", "irrevocable")
_LEASE_COLUMNS = ("lease_id", "account", "state", "ttl_seconds", "principal", "expires_at")
_SECRET_NAMES = frozenset({"password", "secret_access_key"})


def _emit(answer: Any, *, as_json: bool) -> None:  # noqa: ANN401 -- JSON
    emit(answer, as_json=as_json)


def _path(*parts: str) -> str:
    return "/" + "/".join(quote(part, safe="") for part in parts)


def _lease_path(lease: str, *rest: str) -> str:
    return _path("leases", lease.strip("/").rpartition("/")[2], *rest)


def _source(text: str) -> str:
    """Return what `-` (stdin) or `@file` holds, without the newline at its end."""
    if text == "-":
        return sys.stdin.read().removesuffix("\n")
    try:
        return Path(text[1:]).read_text(encoding="utf-8").removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        message = f"cannot read {text[1:]}"
        raise InputError(message, internal=type(error).__name__) from None


def _connection(settings: tuple[str, ...]) -> dict[str, Any]:
    """Build a connection from NAME=VALUE; NAME=- is read from stdin, NAME=@FILE from a file."""
    found: dict[str, Any] = {}
    for setting in settings:
        name, sign, value = setting.partition("=")
        if not (name and sign):
            raise InputError("expected NAME=VALUE", field="--set", hint="such as --set host=db.internal")
        if value == "-" or value.startswith("@"):
            found[name] = _source(value)
        elif name in _SECRET_NAMES:
            raise InputError(
                f"{name} is never given as an argument, which other processes can read",
                field="--set",
                hint=f"write --set {name}=- to give it on stdin, or --set {name}=@FILE",
            )
        else:
            found[name] = int(value) if name == "port" and value.isdecimal() else value
    return found


def _config(statements: dict[str, tuple[str, ...]], config: str | None) -> dict[str, Any]:
    """Build the configuration of a role from options, on top of a JSON document."""
    given: Any = {}
    if config is not None:
        try:
            given = msgspec.json.decode(_source(config) if config == "-" or config.startswith("@") else config)
        except msgspec.DecodeError:
            given = None
        if not isinstance(given, dict):
            raise InputError("expected a JSON object", field="--config")
    return {**given, **{name: list(values) for name, values in statements.items() if values}}


# --- sources -----------------------------------------------------------------------------------------------------


@click.group("credential-sources", cls=Commands)
def credential_sources() -> None:
    """Manage the systems in which accounts are made on demand."""


@credential_sources.command()
@click.argument("name")
@click.argument("kind")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A setting; NAME=- reads stdin, =@FILE.")
@click.option("--description", default="", help="What it is.")
@click.option("--no-check", is_flag=True, help="Do not connect to it first.")
@json_option
def create(*, name: str, kind: str, settings: tuple[str, ...], description: str, no_check: bool, as_json: bool) -> None:
    """Create a source: postgresql, mysql, redis, aws-sts or another kind that is installed."""
    body = {
        "name": name,
        "kind": kind,
        "connection": _connection(settings),
        "description": description,
        "check": not no_check,
    }
    _emit(open_session().post("/credential-sources", body, idempotency=True).json, as_json=as_json)


@credential_sources.command("list")
@limit_option
@json_option
def list_sources(*, limit: int | None, as_json: bool) -> None:
    """List sources."""
    items = list(open_session().pages("/credential-sources", limit=limit))
    emit({"items": items}, as_json=as_json, human=lambda a: table(a["items"], "name", "kind", "connection"))


@credential_sources.command()
@click.argument("name")
@json_option
def show(*, name: str, as_json: bool) -> None:
    """Show a source without what is secret of it."""
    _emit(open_session().get(_path("credential-sources", name)).json, as_json=as_json)


@credential_sources.command()
@click.argument("name")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A setting, in place of all before.")
@click.option("--description", help="What it is.")
@click.option("--no-check", is_flag=True, help="Do not connect to it first.")
@revision_option
@json_option
def update(
    *,
    name: str,
    settings: tuple[str, ...],
    description: str | None,
    no_check: bool,
    revision: int | None,
    as_json: bool,
) -> None:
    """Change how a source is reached; a secret that is left out stays while the address does."""
    body: dict[str, Any] = {"check": not no_check}
    if settings:
        body["connection"] = _connection(settings)
    if description is not None:
        body["description"] = description
    answer = open_session().patch(_path("credential-sources", name), body, if_match=if_match(revision))
    _emit(answer.json, as_json=as_json)


@credential_sources.command()
@click.argument("name")
@revision_option
@json_option
def delete(*, name: str, revision: int | None, as_json: bool) -> None:
    """Delete a source whose leases are over."""
    answer = open_session().post(_path("credential-sources", name, "delete"), if_match=if_match(revision))
    _emit(answer.json, as_json=as_json)


@credential_sources.command()
@click.argument("name")
@json_option
@click.pass_context
def check(ctx: click.Context, *, name: str, as_json: bool) -> None:
    """Connect to a source; exit code 1 when it does not answer as it should."""
    answer = open_session().post(_path("credential-sources", name, "check")).json
    _emit(answer, as_json=as_json)
    ctx.exit(0 if answer["reachable"] else 1)


# --- roles -------------------------------------------------------------------------------------------------------


@click.group("credential-roles", cls=Commands)
def credential_roles() -> None:
    """Manage what accounts of a source may do."""


def _role_options(command: Any) -> Any:  # noqa: ANN401 -- a click command
    options = (
        click.option("--creation", multiple=True, help="A statement that makes an account; repeatable, in order."),
        click.option("--revocation", multiple=True, help="A statement that drops it, in place of our own way."),
        click.option("--rule", "rules", multiple=True, help="An ACL rule of Redis, such as '~cache:*'; repeatable."),
        click.option("--config", metavar="JSON", help="The whole configuration as JSON; - reads stdin, @FILE a file."),
        click.option("--ttl-seconds", type=click.IntRange(min=1), help="How long a lease lives."),
        click.option("--max-ttl-seconds", type=click.IntRange(min=1), help="How long with renewals, at most."),
        click.option("--leases-max", type=click.IntRange(min=1), help="How many leases there may be at once."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def _role_body(
    given: dict[str, Any], creation: tuple[str, ...], revocation: tuple[str, ...], rules: tuple[str, ...]
) -> dict[str, Any]:
    statements = {"creation": creation, "revocation": revocation, "rules": rules}
    body = {name: given[name] for name in ("ttl_seconds", "max_ttl_seconds", "leases_max") if given[name] is not None}
    if given["config"] is not None or any(statements.values()):
        body["config"] = _config(statements, given["config"])
    return body


@credential_roles.command("create")
@click.argument("source")
@click.argument("name")
@_role_options
@json_option
def create_role(
    *,
    source: str,
    name: str,
    creation: tuple[str, ...],
    revocation: tuple[str, ...],
    rules: tuple[str, ...],
    as_json: bool,
    **given: Any,  # noqa: ANN401 -- the other options
) -> None:
    """Create a role of a source."""
    body = {"name": name, "config": {}, **_role_body(given, creation, revocation, rules)}
    answer = open_session().post(_path("credential-sources", source, "roles"), body, idempotency=True)
    _emit(answer.json, as_json=as_json)


@credential_roles.command("list")
@click.argument("source")
@limit_option
@json_option
def list_roles(*, source: str, limit: int | None, as_json: bool) -> None:
    """List the roles of a source."""
    items = list(open_session().pages(_path("credential-sources", source, "roles"), limit=limit))
    columns = ("name", "ttl_seconds", "max_ttl_seconds", "leases_max")
    emit({"items": items}, as_json=as_json, human=lambda a: table(a["items"], *columns))


@credential_roles.command("show")
@click.argument("source")
@click.argument("name")
@json_option
def show_role(*, source: str, name: str, as_json: bool) -> None:
    """Show a role."""
    _emit(open_session().get(_path("credential-sources", source, "roles", name)).json, as_json=as_json)


@credential_roles.command("update")
@click.argument("source")
@click.argument("name")
@_role_options
@revision_option
@json_option
def update_role(
    *,
    source: str,
    name: str,
    creation: tuple[str, ...],
    revocation: tuple[str, ...],
    rules: tuple[str, ...],
    revision: int | None,
    as_json: bool,
    **given: Any,  # noqa: ANN401 -- the other options
) -> None:
    """Change a role; a configuration takes the place of the whole one before."""
    body = _role_body(given, creation, revocation, rules)
    answer = open_session().patch(_path("credential-sources", source, "roles", name), body, if_match=if_match(revision))
    _emit(answer.json, as_json=as_json)


@credential_roles.command("delete")
@click.argument("source")
@click.argument("name")
@revision_option
@json_option
def delete_role(*, source: str, name: str, revision: int | None, as_json: bool) -> None:
    """Delete a role; leases that were made live on until they end."""
    answer = open_session().post(
        _path("credential-sources", source, "roles", name, "delete"), if_match=if_match(revision)
    )
    _emit(answer.json, as_json=as_json)


# --- leases ------------------------------------------------------------------------------------------------------


@click.group(cls=Commands)
def leases() -> None:
    """Make credentials on demand, renew and revoke them."""


@leases.command("create")
@click.argument("source")
@click.argument("role")
@click.option("--ttl-seconds", type=click.IntRange(min=1), help="How long it lives.")
@json_option
def create_lease(*, source: str, role: str, ttl_seconds: int | None, as_json: bool) -> None:
    """Make a credential and show it once."""
    body = {} if ttl_seconds is None else {"ttl_seconds": ttl_seconds}
    answer = open_session().post(_path("credential-sources", source, "roles", role, "leases"), body).json
    emit(answer, as_json=as_json, human=_credential)


def _credential(answer: dict[str, Any]) -> str:
    lines = [f"lease_id: {answer['lease_id']}", f"expires_at: {answer['expires_at']}"]
    return "\n".join(lines + [f"{name}: {value}" for name, value in answer["fields"].items()])


@leases.command("list")
@click.option("--state", type=click.Choice(_STATES), help="Only those that stand so.")
@click.option("--prefix", help="Only those under this path, such as app/creds/reader.")
@click.option("--principal", help="Only those of this principal.")
@limit_option
@json_option
def list_leases(
    *, state: str | None, prefix: str | None, principal: str | None, limit: int | None, as_json: bool
) -> None:
    """List leases, oldest first."""
    given = {"state": state, "prefix": prefix, "principal": principal}
    items = list(open_session().pages("/leases", given, limit=limit))
    emit({"items": items}, as_json=as_json, human=lambda a: table(a["items"], *_LEASE_COLUMNS))


@leases.command("irrevocable")
@limit_option
@json_option
def irrevocable(*, limit: int | None, as_json: bool) -> None:
    """List leases whose accounts could not be dropped, with the last error of each."""
    items = list(open_session().pages("/leases", {"state": "irrevocable"}, limit=limit))
    columns = ("lease_id", "account", "attempts", "last_error")
    emit({"items": items}, as_json=as_json, human=lambda a: table(a["items"], *columns))


@leases.command("show")
@click.argument("lease")
@json_option
def show_lease(*, lease: str, as_json: bool) -> None:
    """Show a lease, by its id or path."""
    _emit(open_session().get(_lease_path(lease)).json, as_json=as_json)


@leases.command("renew")
@click.argument("lease")
@click.option("--increment-seconds", type=click.IntRange(min=1), help="Let it end so long after now.")
@json_option
def renew(*, lease: str, increment_seconds: int | None, as_json: bool) -> None:
    """Let a lease live longer, within its most."""
    body = {} if increment_seconds is None else {"increment_seconds": increment_seconds}
    _emit(open_session().post(_lease_path(lease, "renew"), body).json, as_json=as_json)


@leases.command("revoke")
@click.argument("lease")
@json_option
@click.pass_context
def revoke(ctx: click.Context, *, lease: str, as_json: bool) -> None:
    """End a lease and drop its account; exit code 1 when the account is not gone yet."""
    answer = open_session().post(_lease_path(lease, "revoke")).json
    _emit(answer, as_json=as_json)
    ctx.exit(0 if answer["state"] in {"revoked", "failed"} else 1)


@leases.command("revoke-prefix")
@click.argument("prefix")
@json_option
def revoke_prefix(*, prefix: str, as_json: bool) -> None:
    """End every lease under SOURCE, SOURCE/creds/ROLE or one lease's path."""
    _emit(open_session().post("/leases/revoke-prefix", {"prefix": prefix}).json, as_json=as_json)


@leases.command("revoke-owner")
@click.argument("principal")
@click.option("--subject", help="Only those of this subject, which logged in as the principal.")
@json_option
def revoke_owner(*, principal: str, subject: str | None, as_json: bool) -> None:
    """End every lease of a principal."""
    body = {"principal": principal} if subject is None else {"principal": principal, "subject": subject}
    _emit(open_session().post("/leases/revoke-owner", body).json, as_json=as_json)


@leases.command("retry")
@click.argument("lease")
@json_option
@click.pass_context
def retry(ctx: click.Context, *, lease: str, as_json: bool) -> None:
    """Try again to drop the account of an irrevocable lease; exit code 1 when it is not gone yet."""
    answer = open_session().post(_lease_path(lease, "retry")).json
    _emit(answer, as_json=as_json)
    ctx.exit(0 if answer["state"] == "revoked" else 1)


@leases.command("resolve")
@click.argument("lease")
@click.option("--reason", required=True, help="How one knows that the account is gone.")
@json_option
def resolve(*, lease: str, reason: str, as_json: bool) -> None:
    """State that the account of an irrevocable lease is gone."""
    _emit(open_session().post(_lease_path(lease, "resolve"), {"reason": reason}).json, as_json=as_json)
