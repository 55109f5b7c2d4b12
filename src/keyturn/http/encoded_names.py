"""Names in a path that may hold a slash: routed as they were sent, and decoded by the route that takes them.

An owner may be named `team/shop`, which a client sends as `team%2Fshop`.  Once decoded, nobody could tell where the
name ends; so what follows `/api/v1/owners/` stays percent-encoded until then.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any, Final
from urllib.parse import unquote_to_bytes

OWNERS_PATH: Final = "/api/v1/owners/"


def leave_encoded(scope: MutableMapping[str, Any]) -> None:
    """Route a request about an owner by its path as it was sent."""
    raw = scope.get("raw_path")
    if raw and scope["path"].startswith(OWNERS_PATH):
        scope["path"] = raw.decode("latin-1")


def owner_name(scope: Any, routed: str) -> str:  # noqa: ANN401 -- an ASGI scope
    """Return the owner's name in a path whose target was found clean; `routed` is what the router took for it."""
    raw: bytes = scope.get("raw_path") or b""
    before, found, after = raw.partition(OWNERS_PATH.encode())
    if before or not found:
        return routed
    return unquote_to_bytes(after.partition(b"/")[0]).decode(errors="replace")
