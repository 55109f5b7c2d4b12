"""Root keys that a service keeps: one contract for all of them, through the real client of each."""

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from keyturn.config import Settings
from keyturn.errors import KekError, UnavailableError
from keyturn.kernel import envelope
from keyturn.kernel.secret import Secret
from keyturn.storage.kek import KekProvider, RootKeys, load_provider
from keyturn.storage.kek_aws import AwsKek
from keyturn.storage.kek_azure import AzureKek
from keyturn.storage.kek_gcp import GcpKek
from keyturn.storage.kek_remote import PAUSE_SECONDS, OutOfReachError
from keyturn.storage.kek_vault import VaultKek
from tests.storage.kek_services import CloudKms, KeyVault, Service, Transit, make_certificate, serving

# The clients of the clouds leave their connections to be collected.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

RING = "projects/p/locations/l/keyRings/r/cryptoKeys"


@dataclass
class Kept:
    """A provider over a service, and how to make the service fail; `other` is the same over another root key."""

    provider: KekProvider
    other: KekProvider
    fail: Callable[[], None]
    asked: Callable[[], int]


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kept]:
    import boto3
    from moto.server import ThreadedMotoServer

    for name, value in (
        ("ACCESS_KEY_ID", "testing"),
        ("SECRET_ACCESS_KEY", "testing"),
        ("EC2_METADATA_DISABLED", "true"),
    ):
        monkeypatch.setenv(f"AWS_{name}", value)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        with contextlib.closing(boto3.client("kms", region_name="eu-central-1", endpoint_url=endpoint)) as kms:
            keys = [kms.create_key()["KeyMetadata"]["KeyId"] for _ in range(2)]
            alias = f"alias/{keys[0]}"  # its state outlives a server
            kms.create_alias(AliasName=alias, TargetKeyId=keys[0])

        def load(*names: str) -> KekProvider:
            return load_provider(
                Settings(
                    kek_provider="aws-kms", kek_aws_keys=names, kek_aws_region="eu-central-1", kek_aws_endpoint=endpoint
                ),
                create=True,
            )

        yield Kept(load(alias), load(keys[1]), server.stop, lambda: 0)
    finally:
        with contextlib.suppress(Exception):  # it was stopped by the test
            server.stop()


@pytest.fixture
def vault() -> Iterator[Kept]:
    service = Transit("a-token")
    with serving(service) as port:

        def load(*names: str) -> KekProvider:
            return load_provider(
                Settings(
                    kek_provider="vault-transit",
                    kek_vault_address=f"http://127.0.0.1:{port}",
                    kek_vault_keys=names,
                    kek_vault_token=Secret("a-token"),
                ),
                create=True,
            )

        yield _kept(service, load("transit/keyturn"), load("transit/newer"))


@pytest.fixture
def gcp() -> Iterator[Kept]:
    from google.auth.credentials import AnonymousCredentials
    from google.cloud.kms import KeyManagementServiceClient
    from google.cloud.kms_v1.services.key_management_service.transports import KeyManagementServiceRestTransport

    service = CloudKms()
    with serving(service) as port:
        transport = KeyManagementServiceRestTransport(
            host=f"127.0.0.1:{port}",
            url_scheme="http",
            credentials=AnonymousCredentials(),  # type: ignore[no-untyped-call]
        )
        client = KeyManagementServiceClient(transport=transport)
        yield _kept(service, GcpKek(client, [f"{RING}/k"]), GcpKek(client, [f"{RING}/other"]))


class Credential:
    """A credential of the Azure SDK that is always the same."""

    def get_token(self, *_scopes: str, **_options: Any) -> Any:
        from azure.core.credentials import AccessToken

        return AccessToken("a-token", int(time.time()) + 3600)


@pytest.fixture
def azure(tmp_path: Path) -> Iterator[Kept]:
    certificate, key = make_certificate(tmp_path)
    first, second = KeyVault(), KeyVault()
    options = {"verify_challenge_resource": False, "connection_verify": str(certificate)}
    with serving(first, certificate, key) as port, serving(second, certificate, key) as other_port:
        first.address, second.address = f"https://localhost:{port}", f"https://localhost:{other_port}"
        yield _kept(
            first,
            AzureKek(Credential(), [f"{first.address}/keys/keyturn"], **options),
            AzureKek(Credential(), [f"{second.address}/keys/keyturn"], **options),
        )


def _only(provider: KekProvider) -> Any:
    assert isinstance(provider, RootKeys)
    return provider._providers[0]  # noqa: SLF001 -- as above


def _kept(service: Service, provider: KekProvider, other: KekProvider) -> Kept:
    def fail() -> None:
        service.failing = 503

    return Kept(provider, other, fail, lambda: service.asked)


@pytest.fixture(params=["aws", "vault", "gcp", "azure"])
def kept(request: pytest.FixtureRequest) -> Kept:
    found: Kept = request.getfixturevalue(request.param)
    return found


def test_wrapped_key_opens_and_says_under_what(kept: Kept) -> None:
    key = envelope.new_key()
    made = kept.provider.wrap(key)

    assert made.kek_id == kept.provider.id
    assert key not in made.wrapped
    assert kept.provider.unwrap(made.kek_id, made.wrapped) == key


def test_wrapped_key_does_not_open_under_another_root_key(kept: Kept) -> None:
    """Whoever may use one root key opens nothing of another's."""
    made = kept.provider.wrap(envelope.new_key())

    with pytest.raises(KekError):
        kept.other.unwrap(kept.other.id, made.wrapped)
    with pytest.raises(KekError, match=r"is wanted|sealed under"):
        kept.other.unwrap(made.kek_id, made.wrapped)


def test_altered_key_does_not_open(kept: Kept) -> None:
    made = kept.provider.wrap(envelope.new_key())
    altered = bytearray(made.wrapped)
    altered[-3] = altered[-3] ^ 1 if altered[-3] != ord("B") else ord("C")

    with pytest.raises(KekError, match="refuses"):
        kept.provider.unwrap(made.kek_id, bytes(altered))


def test_service_that_is_down_is_named_and_asked_once_for_all_who_wait(kept: Kept) -> None:
    """A stall of a service must not become a stall of the server."""
    made = kept.provider.wrap(envelope.new_key())
    kept.fail()

    with pytest.raises(OutOfReachError, match=made.kek_id.partition(":")[0]) as caught:
        kept.provider.unwrap(made.kek_id, made.wrapped)
    asked = kept.asked()
    for _ in range(3):
        with pytest.raises(UnavailableError):
            kept.provider.unwrap(made.kek_id, made.wrapped)

    assert PAUSE_SECONDS > 1
    assert kept.asked() == asked
    assert caught.value.code == "root_key_unavailable"


def test_proof_at_the_start_turns_a_service_that_is_down_into_a_refusal(kept: Kept) -> None:
    kept.fail()
    with pytest.raises(KekError, match="does not answer"):
        RootKeys([kept.provider]).prove()


def test_key_vault_key_of_an_older_version_still_opens(tmp_path: Path) -> None:
    """Key Vault's own rotation needs nothing here."""
    certificate, key = make_certificate(tmp_path)
    service = KeyVault()
    with serving(service, certificate, key) as port:
        service.address = f"https://localhost:{port}"
        options = {"verify_challenge_resource": False, "connection_verify": str(certificate)}
        provider = AzureKek(Credential(), [f"{service.address}/keys/keyturn"], **options)
        before = provider.wrap(bytes(32))
        service.add_version("second")
        after = provider.wrap(bytes(32))

        assert (before.wrapped[:6], after.wrapped[:7]) == (b"first\0", b"second\0")
        assert provider.unwrap(before.kek_id, before.wrapped) == bytes(32)


def test_wrong_token_of_vault_is_a_refusal_that_shows_nothing(vault: Kept) -> None:
    """Neither the token nor what was sent may be in the message."""
    wrong = VaultKek(_only(vault.provider)._client, Secret("wrong-" + "token"), ["transit/keyturn"])  # noqa: SLF001 -- as above

    with pytest.raises(KekError, match="status 403") as caught:
        wrong.wrap(bytes(32))
    assert "wrong-token" not in str(caught.value) + str(caught.value.internal)


def test_aws_binds_the_purpose(aws: Kept) -> None:
    """What was wrapped for Keyturn does not open for another purpose under the same key."""
    client = _only(aws.provider)._client  # noqa: SLF001 -- as above
    made = aws.provider.wrap(bytes(32))

    with pytest.raises(Exception, match="InvalidCiphertext"):
        client.decrypt(CiphertextBlob=made.wrapped, EncryptionContext={"application": "another"})


def test_aws_key_that_does_not_exist_refuses_to_start(aws: Kept) -> None:
    client = _only(aws.provider)._client  # noqa: SLF001 -- as above
    with pytest.raises(KekError, match="alias/absent refuses: NotFoundException"):
        AwsKek(client, ["alias/absent"])


def test_moving_between_providers_is_the_same_as_rotating_within_one(aws: Kept, vault: Kept) -> None:
    """The first seals, all open."""
    before = RootKeys([aws.provider])
    made = before.wrap(bytes(32))
    moving = RootKeys([vault.provider, aws.provider])

    assert moving.id == vault.provider.id
    assert moving.wrap(bytes(32)).kek_id == vault.provider.id
    assert moving.unwrap(made.kek_id, made.wrapped) == bytes(32)


@pytest.mark.parametrize(
    ("provider", "package", "extra", "named"),
    [
        ("aws-kms", "boto3", "aws", {"kek_aws_keys": ("k",)}),
        ("gcp-kms", "google.cloud.kms", "gcp", {"kek_gcp_keys": ("k",)}),
        ("azure-keyvault", "azure.identity", "azure", {"kek_azure_keys": ("https://v/keys/k",)}),
    ],
)
def test_missing_package_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, provider: str, package: str, extra: str, named: dict[str, Any]
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(KekError) as caught:
        load_provider(Settings(kek_provider=provider, **named), create=True)
    assert caught.value.hint == f"pip install 'keyturn[{extra}]'"


@pytest.mark.parametrize("provider", ["vault-transit", "azure-keyvault"])
def test_provider_without_its_settings_refuses(provider: str) -> None:
    with pytest.raises(KekError, match=r"needs|names no key"):
        load_provider(Settings(kek_provider=provider), create=True)


@pytest.mark.parametrize("key", ["keyturn", "/keyturn", "transit/", "transit/../sys"])
def test_vault_key_of_another_form_is_refused(key: str) -> None:
    named = Settings(
        kek_provider="vault-transit",
        kek_vault_address="http://127.0.0.1:9",
        kek_vault_keys=(key,),
        kek_vault_token=Secret("t"),
    )
    with pytest.raises(KekError, match="<mount>/<key>"):
        load_provider(named, create=True)


@pytest.mark.parametrize("key", ["http://v/keys/k", "https://v/k", "https://v/keys/k/version", "k"])
def test_azure_key_of_another_form_is_refused(key: str) -> None:
    with pytest.raises(KekError, match=r"https://<vault>/keys/<name>"):
        load_provider(Settings(kek_provider="azure-keyvault", kek_azure_keys=(key,)), create=True)


def test_google_credentials_are_looked_for_and_their_absence_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "absent.json"))
    named = Settings(kek_provider="gcp-kms", kek_gcp_keys=(f"{RING}/k",), kek_gcp_endpoint="kms.internal.example")
    with pytest.raises(KekError, match="finds no Google credentials"):
        load_provider(named, create=True)

    person = {"type": "authorized_user", "client_id": "i", "client_secret": "s", "refresh_token": "r"}
    (tmp_path / "absent.json").write_text(json.dumps(person))
    assert load_provider(named, create=True).ids == (f"gcp-kms:{RING}/k",)


def test_azure_is_asked_for_nothing_before_it_is_needed() -> None:
    named = Settings(kek_provider="azure-keyvault", kek_azure_keys=("https://v.vault.example/keys/keyturn",))
    assert load_provider(named, create=True).ids == ("azure-keyvault:https://v.vault.example/keys/keyturn",)


def test_aws_without_credentials_is_a_refusal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    named = Settings(kek_provider="aws-kms", kek_aws_keys=("alias/k",), kek_aws_region="eu-central-1")
    with pytest.raises(KekError, match="no AWS credentials were found"):
        load_provider(named, create=True)
