"""What verify over HTTP is compared with.

    constant           raw ASGI, as our lane: reads the same POST body, answers with a constant of the same size
    native             the same on granian's own protocol, RSGI, that the server does not speak
    plain              `benchmarks.plain_app`
    keyshield          `benchmarks.keyshield_peer`
    keyshield-cached   the same with its cache

All run under granian with one worker, as the server itself does.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]

BODY = b'{"valid":true,"code":"VALID",' + b'"padding":"' + b"x" * 190 + b'"}'
_START: dict[str, Any] = {
    "type": "http.response.start",
    "status": 200,
    "headers": [
        (b"content-type", b"application/json"),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
        (b"content-length", str(len(BODY)).encode()),
    ],
}
_NATIVE = [(name.decode(), value.decode()) for name, value in _START["headers"]]
_END: dict[str, Any] = {"type": "http.response.body", "body": BODY}


async def constant(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    """Read the body, answer the same every time."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    while (await receive()).get("more_body"):
        pass
    await send(_START)
    await send(_END)


async def native(_scope: object, protocol: Any) -> None:  # noqa: ANN401 -- granian's own type
    """Read the body, answer the same every time."""
    await protocol()
    protocol.response_bytes(200, _NATIVE, BODY)


def main() -> None:
    """Serve one of them on a port: `python -m benchmarks.peers constant 8000`."""
    from granian.constants import Interfaces
    from granian.log import LogLevels
    from granian.server import Server

    which, port = sys.argv[1], int(sys.argv[2])

    def load(_target: str) -> Callable[..., Any]:
        if which in {"constant", "native"}:
            return constant if which == "constant" else native
        if which.startswith("keyshield"):
            from benchmarks import keyshield_peer

            return keyshield_peer.make(cached=which.endswith("-cached"))
        from benchmarks.plain_app import make

        return make()

    server = Server(
        target="peer",
        address="127.0.0.1",
        port=port,
        interface=Interfaces.RSGI if which == "native" else Interfaces.ASGI,
        workers=1,
        websockets=False,
        log_level=LogLevels.warning,
    )
    server.serve(target_loader=load)


if __name__ == "__main__":
    main()
