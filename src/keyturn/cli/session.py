"""A session with the server: address and token from the settings or a profile, errors from problem details.

    session = open_session()
    reply = session.post("/keys", {"keyspace": "orders", ...}, idempotency=True)
    reply.json["id"], reply.etag

Paths are below the API root.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from keyturn import errors
from keyturn.cli.output import emit, fields, json_option, table
from keyturn.cli.profiles import read_profile
from keyturn.client.transport import error_of, in_clear
from keyturn.config import load_settings
from keyturn.kernel.secret import random_base62

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import httpx

    from keyturn.kernel.secret import Secret

API = "/api/v1"
TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Reply:
    """What the server answered."""

    status: int
    json: Any
    etag: str | None


class Session:
    """Requests to one server with one token; every failure is one of `keyturn.errors`."""

    def __init__(self, url: str, token: Secret | None) -> None:
        """Hold the address and the token; nothing is sent yet.  Connections end with the command that runs.

        Raises ConfigError for an address to which all of it would travel in clear: also without a token, what is sent
        is one, or a key.
        """
        import httpx  # 230 ms; only commands that talk to a server pay for it

        if in_clear(url):
            raise errors.ConfigError(
                f"tokens and keys would travel to {url} unencrypted; nothing was sent",
                hint="use an https address, or a tunnel to a port of this machine",
            )
        self.url = url
        self._token = token
        self._client = httpx.Client(base_url=url, timeout=TIMEOUT_SECONDS, follow_redirects=False)
        command = click.get_current_context(silent=True)
        if command is not None:
            command.call_on_close(self._client.close)

    def get(self, path: str, params: Mapping[str, Any] | None = None) -> Reply:
        """GET below the API root; parameters that are None are left out."""
        return self._send("GET", path, params=params)

    def post(
        self,
        path: str,
        body: Any = None,  # noqa: ANN401 -- any JSON document
        *,
        idempotency: bool | str = False,
        if_match: str | None = None,
    ) -> Reply:
        """POST a JSON document; `idempotency=True` sends a fresh Idempotency-Key, so that a retry is safe."""
        headers = {} if if_match is None else {"If-Match": if_match}
        if idempotency:
            headers["Idempotency-Key"] = idempotency if isinstance(idempotency, str) else random_base62(22)
        return self._send("POST", path, body={} if body is None else body, headers=headers)

    def patch(
        self,
        path: str,
        body: Any,  # noqa: ANN401 -- any JSON document
        *,
        idempotency: bool = False,
        if_match: str | None = None,
    ) -> Reply:
        """PATCH with a JSON document."""
        headers = {} if if_match is None else {"If-Match": if_match}
        if idempotency:
            headers["Idempotency-Key"] = random_base62(22)
        return self._send("PATCH", path, body=body, headers=headers)

    def put(self, path: str, body: Any, *, idempotency: bool = False) -> Reply:  # noqa: ANN401 -- any JSON document
        """PUT a JSON document."""
        headers = {"Idempotency-Key": random_base62(22)} if idempotency else {}
        return self._send("PUT", path, body=body, headers=headers)

    def pages(self, path: str, params: Mapping[str, Any] | None = None, *, limit: int | None = None) -> Iterator[Any]:
        """Yield the items of every page, at most `limit`."""
        given = dict(params or {})
        given["limit"] = min(limit or 200, 200)
        left = limit
        while True:
            page = self.get(path, given).json
            for item in page["items"]:
                if left is not None and left <= 0:
                    return
                yield item
                left = None if left is None else left - 1
            if not page.get("next_cursor"):
                return
            given["cursor"] = page["next_cursor"]

    def lines(self, path: str, params: Mapping[str, Any] | None = None) -> Iterator[str]:
        """Yield the lines of a streamed answer."""
        import httpx  # see __init__

        try:
            with self._client.stream("GET", API + path, params=_present(params), headers=self._headers()) as response:
                if response.is_error:
                    response.read()
                    raise _error_of(response)
                yield from response.iter_lines()
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    def _send(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,  # noqa: ANN401 -- any JSON document
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        import httpx  # see __init__

        try:
            response = self._client.request(
                method,
                API + path,
                json=body if method != "GET" else None,
                params=_present(params),
                headers={**self._headers(), **(headers or {})},
            )
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        # A verdict of verify may come with 503 and is still a verdict.
        if response.is_error and not (path == "/verify" and "valid" in _json_of(response)):
            raise _error_of(response)
        return Reply(response.status_code, _json_of(response), response.headers.get("etag"))

    def _headers(self) -> dict[str, str]:
        return {} if self._token is None else {"Authorization": f"Bearer {self._token.reveal()}"}

    def _unreachable(self, error: Exception) -> errors.UnavailableError:
        hint = "start it with `keyturn serve`, or set KEYTURN_URL"
        if self.url.startswith("https:") and "SSL" in str(error):
            hint = "it is reached and does not prove who it is: check KEYTURN_URL and the server's certificate"
        return errors.UnavailableError(
            f"no answer from {self.url}", code="unreachable", hint=hint, internal=type(error).__name__
        )


def open_session() -> Session:
    """Open a session from KEYTURN_URL and KEYTURN_TOKEN, or else from the chosen profile."""
    return Session(*server_and_token())


def server_and_token() -> tuple[str, Secret]:
    """Return the address and token to use; raises UnauthenticatedError when none is set."""
    settings = load_settings()
    if settings.token is not None:
        return settings.url, settings.token
    profile = read_profile(settings.profile or "default")
    if profile is not None:
        return profile.url, profile.token
    if settings.profile:
        message = f"there is no profile {settings.profile!r}"
        raise errors.ConfigError(message, hint=f"make it with `keyturn login --profile {settings.profile}`")
    message = "no management token is set"
    raise errors.UnauthenticatedError(
        message, hint="set KEYTURN_TOKEN_FILE (for example to data/admin-token), or use `keyturn login`"
    )


def _present(params: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if params is None else {name: value for name, value in params.items() if value is not None}


def _json_of(response: httpx.Response) -> Any:  # noqa: ANN401 -- any JSON document
    try:
        return response.json() if response.content else {}
    except ValueError:
        return {}


def _error_of(response: httpx.Response) -> errors.KeyturnError:
    return error_of(response.status_code, response.headers, response.content)


@click.command()
@json_option
def whoami(*, as_json: bool) -> None:
    """Show who the token belongs to and what it may do."""
    answer = open_session().get("/whoami").json
    emit(answer, as_json=as_json, human=describe)


def describe(who: dict[str, Any]) -> str:
    """Lay out who a token belongs to, and the grants it may act by as a table."""
    own = fields(
        {
            "principal": f"{who['name']} ({who['kind']} {who['principal']})",
            "workspace": f"{who['workspace_name']} ({who['workspace']})",
            "token": who["token_id"],
            "scopes": ", ".join(who["scopes"]) or "all that is granted",
            "resources": ", ".join(who["resources"]) or "all that are granted",
        }
    )
    held = [_held(grant, who["principal"]) for grant in who["grants"]]
    return f"{own}\n\n{table(held, 'actions', 'resource', 'when', 'through')}"


def _held(grant: dict[str, Any], principal: str) -> dict[str, Any]:
    conditions = grant.get("conditions") or {}
    given = {name: value for name, value in conditions.items() if value}
    if given.pop("unknown", False):
        given = {"never": "a condition is not known here"}
    shown = (f"{name} {', '.join(value) if isinstance(value, list) else value}" for name, value in given.items())
    return {
        "actions": ", ".join(grant["actions"]),
        "resource": grant["resource"],
        "when": "; ".join(shown) or "always",
        "through": "itself" if grant["subject"] == principal else grant["subject"],
    }


@click.command()
@json_option
def nodes(*, as_json: bool) -> None:
    """List the nodes that verify keys, and how fresh each is."""
    answer = open_session().get("/nodes").json
    emit(answer, as_json=as_json, human=lambda a: table(a["items"], "id", "kind", "label", "applied", "confirmed_at"))
