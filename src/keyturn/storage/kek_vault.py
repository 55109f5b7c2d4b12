"""The provider `vault-transit`: root keys in the transit engine of Vault or OpenBao.

A key is named `<mount>/<key>`.  The token needs `update` on `<mount>/encrypt/<key>` and `<mount>/decrypt/<key>`.  The
key has to be of an AEAD type (`aes256-gcm96`, the default, or `chacha20-poly1305`): the purpose is its associated data.
"""

from __future__ import annotations

import base64
import binascii
import weakref
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import httpx

from keyturn.errors import KekError
from keyturn.storage.kek_remote import ANSWER_SECONDS, CONNECT_SECONDS, PURPOSE, RemoteKek, out_of_reach, refused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keyturn.config import Settings
    from keyturn.kernel.secret import Secret

_ASSOCIATED: Final = base64.b64encode(PURPOSE.encode()).decode()
_DOWN: Final = frozenset({412, 429, 472, 473, 500, 502, 503, 504})


class VaultKek(RemoteKek):
    """Root keys in a transit engine."""

    provider = "vault-transit"

    def __init__(self, client: httpx.Client, token: Secret, keys: Sequence[str]) -> None:
        """Use a client whose base address is the server's; nothing is asked."""
        super().__init__([_checked(key) for key in keys])
        self._client = client
        # Its connections go with it: the port has no close.
        weakref.finalize(self, client.close)
        self._token = token

    @classmethod
    def from_settings(cls, settings: Settings, *, create: bool) -> VaultKek:  # noqa: ARG003 -- never made here
        """Connect as the settings say; nothing is asked."""
        if not settings.kek_vault_address or settings.kek_vault_token is None:
            message = "KEYTURN_KEK_PROVIDER=vault-transit needs an address and a token"
            raise KekError(message, hint="set KEYTURN_KEK_VAULT_ADDRESS and KEYTURN_KEK_VAULT_TOKEN")
        headers = {"X-Vault-Request": "true"}
        if settings.kek_vault_namespace:
            headers["X-Vault-Namespace"] = settings.kek_vault_namespace
        client = httpx.Client(
            base_url=settings.kek_vault_address,
            headers=headers,
            timeout=httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
            trust_env=False,
        )
        return cls(client, settings.kek_vault_token, settings.kek_vault_keys)

    def _wrap(self, name: str, key: bytes) -> bytes:
        said = {"plaintext": base64.b64encode(key).decode(), "associated_data": _ASSOCIATED}
        return self._call("encrypt", name, said, "ciphertext").encode()

    def _unwrap(self, name: str, wrapped: bytes) -> bytes:
        said = {"ciphertext": wrapped.decode("ascii", "replace"), "associated_data": _ASSOCIATED}
        found = self._call("decrypt", name, said, "plaintext")
        try:
            return base64.b64decode(found, validate=True)
        except (ValueError, binascii.Error):
            raise refused(f"{self.provider}:{name}", "its answer is not what was asked for") from None

    def _call(self, verb: str, name: str, said: dict[str, str], field: str) -> str:
        kek_id = f"{self.provider}:{name}"
        mount, _, key = name.rpartition("/")
        try:
            answer = self._client.post(
                f"/v1/{quote(mount)}/{verb}/{quote(key)}", json=said, headers={"X-Vault-Token": self._token.reveal()}
            )
        except httpx.HTTPError as error:
            raise out_of_reach(kek_id, type(error).__name__) from None
        if answer.status_code in _DOWN:
            raise out_of_reach(kek_id, f"status {answer.status_code}")
        if not answer.is_success:
            # Not the body: its text may quote what was sent.
            raise refused(kek_id, f"status {answer.status_code}")
        found = _field(answer, field)
        if found is None:
            raise refused(kek_id, "its answer is not what was asked for")
        return found


def _field(answer: httpx.Response, field: str) -> str | None:
    try:
        document: Any = answer.json()
        found = document["data"][field]
    except (ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, str) else None


def _checked(key: str) -> str:
    mount, _, name = key.rpartition("/")
    if not mount or not name or ".." in key.split("/"):
        message = f"KEYTURN_KEK_VAULT_KEYS holds {key[:200]!r}, which is not of the form <mount>/<key>"
        raise KekError(message, hint="for example transit/keyturn")
    return key
