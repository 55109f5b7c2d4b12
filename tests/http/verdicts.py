"""A verify service that answers what a test says, and remembers what it was asked."""

from typing import Any

import msgspec

from keyturn.access.caller import Credentials
from keyturn.errors import UnauthenticatedError
from keyturn.wire.verification import LimitReport, VerifyRequest, VerifyResponse

GATEWAY_TOKEN = "_".join(("kt", "mgmt", "gateway"))
KEY = "_".join(("acme", "live", "presented"))
VALID = VerifyResponse(
    valid=True,
    code="VALID",
    key_id="key_1",
    version_id="ver_1",
    keyspace="orders",
    owner="team-web",
    environment="production",
    scopes=("orders:read", "invoices:*"),
)
LIMITED = VerifyResponse(
    valid=False,
    code="RATE_LIMITED",
    key_id="key_1",
    owner="team-web",
    retry_after_seconds=12.2,
    limits=(
        LimitReport(name="burst", limit=10, window_seconds=60, remaining=0, reset_seconds=12.2, exceeded=True),
        LimitReport(name="daily", limit=1000, window_seconds=86400, remaining=7, reset_seconds=300.0),
    ),
)


def denied(code: str) -> VerifyResponse:
    return VerifyResponse(valid=False, code=code, key_id="key_1", owner="team-web")


class Verdicts:
    """Stands for VerifyService."""

    def __init__(self) -> None:
        self.answer: VerifyResponse | Exception = VALID
        self.from_memory = True
        self.asked: list[VerifyRequest] = []
        self.callers: list[tuple[str, str | None]] = []

    def verify_now(self, token: bytes, ip: str | None, asked: VerifyRequest) -> VerifyResponse | None:
        if not self.from_memory or token.decode() != GATEWAY_TOKEN:
            return None
        return self._answer(token.decode(), ip, asked)

    async def verify(self, credentials: Credentials, asked: VerifyRequest) -> VerifyResponse:
        if credentials.token.reveal() != GATEWAY_TOKEN:
            raise UnauthenticatedError("the token is not valid")
        return self._answer(credentials.token.reveal(), credentials.ip, asked)

    def encode(self, answer: VerifyResponse) -> bytes:
        return msgspec.json.encode(answer)

    def _answer(self, token: str, ip: str | None, asked: VerifyRequest) -> VerifyResponse:
        self.asked.append(asked)
        self.callers.append((token, ip))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    @property
    def last(self) -> dict[str, Any]:
        """What was asked last, as far as it was told."""
        found: dict[str, Any] = msgspec.to_builtins(self.asked[-1])
        return found
