"""AWS STS: sessions of an assumed role, or of a federated user.

Nothing takes such a session back: it ends when it was made to end, and its lease with it.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from keyturn.errors import InputError
from keyturn.leases.connectors.settings import Word, read
from keyturn.leases.connectors.threads import Threads
from keyturn.leases.ports import Deadline, Destination, NewAccount, ProviderError
from keyturn.leases.rules import public_error

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

SECONDS_MIN: Final = 900
SECONDS_MAX: Final = 43_200
CONNECT_SECONDS: Final = 5
COMMAND_SECONDS: Final = 10


class AwsConnection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """With which credentials STS is asked, and where."""

    region: Word = "us-east-1"
    access_key_id: Word | None = None
    """None for what the machine itself has, such as an instance's role."""
    secret_access_key: Annotated[str, Meta(max_length=1024)] = ""
    endpoint: Annotated[str, Meta(max_length=1024, pattern=r"^https?://[!-~]+(?!\n)$")] | None = None


class AwsRole(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a session may do: the role that is assumed, or a federated user within a policy."""

    role_arn: Annotated[str, Meta(min_length=20, max_length=2048, pattern=r"^arn:[!-~]+(?!\n)$")] | None = None
    policy: dict[str, Any] | None = None


class AwsStsConnector:
    """Makes sessions of AWS."""

    renewable = False
    revocable = False
    seconds_min = SECONDS_MIN
    secret_settings = frozenset({"secret_access_key"})

    def __init__(self) -> None:
        """Have threads of its own."""
        self._threads = Threads("keyturn-sts")

    def read_connection(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Check the settings of a connection."""
        settings = read(given, AwsConnection, "connection")
        _check_endpoint(settings.endpoint)
        if (settings.access_key_id is None) == bool(settings.secret_access_key):
            raise InputError("expected access_key_id and secret_access_key, or neither", field="connection")
        return msgspec.structs.asdict(settings)

    def borrows(self, connection: Mapping[str, Any]) -> bool:
        """Tell whether it uses what the machine has, such as an instance's role."""
        return connection.get("access_key_id") is None

    def read_role(self, given: Mapping[str, Any], ttl_seconds: int, max_ttl_seconds: int) -> dict[str, Any]:
        """Check what a session may do, and that AWS allows its time."""
        role = read(given, AwsRole, "config")
        if role.role_arn is None and role.policy is None:
            raise InputError("expected role_arn, or a policy for a federated user", field="config")
        for field, seconds in (("ttl_seconds", ttl_seconds), ("max_ttl_seconds", max_ttl_seconds)):
            if not SECONDS_MIN <= seconds <= SECONDS_MAX:
                raise InputError(f"AWS allows {SECONDS_MIN} to {SECONDS_MAX} seconds, found {seconds}", field=field)
        return msgspec.structs.asdict(role)

    def destination(self, connection: Mapping[str, Any]) -> Destination | None:
        """Say where an endpoint leads that was given; AWS's own need no guard."""
        endpoint = connection.get("endpoint")
        if endpoint is None:
            return None
        parts = urlsplit(endpoint)
        port = parts.port or (443 if parts.scheme == "https" else 80)

        def moved(address: str) -> dict[str, Any]:
            shown = f"[{address}]" if ":" in address else address
            return {**connection, "endpoint": parts._replace(netloc=f"{shown}:{port}").geturl()}

        plain = parts.scheme == "http"
        return Destination(parts.hostname or "", port, parts.scheme, "endpoint", moved if plain else None)

    @asynccontextmanager
    async def open(self, connection: Mapping[str, Any]) -> AsyncIterator[AwsStsSession]:
        """Prepare a client; nothing is sent yet."""
        settings = read(connection, AwsConnection, "connection")
        client = await self._threads.run(_guarded, lambda: _client(settings), settings.secret_access_key)
        try:
            yield AwsStsSession(client, self._threads, settings)
        finally:
            client.close()


class AwsStsSession:
    """One client."""

    def __init__(self, client: Any, threads: Threads, settings: AwsConnection) -> None:  # noqa: ANN401 -- boto3 has no types
        """Use a client."""
        self._client = client
        self._threads = threads
        self._settings = settings

    async def create(self, role: Mapping[str, Any], account: NewAccount, deadline: Deadline) -> dict[str, str]:
        """Ask for a session of exactly the lease's time."""
        kept = read(role, AwsRole, "config")
        policy = None if kept.policy is None else msgspec.json.encode(kept.policy).decode()
        given: dict[str, Any] = {"DurationSeconds": account.ttl_seconds}
        if policy is not None:
            given["Policy"] = policy

        def make() -> Any:  # noqa: ANN401 -- boto3 has no types
            deadline.check()
            if kept.role_arn is not None:
                return self._client.assume_role(RoleArn=kept.role_arn, RoleSessionName=account.name, **given)
            return self._client.get_federation_token(Name=account.name, **given)

        made = (await self._run(make))["Credentials"]
        return {
            "access_key_id": made["AccessKeyId"],
            "secret_access_key": made["SecretAccessKey"],
            "session_token": made["SessionToken"],
        }

    async def extend(self, role: Mapping[str, Any], name: str, expires_at: float) -> None:  # noqa: ARG002 -- the port
        """Refuse: a session is never prolonged."""
        raise ProviderError("AWS does not prolong a session")

    async def drop(self, role: Mapping[str, Any], name: str) -> None:
        """Do nothing: nothing takes a session back."""

    async def exists(self, name: str) -> bool:  # noqa: ARG002 -- the port
        """Say no: AWS lists no sessions."""
        return False

    async def check(self) -> None:
        """Tell whether the credentials are valid."""
        await self._run(self._client.get_caller_identity)

    async def _run(self, call: Callable[[], Any]) -> Any:  # noqa: ANN401 -- boto3 has no types
        return await self._threads.run(_guarded, call, self._settings.secret_access_key)


def _check_endpoint(endpoint: str | None) -> None:
    """Refuse an address that could be read in two ways."""
    try:
        parts = urlsplit(endpoint or "https://sts.example")
        understood = bool(parts.hostname) and parts.port != 0 and "@" not in parts.netloc and "\\" not in parts.netloc
    except ValueError:
        understood = False
    if not understood:
        raise InputError("connection.endpoint: expected an address of host and port", field="connection.endpoint")


def _client(settings: AwsConnection) -> Any:  # noqa: ANN401 -- boto3 has no types
    import boto3
    from botocore.config import Config

    given: dict[str, Any] = {}
    if settings.access_key_id is not None:
        given = {
            "aws_access_key_id": settings.access_key_id,
            "aws_secret_access_key": settings.secret_access_key,
        }
    config = Config(connect_timeout=CONNECT_SECONDS, read_timeout=COMMAND_SECONDS, retries={"total_max_attempts": 1})
    return boto3.session.Session(region_name=settings.region).client(
        "sts", endpoint_url=settings.endpoint, config=config, **given
    )


def _guarded(call: Callable[[], Any], *secrets: str) -> Any:  # noqa: ANN401 -- boto3 has no types
    try:
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError:
        raise ProviderError("this needs boto3: install keyturn[server,aws]") from None
    try:
        return call()
    except (BotoCoreError, ClientError, OSError) as error:
        said = public_error(str(error), secrets)
    raise ProviderError(f"AWS: {said}")
