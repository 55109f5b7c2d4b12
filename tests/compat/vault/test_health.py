"""What the health of a worker is called in the Vault dialect."""

from typing import Any

import pytest

from keyturn.compat.vault.asking import Ask
from keyturn.compat.vault.system import SystemOperations
from keyturn.errors import InputError
from keyturn.testing.clock import ManualClock


def worker(*, ready: bool = True, draining: bool = False) -> SystemOperations:
    async def is_ready() -> bool:
        return ready

    nobody: Any = None
    return SystemOperations(
        nobody, nobody, nobody, ManualClock(), ready=is_ready, draining=lambda: draining, release="9.9.9"
    )


async def told(system: SystemOperations, **query: str) -> tuple[int, bool, bool]:
    answer = await system.health(Ask("read", "sys/health", {}, query, {}, None, None, "req_1"))
    return answer.status, answer.plain["sealed"], answer.plain["standby"]


async def test_a_worker_is_active_standby_while_it_stops_and_sealed_while_it_cannot_serve() -> None:
    assert await told(worker()) == (200, False, False)
    assert await told(worker(ready=False)) == (503, True, False)
    assert await told(worker(ready=False, draining=True)) == (429, False, True)


async def test_the_caller_chooses_the_codes() -> None:
    assert await told(worker(), activecode="299") == (299, False, False)
    assert await told(worker(ready=False), sealedcode="204") == (204, True, False)
    assert await told(worker(draining=True), standbycode="473") == (473, False, True)
    assert (await told(worker(draining=True), standbyok="true"))[0] == 200
    assert (await told(worker(draining=True), perfstandbyok=""))[0] == 429
    for code in ("99", "600", "abc", "-200"):
        with pytest.raises(InputError):
            await told(worker(), activecode=code)
