"""Where a credential source may be: the internet and what the operator lists, judged each time it is used."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Any

import pytest

from keyturn.bootstrap.source_guard import SETTING, GuardedConnectors
from keyturn.errors import InputError
from keyturn.leases.connectors.aws_sts import AwsStsConnector
from keyturn.leases.connectors.mysql import MysqlConnector
from keyturn.leases.connectors.postgresql import PostgresqlConnector
from keyturn.leases.connectors.redis import RedisConnector
from keyturn.leases.ports import Connector, ProviderError

LISTED = (ip_network("10.40.0.0/16"),)
OUTSIDE = "93.184.215.14"


class Recorded:
    """Makes a connector remember where it was sent, in place of connecting."""

    def __init__(self, real: Connector) -> None:
        self._real = real
        self.opened: list[Mapping[str, Any]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    @asynccontextmanager
    async def open(self, connection: Mapping[str, Any]) -> AsyncIterator[Any]:
        self.opened.append(connection)
        yield None


@dataclass
class Town:
    """Connectors behind the guard, and a name server that says what it is told to."""

    answers: list[str] = field(default_factory=lambda: [OUTSIDE])
    asked: int = 0

    def __post_init__(self) -> None:
        self.kinds_ = {
            "postgresql": Recorded(PostgresqlConnector()),
            "mysql": Recorded(MysqlConnector()),
            "redis": Recorded(RedisConnector()),
            "aws_sts": Recorded(AwsStsConnector()),
        }
        self.guarded = GuardedConnectors(self, LISTED, resolver=self.resolve)

    def get(self, kind: str) -> Any:
        return self.kinds_.get(kind)

    def kinds(self) -> tuple[str, ...]:
        return tuple(self.kinds_)

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        del port
        self.asked += 1
        if not self.answers:
            raise OSError("no such name")
        return self.answers if not host[0].isdigit() else [host]

    async def open(self, kind: str, given: Mapping[str, Any]) -> Mapping[str, Any]:
        connector = self.guarded.get(kind)
        assert connector is not None
        connection = connector.read_connection(given)
        async with connector.open(connection):
            return self.kinds_[kind].opened[-1]


def given(kind: str, host: str, tls: str = "disable") -> dict[str, Any]:
    if kind == "aws_sts":
        scheme = "https" if tls == "verify" else "http"
        return {"access_key_id": "id", "secret_access_key": "value", "endpoint": f"{scheme}://{host}:4566/sts"}
    user = {} if kind == "redis" else {"username": "keyturn"}
    return {"host": host, "tls": tls, **user}


KINDS = ["postgresql", "mysql", "redis", "aws_sts"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("host", ["127.0.0.1", "169.254.169.254", "192.168.1.1", "10.41.0.1"])
def test_address_that_is_not_the_internet_is_refused_when_it_is_given(kind: str, host: str) -> None:
    """SECURITY: nobody makes the server speak to itself, to its neighbours, or to a metadata service."""
    with pytest.raises(InputError) as refused:
        Town().guarded.get(kind).read_connection(given(kind, host))  # type: ignore[union-attr]

    assert refused.value.field == ("connection.endpoint" if kind == "aws_sts" else "connection.host")
    assert SETTING in (refused.value.hint or "")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("answers", [["127.0.0.1"], [OUTSIDE, "10.0.0.1"], ["::ffff:169.254.169.254"], []])
async def test_name_is_judged_by_what_it_leads_to_at_each_use(kind: str, answers: list[str]) -> None:
    """SECURITY: a name that led outside when the source was made may lead inside now."""
    town = Town(["10.40.0.7"])
    await town.open(kind, given(kind, "db.example", "verify"))
    town.answers = answers

    with pytest.raises(ProviderError):
        await town.open(kind, given(kind, "db.example", "verify"))
    assert (town.asked, len(town.kinds_[kind].opened)) == (2, 1)


@pytest.mark.parametrize("kind", KINDS)
async def test_connection_goes_to_the_address_that_was_checked_unless_tls_proves_the_name(kind: str) -> None:
    """SECURITY: the name is not asked a second time, where nothing would notice another answer."""
    town = Town(["10.40.0.7"])
    plain = await town.open(kind, given(kind, "db.example"))
    proven = await town.open(kind, given(kind, "db.example", "verify"))

    place = "endpoint" if kind == "aws_sts" else "host"
    assert plain[place] == ("http://10.40.0.7:4566/sts" if kind == "aws_sts" else "10.40.0.7")
    assert proven[place] == ("https://db.example:4566/sts" if kind == "aws_sts" else "db.example")


async def test_plain_http_is_for_listed_networks_alone() -> None:
    with pytest.raises(ProviderError, match=SETTING):
        await Town([OUTSIDE]).open("aws_sts", given("aws_sts", "sts.example"))


@pytest.mark.parametrize(
    "endpoint", ["https://user@sts.example/", "https://sts.example\\@127.0.0.1/", "https://[::1/", "https://:80/"]
)
def test_endpoint_that_could_be_read_in_two_ways_is_refused(endpoint: str) -> None:
    with pytest.raises(InputError):
        AwsStsConnector().read_connection({"access_key_id": "id", "secret_access_key": "value", "endpoint": endpoint})


async def test_what_aws_itself_is_reached_at_needs_no_list() -> None:
    town = Town()
    await town.open("aws_sts", {"access_key_id": "id", "secret_access_key": "value"})
    assert town.asked == 0
