"""Every operation of the client as a request and the type of its answer, without I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec

from keyturn.client.transport import Call, Endpoint, error_of, read, segment, segments
from keyturn.wire.keys import (
    CreateKeyspace,
    Empty,
    ImportedKeys,
    ImportKeys,
    IssuedKey,
    IssuedKeys,
    IssueKey,
    IssueKeys,
    KeyDetail,
    KeyEffect,
    KeyPage,
    KeyspaceDetail,
    KeyspaceEffect,
    KeyspacePage,
    RetireKey,
    RevokeKey,
    RotatedKey,
    RotateKey,
    UpdateKey,
    UpdateKeyspace,
)
from keyturn.wire.secrets import PutSecret, SecretNews, SecretPage, SecretValue, SecretWritten
from keyturn.wire.verification import ReleasedSlots, ReleaseSlots, VerifyRequest, VerifyResponse

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

T = TypeVar("T")


class Asked(msgspec.Struct, Generic[T], frozen=True):
    """A request and how its answer is read."""

    call: Call
    kind: type[T]

    def read(self, status: int, headers: Mapping[str, str], body: bytes) -> T:
        """Return the answer, or raise the error it tells of; a verdict that comes with 503 is still a verdict."""
        if status == 503 and self.kind is VerifyResponse:
            try:
                return msgspec.json.decode(body, type=self.kind)
            except msgspec.DecodeError:
                raise error_of(status, headers, body) from None
        return read(status, headers, body, self.kind)


class Operations:
    """What can be asked of a server; see `keyturn.client.api` for what each does."""

    def __init__(self, endpoint: Endpoint) -> None:
        """Build requests for one endpoint."""
        self._to = endpoint.call

    # --- verify ---------------------------------------------------------------------------------------------------

    def verify(self, request: VerifyRequest) -> Asked[VerifyResponse]:
        """Not repeatable: a second attempt could be charged twice."""
        return Asked(self._to("POST", "/verify", request), VerifyResponse)

    def release(self, slots: Sequence[str]) -> Asked[ReleasedSlots]:
        """Repeatable: a slot that was given back is given back."""
        body = ReleaseSlots(slots=tuple(slots))
        return Asked(self._to("POST", "/verify/release", body, repeatable=True), ReleasedSlots)

    # --- keys -----------------------------------------------------------------------------------------------------

    def issue(self, request: IssueKey, idempotency_key: str | None) -> Asked[IssuedKey]:
        """See api."""
        return Asked(self._to("POST", "/keys", request, idempotent=idempotency_key or True), IssuedKey)

    def issue_many(self, requests: Sequence[IssueKey], idempotency_key: str | None) -> Asked[IssuedKeys]:
        """See api."""
        body = IssueKeys(keys=tuple(requests))
        return Asked(self._to("POST", "/keys/bulk", body, idempotent=idempotency_key or True), IssuedKeys)

    def import_keys(self, request: ImportKeys, idempotency_key: str | None) -> Asked[ImportedKeys]:
        """See api."""
        return Asked(self._to("POST", "/keys/import", request, idempotent=idempotency_key or True), ImportedKeys)

    def key(self, key_id: str) -> Asked[KeyDetail]:
        """See api."""
        return Asked(self._to("GET", f"/keys/{segment(key_id)}"), KeyDetail)

    def keys(self, filters: Mapping[str, str | int | float | None], cursor: str | None, limit: int) -> Asked[KeyPage]:
        """See api."""
        return Asked(self._to("GET", "/keys", query={**filters, "cursor": cursor, "limit": limit}), KeyPage)

    def update(self, key_id: str, request: UpdateKey, revision: int | None) -> Asked[KeyEffect]:
        """See api."""
        call = self._to("PATCH", f"/keys/{segment(key_id)}", request, if_match=_etag(revision), repeatable=True)
        return Asked(call, KeyEffect)

    def rotate(self, key_id: str, request: RotateKey, idempotency_key: str | None) -> Asked[RotatedKey]:
        """See api."""
        call = self._to("POST", f"/keys/{segment(key_id)}/rotate", request, idempotent=idempotency_key or True)
        return Asked(call, RotatedKey)

    def retire(self, key_id: str, request: RetireKey) -> Asked[KeyEffect]:
        """See api."""
        return self._act(key_id, "retire", request)

    def disable(self, key_id: str) -> Asked[KeyEffect]:
        """See api."""
        return self._act(key_id, "disable", Empty())

    def enable(self, key_id: str) -> Asked[KeyEffect]:
        """See api."""
        return self._act(key_id, "enable", Empty())

    def revoke(self, key_id: str, request: RevokeKey) -> Asked[KeyEffect]:
        """See api."""
        return self._act(key_id, "revoke", request)

    def _act(self, key_id: str, verb: str, request: object) -> Asked[KeyEffect]:
        # Each of them leads to the same state when it is done twice.
        call = self._to("POST", f"/keys/{segment(key_id)}/{verb}", request, repeatable=True)
        return Asked(call, KeyEffect)

    # --- keyspaces ------------------------------------------------------------------------------------------------

    def create_keyspace(self, request: CreateKeyspace, idempotency_key: str | None) -> Asked[KeyspaceDetail]:
        """See api."""
        return Asked(self._to("POST", "/keyspaces", request, idempotent=idempotency_key or True), KeyspaceDetail)

    def keyspace(self, name: str) -> Asked[KeyspaceDetail]:
        """See api."""
        return Asked(self._to("GET", f"/keyspaces/{segment(name)}"), KeyspaceDetail)

    def keyspaces(self, cursor: str | None, limit: int) -> Asked[KeyspacePage]:
        """See api."""
        return Asked(self._to("GET", "/keyspaces", query={"cursor": cursor, "limit": limit}), KeyspacePage)

    def update_keyspace(self, name: str, request: UpdateKeyspace, revision: int | None) -> Asked[KeyspaceEffect]:
        """See api."""
        path = f"/keyspaces/{segment(name)}"
        return Asked(self._to("PATCH", path, request, if_match=_etag(revision), repeatable=True), KeyspaceEffect)

    # --- secrets --------------------------------------------------------------------------------------------------

    def read_secret(self, path: str, version: int | None = None) -> Asked[SecretValue]:
        """See api."""
        return Asked(self._to("GET", f"/secrets/{segments(path)}", query={"version": version}), SecretValue)

    def secrets(self, prefix: str, cursor: str | None, limit: int) -> Asked[SecretPage]:
        """See api."""
        query = {"prefix": prefix or None, "cursor": cursor, "limit": limit}
        return Asked(self._to("GET", "/secrets", query=query), SecretPage)

    def put_secret(self, path: str, request: PutSecret, idempotency_key: str | None) -> Asked[SecretWritten]:
        """See api."""
        call = self._to("PUT", f"/secrets/{segments(path)}", request, idempotent=idempotency_key or True)
        return Asked(call, SecretWritten)

    def secret_news(self, paths: Sequence[str], cursor: str | None, wait_seconds: float) -> Asked[SecretNews]:
        """See api."""
        query = {"path": list(paths), "cursor": cursor, "wait_seconds": wait_seconds}
        return Asked(self._to("GET", "/secret-news", query=query), SecretNews)


def _etag(revision: int | None) -> str | None:
    return None if revision is None else f'"{revision}"'
