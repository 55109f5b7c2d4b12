import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from keyturn.kernel.secret import Secret
from keyturn.storage.valkey import ValkeyLimiter
from keyturn.testing.valkey import ValkeyServer
from keyturn.verify.spending import LimitDemand
from keyturn.wire.policy import LimitRule
from tests.http.test_serve import tls_files
from tests.listening import connected, listening


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while part := await reader.read(65_536):
            writer.write(part)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


@asynccontextmanager
async def tls_in_front(port: int, certificate: Path, key: Path) -> AsyncIterator[int]:
    """Speak TLS on a port of its own for a server that does not; the wheel's Valkey is built without."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with connected(port) as (inner, outer):
            await asyncio.gather(_copy(reader, outer), _copy(inner, writer))

    async with listening(serve, context) as before:
        yield before


async def test_limits_are_counted_over_tls_with_a_certificate_that_is_checked(
    valkey_server: ValkeyServer, tmp_path: Path
) -> None:
    """A password is never sent to a store that cannot prove who it is."""
    certificate, key = tls_files(tmp_path)
    demand = LimitDemand(LimitRule("burst", 5, 60), "wsp_tls", "key/key_tls/burst", 1)
    async with tls_in_front(valkey_server.port, certificate, key) as port:
        url = valkey_server.url.replace("redis://", "valkeys://").replace(f":{valkey_server.port}/", f":{port}/")
        trusting = ValkeyLimiter(Secret(f"{url}?ssl_ca_certs={certificate}"))
        await trusting.start()
        outcome = await trusting.take([demand], 0.0)
        await trusting.stop()
        doubting = ValkeyLimiter(Secret(url))
        await doubting.start()
        connected = doubting.connected
        await doubting.stop()

    assert (outcome.admitted, outcome.store_failed) == (True, False)
    assert not connected
