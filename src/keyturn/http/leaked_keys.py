"""What whoever has come upon a key may do without a token: ask whether it is one of ours, and report it.

    /api/v1/leaked-keys/check, /report     for programs
    /leaked-key                            the same as a page: one form, no script, nothing from elsewhere

The key travels in a body, never in an address, and the page does not show it again.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs

from litestar import MediaType, Response, get, post
from litestar.params import JSONBody

from keyturn.errors import InputError, KeyturnError, UnsupportedError
from keyturn.http.documents import hash_of
from keyturn.http.edge import EdgeSettings, Given, StrictRequest, scope_request_id
from keyturn.http.peer import client_ip
from keyturn.http.problems import Problem, headers_of, log_failure, problem_of
from keyturn.kernel.secret import Secret
from keyturn.leaks.possession import PossessionService
from keyturn.wire.leak_intakes import ShowKey, ShownKey

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jinja2 import Template

PAGE: Final = "/leaked-key"
KEY_CHARACTERS_MAX: Final = 4096
WHERE_CHARACTERS_MAX: Final = 2048
_FOLDER: Final = Path(__file__).parent
_FORM: Final = "application/x-www-form-urlencoded"


@post("/api/v1/leaked-keys/check", operation_id="checkLeakedKey", tags=["leaks"], status_code=200)
async def check(request: StrictRequest, data: JSONBody[ShowKey], possession: Given[PossessionService]) -> ShownKey:
    """Tell whether a key is one of ours, and works; changes nothing.

    Needs no bearer token: to hold the key is proof enough.
    """
    return await possession.check(Secret(data.key), ip=_ip(request))


@post("/api/v1/leaked-keys/report", operation_id="reportLeakedKey", tags=["leaks"], status_code=200)
async def report(request: StrictRequest, data: JSONBody[ShowKey], possession: Given[PossessionService]) -> ShownKey:
    """Report a key that leaked; unless a leak policy of its owners says otherwise, it is revoked.

    Needs no bearer token: to hold the key is proof enough.
    """
    return await possession.report(Secret(data.key), where=data.where, ip=_ip(request))


@get(PAGE, operation_id="leakedKeyPage", tags=["documents"], media_type=MediaType.HTML)
async def page(possession: Given[PossessionService]) -> Response[bytes]:
    """Ask, as a page, whether a key is one of ours, and report it."""
    possession.require_open()
    return _answer(200)


@post(PAGE, operation_id="leakedKeyForm", tags=["documents"], status_code=200, media_type=MediaType.HTML)
async def form(request: StrictRequest, raw_body: Given[bytes], possession: Given[PossessionService]) -> Response[bytes]:
    """Take the form of the page."""
    try:
        key, where, asked = _read(request, raw_body)
        if asked == "report":
            shown = await possession.report(key, where=where, ip=_ip(request))
        else:
            shown = await possession.check(key, ip=_ip(request))
    except KeyturnError as error:
        return _refuse(request, error)
    return _answer(200, shown=shown, asked=asked)


def _read(request: StrictRequest, body: bytes) -> tuple[Secret, str, str]:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM:
        raise UnsupportedError(f"expected a form, {_FORM}")
    try:
        fields = parse_qs(body.decode(), strict_parsing=True, keep_blank_values=True, max_num_fields=8)
    except ValueError:
        raise InputError("the form is malformed", field="body") from None
    key = fields.get("key", [""])[0].strip()
    where = "".join(c for c in fields.get("where", [""])[0] if c.isprintable())[:WHERE_CHARACTERS_MAX]
    asked = fields.get("do", ["check"])[0]
    if not 0 < len(key) <= KEY_CHARACTERS_MAX:
        raise InputError(f"expected a key of 1 to {KEY_CHARACTERS_MAX} characters", field="key")
    return Secret(key), where, asked


def _refuse(request: StrictRequest, error: KeyturnError) -> Response[bytes]:
    """Answer whoever filled in the form with the form, and the same status and sentence that a program gets."""
    instance = scope_request_id(request.scope)
    log_failure(error, instance, method=request.method, path=PAGE)
    problem = problem_of(error, instance)
    return _answer(problem.status, problem=problem, headers=headers_of(error))


def _answer(
    status: int,
    *,
    shown: ShownKey | None = None,
    asked: str = "",
    problem: Problem | None = None,
    headers: Mapping[str, str] = MappingProxyType({}),
) -> Response[bytes]:
    style = _style()
    policy = (
        f"default-src 'none'; style-src '{hash_of(style)}'; img-src data:; base-uri 'none'; "
        "form-action 'self'; frame-ancestors 'none'"
    )
    content = _template().render(style=style, shown=shown, asked=asked, problem=problem, action=PAGE)
    return Response(
        content.encode(),
        status_code=status,
        media_type=MediaType.HTML,
        headers={**headers, "Content-Security-Policy": policy, "Cache-Control": "no-store"},
    )


@cache
def _style() -> str:
    return (_FOLDER / "leaked_key.css").read_text("utf-8")


@cache
def _template() -> Template:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    return environment.get_template("leaked_key.html")


def _ip(request: StrictRequest) -> str | None:
    edge: EdgeSettings = request.app.state.edge
    return client_ip(request.scope, edge.trusted_proxies)


OPEN_ROUTES = (check, report, page, form)
