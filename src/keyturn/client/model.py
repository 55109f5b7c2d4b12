"""The verdict a client hands to its application."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from keyturn.wire.verification import Code, VerifyResponse

if TYPE_CHECKING:
    from keyturn.wire.verification import CheckReport, LimitReport, QuotaReport

_VALID: Final = Code.VALID.value


class Verification:
    """The verdict on a presented key; true when the key is admitted.

    `code` says why: a `keyturn.wire.verification.Code`, or text that this version does not know, which denies.
    What is known of the key is None unless its secret was proven.
    """

    __slots__ = ("_response", "valid")

    _response: VerifyResponse | None

    def __init__(self, response: VerifyResponse) -> None:
        """Wrap an answer; it admits only when it says so twice, by `valid` and by its code."""
        self._response = response
        self.valid: bool = response.valid and response.code == _VALID

    @property
    def response(self) -> VerifyResponse:
        """The answer as a server gives it."""
        if self._response is None:
            self._response = self._worded()
        return self._response

    def _worded(self) -> VerifyResponse:
        """Word the answer of a verdict that was made without words, when it is first read."""
        raise NotImplementedError

    def __reduce__(self) -> tuple[type[Verification], tuple[VerifyResponse]]:
        """Copy and pickle the answer alone: what it is worded from leads to all that is followed, peppers too."""
        return Verification, (self.response,)

    def __bool__(self) -> bool:
        return self.valid

    def __repr__(self) -> str:
        return f"Verification({self.response.code}, key_id={self.response.key_id!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Verification) and self.response == other.response

    __hash__ = None  # type: ignore[assignment] # it holds reports, which are compared by value

    @property
    def code(self) -> str:
        """The verdict's code; anything but VALID denies."""
        return self.response.code

    @property
    def key_id(self) -> str | None:
        """The stable id of the key."""
        return self.response.key_id

    @property
    def version_id(self) -> str | None:
        """The public id of the secret version that was presented."""
        return self.response.version_id

    @property
    def owner(self) -> str | None:
        """Who the key belongs to."""
        return self.response.owner

    @property
    def name(self) -> str | None:
        """What the key is called."""
        return self.response.name

    @property
    def keyspace(self) -> str | None:
        """The name of the key's keyspace."""
        return self.response.keyspace

    @property
    def environment(self) -> str | None:
        """The environment of the key."""
        return self.response.environment

    @property
    def scopes(self) -> tuple[str, ...] | None:
        """What the key and its plan grant."""
        return self.response.scopes

    @property
    def plan(self) -> str | None:
        """The name of the plan the key is on."""
        return self.response.plan

    @property
    def metadata(self) -> dict[str, str] | None:
        """A copy of the key's metadata."""
        metadata = self.response.metadata
        return None if metadata is None else dict(metadata)

    @property
    def expires_at(self) -> str | None:
        """When the key expires, RFC 3339."""
        return self.response.expires_at

    @property
    def limits(self) -> tuple[LimitReport, ...] | None:
        """How the limits that were charged stand."""
        return self.response.limits

    @property
    def quotas(self) -> tuple[QuotaReport, ...] | None:
        """How the quotas that were charged stand."""
        return self.response.quotas

    @property
    def retry_after_seconds(self) -> float | None:
        """When another try may succeed; None when waiting does not help."""
        return self.response.retry_after_seconds

    @property
    def slots(self) -> tuple[str, ...]:
        """Slots of concurrency limits, to be given to `release` when the call ends."""
        return self.response.slots or ()

    @property
    def shadow(self) -> tuple[str, ...]:
        """What would have refused the key, if it were enforced."""
        return self.response.shadow or ()

    @property
    def checks(self) -> tuple[CheckReport, ...] | None:
        """Every check that was made, when `explain` asked for them."""
        return self.response.checks

    def headers(self) -> list[tuple[str, str]]:
        """Return the RateLimit fields of an HTTP answer to whoever presented the key."""
        from keyturn.wire.ratelimit_fields import fields

        return fields(self.response)
