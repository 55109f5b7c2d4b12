"""keyshield (which the package fastapi-api-key has become) as its documentation sets it up, on FastAPI.

Its keys are in its in-memory repository, the fastest it has, and its artificial delay is off.  `cached` puts its own
cache of proven keys in front; without it every request hashes with Argon2.
"""

import os
from typing import Any

from fastapi import FastAPI, HTTPException
from keyshield.domain.errors import ApiKeyError
from keyshield.hasher.argon2 import Argon2ApiKeyHasher
from keyshield.repositories.in_memory import InMemoryApiKeyRepository
from keyshield.services.base import ApiKeyService
from keyshield.services.cached import CachedApiKeyService
from pydantic import BaseModel


class Asked(BaseModel):
    """The request."""

    key: str
    scopes: str | None = None
    ip: str | None = None


def make(*, cached: bool) -> FastAPI:
    """Build the application; `POST /keys` makes one and returns it."""
    kind: Any = CachedApiKeyService if cached else ApiKeyService
    hasher = Argon2ApiKeyHasher(pepper=os.environ["BENCH_SECRET"])
    service = kind(repo=InMemoryApiKeyRepository(), hasher=hasher, min_delay=0, max_delay=0)
    app = FastAPI()

    @app.post("/keys")
    async def create() -> dict[str, str]:
        _, key = await service.create(name="bench", scopes=["orders:read", "orders:list"])
        return {"key": key}

    @app.post("/api/v1/verify")
    async def verify(asked: Asked) -> dict[str, object]:
        try:
            found = await service.verify_key(asked.key, required_scopes=[asked.scopes] if asked.scopes else None)
        except ApiKeyError as error:
            raise HTTPException(401) from error
        return {"valid": True, "code": "VALID", "key_id": found.key_id, "scopes": found.scopes}

    return app
