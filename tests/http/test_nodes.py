import asyncio
from pathlib import Path
from typing import Any

import httpx

from keyturn.bootstrap.application import open_application
from keyturn.bootstrap.preparation import prepare
from keyturn.bootstrap.serving import build_gate
from keyturn.config import Settings


async def test_nodes_are_shown_to_those_who_may_read_them(tmp_path: Path) -> None:
    """The list says which machines serve; it is empty, not refused, for callers without that right."""
    settings = Settings(data=tmp_path / "data", shutdown_seconds=5)
    prepared = await asyncio.to_thread(prepare, settings)
    application = open_application(settings)
    await application.start()
    gate: Any = build_gate(application)
    admin = {"Authorization": f"Bearer {prepared.token_path.read_text().strip()}"}
    try:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=gate), base_url="http://keyturn.test") as client:
            shown = (await client.get("/api/v1/nodes", headers=admin)).json()
            assert [node["id"] for node in shown["items"]] == [application.node]
            nobody = (await client.post("/api/v1/principals", json={"kind": "user", "name": "n"}, headers=admin)).json()
            issued = await client.post(f"/api/v1/principals/{nobody['id']}/tokens", json={"name": "n"}, headers=admin)
            headers = {"Authorization": f"Bearer {issued.json()['token']}"}
            assert (await client.get("/api/v1/nodes", headers=headers)).json()["items"] == []
    finally:
        await application.stop()
