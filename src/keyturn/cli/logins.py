"""`keyturn login-methods`, `login-roles` and `login-tokens`: how workloads log in, and what they got."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

import click

from keyturn.cli.groups import Commands
from keyturn.cli.output import emit, fields, json_option, table
from keyturn.cli.policy import if_match, limit_option, read_metadata, revision_option
from keyturn.cli.session import open_session
from keyturn.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F", bound="Callable[..., Any]")

_KINDS = ("jwt", "approle", "kubernetes", "certificate")
_PRESETS = ("github-actions", "gitlab", "kubernetes")
_METHOD_OPTIONS = (
    click.option("--description", help="What it is for."),
    click.option("--issuer", help="jwt: the `iss` of its tokens."),
    click.option("--jwks-url", help="jwt: where the issuer's keys are."),
    click.option("--discovery-url", help="jwt: the document that names where they are."),
    click.option("--jwks", metavar="FILE", help="jwt: a file with the keys, sent to the server; '-' is stdin."),
    click.option("--jwks-file", metavar="NAME", help="jwt: a file in the folder `jwks` of the server's data."),
    click.option("--algorithm", "algorithms", multiple=True, help="jwt: an algorithm that is let in; repeatable."),
    click.option("--lifetime-seconds-max", type=click.IntRange(min=60), help="jwt: how far ahead `exp` may lie."),
    click.option("--cluster-url", metavar="URL", help="kubernetes: the address of the cluster's API."),
    click.option("--reviewer-token-file", metavar="FILE", help="kubernetes: the reviewer's token; '-' is stdin."),
    click.option("--header", help="certificate: the header that the proxy sets."),
    click.option("--ca-file", metavar="FILE", help="Authorities as PEM: of the issuer, the cluster, or the clients."),
)
_ROLE_OPTIONS = (
    click.option("--audience", "audiences", multiple=True, help="jwt, kubernetes: one has to be there; repeatable."),
    click.option("--claim", "claims", multiple=True, metavar="NAME=PATTERN", help="jwt: has to hold; repeatable."),
    click.option("--single-use/--no-single-use", default=None, help="jwt: a token logs in once, by its `jti`."),
    click.option("--namespace", "namespaces", multiple=True, help="kubernetes: a pattern; repeatable."),
    click.option("--service-account", "service_accounts", multiple=True, help="kubernetes: a pattern; repeatable."),
    click.option("--name", "names", multiple=True, help="certificate: a pattern of alternative names; repeatable."),
    click.option("--subject", "subjects", multiple=True, help="certificate: a pattern of common names; repeatable."),
    click.option("--issuer-fingerprint", "issuers", multiple=True, help="certificate: SHA-256; repeatable."),
    click.option("--role-id", help="approle: the role-id, instead of a new one."),
    click.option("--secret-id-ttl-seconds", type=click.IntRange(min=1), help="approle: how long a secret-id lives."),
    click.option("--secret-id-uses", type=click.IntRange(min=1), help="approle: how often one lets in."),
    click.option("--secret-id-cidr", "secret_id_cidrs", multiple=True, help="approle: from where; repeatable."),
    click.option("--scope", "scopes", multiple=True, help="A pattern over actions; repeatable."),
    click.option("--resource", "resources", multiple=True, help="A pattern over resources; repeatable."),
    click.option("--cidr", "cidrs", multiple=True, help="A network that tokens are used from; repeatable."),
    click.option("--ttl-seconds", type=click.IntRange(min=1), help="How long a token lives."),
    click.option("--max-ttl-seconds", type=click.IntRange(min=1), help="How long it can be renewed for."),
    click.option("--tokens-max", type=click.IntRange(min=1), help="How many tokens may be live."),
    click.option("--leases-max", type=click.IntRange(min=1), help="How many leases its tokens may hold."),
)
_PLAIN = ("scopes", "resources", "cidrs", "ttl_seconds", "max_ttl_seconds", "tokens_max", "leases_max")
_BINDINGS = {
    "jwt": ("claims", "single_use"),
    "kubernetes": ("namespaces", "service_accounts"),
    "certificate": ("names", "subjects", "issuers"),
    "approle": ("role_id", "secret_id_ttl_seconds", "secret_id_uses", "secret_id_cidrs"),
}


def _method_arguments(command: F) -> F:
    for option in reversed(_METHOD_OPTIONS):
        command = option(command)
    return command


def _role_arguments(command: F) -> F:
    for option in reversed(_ROLE_OPTIONS):
        command = option(command)
    return command


def _path(*parts: str) -> str:
    return "/login-methods/" + "/".join(quote(part, safe="") for part in parts)


def read_file(name: str) -> str:
    """Read a file, or standard input for `-`; raises InputError."""
    try:
        return sys.stdin.read() if name == "-" else Path(name).read_text("utf-8")
    except (OSError, UnicodeError) as error:
        message = f"{name} cannot be read: {type(error).__name__}"
        raise InputError(message) from None


# --- methods ---------------------------------------------------------------------------------------------------------


@click.group("login-methods", cls=Commands)
def login_methods() -> None:
    """Ways for workloads to log in."""


@login_methods.command()
@click.argument("name")
@click.option("--kind", type=click.Choice(_KINDS), help="How identities are proven; a preset says it too.")
@click.option("--preset", type=click.Choice(_PRESETS), help="A known issuer of tokens.")
@_method_arguments
@json_option
def create(*, name: str, kind: str | None, preset: str | None, as_json: bool, **given: Any) -> None:  # noqa: ANN401 -- options
    """Create a way to log in."""
    body = {"name": name, "kind": kind, "preset": preset, "description": given.pop("description") or ""}
    options = _method_options(kind or "jwt", given)
    if options:
        body[kind or "jwt"] = options
    answer = open_session().post("/login-methods", _held(body), idempotency=True)
    emit(answer.json, as_json=as_json)


@login_methods.command("list")
@limit_option
@json_option
def list_methods(*, limit: int | None, as_json: bool) -> None:
    """List login methods."""
    items = list(open_session().pages("/login-methods", limit=limit))
    emit({"items": items}, as_json=as_json, human=lambda a: table(a["items"], "name", "kind", "preset", "state"))


@login_methods.command()
@click.argument("name")
@json_option
def show(*, name: str, as_json: bool) -> None:
    """Show a login method."""
    emit(open_session().get(_path(name)).json, as_json=as_json)


@login_methods.command()
@click.argument("name")
@_method_arguments
@revision_option
@json_option
def update(*, name: str, revision: int | None, as_json: bool, **given: Any) -> None:  # noqa: ANN401 -- options
    """Change a login method; options take the place of all before."""
    session = open_session()
    body = _held({"description": given.pop("description")})
    kind = session.get(_path(name)).json["kind"]
    options = _method_options(kind, given)
    if options:
        body[kind] = options
    emit(session.patch(_path(name), body, if_match=if_match(revision)).json, as_json=as_json)


@login_methods.command()
@click.argument("name")
@revision_option
@json_option
def disable(*, name: str, revision: int | None, as_json: bool) -> None:
    """Let nobody in by a method, and refuse the tokens that it gave."""
    answer = open_session().patch(_path(name), {"state": "disabled"}, if_match=if_match(revision))
    emit(answer.json, as_json=as_json)


@login_methods.command()
@click.argument("name")
@revision_option
@json_option
def enable(*, name: str, revision: int | None, as_json: bool) -> None:
    """Let in by a disabled method again."""
    answer = open_session().patch(_path(name), {"state": "active"}, if_match=if_match(revision))
    emit(answer.json, as_json=as_json)


@login_methods.command()
@click.argument("name")
@revision_option
@json_option
def delete(*, name: str, revision: int | None, as_json: bool) -> None:
    """Delete a method with its roles; the tokens they gave are refused."""
    emit(open_session().post(_path(name, "delete"), if_match=if_match(revision)).json, as_json=as_json)


def _method_options(kind: str, given: dict[str, Any]) -> dict[str, Any]:
    ca = None if given["ca_file"] is None else read_file(given["ca_file"])
    if kind == "kubernetes":
        token = given["reviewer_token_file"]
        return _held(
            {
                "url": given["cluster_url"],
                "reviewer_token": None if token is None else read_file(token).strip(),
                "ca_pem": ca,
            }
        )
    if kind == "certificate":
        return _held({"header": given["header"], "ca_pem": ca})
    jwks = given["jwks"]
    return _held(
        {
            "issuer": given["issuer"],
            "jwks_url": given["jwks_url"],
            "discovery_url": given["discovery_url"],
            "jwks": None if jwks is None else _document(jwks),
            "jwks_file": given["jwks_file"],
            "algorithms": given["algorithms"] or None,
            "lifetime_seconds_max": given["lifetime_seconds_max"],
            "ca_pem": ca,
        }
    )


def _document(name: str) -> Any:  # noqa: ANN401 -- JSON
    try:
        return json.loads(read_file(name))
    except ValueError:
        message = f"{name} is no JSON"
        raise InputError(message, field="--jwks") from None


def _held(given: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value is not None}


# --- roles -----------------------------------------------------------------------------------------------------------


@click.group("login-roles", cls=Commands)
def login_roles() -> None:
    """Which identities become which principal, and the secret-ids of AppRole."""


@login_roles.command("create")
@click.argument("method")
@click.argument("role")
@click.option("--principal", required=True, help="Whom they become: a service or an agent, by id or name.")
@_role_arguments
@json_option
def create_role(*, method: str, role: str, principal: str, as_json: bool, **given: Any) -> None:  # noqa: ANN401 -- options
    """Let identities become a principal."""
    session = open_session()
    body = {"name": role, "principal": principal, **_role(session.get(_path(method)).json["kind"], given)}
    _emit_role(session.post(_path(method, "roles"), body, idempotency=True).json, as_json=as_json)


@login_roles.command("list")
@click.argument("method")
@limit_option
@json_option
def list_roles(*, method: str, limit: int | None, as_json: bool) -> None:
    """List the roles of a method."""
    items = list(open_session().pages(_path(method, "roles"), limit=limit))
    columns = ("name", "principal", "scopes", "resources", "ttl_seconds", "warnings")
    emit({"items": items}, as_json=as_json, human=lambda a: table(a["items"], *columns))


@login_roles.command("show")
@click.argument("method")
@click.argument("role")
@json_option
def show_role(*, method: str, role: str, as_json: bool) -> None:
    """Show a role; the role-id of an AppRole is in it."""
    _emit_role(open_session().get(_path(method, "roles", role)).json, as_json=as_json)


@login_roles.command("update")
@click.argument("method")
@click.argument("role")
@_role_arguments
@revision_option
@json_option
def update_role(*, method: str, role: str, revision: int | None, as_json: bool, **given: Any) -> None:  # noqa: ANN401 -- options
    """Change a role; what binds identities takes the place of all before."""
    session = open_session()
    body = _role(session.get(_path(method)).json["kind"], given)
    answer = session.patch(_path(method, "roles", role), body, if_match=if_match(revision))
    _emit_role(answer.json, as_json=as_json)


@login_roles.command("delete")
@click.argument("method")
@click.argument("role")
@revision_option
@json_option
def delete_role(*, method: str, role: str, revision: int | None, as_json: bool) -> None:
    """Delete a role; its tokens are refused."""
    answer = open_session().post(_path(method, "roles", role, "delete"), if_match=if_match(revision))
    emit(answer.json, as_json=as_json)


@login_roles.command("issue-secret-id")
@click.argument("method")
@click.argument("role")
@click.option("--ttl-seconds", type=click.IntRange(min=1), help="How long it lives.")
@click.option("--uses", type=click.IntRange(min=1), help="How often it lets in.")
@click.option("--cidr", "cidrs", multiple=True, help="From where; repeatable.")
@click.option("--metadata", multiple=True, metavar="NAME=VALUE", help="Kept with the tokens that it gives; repeatable.")
@click.option("--wrap-seconds", type=click.IntRange(min=1), help="Show a wrap instead, that opens once within so long.")
@json_option
def issue_secret_id(
    *,
    method: str,
    role: str,
    ttl_seconds: int | None,
    uses: int | None,
    cidrs: tuple[str, ...],
    metadata: tuple[str, ...],
    wrap_seconds: int | None,
    as_json: bool,
) -> None:
    """Make a secret-id of an AppRole and show it once."""
    body = _held(
        {
            "ttl_seconds": ttl_seconds,
            "uses": uses,
            "cidrs": cidrs or None,
            "metadata": read_metadata(metadata),
            "wrap_ttl_seconds": wrap_seconds,
        }
    )
    path = _path(method, "roles", role, "secret-ids", *(["wrapped"] if wrap_seconds else []))
    emit(open_session().post(path, body, idempotency=wrap_seconds is None).json, as_json=as_json)


@login_roles.command("secret-ids")
@click.argument("method")
@click.argument("role")
@limit_option
@json_option
def secret_ids(*, method: str, role: str, limit: int | None, as_json: bool) -> None:
    """List the secret-ids of an AppRole."""
    items = list(open_session().pages(_path(method, "roles", role, "secret-ids"), limit=limit))
    columns = ("id", "uses_left", "cidrs", "created_at", "expires_at", "last_used_at")
    emit({"items": items}, as_json=as_json, human=lambda a: table(a["items"], *columns))


@login_roles.command("revoke-secret-id")
@click.argument("method")
@click.argument("role")
@click.argument("secret_id_id", metavar="ID")
@json_option
def revoke_secret_id(*, method: str, role: str, secret_id_id: str, as_json: bool) -> None:
    """Revoke a secret-id, by its id."""
    path = _path(method, "roles", role, "secret-ids", secret_id_id, "revoke")
    emit(open_session().post(path).json, as_json=as_json)


def _role(kind: str, given: dict[str, Any]) -> dict[str, Any]:
    body = {name: given[name] for name in _PLAIN if given[name] not in (None, ())}
    binding = {name: given[name] for name in _BINDINGS[kind] if given[name] not in (None, ())}
    if "claims" in binding:
        binding["claims"] = _claims(binding["claims"])
    if kind in ("jwt", "kubernetes") and given["audiences"]:
        binding["audiences"] = given["audiences"]
    if binding:
        body[kind] = binding
    return body


def _claims(pairs: tuple[str, ...]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for pair in pairs:
        name, equals, pattern = pair.partition("=")
        if not (name and equals and pattern):
            message = f"expected NAME=PATTERN, found {pair!r}"
            raise InputError(message, field="--claim")
        found.setdefault(name, []).append(pattern)
    return found


def _emit_role(role: dict[str, Any], *, as_json: bool) -> None:
    emit(role, as_json=as_json, human=lambda a: fields({k: v for k, v in a.items() if v not in (None, [])}))
    for warning in role["warnings"]:
        click.echo(f"warning: {warning}", err=True)


# --- tokens ----------------------------------------------------------------------------------------------------------


@click.group("login-tokens", cls=Commands)
def login_tokens() -> None:
    """Tokens that logins gave."""


@login_tokens.command("list")
@click.option("--role", metavar="ID", help="Only those of this role.")
@limit_option
@json_option
def list_tokens(*, role: str | None, limit: int | None, as_json: bool) -> None:
    """List login tokens."""
    items = list(open_session().pages("/login-tokens", {"role": role}, limit=limit))
    columns = ("id", "principal", "subject", "state", "ttl_seconds", "expires_at", "parent")
    emit({"items": items}, as_json=as_json, human=lambda a: table(a["items"], *columns))


@login_tokens.command("show")
@click.argument("token_id", metavar="[ID]", required=False)
@json_option
def show_token(*, token_id: str | None, as_json: bool) -> None:
    """Show a token by its id, or the one in use."""
    emit(open_session().get(_token(token_id)).json, as_json=as_json)


@login_tokens.command("renew")
@click.argument("token_id", metavar="[ID]", required=False)
@click.option("--ttl-seconds", type=click.IntRange(min=1), help="For so long from now.")
@json_option
def renew_token(*, token_id: str | None, ttl_seconds: int | None, as_json: bool) -> None:
    """Let a token live on by its id, or the one in use."""
    answer = open_session().post(_token(token_id, "renew"), _held({"ttl_seconds": ttl_seconds}))
    emit(answer.json, as_json=as_json)


@login_tokens.command("revoke")
@click.argument("token_id", metavar="[ID]", required=False)
@json_option
def revoke_token(*, token_id: str | None, as_json: bool) -> None:
    """End a token by its id, or the one in use, and those below it."""
    emit(open_session().post(_token(token_id, "revoke")).json, as_json=as_json)


def _token(token_id: str | None, *rest: str) -> str:
    return "/".join(("/login-tokens", "self" if token_id is None else quote(token_id, safe=""), *rest))
