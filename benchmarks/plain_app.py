"""A key check as one would begin: FastAPI, SQLAlchemy's ORM, SHA-256, one look-up in SQLite for each request."""

import hashlib
import os

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel
from sqlalchemy import create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column


class Base(DeclarativeBase):
    """The tables."""


class ApiKey(Base):
    """A key by its digest."""

    __tablename__ = "api_key"
    id: Mapped[int] = mapped_column(primary_key=True)
    digest: Mapped[str] = mapped_column(unique=True)
    owner: Mapped[str]
    scopes: Mapped[str]
    revoked: Mapped[bool]


class Asked(BaseModel):
    """The request."""

    key: str
    scopes: str | None = None
    ip: str | None = None


def make() -> FastAPI:
    """Build the application over the empty SQLite file BENCH_DATABASE, with the keys BENCH_DIGESTS."""
    engine = create_engine(os.environ["BENCH_DATABASE"])
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        digests = os.environ["BENCH_DIGESTS"].split(",")
        session.add_all(
            ApiKey(digest=one, owner="alice", scopes="orders:read orders:list", revoked=False) for one in digests
        )
        session.commit()
    app = FastAPI()

    @app.post("/api/v1/verify")
    def verify(asked: Asked) -> dict[str, object]:
        digest = hashlib.sha256(asked.key.encode()).hexdigest()
        with Session(engine) as session:
            found = session.scalars(select(ApiKey).where(ApiKey.digest == digest)).first()
        if found is None or found.revoked:
            raise HTTPException(401)
        granted = found.scopes.split()
        return {
            "valid": asked.scopes is None or asked.scopes in granted,
            "code": "VALID",
            "key_id": found.id,
            "owner": found.owner,
            "scopes": granted,
        }

    return app
