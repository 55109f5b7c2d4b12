"""How a Valkey is, for `keyturn doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from keyturn.storage.valkey import CONNECT_SECONDS, open_store
from keyturn.storage.valkey_link import LinkError, parse_address

if TYPE_CHECKING:
    from keyturn.kernel.secret import Secret


@dataclass(frozen=True, slots=True)
class StoreState:
    """What was found: `reason` says why it does not answer, `evicts` names a policy that may drop counters."""

    reason: str | None
    evicts: str | None = None


async def probe_store(address: Secret) -> StoreState:
    """Connect to the store and count once; raises ConfigError when the address is none."""
    try:
        link = await open_store(parse_address(address))
    except LinkError as error:
        return StoreState(str(error))
    try:
        said = await link.text("INFO", "memory", seconds=CONNECT_SECONDS)
    except LinkError:
        return StoreState(None)  # it counts, and that it may not be asked this is its operator's choice
    finally:
        link.close()
    lines = dict(line.split(":", 1) for line in said.splitlines() if ":" in line)
    policy = lines.get("maxmemory_policy", "noeviction")
    bounded = lines.get("maxmemory", "0") != "0"
    return StoreState(None, policy if bounded and policy != "noeviction" else None)
