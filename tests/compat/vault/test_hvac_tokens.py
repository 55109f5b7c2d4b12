"""`hvac`, unmodified, against a real server: AppRole, its administration, and tokens."""

from collections.abc import Callable
from typing import Any

import httpx
import hvac
import hvac.exceptions
import pytest

from keyturn.testing.server import RunningServer

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # what hvac warns of is its own


@pytest.fixture(scope="module")
def approle(client: Any) -> Any:
    """AppRole, enabled as programs enable it."""
    client.sys.enable_auth_method("approle")
    return client.auth.approle


@pytest.fixture(scope="module")
def web(client: Any, approle: Any, native: Callable[..., Any]) -> tuple[str, str]:
    """A role whose service may read `production/web/*`; its role-id and a secret-id."""
    approle.create_or_update_approle(
        role_name="web",
        token_policies=["secret.*", "login_token.*", "wrap.create"],
        token_ttl="20m",
        token_max_ttl="1h",
    )
    service = next(one for one in native("GET", "/principals?limit=200")["items"] if one["name"] == "web")
    grant = {
        "principal": service["id"],
        "actions": ["secret.read", "secret.list"],
        "resource": "secret/production/web/*",
    }
    native("POST", "/grants", grant)
    below = {"principal": service["id"], "actions": ["login_token.issue"], "resource": "login_token/*"}
    native("POST", "/grants", below)
    client.secrets.kv.v2.create_or_update_secret("web/a", {"n": 1})
    role_id = approle.read_role_id("web")["data"]["role_id"]
    return role_id, approle.generate_secret_id("web")["data"]["secret_id"]


def logged_in(server: RunningServer, web: tuple[str, str]) -> Any:
    client = hvac.Client(server.url)
    client.auth.approle.login(role_id=web[0], secret_id=web[1])
    return client


def test_a_login_gives_a_token_that_can_do_what_its_role_leaves(server: RunningServer, web: tuple[str, str]) -> None:
    client = hvac.Client(server.url)
    told = client.auth.approle.login(role_id=web[0], secret_id=web[1])
    auth = told["auth"]
    assert (auth["token_type"], auth["renewable"], auth["policies"]) == (
        "service",
        True,
        ["secret.*", "login_token.*", "wrap.create"],
    )
    assert 0 < auth["lease_duration"] <= 1200
    assert auth["metadata"]["role_name"] == "web"
    assert client.is_authenticated()
    assert client.secrets.kv.v2.read_secret_version("web/a")["data"]["data"] == {"n": 1}
    with pytest.raises(hvac.exceptions.Forbidden):
        client.secrets.kv.v2.create_or_update_secret("web/a", {"n": 2})
    with pytest.raises(hvac.exceptions.Forbidden):
        client.auth.approle.read_role("web")


def test_what_is_wrong_with_a_login_is_not_told(server: RunningServer, web: tuple[str, str]) -> None:
    stranger = hvac.Client(server.url)
    said = set()
    for role_id, secret_id in ((web[0], "nothing"), ("no-such-role-id", web[1]), ("no-such-role-id", "x")):
        with pytest.raises(hvac.exceptions.InvalidRequest) as caught:
            stranger.auth.approle.login(role_id=role_id, secret_id=secret_id)
        said.add(str(caught.value.errors))
    assert said == {"['invalid role or secret ID']"}
    with pytest.raises(hvac.exceptions.InvalidRequest):
        stranger.auth.approle.login(role_id=web[0])
    with pytest.raises(hvac.exceptions.InvalidRequest):
        stranger.auth.approle.login(role_id=web[0], secret_id=web[1], mount_point="another")
    with pytest.raises(hvac.exceptions.Forbidden):
        stranger.auth.jwt.jwt_login(role="web", jwt="a.b.c")
    with pytest.raises(hvac.exceptions.Forbidden):
        stranger.auth.kubernetes.login(role="web", jwt="a.b.c")
    other = hvac.Client(server.url, namespace="elsewhere")
    with pytest.raises(hvac.exceptions.InvalidRequest):
        other.auth.approle.login(role_id=web[0], secret_id=web[1])


def test_a_token_is_looked_up_renewed_and_revoked_by_itself(server: RunningServer, web: tuple[str, str]) -> None:
    client = logged_in(server, web)
    told = client.auth.token.lookup_self()["data"]
    assert told["id"] == client.token
    assert (told["type"], told["renewable"], told["num_uses"], told["orphan"]) == ("service", True, 0, True)
    assert isinstance(told["ttl"], int)
    assert told["expire_time"].endswith("Z")
    assert told["path"] == "auth/approle/login"
    renewed = client.auth.token.renew_self(increment="30m")["auth"]
    assert renewed["client_token"] == client.token
    assert 1200 < renewed["lease_duration"] <= 1800
    assert client.auth.token.renew_self(increment="10h")["auth"]["lease_duration"] <= 3600
    assert client.auth.token.revoke_self().status_code == 204
    with pytest.raises(hvac.exceptions.Forbidden):
        client.auth.token.lookup_self()


def test_tokens_below_ones_own_end_with_it(server: RunningServer, web: tuple[str, str], client: Any) -> None:
    parent = logged_in(server, web)
    made = parent.auth.token.create(policies=["secret.list"], ttl="5m", display_name="child", meta={"job": "7"})["auth"]
    assert made["policies"] == ["secret.list"]
    assert made["orphan"] is False
    child = hvac.Client(server.url, made["client_token"])
    assert child.secrets.kv.v2.list_secrets("web")["data"]["keys"] == ["a"]
    with pytest.raises(hvac.exceptions.Forbidden):
        child.secrets.kv.v2.read_secret_version("web/a")
    least = parent.auth.token.create(policies=["default"])["auth"]["client_token"]
    with pytest.raises(hvac.exceptions.Forbidden):
        hvac.Client(server.url, least).secrets.kv.v2.list_secrets("web")
    for refused in ({"id": "mine"}, {"no_parent": True}, {"num_uses": 1}, {"period": "1h"}, {"type": "batch"}):
        with pytest.raises(hvac.exceptions.InvalidRequest, match=next(iter(refused))):
            parent.auth.token.create(**refused)
    looked = client.auth.token.lookup(made["client_token"])["data"]
    assert looked["meta"] == {"job": "7", "display_name": "child"}
    assert client.auth.token.lookup_accessor(made["accessor"])["data"]["id"] == ""
    assert made["accessor"] in client.auth.token.list_accessors()["data"]["keys"]
    assert client.auth.token.renew(made["client_token"], increment="10m")["auth"]["lease_duration"] > 0
    assert client.auth.token.revoke_accessor(made["accessor"]).status_code == 204
    with pytest.raises(hvac.exceptions.Forbidden, match="bad token"):
        client.auth.token.lookup(made["client_token"])
    with pytest.raises(hvac.exceptions.Forbidden, match="invalid accessor"):
        parent.auth.token.lookup_accessor("nothing")
    parent.auth.token.revoke_self()
    with pytest.raises(hvac.exceptions.Forbidden):
        hvac.Client(server.url, least).auth.token.lookup_self()


def test_a_management_token_is_one_that_does_not_end(
    client: Any, server: RunningServer, hire: Callable[..., str]
) -> None:
    told = client.auth.token.lookup_self()["data"]
    assert (told["type"], told["ttl"], told["expire_time"], told["renewable"]) == ("service", 0, None, False)
    assert client.auth.token.lookup(client.token)["data"]["accessor"] == told["accessor"]
    with pytest.raises(hvac.exceptions.InvalidRequest, match="lease is not renewable"):
        client.auth.token.renew_self()
    token = hire("leaver")
    leaver = hvac.Client(server.url, token)
    assert leaver.is_authenticated()
    with pytest.raises(hvac.exceptions.Forbidden):
        leaver.auth.token.revoke_self()  # it may not revoke tokens, not even its own
    assert leaver.is_authenticated()


def test_a_secret_id_is_handed_over_wrapped(server: RunningServer, approle: Any, web: tuple[str, str]) -> None:
    wrapped = approle.generate_secret_id("web", metadata={"ci": "7"}, wrap_ttl="60s")
    assert wrapped["data"] is None
    assert wrapped["wrap_info"]["creation_path"] == "auth/approle/role/web/secret-id"
    holder = hvac.Client(server.url, wrapped["wrap_info"]["token"])
    secret_id = holder.sys.unwrap()["data"]["secret_id"]
    assert hvac.Client(server.url).auth.approle.login(web[0], secret_id)["auth"]["metadata"]["ci"] == "7"


def test_a_login_is_handed_over_wrapped(server: RunningServer, web: tuple[str, str]) -> None:
    answer = httpx.put(
        f"{server.url}/v1/auth/approle/login",
        json={"role_id": web[0], "secret_id": web[1]},
        headers={"X-Vault-Wrap-TTL": "60"},
        timeout=120,
    ).json()
    assert answer["auth"] is None
    client = hvac.Client(server.url)
    client.auth_cubbyhole(answer["wrap_info"]["token"])
    assert client.auth.token.lookup_self()["data"]["accessor"] == answer["wrap_info"]["wrapped_accessor"]


@pytest.mark.usefixtures("web")
def test_roles_are_administered(approle: Any, native: Callable[..., Any]) -> None:
    native("POST", "/principals", {"kind": "service", "name": "batch-service"})
    approle.create_or_update_approle(
        "batch", secret_id_num_uses=2, secret_id_ttl="1h", token_bound_cidrs=["127.0.0.0/8"]
    )
    assert {"batch", "web"} <= set(approle.list_roles()["data"]["keys"])
    role = approle.read_role("batch")["data"]
    assert (role["secret_id_num_uses"], role["secret_id_ttl"], role["bind_secret_id"]) == (2, 3600, True)
    assert role["token_bound_cidrs"] == ["127.0.0.0/8"]
    before = approle.read_role_id("batch")["data"]["role_id"]
    approle.create_or_update_approle("batch", token_ttl=600, token_policies=["secret.read"])
    role = approle.read_role("batch")["data"]
    assert (role["token_ttl"], role["token_policies"], role["secret_id_num_uses"]) == (600, ["secret.read"], 2)
    assert approle.read_role_id("batch")["data"]["role_id"] == before
    approle.update_role_id("batch", "chosen-by-hand")
    assert approle.read_role_id("batch")["data"]["role_id"] == "chosen-by-hand"
    for more in ({"bind_secret_id": False}, {"token_num_uses": 3}, {"token_period": "1h"}, {"token_type": "batch"}):
        with pytest.raises(hvac.exceptions.InvalidRequest, match=next(iter(more))):
            approle.create_or_update_approle("batch", **more)
    with pytest.raises(hvac.exceptions.InvalidRequest):
        approle.create_or_update_approle("batch", token_policies=["my-policy"])
    assert approle.delete_role("batch").status_code == 204
    with pytest.raises(hvac.exceptions.InvalidPath):
        approle.read_role("batch")


def test_secret_ids_are_administered(server: RunningServer, approle: Any) -> None:
    approle.create_or_update_approle("counted", secret_id_num_uses=1)
    role_id = approle.read_role_id("counted")["data"]["role_id"]
    made = approle.generate_secret_id("counted", metadata={"host": "a"}, cidr_list=["127.0.0.1/32"])["data"]
    assert made["secret_id_num_uses"] == 1
    shown = approle.read_secret_id("counted", made["secret_id"])["data"]
    assert (shown["metadata"], shown["cidr_list"]) == ({"host": "a"}, ["127.0.0.1/32"])
    assert shown["secret_id_accessor"] == made["secret_id_accessor"]
    again = approle.read_secret_id_accessor("counted", made["secret_id_accessor"])["data"]
    assert again["secret_id_num_uses"] == 1
    assert approle.list_secret_id_accessors("counted")["data"]["keys"] == [made["secret_id_accessor"]]
    hvac.Client(server.url).auth.approle.login(role_id, made["secret_id"])
    second = approle.generate_secret_id("counted")["data"]
    assert approle.destroy_secret_id_accessor("counted", second["secret_id_accessor"]).status_code == 204
    third = approle.generate_secret_id("counted")["data"]
    assert approle.destroy_secret_id("counted", third["secret_id"]).status_code == 204
    for dead in (second, third):
        with pytest.raises(hvac.exceptions.InvalidRequest):
            hvac.Client(server.url).auth.approle.login(role_id, dead["secret_id"])
    with pytest.raises(hvac.exceptions.InvalidPath):
        approle.generate_secret_id("nothing")


@pytest.mark.usefixtures("web")
def test_who_may_not_administer_is_forbidden(server: RunningServer, hire: Callable[..., str]) -> None:
    outsider = hvac.Client(server.url, hire("outsider")).auth.approle
    for role in ("web", "nothing"):
        for name in ("read_role", "read_role_id", "delete_role", "generate_secret_id", "list_secret_id_accessors"):
            with pytest.raises(hvac.exceptions.Forbidden):
                getattr(outsider, name)(role)


@pytest.mark.usefixtures("approle")
def test_ways_to_log_in_are_listed_enabled_and_disabled(client: Any) -> None:
    listed = client.sys.list_auth_methods()["data"]
    assert (listed["approle/"]["type"], listed["token/"]["type"]) == ("approle", "token")
    with pytest.raises(hvac.exceptions.InvalidRequest, match="path is already in use"):
        client.sys.enable_auth_method("approle")
    with pytest.raises(hvac.exceptions.InvalidRequest, match="type"):
        client.sys.enable_auth_method("userpass")
    client.sys.enable_auth_method("approle", path="second")
    assert client.sys.disable_auth_method("second").status_code == 204
    assert "second/" not in client.sys.list_auth_methods()["data"]
