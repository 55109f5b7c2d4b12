"""`hvac`, unmodified, against a real server and a real PostgreSQL: credentials made on demand and their leases."""

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import hvac
import hvac.exceptions
import pytest

from keyturn.testing.postgres import PostgresServer
from keyturn.testing.server import RunningServer

pytestmark = [pytest.mark.postgres, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

Roles = Callable[[], set[str]]


@pytest.fixture(scope="module")
def roles(postgres_server: PostgresServer) -> Roles:
    """Name the roles that may log in to the real PostgreSQL."""
    return lambda: set(postgres_server.query("SELECT rolname FROM pg_roles WHERE rolcanlogin").split())


@pytest.fixture(scope="module")
def source(native: Callable[..., Any], postgres_server: PostgresServer) -> str:
    """A source named `orders-db`, with the role `readonly`."""
    url = urlsplit(postgres_server.url())
    connection = {
        "host": url.hostname,
        "port": url.port,
        "database": "postgres",
        "username": url.username,
        "password": url.password,
        "tls": "disable",
    }
    native("POST", "/credential-sources", {"name": "orders-db", "kind": "postgresql", "connection": connection})
    role = {"name": "readonly", "config": {}, "ttl_seconds": 600, "max_ttl_seconds": 3600}
    native("POST", "/credential-sources/orders-db/roles", role)
    return "orders-db"


def test_an_account_appears_is_renewed_and_disappears(client: Any, source: str, roles: Roles) -> None:
    before = roles()
    made = client.secrets.database.generate_credentials("readonly", mount_point=source)
    assert made["lease_id"].startswith("orders-db/creds/readonly/")
    assert (made["lease_duration"], made["renewable"]) == (600, True)
    assert set(made["data"]) == {"username", "password"}
    assert roles() - before == {made["data"]["username"]}
    looked = client.sys.read_lease(made["lease_id"])["data"]
    assert (looked["id"], looked["renewable"]) == (made["lease_id"], True)
    assert 0 < looked["ttl"] <= 600
    renewed = client.sys.renew_lease(made["lease_id"], increment=1200)
    assert (renewed["lease_id"], renewed["data"]) == (made["lease_id"], None)
    assert 1100 < renewed["lease_duration"] <= 1200
    assert client.sys.renew_lease(made["lease_id"], increment="48h")["lease_duration"] <= 3600
    assert client.sys.list_leases("orders-db/creds/readonly")["data"]["keys"] == [made["lease_id"].rpartition("/")[2]]
    assert client.sys.list_leases("orders-db")["data"]["keys"] == ["creds/"]
    assert client.sys.revoke_lease(made["lease_id"]).status_code == 204
    assert roles() == before


def test_everything_under_a_path_ends(client: Any, source: str, roles: Roles) -> None:
    before = roles()
    for _ in range(3):
        client.read(f"{source}/creds/readonly")
    assert len(roles() - before) == 3
    assert client.sys.revoke_prefix(f"{source}/creds/readonly").status_code == 204
    deadline_looks = 200
    while roles() != before and deadline_looks:
        deadline_looks -= 1
        client.sys.read_health_status()
    assert roles() == before
    with pytest.raises(hvac.exceptions.InvalidPath):
        client.sys.list_leases(source)


def test_the_older_names_still_work(client: Any, source: str) -> None:
    made = client.read(f"{source}/creds/readonly")
    for path in ("sys/renew", f"sys/renew/{made['lease_id']}", "sys/leases/renew"):
        renewed = client.adapter.put(f"/v1/{path}", json={"lease_id": made["lease_id"], "increment": 60})
        assert renewed["lease_duration"] <= 60
    assert client.adapter.put(f"/v1/sys/revoke/{made['lease_id']}").status_code == 204


def test_a_lease_that_is_none_is_told_so(client: Any, source: str) -> None:
    for lease in (f"{source}/creds/readonly/nothing", "nothing", "a/b/c/d/e"):
        with pytest.raises(hvac.exceptions.InvalidRequest, match="invalid lease"):
            client.sys.read_lease(lease)
        with pytest.raises(hvac.exceptions.InvalidRequest, match="lease not found"):
            client.sys.renew_lease(lease)
        with pytest.raises(hvac.exceptions.InvalidRequest, match="lease not found"):
            client.sys.revoke_lease(lease)
    with pytest.raises(hvac.exceptions.InvalidRequest):
        client.sys.read_lease("")
    assert client.read(f"{source}/creds/nothing") is None
    assert client.read("nothing/creds/readonly") is None


def test_who_may_not_make_or_end_credentials_is_forbidden(
    client: Any, source: str, server: RunningServer, hire: Callable[..., str]
) -> None:
    made = client.read(f"{source}/creds/readonly")
    outsider = hvac.Client(server.url, hire("no-database"))
    for role in ("readonly", "nothing"):
        with pytest.raises(hvac.exceptions.Forbidden):
            outsider.read(f"{source}/creds/{role}")
    for lease in (made["lease_id"], f"{source}/creds/readonly/nothing"):
        for name in ("read_lease", "renew_lease", "revoke_lease"):
            with pytest.raises(hvac.exceptions.Forbidden):
                getattr(outsider.sys, name)(lease)
    with pytest.raises(hvac.exceptions.Forbidden):
        outsider.sys.revoke_prefix(source)
    client.sys.revoke_prefix(source)


def test_a_credential_is_handed_over_wrapped(client: Any, source: str, server: RunningServer) -> None:
    wrapped = client.read(f"{source}/creds/readonly", wrap_ttl="60s")
    opened = hvac.Client(server.url, "").sys.unwrap(wrapped["wrap_info"]["token"])
    assert opened["lease_id"].startswith("orders-db/creds/readonly/")
    assert opened["lease_duration"] == 600
    assert opened["data"]["username"]
    client.sys.revoke_lease(opened["lease_id"])
