"""Token introspection (RFC 7662): for gateways and servers that speak it, with no plugin.

    Authorization: Bearer <management token>, or Basic with any user and the token as password
    form: token=<presented key>  ->  {"active": true, "scope": …, "sub": …} | {"active": false}

An introspection is a verification: it counts as use, and charges limits and quotas.  Whatever refuses a key makes it
inactive, and nothing is said about why.  Where the request comes from and what it is for is not told, so a key that
is restricted to networks, origins or paths is inactive here.  Errors are those of RFC 6749.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from typing import Any, Final
from urllib.parse import unquote_plus, unquote_to_bytes

import msgspec
from litestar import Response, post

from keyturn.access.caller import Credentials
from keyturn.errors import InputError, KeyturnError, UnauthenticatedError
from keyturn.http import problems
from keyturn.http.edge import EdgeSettings, Given, StrictRequest, scope_request_id
from keyturn.http.peer import bearer_token, client_ip
from keyturn.kernel.clock import parse_rfc3339
from keyturn.kernel.secret import Secret
from keyturn.keys.verification import VerifyService
from keyturn.wire.introspection import Introspection, IntrospectionForm, OAuthError
from keyturn.wire.ratelimit_fields import fields
from keyturn.wire.verification import Code, VerifyRequest, VerifyResponse

PATH: Final = "/oauth/introspect"
FORM_TYPE: Final = "application/x-www-form-urlencoded"
FORM_BYTES_MAX: Final = 16 * 1024
_FORM: Final = re.compile(rb"(?:[A-Za-z0-9*\-._+~!'()&=/:@,;$?]|%[0-9A-Fa-f]{2})*")
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/=-]{1,512}")
_CHALLENGE: Final = 'Bearer realm="keyturn", Basic realm="keyturn"'


@post(PATH, status_code=200, include_in_schema=False, request_max_body_size=FORM_BYTES_MAX)
async def introspect(request: StrictRequest, verification: Given[VerifyService]) -> Response[bytes]:
    """Introspect a token."""
    try:
        form = _form(request.headers.get("content-type", ""), await request.body())
        edge: EdgeSettings = request.app.state.edge
        ip = client_ip(request.scope, edge.trusted_proxies)
        credentials = Credentials(_management_token(request.scope), ip, scope_request_id(request.scope))
        answer = await verification.verify(credentials, VerifyRequest(key=form.token, cost=form.cost))
    except KeyturnError as error:
        return _refusal(request, error)
    if answer.code == Code.UNAVAILABLE:
        return _error(503, "temporarily_unavailable", "no verdict now; try again", {"Retry-After": "1"})
    return _response(200, _introspection(answer), dict(fields(answer)))


ROUTES = (introspect,)


def _introspection(answer: VerifyResponse) -> Introspection:
    if not answer.valid:
        return Introspection(active=False)
    return Introspection(
        active=True,
        scope=" ".join(answer.scopes or ()) or None,
        client_id=answer.key_id,
        username=answer.owner,
        token_type="api_key",  # noqa: S106 -- a kind of token, not one
        exp=None if answer.expires_at is None else math.floor(parse_rfc3339(answer.expires_at)),
        sub=answer.owner,
        jti=answer.version_id,
        keyspace=answer.keyspace,
        environment=answer.environment,
        plan=answer.plan,
    )


def _form(content_type: str, body: bytes) -> IntrospectionForm:
    """Read the form strictly; raises InputError."""
    essence, _, parameters = content_type.lower().partition(";")
    if essence.strip() != FORM_TYPE or parameters.replace(" ", "") not in {"", "charset=utf-8"}:
        raise InputError(f"the body has to be {FORM_TYPE} in UTF-8")
    if not _FORM.fullmatch(body):
        raise InputError("the body is not a well-formed form")
    given: dict[str, str] = {}
    for pair in body.split(b"&") if body else []:
        name, equals, value = pair.partition(b"=")
        key = _decoded(name)
        if not equals or not key:
            raise InputError("the body is not a well-formed form")
        if key in given:
            raise InputError("a parameter is given more than once")
        given[key] = _decoded(value)
    known = {name: given[name] for name in IntrospectionForm.__struct_fields__ if name in given}
    try:
        return msgspec.convert(known, IntrospectionForm, strict=False)
    except msgspec.ValidationError:
        raise InputError("token is missing, or a parameter has a value that it cannot have") from None


def _decoded(text: bytes) -> str:
    try:
        decoded = unquote_to_bytes(text.replace(b"+", b" ")).decode("utf-8")
    except UnicodeDecodeError:
        raise InputError("the body is not UTF-8") from None
    if "\0" in decoded:
        raise InputError("the body holds the character NUL")
    return decoded


def _management_token(scope: Any) -> Secret:  # noqa: ANN401 -- an ASGI scope
    """Return the caller's token, from Bearer or Basic; raises UnauthenticatedError."""
    given = [value for name, value in scope["headers"] if name == b"authorization"]
    if len(given) != 1 or given[0][:6].lower() != b"basic ":
        return bearer_token(scope["headers"])
    try:
        pair = base64.b64decode(given[0][6:].strip(), validate=True).decode("utf-8")
    except (binascii.Error, ValueError):
        pair = ""
    # RFC 6749 has both halves encoded as in a form; the characters of a token are not changed by that.
    password = unquote_plus(pair.partition(":")[2])
    if not _TOKEN.fullmatch(password):
        raise UnauthenticatedError("the Authorization header does not hold a management token as password")
    return Secret(password)


def _refusal(request: StrictRequest, error: KeyturnError) -> Response[bytes]:
    instance = scope_request_id(request.scope)
    problems.log_failure(error, instance, method="POST", path=PATH)
    if isinstance(error, UnauthenticatedError):
        return _error(401, "invalid_client", "a valid management token is needed", {"WWW-Authenticate": _CHALLENGE})
    problem = problems.problem_of(error, instance)
    headers = problems.headers_of(error)
    if problem.status >= 500:
        return _error(problem.status, "temporarily_unavailable", "no verdict now; try again", headers)
    if problem.status == 429:
        return _error(429, "temporarily_unavailable", problem.detail, headers)
    return _error(problem.status if problem.status == 413 else 400, "invalid_request", problem.detail, headers)


def _error(status: int, code: str, description: str, headers: dict[str, str]) -> Response[bytes]:
    # RFC 6749 allows few characters in a description.
    shown = "".join(one for one in description if one.isascii() and one.isprintable() and one not in '"\\')
    return _response(status, OAuthError(error=code, error_description=shown), headers)


def _response(status: int, value: msgspec.Struct, headers: dict[str, str]) -> Response[bytes]:
    kept = {"Cache-Control": "no-store", "Pragma": "no-cache", **headers}
    return Response(msgspec.json.encode(value), status_code=status, media_type="application/json", headers=kept)
