"""The OpenAPI document and the page that shows it: own markup and style, no script, nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
from litestar import MediaType, Response, get
from litestar.response import Redirect

from keyturn.http.edge import StrictRequest
from keyturn.http.openapi import PATH, build_document
from keyturn.http.patterns import in_words

if TYPE_CHECKING:
    from collections.abc import Iterable

    from litestar import Litestar

_CODE: Final = re.compile(r"`([^`]+)`")
_FOLDER: Final = Path(__file__).parent


@get(PATH, operation_id="openapi", tags=["documents"])
async def openapi(request: StrictRequest) -> Response[bytes]:
    """Describe this API as OpenAPI 3.1."""
    encoded = msgspec.json.encode(_document(request.app))
    return Response(encoded, media_type=MediaType.JSON, headers={"Cache-Control": "no-cache"})


@get("/docs", operation_id="docs", tags=["documents"], media_type=MediaType.HTML)
async def docs(request: StrictRequest) -> Response[bytes]:
    """Describe this API as a page to read."""
    style = _style()
    policy = f"default-src 'none'; style-src '{hash_of(style)}'; img-src data:; base-uri 'none'; frame-ancestors 'none'"
    headers = {"Content-Security-Policy": policy, "Cache-Control": "no-cache"}
    return Response(_page(request.app, style), media_type=MediaType.HTML, headers=headers)


@get("/", operation_id="start", include_in_schema=False, status_code=307)
async def start() -> Redirect:
    """Lead whoever opens the address of the server in a browser to something to read."""
    return Redirect("/docs")


ROUTES = (openapi, docs, start)


@cache
def _document(app: Litestar) -> dict[str, Any]:
    return build_document(app)


@cache
def _style() -> str:
    return (_FOLDER / "docs.css").read_text("utf-8")


def hash_of(style: str) -> str:
    """Return the source expression by which a policy allows exactly this style."""
    return "sha256-" + base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii")


@cache
def _page(app: Litestar, style: str) -> bytes:
    # Imported here: nothing else needs it, and most servers never show the page.
    import jinja2
    from markupsafe import Markup, escape

    def with_code(text: str) -> Markup:
        """Show what stands between backticks as code."""
        return Markup(_CODE.sub(r"<code>\1</code>", str(escape(text))))  # noqa: S704 -- escaped before

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    environment.filters["type_of"] = type_of
    environment.filters["without_ref"] = without_ref
    environment.filters["with_code"] = with_code
    environment.filters["has_meaning"] = has_meaning
    document = _document(app)
    page = environment.get_template("docs.html").render(document=document, style=style, groups=_groups(document))
    return page.encode()


def _groups(document: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            group = groups.setdefault(operation["tags"][0], [])
            group.append({"path": path, "method": method.upper(), **operation})
    return dict(sorted(groups.items()))


def without_ref(schema: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    """Return the schema a `$ref` names."""
    if "$ref" not in schema:
        return schema
    found: dict[str, Any] = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return found


def has_meaning(described: Iterable[dict[str, Any]]) -> bool:
    """Tell whether there is anything to say about fields or parameters but their types."""
    return any(one.get("description") or one.get("default") is not None for one in described)


def type_of(schema: dict[str, Any]) -> str:
    """Say what a schema accepts, in a few words."""
    if "$ref" in schema:
        return str(schema["$ref"].rpartition("/")[2])
    if "anyOf" in schema:
        return " or ".join(type_of(one) for one in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(f'"{one}"' for one in schema["enum"])
    kind = str(schema.get("type", "any"))
    if kind == "array":
        return f"list of {type_of(schema.get('items', {}))}"
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"map of {type_of(schema['additionalProperties'])}"
    bounds = [f"{_BOUNDS[name]} {schema[name]}" for name in _BOUNDS if name in schema]
    if "pattern" in schema:
        # As people write it: the end of our patterns refuses a newline, which `$` alone would not.
        bounds.append(in_words(schema["pattern"]) or "matching " + schema["pattern"].replace(r"(?!\n)$", "$"))
    return ", ".join([schema.get("format", kind), *bounds])


_BOUNDS: Final = {
    "minimum": "≥",
    "exclusiveMinimum": ">",
    "maximum": "≤",
    "minLength": "length ≥",
    "maxLength": "length ≤",
}
