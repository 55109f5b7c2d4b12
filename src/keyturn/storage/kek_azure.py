"""The provider `azure-keyvault`: root keys in Azure Key Vault or a managed HSM, by wrapKey and unwrapKey.

Credentials are those that `DefaultAzureCredential` finds.  The rights needed on each key are get, wrapKey and
unwrapKey.  An RSA key wraps by RSA-OAEP-256, a symmetric one by A256KW.

A key of Key Vault has versions, and only the version that wrapped unwraps.  What is stored is therefore the name of
that version, a zero byte, and the wrapped key; wrapping uses the newest version, so the vault's own rotation needs
nothing here as long as old versions stay enabled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from keyturn.errors import KekError
from keyturn.storage.kek_remote import (
    ANSWER_SECONDS,
    CONNECT_SECONDS,
    RemoteKek,
    missing_package,
    out_of_reach,
    refused,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from keyturn.config import Settings

_BUSY = 429
_FAILED = 500


class AzureKek(RemoteKek):
    """Root keys in Azure Key Vault, named `https://<vault>/keys/<name>`."""

    provider = "azure-keyvault"

    def __init__(self, credential: Any, keys: Sequence[str], **options: Any) -> None:  # noqa: ANN401 -- as the SDK takes them
        """Use an SDK credential and, beyond the defaults, options of the SDK's clients; nothing is asked."""
        super().__init__([_checked(key) for key in keys])
        self._credential = credential
        bounds = {"connection_timeout": CONNECT_SECONDS, "read_timeout": ANSWER_SECONDS, "retry_total": 0}
        self._options = {**bounds, **options}

    @classmethod
    def from_settings(cls, settings: Settings, *, create: bool) -> AzureKek:  # noqa: ARG003 -- never made here
        """Connect as the settings say; nothing is asked."""
        try:
            import azure.keyvault.keys.crypto  # noqa: F401 -- only whether it is there
            from azure.identity import DefaultAzureCredential
        except ImportError:
            raise missing_package(cls.provider, "azure") from None
        return cls(DefaultAzureCredential(process_timeout=int(ANSWER_SECONDS)), settings.kek_azure_keys)

    def _wrap(self, name: str, key: bytes) -> bytes:
        from azure.keyvault.keys import KeyClient

        def work() -> bytes:
            vault, _, key_name = name.partition("/keys/")
            with KeyClient(vault, self._credential, **self._options) as client:
                found = client.get_key(key_name)
            with self._cryptography(found) as cryptography:
                made = cryptography.wrap_key(_algorithm(str(found.key_type)), key)
            return str(found.properties.version).encode() + b"\0" + bytes(made.encrypted_key)

        return bytes(self._call(name, work))

    def _unwrap(self, name: str, wrapped: bytes) -> bytes:
        from azure.keyvault.keys import KeyClient

        version, _, encrypted = wrapped.partition(b"\0")

        def work() -> bytes:
            vault, _, key_name = name.partition("/keys/")
            with KeyClient(vault, self._credential, **self._options) as client:
                found = client.get_key(key_name, version.decode("ascii", "replace"))
            with self._cryptography(found) as cryptography:
                return bytes(cryptography.unwrap_key(_algorithm(str(found.key_type)), encrypted).key)

        return bytes(self._call(name, work))

    def _cryptography(self, key: Any) -> Any:  # noqa: ANN401 -- the SDK ships no types
        from azure.keyvault.keys.crypto import CryptographyClient

        return CryptographyClient(key, self._credential, **self._options)

    def _call(self, name: str, call: Callable[[], bytes]) -> bytes:
        from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError

        kek_id = f"{self.provider}:{name}"
        try:
            return call()
        except ClientAuthenticationError as error:
            raise refused(kek_id, "no valid credential") from error
        except HttpResponseError as error:
            status = error.status_code or _FAILED
            reason = str(getattr(error.error, "code", None) or status)
            if status >= _FAILED or status == _BUSY:
                raise out_of_reach(kek_id, reason) from error
            raise refused(kek_id, reason) from error
        except AzureError as error:
            raise out_of_reach(kek_id, type(error).__name__) from error


def _algorithm(key_type: str) -> str:
    return "A256KW" if "oct" in key_type.lower() else "RSA-OAEP-256"


def _checked(key: str) -> str:
    parts = urlsplit(key)
    path = parts.path.split("/")
    if parts.scheme != "https" or not parts.netloc or len(path) != 3 or path[1] != "keys" or not path[2]:
        message = f"KEYTURN_KEK_AZURE_KEYS holds {key[:200]!r}, which is not of the form https://<vault>/keys/<name>"
        raise KekError(message, hint="leave the version out: every version of the key opens")
    return key
