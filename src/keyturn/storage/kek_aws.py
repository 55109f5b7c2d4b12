"""The provider `aws-kms`: root keys in AWS KMS, which wrap by Encrypt and unwrap by Decrypt.

Credentials come from where the AWS SDK looks for them.  The rights needed on each key are `kms:Encrypt` (the first
one only), `kms:Decrypt` and `kms:DescribeKey`.  The encryption context is `application=keyturn` and the purpose.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, Final

from keyturn.errors import KekError
from keyturn.storage.kek_remote import (
    ANSWER_SECONDS,
    CONNECT_SECONDS,
    PURPOSE,
    OutOfReachError,
    RemoteKek,
    missing_package,
    out_of_reach,
    refused,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from keyturn.config import Settings

CONTEXT: Final = {"application": "keyturn", "purpose": PURPOSE}
_DOWN: Final = frozenset(
    {"DependencyTimeoutException", "KMSInternalException", "ServiceUnavailable", "ThrottlingException", "InternalError"}
)


class AwsKek(RemoteKek):
    """Root keys in AWS KMS, named by their ARN."""

    provider = "aws-kms"

    def __init__(self, client: Any, keys: Sequence[str]) -> None:  # noqa: ANN401 -- boto3 ships no types
        """Use an SDK client; keys may be ids, ARNs or aliases, and are looked up once.  Raises KekError."""
        self._client = client
        # Its connections go with it: the port has no close.
        weakref.finalize(self, client.close)
        try:
            super().__init__([self._arn(key) for key in keys])
        except OutOfReachError as error:
            raise KekError(error.message, hint=error.hint, internal=error.internal) from error

    @classmethod
    def from_settings(cls, settings: Settings, *, create: bool) -> AwsKek:  # noqa: ARG003 -- never made here
        """Connect as the settings say; nothing is asked but the ARNs of the keys."""
        try:
            import boto3
            from botocore.config import Config
            from botocore.exceptions import BotoCoreError
        except ImportError:
            raise missing_package(cls.provider, "aws") from None
        bounds = Config(
            connect_timeout=CONNECT_SECONDS,
            read_timeout=ANSWER_SECONDS,
            retries={"mode": "standard", "total_max_attempts": 1},
        )
        try:
            client = boto3.Session().client(
                "kms",
                region_name=settings.kek_aws_region or None,
                endpoint_url=settings.kek_aws_endpoint or None,
                config=bounds,
            )
        except (BotoCoreError, ValueError) as error:
            message = "KEYTURN_KEK_PROVIDER=aws-kms cannot be set up"
            hint = "check KEYTURN_KEK_AWS_REGION and KEYTURN_KEK_AWS_ENDPOINT"
            raise KekError(message, hint=hint, internal=type(error).__name__) from error
        return cls(client, settings.kek_aws_keys)

    def _wrap(self, name: str, key: bytes) -> bytes:
        answer = self._call(name, lambda: self._client.encrypt(KeyId=name, Plaintext=key, EncryptionContext=CONTEXT))
        return bytes(answer["CiphertextBlob"])

    def _unwrap(self, name: str, wrapped: bytes) -> bytes:
        answer = self._call(
            name, lambda: self._client.decrypt(KeyId=name, CiphertextBlob=wrapped, EncryptionContext=CONTEXT)
        )
        return bytes(answer["Plaintext"])

    def _arn(self, key: str) -> str:
        return str(self._call(key, lambda: self._client.describe_key(KeyId=key))["KeyMetadata"]["Arn"])

    def _call(self, name: str, call: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

        kek_id = f"{self.provider}:{name}"
        try:
            return call()
        except NoCredentialsError:
            raise refused(kek_id, "no AWS credentials were found") from None
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", "unknown"))
            if code in _DOWN:
                raise out_of_reach(kek_id, code) from error
            raise refused(kek_id, code) from error
        except BotoCoreError as error:
            raise out_of_reach(kek_id, type(error).__name__) from error
