import asyncio

from keyturn.access.shares import Shares


async def test_a_workspace_waits_for_itself_and_for_nobody_else() -> None:
    """SECURITY: one workspace whose systems are slow does not hold up the others."""
    shares, go, inside = Shares(2), asyncio.Event(), []

    async def hold(workspace: str) -> None:
        async with shares.place(workspace):
            inside.append(workspace)
            await go.wait()

    slow = [asyncio.create_task(hold("wsp_slow")) for _ in range(5)]
    await asyncio.sleep(0)
    other = asyncio.create_task(hold("wsp_other"))
    for _ in range(5):
        await asyncio.sleep(0)
    assert sorted(inside) == ["wsp_other", "wsp_slow", "wsp_slow"]

    slow[4].cancel()
    go.set()
    await asyncio.gather(*slow[:4], other)
    assert sorted(inside) == ["wsp_other", *["wsp_slow"] * 4]
    assert not shares._held  # noqa: SLF001 -- nothing is kept of who left
