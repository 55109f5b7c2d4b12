"""How far a change of rights has spread: nodes keep proven callers in memory and drop them behind the change log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from keyturn.kernel.clock import rfc3339
from keyturn.storage.effect import await_effect

if TYPE_CHECKING:
    from keyturn.access.door import Door
    from keyturn.storage.transaction import Committed

BOUND_SECONDS: Final = 60.0
"""How long a node may go on with what it last read about a caller, at most."""


async def spread_of(door: Door, committed: Committed[Any]) -> dict[str, Any]:
    """Wait as `await_effect` does and return the fields of a response that say how far the change has spread."""
    effect = await await_effect(door.database, committed.log_id, committed.seq, BOUND_SECONDS, of_rights=True)
    return {
        "effective": effect.effective,
        "lag_ms": effect.lag_ms,
        "effective_by": rfc3339(effect.effective_by),
        "laggards": effect.laggards,
    }
