"""What the OpenAPI document says about the operations for gateways, which are no routes of the JSON API."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from keyturn.http.identity import IDENTITY_HEADERS
from keyturn.http.problems import MEDIA_TYPE, Problem
from keyturn.wire.introspection import Introspection, IntrospectionForm, OAuthError
from keyturn.wire.verification import COST_MAX

Json = dict[str, Any]

TYPES: Final[tuple[Any, ...]] = (Introspection, IntrospectionForm, OAuthError)
SECURITY_SCHEMES: Final[Json] = {
    "gateway": {
        "type": "apiKey",
        "in": "header",
        "name": "X-Keyturn-Token",
        "description": "The management token of a gateway.",
    },
    "basic": {"type": "http", "scheme": "basic", "description": "Any user; a management token as password."},
}
_REF: Final = "#/components/schemas/{name}"
_TEXT: Final[Json] = {"type": "string"}
_OPTIONS: Final[tuple[tuple[str, Json, str], ...]] = (
    ("basic", {"enum": ["username", "password"]}, "Take the key from Basic credentials too."),
    ("cost", {"type": "integer", "minimum": 0, "maximum": COST_MAX, "default": 1}, "What is charged."),
    ("header", _TEXT, "Where the key stands, instead of Authorization and X-API-Key."),
    ("keyspace", _TEXT, "Accept keys of this keyspace only, by name or id."),
    ("scopes", _TEXT, "What the request needs: a scope query, or names with spaces between them."),
)


def gateway_paths() -> dict[str, Json]:
    """Return the paths with their operations."""
    return {
        "/auth/nginx": {"get": _forward_auth("nginx", "nginx", ("X-Original-Method", "X-Original-URI"))},
        "/auth/traefik": {"get": _forward_auth("traefik", "Traefik and Caddy", _FORWARDED)},
        "/auth/envoy/{path}": {"get": _envoy()},
        "/oauth/introspect": {"post": _introspection()},
    }


_FORWARDED: Final = ("X-Forwarded-Method", "X-Forwarded-Uri")
_PASSED: Final = (
    "Answers 200 with identity headers, or the refusal that the client gets; 401 and 403 are always about the key."
)
_NGINX: Final = (
    "auth_request hands on nothing but 401 and 403, so 403 stands for all else, with the true status in "
    "`X-Keyturn-Status` and the body in `X-Keyturn-Problem`."
)


def _forward_auth(name: str, shown: str, original: tuple[str, ...]) -> Json:
    parameters = [_parameter("query", option, said, schema) for option, schema, said in _OPTIONS]
    told = [_parameter("header", header, "Of the original request.") for header in (*original, "X-Forwarded-For")]
    return {
        "operationId": f"{name}ForwardAuth",
        "summary": f"Answer {shown} whether a request may pass",
        "description": f"Any method will do, and a body is not read.  {_NGINX if name == 'nginx' else _PASSED}",
        "tags": ["gateways"],
        "security": [{"gateway": []}],
        "parameters": [*parameters, *told],
        "responses": _answers((401, 403) if name == "nginx" else (401, 403, 429, 503)),
    }


def _parameter(where: str, name: str, description: str, schema: Json = _TEXT) -> Json:
    required = where == "path"
    return {"name": name, "in": where, "required": required, "schema": schema, "description": description}


def _envoy() -> Json:
    operation = _forward_auth("envoy", "Envoy", ())
    operation["description"] = (
        f"The method and the path behind the prefix are those of the original request.  {_PASSED}"
    )
    options = _parameter("header", "X-Keyturn-Options", "Options, as a query string.")
    path = _parameter("path", "path", "The original path.")
    kept = [one for one in operation["parameters"] if one["in"] == "header"]
    operation["parameters"] = [path, options, *kept]
    return operation


def _answers(refusals: tuple[int, ...]) -> Json:
    identity = {name: {"schema": _TEXT} for name in IDENTITY_HEADERS}
    refused = {
        "description": "Refused.",
        "headers": {"X-Keyturn-Status": {"schema": {"type": "integer"}}, "X-Keyturn-Code": {"schema": _TEXT}},
        "content": {MEDIA_TYPE: {"schema": {"$ref": _REF.format(name=Problem.__name__)}}},
    }
    return {
        "200": {"description": "The request may pass.", "headers": identity},
        **{str(status): refused for status in refusals},
    }


def _introspection() -> Json:
    (form, answer, error), _ = msgspec.json.schema_components(
        [IntrospectionForm, Introspection, OAuthError], ref_template=_REF
    )
    refused = {"description": "An error of RFC 6749.", "content": {"application/json": {"schema": error}}}
    return {
        "operationId": "introspect",
        "summary": "Introspect a token",
        "description": (
            "RFC 7662 over issued keys.  An introspection is a verification: it counts as use and charges limits.  "
            "Whatever refuses a key makes it inactive."
        ),
        "tags": ["gateways"],
        "security": [{"bearer": []}, {"basic": []}],
        "requestBody": {
            "required": True,
            "content": {"application/x-www-form-urlencoded": {"schema": form}},
        },
        "responses": {
            "200": {"description": "Done.", "content": {"application/json": {"schema": answer}}},
            **{str(status): refused for status in (400, 401, 413, 429, 503)},
        },
    }
