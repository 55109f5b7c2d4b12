"""`hvac`, unmodified, against a real server: health, mounts, capabilities and wrapping."""

from collections.abc import Callable
from typing import Any

import hvac
import hvac.exceptions
import pytest

from keyturn.testing.server import RunningServer

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # what hvac warns of is its own


def test_health_is_told_to_everybody(server: RunningServer) -> None:
    stranger = hvac.Client(server.url, "")
    assert stranger.sys.read_health_status(method="HEAD").status_code == 200
    told = stranger.sys.read_health_status(method="GET")
    assert (told["initialized"], told["sealed"], told["standby"]) == (True, False, False)
    assert told["version"].startswith("1.15.0+keyturn.")
    assert stranger.sys.read_health_status(method="GET", active_code=299).status_code == 299
    assert stranger.sys.is_initialized()
    assert not stranger.sys.is_sealed()
    assert stranger.sys.read_leader_status()["is_self"] is True


def test_mounts_are_environments(client: Any, server: RunningServer, hire: Callable[..., str]) -> None:
    client.secrets.kv.v2.create_or_update_secret("mounted/a", {"n": 1}, mount_point="qa")
    found = client.sys.list_mounted_secrets_engines()["data"]
    assert {"secret/", "qa/"} <= set(found)
    assert found["secret/"]["type"] == "kv"
    assert found["qa/"]["options"] == {"version": "2"}
    nobody = hvac.Client(server.url, hire("nobody"))
    assert set(nobody.sys.list_mounted_secrets_engines()["data"]) == {"secret/"}


def test_every_environment_is_a_mount_and_nothing_else_is(client: Any) -> None:
    """Scripts enable a mount before they write to it; one of another kind is refused by name, and none is dropped."""
    client.sys.enable_secrets_engine("kv", path="fresh", options={"version": 2})
    client.sys.enable_secrets_engine("kv-v2", path="fresh")
    client.sys.disable_secrets_engine("fresh")
    client.secrets.kv.v2.create_or_update_secret("a", {"n": 1}, mount_point="fresh")
    with pytest.raises(hvac.exceptions.InvalidRequest, match="path is already in use at fresh/"):
        client.sys.enable_secrets_engine("kv-v2", path="fresh")
    with pytest.raises(hvac.exceptions.InvalidRequest, match="not disabled"):
        client.sys.disable_secrets_engine("fresh")
    for kind, options in (("kv", {"version": "1"}), ("kv", None), ("transit", None)):
        with pytest.raises(hvac.exceptions.InvalidRequest, match="only KV version 2"):
            client.sys.enable_secrets_engine(kind, path="other", options=options)
    assert client.sys.read_mount_configuration("fresh")["data"]["options"] == {"version": "2"}
    client.sys.tune_mount_configuration("fresh", options={"version": "2"})
    with pytest.raises(hvac.exceptions.InvalidRequest, match="default_lease_ttl"):
        client.sys.tune_mount_configuration("fresh", default_lease_ttl="1h")
    stranger = hvac.Client(client.url, "")
    with pytest.raises(hvac.exceptions.Forbidden):
        stranger.sys.enable_secrets_engine("kv-v2", path="strange")


def test_capabilities_are_what_the_caller_may_do(server: RunningServer, hire: Callable[..., str]) -> None:
    token = hire("able", (["secret.read", "secret.put"], "secret/production/able/*"))
    able = hvac.Client(server.url, token)
    paths = [
        "secret/data/able/a",
        "secret/metadata/able/a",
        "production/delete/able/a",
        "secret/data/other",
        "sys/seal",
    ]
    told = able.sys.get_capabilities(paths=paths)
    assert told["data"]["capabilities"] == ["create", "patch", "read", "update"]
    assert told["secret/data/able/a"] == ["create", "patch", "read", "update"]
    assert [told["data"][path] for path in paths[1:]] == [["deny"]] * 4


def test_an_answer_is_wrapped_and_opened_once(client: Any, server: RunningServer) -> None:
    client.secrets.kv.v2.create_or_update_secret("wrapped/a", {"n": 1})
    wrapped = client.read("secret/data/wrapped/a", wrap_ttl="5m")
    assert wrapped["data"] is None
    info = wrapped["wrap_info"]
    assert (info["ttl"], info["creation_path"]) == (300, "secret/data/wrapped/a")
    holder = hvac.Client(server.url, "")
    looked = client.write("sys/wrapping/lookup", token=info["token"])
    assert looked["data"]["creation_path"] == "secret/data/wrapped/a"
    assert looked["data"]["creation_ttl"] == 300
    opened = holder.sys.unwrap(info["token"])
    assert opened["data"]["data"] == {"n": 1}
    assert opened["data"]["metadata"]["version"] == 1
    with pytest.raises(hvac.exceptions.InvalidRequest, match="wrapping token is not valid or does not exist"):
        holder.sys.unwrap(info["token"])


def test_a_wrapping_token_takes_the_place_of_a_token(client: Any, server: RunningServer) -> None:
    made = client.sys.wrap({"foo": "bar", "n": [1, {"a": None}]}, ttl=60)
    assert made["wrap_info"]["creation_path"] == "sys/wrapping/wrap"
    token = made["wrap_info"]["token"]
    again = hvac.Client(server.url, token)
    with pytest.raises(hvac.exceptions.Forbidden):
        again.secrets.kv.v2.read_secret_version("wrapped/a")
    new = again.write("sys/wrapping/rewrap", token=token)["wrap_info"]["token"]
    with pytest.raises(hvac.exceptions.InvalidRequest):
        again.sys.unwrap()
    assert hvac.Client(server.url, new).sys.unwrap()["data"] == {"foo": "bar", "n": [1, {"a": None}]}


def test_a_refusal_is_never_wrapped(client: Any) -> None:
    with pytest.raises(hvac.exceptions.InvalidPath):
        client.adapter.get("/v1/secret/data/wrapped/nothing", wrap_ttl="60s")
    with pytest.raises(hvac.exceptions.InvalidRequest, match="X-Vault-Wrap-TTL"):
        client.adapter.get("/v1/secret/data/wrapped/a", wrap_ttl="a while")
    with pytest.raises(hvac.exceptions.InvalidRequest, match="response wrapping"):
        client.write("sys/wrapping/wrap", foo="bar")


def test_what_somebody_wrapped_is_data_however_much_it_looks_like_an_answer(client: Any, server: RunningServer) -> None:
    """Nobody hands over a token, or an answer that breaks the server, as if this server had given it."""
    told: dict[str, Any] = {
        "request_id": "",
        "lease_id": [],
        "renewable": "",
        "lease_duration": {},
        "data": {},
        "wrap_info": None,
    }
    forged = {**told, "warnings": 5, "auth": {"client_token": "forged"}}
    wrapped = client.sys.wrap(forged, ttl=60)["wrap_info"]["token"]
    opened = hvac.Client(server.url, wrapped).sys.unwrap()
    assert (opened["data"], opened["auth"]) == (forged, None)


def test_to_ask_for_a_wrap_of_what_is_opened_loses_nothing(client: Any, server: RunningServer) -> None:
    token = client.sys.wrap({"foo": "bar"}, ttl=60)["wrap_info"]["token"]
    holder = hvac.Client(server.url, token)
    with pytest.raises(hvac.exceptions.InvalidRequest, match="rewrap"):
        holder.adapter.post("/v1/sys/wrapping/unwrap", wrap_ttl="60s")
    assert holder.sys.unwrap()["data"] == {"foo": "bar"}
