"""`keyturn webhooks` against a real server and a real receiver."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from keyturn.cli.main import main
from keyturn.testing.server import RunningServer
from keyturn.testing.waiting import eventually
from tests.webhooks.site import Site

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(
    start_server: Callable[..., RunningServer], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    server = start_server(env={"KEYTURN_WEBHOOK_ALLOW": "127.0.0.0/8"})
    monkeypatch.setenv("KEYTURN_URL", server.url)
    monkeypatch.setenv("KEYTURN_TOKEN_FILE", str(server.data_dir / "admin-token"))

    def run(*argv: str) -> tuple[int, str]:
        code = main(list(argv))
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return run


def document(run: Run, *argv: str) -> Any:
    code, printed = run(*argv, "--json")
    assert code == 0, printed
    return json.loads(printed)


@pytest.mark.cluster
def test_the_life_of_an_endpoint_on_the_command_line(run: Run) -> None:
    with Site() as site:
        made = document(run, "webhooks", "create", "hook", site.url, "--event", "keyspace.*")
        assert run("webhooks", "test", "hook")[0] == 0
        assert site.got("webhook.ping")[0].is_signed_with(made["secret"])
        turned = document(run, "webhooks", "rotate-secret", "hook", "--overlap-seconds", "0")
        assert document(run, "webhooks", "show", "hook")["revision"] == turned["revision"]
        document(run, "webhooks", "update", "hook", "--description", "mine", "--revision", "2")
        document(run, "keyspaces", "create", "orders", "--prefix", "acme", "--environment", "production")
        message = site.got("keyspace.create")[0]
        assert message.is_signed_with(turned["secret"])
        assert not message.is_signed_with(made["secret"])
        (one,) = document(run, "webhooks", "deliveries", "hook", "--type", "keyspace.create")["items"]
        assert one["id"] == message.id
        assert json.loads(document(run, "webhooks", "delivery", "hook", one["id"])["body"]) == message.event
        site.messages.clear()
        document(run, "webhooks", "redeliver", "hook", one["id"])
        assert site.got("keyspace.create")[0].id == one["id"]
        document(run, "webhooks", "disable", "hook")
        document(run, "keyspaces", "disable", "orders")
        wait_for_dead(run)
        document(run, "webhooks", "enable", "hook")
        assert document(run, "webhooks", "redeliver", "hook", "--since", "2020-01-01T00:00:00Z")["count"] == 1
        site.got("keyspace.disable")
        assert run("webhooks", "redeliver", "hook")[0] == 2
        site.status = 500
        code, printed = run("webhooks", "test", "hook")
        assert (code, "answered 500" in printed) == (1, True)
        assert "hook" in run("webhooks", "list")[1]
        document(run, "webhooks", "delete", "hook")
        assert run("webhooks", "show", "hook")[0] != 0


def wait_for_dead(run: Run) -> None:
    """Return once what happened while the endpoint was disabled is a dead letter."""
    eventually(lambda: document(run, "webhooks", "deliveries", "hook", "--state", "dead")["items"])
