"""Routes of what lets values out, and of who has received them.

A value is read by `keyturn.http.secret_lane`, which the gate puts in front of the route here: the route is what the
OpenAPI document describes, and what answers HEAD.
"""

from __future__ import annotations

from typing import Annotated

from litestar import Response, get
from litestar.params import FromPath, QueryParameter

from keyturn.access.caller import Credentials
from keyturn.http.edge import Given, StrictRequest
from keyturn.http.secrets import path_of
from keyturn.vault.reading import SecretReader
from keyturn.wire.secrets import PATH_CHARACTERS_MAX, ReuseReport, SecretNews, SecretReaders, SecretValue

NUMBER_MAX = 2**31 - 1
NEWS_PATHS_MAX = 200
WAIT_SECONDS_MAX = 10


@get("/api/v1/secrets/{path:path}", operation_id="readSecret", tags=["secrets"])
async def read_secret(
    path: FromPath[str],
    request: StrictRequest,
    credentials: Given[Credentials],
    secret_reader: Given[SecretReader],
    version: Annotated[
        int | None, QueryParameter(ge=1, le=NUMBER_MAX, description="Its number; by default the current version.")
    ] = None,
    sequence: Annotated[
        int | None,
        QueryParameter(ge=1, le=NUMBER_MAX, description="Its sequence, by which a pending version is named."),
    ] = None,
    resolve: Annotated[  # noqa: FBT002 -- given by name, in the query
        bool, QueryParameter(description="Whether references are replaced by what they name.")
    ] = True,
) -> Response[SecretValue]:
    """Read what a secret holds.

    Every access is on record before the answer leaves, denied ones too.  A person needs `secret.reveal`, a service or
    agent `secret.read`.  404 with code `version_deleted` or `version_destroyed` for a version that was there.
    """
    found = await secret_reader.read(
        credentials,
        path_of(request, path),
        version=version,
        sequence=sequence,
        resolve=resolve,
        user_agent=request.headers.get("user-agent"),
    )
    return Response(found, headers={"Cache-Control": "no-store"})


@get("/api/v1/secret-readers/{path:path}", operation_id="listSecretReaders", tags=["secrets"])
async def list_readers(
    path: FromPath[str], request: StrictRequest, credentials: Given[Credentials], secret_reader: Given[SecretReader]
) -> SecretReaders:
    """List who has received which version of a secret.

    `laggards` are the consumers that have not received the current one.
    """
    return await secret_reader.readers(credentials, path_of(request, path))


@get("/api/v1/secret-reuse", operation_id="reportSecretReuse", tags=["secrets"])
async def report_reuse(
    credentials: Given[Credentials],
    secret_reader: Given[SecretReader],
    prefix: Annotated[
        str, QueryParameter(max_length=PATH_CHARACTERS_MAX, description="Only secrets below this folder.")
    ] = "",
) -> ReuseReport:
    """Report values that are held at more than one path.

    No value is shown.  Only texts of at least 8 characters count, and secrets that the caller may list.
    """
    return await secret_reader.reuse(credentials, prefix=prefix)


@get("/api/v1/secret-news", operation_id="awaitSecretNews", tags=["secrets"])
async def await_news(
    credentials: Given[Credentials],
    secret_reader: Given[SecretReader],
    paths: Annotated[
        list[str],
        QueryParameter(
            name="path",
            min_items=1,
            max_items=NEWS_PATHS_MAX,
            description="A path to watch; given once for each.",
        ),
    ],
    cursor: Annotated[str | None, QueryParameter(max_length=128, description="`cursor` of the answer before.")] = None,
    wait_seconds: Annotated[
        float, QueryParameter(ge=0, le=WAIT_SECONDS_MAX, description="How long to wait for news.")
    ] = float(WAIT_SECONDS_MAX),
) -> SecretNews:
    """Wait until a secret may have another value.

    The answer names paths to read again, and holds no value.  Without a cursor it comes at once, and names all of them.
    """
    return await secret_reader.news(credentials, paths, cursor, wait_seconds)


ROUTES = (read_secret, list_readers, report_reuse, await_news)
