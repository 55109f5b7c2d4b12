"""The route of the format of a keyspace's keys, as other scanners want it."""

from __future__ import annotations

from typing import Annotated

from litestar import get
from litestar.params import FromPath, QueryParameter

from keyturn.access.caller import Credentials
from keyturn.http.edge import Given
from keyturn.keys.keyspaces import KeyspaceService
from keyturn.leaks.patterns import pattern_of
from keyturn.wire.leak_intakes import KeyspacePattern, PatternFormat


@get("/api/v1/keyspaces/{name:str}/pattern", operation_id="readKeyspacePattern", tags=["leaks"])
async def read_pattern(
    name: FromPath[str],
    credentials: Given[Credentials],
    keyspaces: Given[KeyspaceService],
    form: Annotated[PatternFormat, QueryParameter(name="format", description="The scanner that it is for.")],
) -> KeyspacePattern:
    """Write the format of a keyspace's keys as a rule of another scanner."""
    found = await keyspaces.show(credentials, name)
    return KeyspacePattern(keyspace=found.name, format=form, text=pattern_of(found.prefix, found.tag, form))


ROUTES = (read_pattern,)
