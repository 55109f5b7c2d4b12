"""`kill -9` of a real server: what was committed reaches a real receiver all the same."""

from __future__ import annotations

import pytest

from keyturn.testing.server import RunningServer
from keyturn.testing.waiting import until
from tests.faults.system import API, Start, client_of, new_keyspace
from tests.webhooks.site import Site

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

ALLOW = {"KEYTURN_WEBHOOK_ALLOW": "127.0.0.0/8"}


def hook(server: RunningServer, site: Site, *events: str) -> str:
    """Create an endpoint at the site; return its secret."""
    with client_of(server) as client:
        made = client.post(f"{API}/webhooks", json={"name": "hook", "url": site.url, "events": events or ["*"]})
        assert made.status_code == 201, made.text
        return str(made.json()["secret"])


def test_what_was_committed_before_a_kill_is_delivered_after_it(
    start_server: Start, server_database_url: str | None
) -> None:
    """Killed between commit and delivery, again and again: every event arrives, signed, under one id."""
    with Site() as site:
        server = start_server(server_database_url, env=ALLOW)
        secret = hook(server, site, "keyspace.*")
        names = []
        for number in range(3):
            with client_of(server) as client:
                for part in range(4):
                    names.append(f"orders-{number}-{part}")
                    new_keyspace(client, names[-1])
            server.kill9()
            server.restart()
        messages = site.got("keyspace.create", len(names))
        assert all(one.is_signed_with(secret) for one in messages)
        assert sorted(one.event["data"]["resource"] for one in messages) == sorted(f"keyspace/{n}" for n in names)
        assert len({one.event["data"]["event"] for one in messages}) == len(names)


def test_an_event_that_could_not_be_delivered_waits_out_a_kill(
    start_server: Start, server_database_url: str | None
) -> None:
    with Site() as site:
        site.status = 503
        server = start_server(server_database_url, env=ALLOW)
        hook(server, site, "keyspace.*")
        with client_of(server) as client:
            new_keyspace(client)
        site.got("keyspace.create")
        server.kill9()
        site.messages.clear()
        site.status = 204
        server.restart()
        with client_of(server) as client:
            (one,) = client.get(f"{API}/webhooks/hook/deliveries").json()["items"]
            again = client.post(f"{API}/webhooks/hook/deliveries/{one['id']}/redeliver")
            assert again.status_code in {202, 409}
            assert site.got("keyspace.create")[0].id == one["id"]


def test_without_permission_nothing_inside_is_reached(start_server: Start) -> None:
    """A server as it is shipped sends nothing to its own machine."""
    with Site() as site:
        server = start_server()
        with client_of(server) as client:
            refused = client.post(f"{API}/webhooks", json={"name": "hook", "url": site.url})
            assert refused.status_code == 400
            port = site.url.rpartition(":")[2]
            made = client.post(f"{API}/webhooks", json={"name": "hook", "url": f"https://localhost:{port}"})
            assert made.status_code == 201
            sent = client.post(f"{API}/webhooks/hook/test").json()
            path = f"{API}/webhooks/hook/deliveries/{sent['id']}"
            assert until(lambda: client.get(path).json()["attempt_log"]), "no attempt was made"
            shown = client.get(path).json()
            assert shown["last_error"] == "refused: the name leads to an address that is loopback"
        assert site.messages == []


@pytest.mark.postgres
def test_two_servers_share_the_work_and_send_each_event_once(start_server: Start, migrated_postgres_url: str) -> None:
    """No duplicates while nobody is killed, and the second goes on when the first is."""
    with Site() as site:
        first = start_server(migrated_postgres_url, env=ALLOW)
        second = start_server(migrated_postgres_url, env=ALLOW | {"KEYTURN_KEK_PATH": str(first.data_dir / "kek")})
        hook(first, site, "keyspace.*")
        token = first.admin_token
        for number in range(10):
            with client_of(first if number % 2 else second, token=token) as client:
                new_keyspace(client, f"orders-{number}")
        site.got("keyspace.create", 10)
        assert len(site.messages) == 10
        first.kill9()
        with client_of(second, token=token) as client:
            new_keyspace(client, "after")
        assert len(site.got("keyspace.create", 11)) == 11
