"""What a login brings to prove an identity; nothing in here is shown by a repr."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keyturn.kernel.secret import Secret


@dataclass(frozen=True, slots=True)
class JwtAssertion:
    """A JSON Web Token, for the methods `jwt` and `kubernetes`."""

    token: Secret


@dataclass(frozen=True, slots=True)
class SecretIdAssertion:
    """A role-id and a secret-id, for the method `approle`."""

    role_id: str
    secret_id: Secret


@dataclass(frozen=True, slots=True, repr=False)
class CertificateAssertion:
    """The headers of a request, for the method `certificate`; `proxied` when its peer is a listed proxy."""

    headers: tuple[tuple[bytes, bytes], ...]
    proxied: bool


Assertion = JwtAssertion | SecretIdAssertion | CertificateAssertion
