"""What a protected application asks of a verifier and answers to its callers, whatever the framework."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from keyturn.errors import ConfigError, InputError
from keyturn.kernel.match import compile_patterns
from keyturn.verify.forwarded import forwarded_address
from keyturn.verify.query import compile_query
from keyturn.wire.refusals import Refusal, missing_key, refusal_of, refusal_of_verdict
from keyturn.wire.verification import PRESENTED_MAX, Code

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from keyturn.client.model import Verification

_BEARER: Final = "bearer"


class SyncVerifier(Protocol):
    """A `Keyturn` or a `Verifier`."""

    def verify(self, key: str, **call: Any) -> Verification:  # noqa: ANN401 -- what is told of a call
        """Verify a presented key."""
        ...

    def release(self, slots: Sequence[str]) -> object:
        """Give back slots of concurrency limits."""
        ...


@dataclass(frozen=True, slots=True)
class Call:
    """One request, as its framework tells it; names of headers are lower-case."""

    method: str
    path: str
    headers: Mapping[str, str]
    peer: str | None


@dataclass(frozen=True, slots=True)
class Question:
    """What to ask the verifier: `verify(key, **call)`."""

    key: str = field(repr=False)
    call: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Protection:
    """How an application is protected.

    `scopes` is what every request needs, `header` where a key may stand beside `Authorization: Bearer`, `exempt` are
    paths that need no key (a `*` at the end stands for whatever follows).  `trusted_proxies` are the networks whose
    `X-Forwarded-For` counts; without any it is the peer's address.
    Raises ConfigError when one of them cannot be read.
    """

    scopes: str | None = None
    keyspace: str | None = None
    cost: int = 1
    header: str = "X-API-Key"
    realm: str = "api"
    exempt: Sequence[str] = ()
    trusted_proxies: Sequence[str] = ()
    _networks: tuple[Any, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Read what is written as text, so that a mistake is found at start."""
        try:
            object.__setattr__(self, "_networks", tuple(map(ipaddress.ip_network, self.trusted_proxies)))
            if self.scopes is not None:
                compile_query(self.scopes)
        except (ValueError, InputError) as error:
            raise ConfigError(f"the protection cannot be set up: {error}") from error
        if '"' in self.realm or "\\" in self.realm or not self.realm.isprintable():
            raise ConfigError("the realm holds a character that a header cannot")

    def is_exempt(self, path: str) -> bool:
        """Say whether a path needs no key."""
        return any(path.startswith(entry[:-1]) if entry.endswith("*") else path == entry for entry in self.exempt)

    def question(self, call: Call) -> Question | Refusal:
        """Return what to ask about a request, or the answer to one that does not present exactly one key."""
        presented = _presented(call.headers, self.header.lower())
        if presented is None:
            return missing_key(self.realm)
        asked: dict[str, Any] = {
            "scopes": self.scopes,
            "ip": self._address(call),
            "origin": _told(call.headers.get("origin") or call.headers.get("referer"), 2048),
            "method": _told(call.method, 32),
            "path": _told(call.path, 8192),
            "user_agent": call.headers.get("user-agent", "")[:1024] or None,
            "cost": self.cost,
        }
        if self.keyspace is not None:
            asked["keyspace"] = self.keyspace
        return Question(presented, asked)

    def refusal(self, verification: Verification) -> Refusal | None:
        """Return the answer to a request whose key is refused, None when it is admitted."""
        if verification.valid and verification.code == Code.VALID:
            return None
        return refusal_of_verdict(verification.response, realm=self.realm, scopes=self.scopes)

    def failure(self) -> Refusal:
        """Return the answer to a request whose key could not be verified."""
        return refusal_of(Code.UNAVAILABLE, realm=self.realm)

    def _address(self, call: Call) -> str | None:
        if not call.peer:
            return None
        return forwarded_address(call.peer, call.headers.get("x-forwarded-for", ""), self._networks)


def permits(verification: Verification, scopes: str) -> bool:
    """Say whether an admitted key has what a scope query asks for; raises InputError when it is malformed."""
    return bool(verification) and compile_query(scopes).satisfied_by(compile_patterns(verification.scopes or ()))


def _presented(headers: Mapping[str, str], name: str) -> str | None:
    """Return the one key that a request presents; None for none, for two that differ, and for junk."""
    found = []
    authorization = headers.get("authorization")
    if authorization is not None:
        scheme, _, rest = authorization.partition(" ")
        if scheme.lower() == _BEARER:
            found.append(rest.strip())
        elif name == "authorization":
            found.append(authorization.strip())
    if name != "authorization" and name in headers:
        found.append(headers[name].strip())
    if not found or any(one != found[0] for one in found):
        return None
    key = found[0]
    usable = 0 < len(key) <= PRESENTED_MAX and key.isascii() and key.isprintable() and " " not in key
    return key if usable else None


def _told(text: str | None, longest: int) -> str | None:
    """Return what is told of a call, None for what is longer than a verifier takes: a restriction on it denies."""
    return text if text is not None and len(text) <= longest else None
