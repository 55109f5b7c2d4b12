"""The OpenAPI 3.1 document, built from the routes themselves.

Bodies and answers are the schemas of their wire types; every 4xx and 5xx is one `Problem`.  The verify lane and the
operations for gateways, which are no routes of the JSON API, are described by hand beside them.
"""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Annotated, Any, Final, cast, get_args, get_origin

import msgspec
from litestar import MediaType, Response
from litestar.params import ParameterKwarg
from litestar.response import Stream

from keyturn import __version__
from keyturn.http import openapi_gateways
from keyturn.http.edge import require_bearer
from keyturn.http.parameters import declared_parameters
from keyturn.http.problems import MEDIA_TYPE, Problem
from keyturn.wire.verification import VerifyRequest, VerifyResponse

if TYPE_CHECKING:
    from litestar import Litestar
    from litestar.handlers import HTTPRouteHandler
    from litestar.typing import FieldDefinition

Json = dict[str, Any]

PATH: Final = "/api/v1/openapi.json"
_REF: Final = "#/components/schemas/{name}"
_REFUSALS: Final = (400, 401, 403, 404, 410, 429, 503)
_WRITE_REFUSALS: Final = (409, 412, 413, 415, 422)
_WRITING: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_TYPED: Final = re.compile(r"\{(\w+):\w+\}")
_META: Final = {"ge": "ge", "gt": "gt", "le": "le", "lt": "lt", "min_length": "min_length", "max_length": "max_length"}
_DESCRIPTION: Final = (
    "Issue and verify API keys, and hold those of others.  Authenticate with a management token as bearer token.  "
    "Errors are RFC 9457 problem details with a stable `code`.  Times are RFC 3339 in UTC; durations are in seconds."
)


def build_document(app: Litestar) -> Json:
    """Build the document of an application."""
    types: list[Any] = [Problem, VerifyRequest, VerifyResponse]
    paths: dict[str, Json] = {}
    for route in app.routes:
        for handler in getattr(route, "route_handlers", ()):
            if getattr(handler, "operation_id", None) is None or not handler.resolve_include_in_schema():
                continue
            path = _TYPED.sub(r"{\1}", route.path)
            for method in sorted(set(handler.http_methods) - {"OPTIONS", "HEAD"}):
                paths.setdefault(path, {})[method.lower()] = _operation(handler, method, types)
    types += openapi_gateways.TYPES
    paths |= openapi_gateways.gateway_paths()
    paths["/api/v1/verify"] = {"post": _verify_operation()}
    _, components = msgspec.json.schema_components(_unique(types), ref_template=_REF)
    document = {
        "openapi": "3.1.0",
        "info": {"title": "Keyturn", "version": __version__, "description": _DESCRIPTION},
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}],
        "tags": _tags(paths),
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": dict(sorted(components.items())),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "A management token."},
                **openapi_gateways.SECURITY_SCHEMES,
            },
            "responses": _problem_responses(),
        },
    }
    # Through JSON once: defaults are tuples and structs until then.
    return cast("Json", msgspec.json.decode(msgspec.json.encode(document)))


def _operation(handler: HTTPRouteHandler, method: str, types: list[Any]) -> Json:
    protected = require_bearer in handler.resolve_guards()
    summary, _, description = (inspect.getdoc(handler.fn) or "").partition("\n")
    operation: Json = {
        "operationId": handler.operation_id,
        "summary": summary.rstrip("."),
        "tags": sorted(handler.resolve_tags()) or ["other"],
        "parameters": _parameters(handler),
        "responses": {
            str(handler.status_code): _answer(handler, types),
            **_refusals(method, protected=protected, form=handler.media_type == MediaType.HTML),
            **_further_answers(handler, types),
        },
    }
    if description.strip():
        operation["description"] = description.strip()
    if not protected:
        operation["security"] = []
    if not operation["parameters"]:
        del operation["parameters"]
    if (data := handler.parsed_data_field) is not None:
        types.append(data.annotation)
        operation["requestBody"] = {
            "required": not data.has_default,
            "content": {"application/json": {"schema": _schema(data.annotation)}},
        }
    return operation


def _answer(handler: HTTPRouteHandler, types: list[Any]) -> Json:
    returned = handler.parsed_fn_signature.return_type.annotation
    headers: Json = {}
    if get_origin(returned) is Response:
        (returned,) = get_args(returned)
        headers = {"ETag": {"description": "The revision, as a strong tag.", "schema": {"type": "string"}}}
    found: Json = {"description": "Done."}
    if returned is None or returned is type(None):
        return found
    if returned in {bytes, str, Response, Stream}:
        media = handler.media_type or "application/octet-stream"
        found["content"] = {str(getattr(media, "value", media)): {"schema": {"type": "string"}}}
        return found
    if inspect.isclass(returned) and issubclass(returned, msgspec.Struct) and "revision" in returned.__struct_fields__:
        found["headers"] = headers
    types.append(returned)
    found["content"] = {"application/json": {"schema": _schema(returned)}}
    return {name: value for name, value in found.items() if value}


def _further_answers(handler: HTTPRouteHandler, types: list[Any]) -> Json:
    found: Json = {}
    for status, answer in (handler.responses or {}).items():
        types.append(answer.data_container)
        content = {"application/json": {"schema": _schema(answer.data_container)}}
        found[str(status)] = {"description": answer.description, "content": content}
    return found


def _refusals(method: str, *, protected: bool, form: bool) -> Json:
    if not protected and method not in _WRITING:
        return {"503": {"$ref": "#/components/responses/Problem"}, "400": {"$ref": "#/components/responses/Problem"}}
    statuses = sorted((*_REFUSALS, *(_WRITE_REFUSALS if method in _WRITING else ())))
    response = "FormProblem" if form else "Problem"
    return {str(status): {"$ref": f"#/components/responses/{response}"} for status in statuses}


def _problem_responses() -> Json:
    problem = {MEDIA_TYPE: {"schema": {"$ref": _REF.format(name="Problem")}}}
    return {
        "Problem": {
            "description": "Refused, or failed: the problem says why, and what to do next.",
            "content": problem,
        },
        "FormProblem": {
            "description": "Refused, or failed: the page says why, or a problem where the form was not read.",
            "content": {**problem, "text/html": {"schema": {"type": "string"}}},
        },
    }


def _parameters(handler: HTTPRouteHandler) -> list[Json]:
    found: dict[tuple[str, str], Json] = {}
    for parameter in declared_parameters(handler):
        kwarg = parameter.kwarg_definition
        if isinstance(kwarg, ParameterKwarg):
            described = _parameter(parameter, kwarg)
            found[described["in"], described["name"]] = described
    return sorted(found.values(), key=lambda one: (_ORDER[one["in"]], one["name"]))


_ORDER: Final = {"path": 0, "query": 1, "header": 2, "cookie": 3}


def _parameter(parameter: FieldDefinition, kwarg: ParameterKwarg) -> Json:
    where = kwarg.param_type.value
    required = where == "path" or not (parameter.has_default or parameter.is_optional)
    described: Json = {"name": kwarg.name or parameter.name, "in": where, "required": required}
    if kwarg.description:
        described["description"] = kwarg.description
    described["schema"] = _parameter_schema(parameter, kwarg)
    return described


def _parameter_schema(parameter: FieldDefinition, kwarg: ParameterKwarg) -> Json:
    annotation: Any = parameter.annotation
    if parameter.is_optional:
        (annotation, *_) = [one for one in get_args(annotation) if one is not type(None)]
    bounds = {ours: value for theirs, ours in _META.items() if (value := getattr(kwarg, theirs)) is not None}
    if kwarg.pattern is not None:
        bounds["pattern"] = kwarg.pattern
    if bounds:
        annotation = Annotated[annotation, msgspec.Meta(**bounds)]
    schema: Json = msgspec.json.schema(annotation)
    while "$ref" in schema:
        schema = schema["$defs"][schema["$ref"].rpartition("/")[2]]
    if parameter.has_default and parameter.default is not None:
        schema["default"] = msgspec.to_builtins(parameter.default)
    return {**schema, **(kwarg.schema_extra or {})}


def _schema(annotation: Any) -> Json:  # noqa: ANN401 -- any wire type
    (schema,), _ = msgspec.json.schema_components([annotation], ref_template=_REF)
    return schema


def _verify_operation() -> Json:
    verdict = {"application/json": {"schema": _schema(VerifyResponse)}}
    refusals = {str(status): {"$ref": "#/components/responses/Problem"} for status in (400, 401, 403, 413, 415, 429)}
    return {
        "operationId": "verify",
        "summary": "Verify a presented key",
        "description": (
            "Answers 200 with `valid` and a `code` for every key that could be judged, valid or not; an unknown code "
            "means deny.  503 with `valid: false` and code `UNAVAILABLE` when this node may not judge now."
        ),
        "tags": ["verify"],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _schema(VerifyRequest)}},
        },
        "responses": {
            "200": {"description": "The verdict.", "content": verdict},
            **refusals,
            "503": {
                "description": "No verdict now: deny, and try again.",
                "content": {**verdict, MEDIA_TYPE: {"schema": {"$ref": _REF.format(name="Problem")}}},
            },
        },
    }


def _unique(types: list[Any]) -> list[Any]:
    found: list[Any] = []
    for one in types:
        if one not in found:
            found.append(one)
    return found


def _tags(paths: dict[str, Json]) -> list[Json]:
    names = {tag for operations in paths.values() for operation in operations.values() for tag in operation["tags"]}
    return [{"name": name} for name in sorted(names)]
