import re
from pathlib import Path

from keyturn.kernel.secret import Secret
from keyturn.storage.valkey import ValkeyLimiter
from keyturn.storage.valkey_probe import probe_store
from keyturn.testing.valkey import ValkeyServer
from keyturn.verify.spending import LimitDemand
from keyturn.wire.policy import LimitRule

PAGE = Path(__file__).parents[2] / "docs" / "operations" / "valkey.md"


async def test_the_rights_that_the_documentation_names_are_enough(valkey_server: ValkeyServer) -> None:
    """A user with these rights alone can count limits."""
    (rights,) = re.findall(r"^- A user with little rights: `(.+)`\.$", PAGE.read_text(), re.MULTILINE)
    password = "sample" + "sample1"
    made = valkey_server.command("ACL", "SETUSER", "counter", "reset", "on", f">{password}", *rights.split())
    assert made == b"+OK"
    url = f"redis://counter:{password}@127.0.0.1:{valkey_server.port}/0"
    rules = [LimitRule("burst", 5, 60), LimitRule("calls", 5, 60, kind="concurrency")]
    demands = [LimitDemand(rule, "wsp_rights", f"key/key_one/{rule.name}", 1) for rule in rules]
    limiter = ValkeyLimiter(Secret(f"{url}?socket_timeout=10"))
    await limiter.start()
    try:
        outcome = await limiter.take(demands, 0.0)
        assert (outcome.admitted, outcome.store_failed) == (True, False)
        assert await limiter.release(outcome.slots) == 1
    finally:
        await limiter.stop()
        state = await probe_store(Secret(url))
        valkey_server.command("ACL", "DELUSER", "counter")
    assert state.reason is None
