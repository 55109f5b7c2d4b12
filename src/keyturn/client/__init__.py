"""The client: keys verified over HTTP or in the application's own process, and the requests to a server.

    Keyturn, AsyncKeyturn    every call is a request to the server
    Verifier                 a replica of the keyspaces it may replicate, kept by long poll; the same `keyturn.verify`
    Verification             the verdict of either; true when the key is admitted
    middleware               protection for ASGI, WSGI, Django, Flask and FastAPI

    secrets       held secrets as callables that give the current value, kept by one long poll
    transport     requests, answers and retries, without I/O; both colours are a few lines around it
    replication   what a Verifier asks for next and what an answer changes, without I/O
    journal       usage that is not yet with the server, on disk
    counting      usage in memory

It needs the base install only.  Importing this package imports nothing else of it until a name is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from keyturn.client.api import AsyncKeyturn, Keyturn
    from keyturn.client.model import Verification
    from keyturn.client.verifier import Verifier

__all__ = ["AsyncKeyturn", "Keyturn", "Verification", "Verifier", "errors"]

_HOMES: Final = {
    "AsyncKeyturn": "keyturn.client.api",
    "Keyturn": "keyturn.client.api",
    "Verification": "keyturn.client.model",
    "Verifier": "keyturn.client.verifier",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 -- a module's own attribute hook
    import importlib

    if name == "errors":
        return importlib.import_module("keyturn.errors")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
