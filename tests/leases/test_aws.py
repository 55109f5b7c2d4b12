"""AWS STS against moto's server: sessions that work, and end by themselves."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import boto3
import pytest

from keyturn.errors import InputError
from keyturn.kernel.secret import Secret
from keyturn.leases.connectors.aws_sts import AwsStsConnector
from keyturn.leases.ports import NewAccount, ProviderError
from keyturn.testing.ports import free_port
from tests.leases.test_connectors import Patience

ROLE = "arn:aws:iam::123456789012:role/reader"


@pytest.fixture(scope="module")
def moto_url() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=free_port(), verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def connection(url: str) -> dict[str, Any]:
    return AwsStsConnector().read_connection(
        {"endpoint": url, "access_key_id": "AKIA" + "EXAMPLE", "secret_access_key": "".join(("sec", "ret"))}
    )


def account() -> NewAccount:
    return NewAccount("kt_reader_1", Secret("unused"), 1_900_000_000.0, 900)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    "config", [{"role_arn": ROLE}, {"policy": {"Version": "2012-10-17", "Statement": []}}], ids=["assume", "federate"]
)
async def test_a_session_of_aws_is_made_and_works(moto_url: str, config: dict[str, Any]) -> None:
    connector = AwsStsConnector()
    role = connector.read_role(config, 900, 3600)
    async with connector.open(connection(moto_url)) as session:
        await session.check()
        made = await session.create(role, account(), Patience())
        with pytest.raises(ProviderError, match="does not prolong"):
            await session.extend(role, "kt_reader_1", 0.0)
        await session.drop(role, "kt_reader_1")
    assert set(made) == {"access_key_id", "secret_access_key", "session_token"}
    session_of_the_lease = boto3.Session(made["access_key_id"], made["secret_access_key"], made["session_token"])
    with closing(session_of_the_lease.client("sts", region_name="us-east-1", endpoint_url=moto_url)) as client:
        assert client.get_caller_identity()["Arn"]


@pytest.mark.slow
async def test_aws_out_of_reach_is_an_error_without_keys() -> None:
    connector = AwsStsConnector()
    with pytest.raises(ProviderError, match="AWS: ") as refused:
        async with connector.open(connection(f"http://127.0.0.1:{free_port()}")) as session:
            await session.check()
    assert "secret" not in str(refused.value)


def test_a_time_that_aws_does_not_allow_is_refused_when_the_role_is_made() -> None:
    """A session lives as long as AWS made it: a shorter lease would end before its credential."""
    connector = AwsStsConnector()
    assert connector.seconds_min == 900
    with pytest.raises(InputError, match="900 to 43200"):
        connector.read_role({"role_arn": ROLE}, 60, 3600)
    with pytest.raises(InputError, match="900 to 43200"):
        connector.read_role({"role_arn": ROLE}, 900, 90_000)
    with pytest.raises(InputError, match="role_arn"):
        connector.read_role({}, 900, 3600)
    with pytest.raises(InputError, match="or neither"):
        connector.read_connection({"access_key_id": "AKIA" + "EXAMPLE"})
