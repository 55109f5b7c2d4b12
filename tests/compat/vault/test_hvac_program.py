"""The program that people have, unmodified but for address and token, on both databases."""

from collections.abc import Callable
from typing import Any

import hvac
import hvac.exceptions
import pytest

from keyturn.testing.server import RunningServer

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # what hvac warns of is its own


def test_the_program_that_people_have_runs_unchanged(
    start_server: Callable[..., RunningServer], server_database_url: str | None
) -> None:
    server = start_server(server_database_url, env={"KEYTURN_SOURCE_ALLOW": "127.0.0.1/32"})
    client = hvac.Client(server.url, server.admin_token)
    assert client.is_authenticated()
    path = "api-keys/payment-gateway"
    kv = client.secrets.kv.v2
    made = kv.create_or_update_secret(path=path, secret={"key": "one", "url": "https://pay.example"})
    assert (made["data"]["version"], made["data"]["destroyed"], made["data"]["deletion_time"]) == (1, False, "")
    read = kv.read_secret_version(path=path)
    assert read["data"]["data"] == {"key": "one", "url": "https://pay.example"}
    assert read["data"]["metadata"]["version"] == 1
    assert read["lease_id"] == ""
    assert (read["lease_duration"], read["renewable"], read["auth"], read["wrap_info"]) == (0, False, None, None)

    assert kv.patch(path=path, secret={"key": "two"})["data"]["version"] == 2
    assert kv.read_secret_version(path=path)["data"]["data"] == {"key": "two", "url": "https://pay.example"}
    assert kv.read_secret_version(path=path, version=1)["data"]["data"]["key"] == "one"
    assert kv.list_secrets(path="api-keys")["data"]["keys"] == ["payment-gateway"]
    assert kv.list_secrets(path="")["data"]["keys"] == ["api-keys/"]

    assert kv.delete_latest_version_of_secret(path=path).status_code == 204
    with pytest.raises(hvac.exceptions.InvalidPath) as caught:
        kv.read_secret_version(path=path, raise_on_deleted_version=True)
    gone: Any = caught.value.json
    assert gone["data"]["data"] is None
    assert gone["data"]["metadata"]["version"] == 2
    assert gone["data"]["metadata"]["deletion_time"] != ""
    assert kv.read_secret_version(path=path, raise_on_deleted_version=False)["data"]["data"] is None

    assert kv.undelete_secret_versions(path=path, versions=[2]).status_code == 204
    assert kv.read_secret_version(path=path)["data"]["data"]["key"] == "two"
    assert kv.destroy_secret_versions(path=path, versions=[1]).status_code == 204
    with pytest.raises(hvac.exceptions.InvalidPath) as caught:
        kv.read_secret_version(path=path, version=1)
    gone = caught.value.json
    assert gone["data"]["metadata"]["destroyed"] is True

    client.sys.enable_auth_method("approle")
    client.auth.approle.create_or_update_approle("worker")
    role_id = client.auth.approle.read_role_id("worker")["data"]["role_id"]
    wrapped = client.auth.approle.generate_secret_id("worker", wrap_ttl="60s")["wrap_info"]["token"]
    secret_id = hvac.Client(server.url, wrapped).sys.unwrap()["data"]["secret_id"]
    worker = hvac.Client(server.url)
    worker.auth.approle.login(role_id=role_id, secret_id=secret_id)
    assert worker.is_authenticated()
    with pytest.raises(hvac.exceptions.Forbidden):
        worker.secrets.kv.v2.read_secret_version(path=path)
    worker.logout(revoke_token=True)
