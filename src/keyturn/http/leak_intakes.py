"""Routes of leak intakes, and of what reporters outside send to them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from litestar import get, patch, post
from litestar.params import FromPath, JSONBody

from keyturn.access.caller import Credentials
from keyturn.http.edge import EdgeSettings, Given, Page, StrictRequest, Tagged, tagged
from keyturn.http.peer import client_ip, header
from keyturn.leaks.intakes import REPORTS_PATH, IntakeService
from keyturn.leaks.partner import IDENTIFIER_HEADER, SIGNATURE_HEADER, Feedback
from keyturn.leaks.reporters import Reporters
from keyturn.wire.keys import Empty
from keyturn.wire.leak_intakes import (
    CreateLeakIntake,
    LeakIntakeInfo,
    LeakIntakePage,
    PartnerReport,
    UpdateLeakIntake,
)

if TYPE_CHECKING:
    from keyturn.http.peer import RawHeaders

NOTHING = Empty()

_INTAKES = "/api/v1/leak-intakes"
_INTAKE = _INTAKES + "/{name:str}"


@post(_INTAKES, operation_id="createLeakIntake", tags=["leaks"])
async def create_intake(
    data: JSONBody[CreateLeakIntake],
    credentials: Given[Credentials],
    leak_intakes: Given[IntakeService],
    idempotency: Given[str | None],
) -> Tagged[LeakIntakeInfo]:
    """Let somebody outside report leaks, by GitHub's secret-scanning partner protocol."""
    made = await leak_intakes.create(credentials, data, idempotency=idempotency)
    return tagged(made, made.revision)


@get(_INTAKES, operation_id="listLeakIntakes", tags=["leaks"])
async def list_intakes(
    credentials: Given[Credentials], leak_intakes: Given[IntakeService], page: Given[Page]
) -> LeakIntakePage:
    """List leak intakes, oldest first."""
    return await leak_intakes.list(credentials, cursor=page.cursor, limit=page.limit)


@get(_INTAKE, operation_id="readLeakIntake", tags=["leaks"])
async def read_intake(
    name: FromPath[str], credentials: Given[Credentials], leak_intakes: Given[IntakeService]
) -> Tagged[LeakIntakeInfo]:
    """Show a leak intake and the address that its reports are posted to."""
    found = await leak_intakes.show(credentials, name)
    return tagged(found, found.revision)


@patch(_INTAKE, operation_id="updateLeakIntake", tags=["leaks"])
async def update_intake(
    name: FromPath[str],
    data: JSONBody[UpdateLeakIntake],
    credentials: Given[Credentials],
    leak_intakes: Given[IntakeService],
    if_match: Given[int | None],
) -> Tagged[LeakIntakeInfo]:
    """Change the keys of a leak intake, or switch it off and on."""
    changed = await leak_intakes.update(credentials, name, data, if_match=if_match)
    return tagged(changed, changed.revision)


@post(_INTAKE + "/delete", operation_id="deleteLeakIntake", tags=["leaks"], status_code=200)
async def delete_intake(
    name: FromPath[str],
    credentials: Given[Credentials],
    leak_intakes: Given[IntakeService],
    if_match: Given[int | None],
    data: JSONBody[Empty] = NOTHING,  # noqa: ARG001 -- refuses a body that is not an empty object
) -> LeakIntakeInfo:
    """Delete a leak intake; its address takes no reports any more."""
    return await leak_intakes.delete(credentials, name, if_match=if_match)


@post(REPORTS_PATH + "/{workspace:str}/{name:str}", operation_id="reportLeaks", tags=["leaks"], status_code=200)
async def report(
    workspace: FromPath[str],
    name: FromPath[str],
    request: StrictRequest,
    data: JSONBody[tuple[PartnerReport, ...]],  # noqa: ARG001 -- what is proven is the body as it came
    raw_body: Given[bytes],
    leak_reporters: Given[Reporters],
) -> list[Feedback]:
    """Report leaked tokens, signed (GitHub's secret-scanning partner protocol).

    Needs no bearer token: `Github-Public-Key-Identifier` names a key of the intake, and `Github-Public-Key-Signature`
    is an ECDSA P-256 signature with SHA-256 over the body.  The answer says of each token whether it was a key here.
    """
    edge: EdgeSettings = request.app.state.edge
    headers = request.scope["headers"]
    return await leak_reporters.receive(
        workspace,
        name,
        raw_body,
        identifier=_text(headers, IDENTIFIER_HEADER),
        signature=_text(headers, SIGNATURE_HEADER),
        ip=client_ip(request.scope, edge.trusted_proxies),
    )


def _text(headers: RawHeaders, name: str) -> str | None:
    found = header(headers, name.encode())
    return None if found is None else found.decode("latin-1")


ROUTES = (create_intake, list_intakes, read_intake, update_intake, delete_intake)
OPEN_ROUTES = (report,)
