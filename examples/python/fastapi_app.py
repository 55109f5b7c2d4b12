"""An API on FastAPI, protected by one line.

    KEYTURN_URL=http://127.0.0.1:8700 KEYTURN_TOKEN_FILE=data/admin-token python fastapi_app.py

Keys are verified inside this process; `/orders` needs the scope `orders:read`.
"""

import asyncio
import os
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import uvicorn
from fastapi import Depends, FastAPI

from keyturn.client import Verification, Verifier
from keyturn.client.middleware.fastapi import Protect

verifier = Verifier(os.environ["KEYTURN_URL"], Path(os.environ["KEYTURN_TOKEN_FILE"]).read_text().strip())
reads_orders = Protect(verifier, scopes="orders:read")


@asynccontextmanager
async def lifespan(_app: FastAPI):
    await asyncio.to_thread(verifier.wait_ready)
    yield
    await verifier.aclose()


app = FastAPI(lifespan=lifespan)


@app.get("/orders")
async def orders(key: Annotated[Verification, Depends(reads_orders)]) -> dict[str, str | None]:
    return {"owner": key.owner, "key": key.key_id}


@app.get("/health")
async def health() -> dict[str, str]:
    return {"status": "ok"}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8000")), log_level="warning")
