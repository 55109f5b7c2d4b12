"""The provider `gcp-kms`: root keys in Google Cloud KMS, which wrap by encrypt and unwrap by decrypt.

Credentials are the application default credentials.  The right needed is `roles/cloudkms.cryptoKeyEncrypterDecrypter`
on each key.  The purpose is the additional authenticated data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keyturn.errors import KekError
from keyturn.storage.kek_remote import ANSWER_SECONDS, PURPOSE, RemoteKek, missing_package, out_of_reach, refused

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from keyturn.config import Settings


class GcpKek(RemoteKek):
    """Root keys in Google Cloud KMS, named `projects/…/locations/…/keyRings/…/cryptoKeys/…`."""

    provider = "gcp-kms"

    def __init__(self, client: Any, keys: Sequence[str]) -> None:  # noqa: ANN401 -- the SDK ships no types
        """Use an SDK client; nothing is asked."""
        super().__init__(keys)
        self._client = client

    @classmethod
    def from_settings(cls, settings: Settings, *, create: bool) -> GcpKek:  # noqa: ARG003 -- never made here
        """Connect as the settings say; nothing is asked."""
        try:
            from google.api_core.client_options import ClientOptions
            from google.auth.exceptions import GoogleAuthError
            from google.cloud.kms import KeyManagementServiceClient
        except ImportError:
            raise missing_package(cls.provider, "gcp") from None
        options = ClientOptions(api_endpoint=settings.kek_gcp_endpoint) if settings.kek_gcp_endpoint else None
        try:
            client = KeyManagementServiceClient(client_options=options, transport="rest")
        except (GoogleAuthError, ValueError) as error:
            message = "KEYTURN_KEK_PROVIDER=gcp-kms finds no Google credentials"
            hint = "set GOOGLE_APPLICATION_CREDENTIALS, or give the machine a service account"
            raise KekError(message, hint=hint, internal=type(error).__name__) from error
        return cls(client, settings.kek_gcp_keys)

    def _wrap(self, name: str, key: bytes) -> bytes:
        request = {"name": name, "plaintext": key, "additional_authenticated_data": PURPOSE.encode()}
        answer = self._call(name, lambda: self._client.encrypt(request=request, timeout=ANSWER_SECONDS, retry=None))
        return bytes(answer.ciphertext)

    def _unwrap(self, name: str, wrapped: bytes) -> bytes:
        request = {"name": name, "ciphertext": wrapped, "additional_authenticated_data": PURPOSE.encode()}
        answer = self._call(name, lambda: self._client.decrypt(request=request, timeout=ANSWER_SECONDS, retry=None))
        return bytes(answer.plaintext)

    def _call(self, name: str, call: Callable[[], Any]) -> Any:  # noqa: ANN401 -- the SDK ships no types
        from google.api_core.exceptions import ClientError, GoogleAPIError, TooManyRequests
        from google.auth.exceptions import GoogleAuthError, TransportError

        kek_id = f"{self.provider}:{name}"
        try:
            return call()
        except ClientError as error:
            reason = str(getattr(error.grpc_status_code, "name", None) or error.code)
            if isinstance(error, TooManyRequests):
                raise out_of_reach(kek_id, reason) from error
            raise refused(kek_id, reason) from error
        except (TransportError, GoogleAPIError, OSError) as error:
            raise out_of_reach(kek_id, type(error).__name__) from error
        except GoogleAuthError as error:
            raise refused(kek_id, type(error).__name__) from error
