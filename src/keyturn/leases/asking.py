"""Asking a source for one thing, and what a person is told when that fails."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from keyturn.leases.ports import ProviderError
from keyturn.leases.rules import public_error

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from contextlib import AbstractAsyncContextManager

    from keyturn.leases.ports import Connector, Session

SILENT: Final = "the source did not answer in time"


def broken(error: Exception) -> str:
    """Say that somebody else's connector raised what it may not; what the error says may hold a secret."""
    return f"the connector failed: {type(error).__name__}"


async def failure_of(
    ask: Callable[[Session], Awaitable[None]],
    connector: Connector,
    connection: Mapping[str, Any],
    place: AbstractAsyncContextManager[None],
    seconds: float,
) -> str | None:
    """Wait for a place, connect and ask, within so many seconds in all; return what went wrong, None for nothing.

    The text holds no secret.
    """
    try:
        async with asyncio.timeout(seconds), place, connector.open(connection) as session:
            await ask(session)
    except ProviderError as error:
        return public_error(str(error))
    except TimeoutError:
        return SILENT
    except Exception as error:  # noqa: BLE001 -- somebody else's connector may raise anything
        return broken(error)
    return None
