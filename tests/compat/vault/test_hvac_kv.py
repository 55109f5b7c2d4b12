"""`hvac`, unmodified, against a real server: KV version 2."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import hvac
import hvac.exceptions
import pytest

from keyturn.testing.server import RunningServer

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # what hvac warns of is its own


def test_check_and_set_is_exact(client: Any) -> None:
    kv = client.secrets.kv.v2
    assert kv.create_or_update_secret("cas/a", {"n": 1}, cas=0)["data"]["version"] == 1
    with pytest.raises(hvac.exceptions.InvalidRequest, match="check-and-set parameter did not match the current"):
        kv.create_or_update_secret("cas/a", {"n": 2}, cas=0)
    assert kv.create_or_update_secret("cas/a", {"n": 2}, cas=1)["data"]["version"] == 2
    with pytest.raises(hvac.exceptions.InvalidRequest, match="did not match"):
        kv.create_or_update_secret("cas/a", {"n": 3}, cas=1)
    assert kv.read_secret_version("cas/a")["data"]["data"] == {"n": 2}
    kv.update_metadata("cas/a", cas_required=True)
    with pytest.raises(hvac.exceptions.InvalidRequest, match="check-and-set parameter required for this call"):
        kv.create_or_update_secret("cas/a", {"n": 3})
    assert kv.patch("cas/a", {"m": 1})["data"]["version"] == 3


def test_metadata_is_shown_changed_and_removed_with_everything(client: Any) -> None:
    kv = client.secrets.kv.v2
    kv.create_or_update_secret("meta/a", {"n": 1})
    kv.create_or_update_secret("meta/a", {"n": 2})
    kv.update_metadata("meta/a", max_versions=5, delete_version_after="3h25m19s", custom_metadata={"team": "web"})
    shown = kv.read_secret_metadata("meta/a")["data"]
    assert (shown["current_version"], shown["oldest_version"], shown["max_versions"]) == (2, 1, 5)
    assert (shown["delete_version_after"], shown["custom_metadata"]) == ("3h25m19s", {"team": "web"})
    assert list(shown["versions"]) == ["1", "2"]
    assert shown["versions"]["1"]["destroyed"] is False
    kv.delete_secret_versions("meta/a", versions=[1])
    assert kv.read_secret_metadata("meta/a")["data"]["versions"]["1"]["deletion_time"] != ""
    assert kv.read_secret_version("meta/a")["data"]["metadata"]["custom_metadata"] == {"team": "web"}
    assert kv.delete_metadata_and_all_versions("meta/a").status_code == 204
    with pytest.raises(hvac.exceptions.InvalidPath):
        kv.read_secret_metadata("meta/a")
    with pytest.raises(hvac.exceptions.InvalidPath):
        kv.list_secrets("meta")
    assert kv.create_or_update_secret("meta/a", {"n": 3})["data"]["version"] == 1


def test_what_is_not_there_is_a_404_without_words_and_deleting_it_is_done(client: Any) -> None:
    kv = client.secrets.kv.v2
    with pytest.raises(hvac.exceptions.InvalidPath) as caught:
        kv.read_secret_version("nothing/here")
    assert caught.value.errors == []
    with pytest.raises(hvac.exceptions.InvalidPath):
        kv.read_secret_version("nothing/here", version=7)
    assert kv.delete_latest_version_of_secret("nothing/here").status_code == 204
    assert kv.delete_secret_versions("nothing/here", [1]).status_code == 204
    assert kv.undelete_secret_versions("nothing/here", [1]).status_code == 204
    assert kv.destroy_secret_versions("nothing/here", [1]).status_code == 204
    kv.create_or_update_secret("twice/a", {"n": 1})
    for _ in range(2):
        assert kv.delete_latest_version_of_secret("twice/a").status_code == 204
    for _ in range(2):
        assert kv.undelete_secret_versions("twice/a", [1]).status_code == 204
    kv.create_or_update_secret("twice/a", {"n": 2})
    kv.create_or_update_secret("twice/a", {"n": 3})
    kv.destroy_secret_versions("twice/a", [1])
    kv.delete_secret_versions("twice/a", [1, 2, 7])
    assert kv.undelete_secret_versions("twice/a", [1, 2, 7]).status_code == 204
    assert kv.read_secret_version("twice/a", version=2)["data"]["data"] == {"n": 2}
    assert client.read("secret/data/nothing/here") is None
    assert client.list("secret/metadata/nothing") is None


def test_another_mount_is_another_environment(client: Any) -> None:
    kv = client.secrets.kv.v2
    kv.create_or_update_secret("mounts/a", {"n": "staging"}, mount_point="staging")
    kv.create_or_update_secret("mounts/a", {"n": "default"})
    assert kv.read_secret_version("mounts/a", mount_point="staging")["data"]["data"] == {"n": "staging"}
    assert kv.read_secret_version("mounts/a", mount_point="production")["data"]["data"] == {"n": "default"}
    with pytest.raises(hvac.exceptions.InvalidRequest):
        kv.read_secret_version("a", mount_point="cubbyhole")


def test_the_mount_secret_follows_the_workspaces_default_environment(
    client: Any, native: Callable[..., Any], server: RunningServer
) -> None:
    made = native("POST", "/workspaces", {"name": "acme"})
    tenant = hvac.Client(server.url, made["token"], namespace="acme")
    tenant.secrets.kv.v2.create_or_update_secret("a/b", {"n": 1}, mount_point="development")
    with pytest.raises(hvac.exceptions.InvalidPath):
        tenant.secrets.kv.v2.read_secret_version("a/b")
    native("PATCH", "/workspaces/acme", {"default_environment": "development"})
    assert tenant.secrets.kv.v2.read_secret_version("a/b")["data"]["data"] == {"n": 1}
    with pytest.raises(hvac.exceptions.InvalidPath):
        client.secrets.kv.v2.read_secret_version("a/b")


def test_a_namespace_has_to_be_the_tokens_workspace(client: Any, server: RunningServer) -> None:
    client.secrets.kv.v2.create_or_update_secret("spaces/a", {"n": 1})
    inside = hvac.Client(server.url, server.admin_token, namespace="default")
    assert inside.secrets.kv.v2.read_secret_version("spaces/a")["data"]["data"] == {"n": 1}
    for mount in ("secret", "production"):
        for name in ("elsewhere", "acme/sub"):
            outside = hvac.Client(server.url, server.admin_token, namespace=name)
            with pytest.raises(hvac.exceptions.Forbidden):
                outside.secrets.kv.v2.read_secret_version("spaces/a", mount_point=mount)


def test_a_caller_without_the_right_is_forbidden_whether_or_not_there_is_anything(
    client: Any, server: RunningServer, hire: Callable[..., str]
) -> None:
    """403 says what the caller may do; it must not say what exists."""
    client.secrets.kv.v2.create_or_update_secret("rights/open", {"n": 1})
    client.secrets.kv.v2.create_or_update_secret("rights/closed", {"n": 1})
    token = hire("narrow", (["secret.read", "secret.list"], "secret/production/rights/open"))
    narrow = hvac.Client(server.url, token).secrets.kv.v2
    assert narrow.read_secret_version("rights/open")["data"]["data"] == {"n": 1}
    said = set()
    for path in ("rights/closed", "rights/nothing", "elsewhere/x"):
        with pytest.raises(hvac.exceptions.Forbidden) as caught:
            narrow.read_secret_version(path)
        said.add(str(caught.value.errors))
        for name, more in (
            ("create_or_update_secret", {"secret": {"n": 2}}),
            ("delete_latest_version_of_secret", {}),
            ("destroy_secret_versions", {"versions": [1]}),
            ("read_secret_metadata", {}),
            ("update_metadata", {"custom_metadata": {"a": "b"}}),
            ("delete_metadata_and_all_versions", {}),
        ):
            with pytest.raises(hvac.exceptions.Forbidden):
                getattr(narrow, name)(path=path, **more)
    assert said == {"['permission denied']"}
    with pytest.raises(hvac.exceptions.Forbidden):
        narrow.create_or_update_secret("rights/open", {"n": 2})
    with pytest.raises(hvac.exceptions.Forbidden):
        narrow.list_secrets("elsewhere")
    assert narrow.list_secrets("rights")["data"]["keys"] == ["open"]


def test_a_person_needs_the_right_to_reveal(client: Any, server: RunningServer, hire: Callable[..., str]) -> None:
    client.secrets.kv.v2.create_or_update_secret("people/a", {"n": 1})
    reads = hire("reader", (["secret.read"], "secret/production/people/*"), kind="user")
    reveals = hire("revealer", (["secret.reveal"], "secret/production/people/*"), kind="user")
    with pytest.raises(hvac.exceptions.Forbidden):
        hvac.Client(server.url, reads).secrets.kv.v2.read_secret_version("people/a")
    shown = hvac.Client(server.url, reveals).secrets.kv.v2.read_secret_version("people/a")
    assert shown["data"]["data"] == {"n": 1}


def test_a_token_that_is_none_is_forbidden(server: RunningServer) -> None:
    for token in ("hvs.nothing", "kt_mgmt_nothing", ""):
        stranger = hvac.Client(server.url, token)
        with pytest.raises(hvac.exceptions.Forbidden, match="permission denied"):
            stranger.secrets.kv.v2.read_secret_version("a/b")
        assert not stranger.is_authenticated()


def test_one_of_many_who_write_at_once_is_first(server: RunningServer, client: Any) -> None:
    """Check-and-set decides between writers; it must not let two of them believe that they were first."""
    client.secrets.kv.v2.create_or_update_secret("race/a", {"n": 0})

    def write(number: int) -> int:
        own = hvac.Client(server.url, server.admin_token)
        try:
            own.secrets.kv.v2.create_or_update_secret("race/a", {"n": number}, cas=1)
        except hvac.exceptions.InvalidRequest:
            return 0
        return number

    with ThreadPoolExecutor(8) as threads:
        first = [number for number in threads.map(write, range(1, 17)) if number]
    read = client.secrets.kv.v2.read_secret_version("race/a")["data"]
    assert [read["data"]["n"]] == first
    assert read["metadata"]["version"] == 2


def test_a_path_under_a_guard_asks_for_an_approval(
    client: Any, server: RunningServer, native: Callable[..., Any], hire: Callable[..., str]
) -> None:
    client.secrets.kv.v2.create_or_update_secret("guarded/a", {"n": 1})
    token = hire("guarded-reader", (["secret.read"], "secret/production/guarded/*"))
    reader = hvac.Client(server.url, token).secrets.kv.v2
    assert reader.read_secret_version("guarded/a")["data"]["data"] == {"n": 1}
    native("POST", "/guards", {"pattern": "production/guarded/*", "actions": ["secret.read"]})
    with pytest.raises(hvac.exceptions.Forbidden, match=r"permission denied, .*approv"):
        reader.read_secret_version("guarded/a")


def test_a_reference_is_read_as_what_it_refers_to(client: Any) -> None:
    kv = client.secrets.kv.v2
    kv.create_or_update_secret("shared/db", {"password": "p-1"})
    kv.create_or_update_secret("app/config", {"url": "db://u:${secret:production/shared/db#password}@host"})
    assert kv.read_secret_version("app/config")["data"]["data"] == {"url": "db://u:p-1@host"}


@pytest.mark.parametrize(
    "secret",
    [
        {"text": "grüße \U0001f511", "empty": "", "quote": '"\\\n'},
        {"number": 1.5, "whole": 12345678901234567, "yes": True, "none": None, "list": [1, "a", {"b": []}]},
        {"blob": "A" * 900_000},
        {},
    ],
    ids=["text", "json", "large", "empty"],
)
def test_what_is_written_is_read(client: Any, secret: dict[str, Any]) -> None:
    client.secrets.kv.v2.create_or_update_secret("values/a", secret)
    assert client.secrets.kv.v2.read_secret_version("values/a")["data"]["data"] == secret


@pytest.mark.parametrize("path", ["a b", "p\u0430yments", "a%2fb", "a\\b", "x" * 500])
def test_a_path_that_no_secret_can_have_is_refused(client: Any, path: str) -> None:
    with pytest.raises(hvac.exceptions.InvalidRequest):
        client.secrets.kv.v2.create_or_update_secret(path, {"n": 1})


def test_the_mount_has_a_configuration_that_is_only_read(client: Any) -> None:
    kv = client.secrets.kv.v2
    assert kv.read_configuration()["data"]["cas_required"] is False
    kv.configure(max_versions=100)
    assert kv.configure(max_versions=10)["warnings"]
    with pytest.raises(hvac.exceptions.InvalidRequest, match="each secret"):
        kv.configure(cas_required=True)
