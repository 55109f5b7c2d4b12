"""A verifier in the process of the test, against a real server."""

from __future__ import annotations

import copy
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from keyturn import errors
from keyturn.client import Verification, Verifier
from keyturn.kernel.clock import parse_rfc3339
from keyturn.kernel.secret import Secret
from keyturn.testing.waiting import eventually
from keyturn.wire.verification import LimitUse
from tests.client.control import Control, MakeVerifier


def test_it_verifies_from_memory(control: Control, verifier: MakeVerifier) -> None:
    key = control.issue(scopes=["orders:*"], metadata={"tier": "gold"})
    with verifier() as one:
        verdict = one.verify(key.key, scopes="orders:read", ip="192.0.2.7", method="GET", path="/orders")
        assert verdict
        assert (verdict.key_id, verdict.owner, verdict.keyspace, verdict.environment) == (
            key.id,
            "alice",
            "orders",
            "production",
        )
        assert (verdict.scopes, verdict.metadata) == (("orders:*",), {"tier": "gold"})
        assert one.verify(key.key, scopes="users:read").code == "INSUFFICIENT_PERMISSIONS"
        assert one.verify("no key at all").code == "NOT_FOUND"
        assert one.verify(key.key[:-1] + ("a" if key.key[-1] != "a" else "b")).code == "NOT_FOUND"
        with pytest.raises(errors.InputError):
            one.verify(key.key, scopes="orders:read AND")
        assert one.counters()["asked"] == 0


def test_a_revocation_waits_for_it(control: Control, verifier: MakeVerifier) -> None:
    """Once `effective` is true, no verifier admits the key."""
    first, second = verifier(), verifier()
    for _ in range(10):
        key = control.issue()
        assert first.verify(key.key)
        assert second.verify(key.key)
        assert eventually(lambda: control.revoke(key)["effective"])  # noqa: B023 -- used at once
        assert first.verify(key.key).code == second.verify(key.key).code == "REVOKED"


def test_a_verifier_that_stands_still_is_named(control: Control, verifier: MakeVerifier) -> None:
    """A revocation does not claim to be effective while a verifier may not know of it."""
    key = control.issue()
    one = verifier(label="shop-7")
    eventually(lambda: one.verify(key.key))
    # As if the process were stopped: it neither follows nor confirms, and might still admit.
    with one._lock:  # noqa: SLF001 -- nothing else stops its threads from the same process
        revoked = control.revoke(key)
    assert not revoked["effective"]
    assert "shop-7" in revoked["laggards"]
    eventually(lambda: one.verify(key.key).code == "REVOKED")


def test_a_disabled_keyspace_and_a_rotation_reach_it(control: Control, verifier: MakeVerifier) -> None:
    key = control.issue()
    one = verifier()
    rotated = control.post(f"/keys/{key.id}/rotate", overlap_seconds=0)
    eventually(lambda: rotated["effective"] or one.verify(key.key).code == "REVOKED")
    assert one.verify(key.key).code == "REVOKED"
    assert one.verify(rotated["key"])
    assert eventually(lambda: control.post("/keyspaces/orders/disable")["effective"])
    assert one.verify(rotated["key"]).code == "DISABLED"


def test_a_key_that_was_issued_just_now_is_asked_about(control: Control, verifier: MakeVerifier) -> None:
    one = verifier()
    for _ in range(5):
        assert one.verify(control.issue().key)


def test_limits_are_a_local_share(control: Control, verifier: MakeVerifier) -> None:
    one = verifier(share=2)
    key = control.issue(limits=[{"name": "burst", "limit": 10, "window_seconds": 600}])
    eventually(lambda: one.verify(key.key, cost=0).limits)
    codes = [one.verify(key.key).code for _ in range(6)]
    assert codes == ["VALID"] * 5 + ["RATE_LIMITED"]
    refused = one.verify(key.key)
    assert refused.retry_after_seconds
    assert dict(refused.headers())["RateLimit-Policy"].startswith('"burst";q=5')
    assert one.verify(key.key, limits=[LimitUse("other", limit=3, window_seconds=60)]).code == "RATE_LIMITED"


def test_limits_through_the_server_are_exact_among_verifiers(control: Control, verifier: MakeVerifier) -> None:
    first, second = verifier(limits="server"), verifier(limits="server")
    key = control.issue(limits=[{"name": "burst", "limit": 4, "window_seconds": 600}])
    eventually(lambda: first.verify(key.key, cost=0).limits and second.verify(key.key, cost=0).limits)
    codes = [one.verify(key.key).code for one in (first, second, first, second, first, second)]
    assert codes == ["VALID"] * 4 + ["RATE_LIMITED"] * 2


async def test_quotas_go_through_the_server(control: Control, verifier: MakeVerifier) -> None:
    one = verifier()
    key = control.issue(quotas=[{"name": "monthly", "amount": 2}])
    codes = [(await one.averify(key.key)).code, one.verify(key.key).code, (await one.averify(key.key)).code]
    assert codes == ["VALID", "VALID", "USAGE_EXCEEDED"]
    assert one.counters()["asked"] >= 3


def test_plans_and_owners_reach_it(control: Control, verifier: MakeVerifier) -> None:
    one = verifier()
    plan = control.post("/plans", name="gold", scopes=["orders:read"])
    key = control.issue()
    eventually(lambda: one.verify(key.key))
    assert not one.verify(key.key, scopes="orders:read")
    control.patch(f"/keys/{key.id}", plan="gold")
    verdict = eventually(lambda: one.verify(key.key, scopes="orders:read"))
    assert verdict.plan == plan["name"]


def test_only_what_the_token_may_replicate_is_there(control: Control, verifier: MakeVerifier) -> None:
    """A verifier gets nothing of keyspaces that it holds no right on."""
    control.keyspace("users")
    ours, theirs = control.issue(), control.issue("users")
    token, _ = control.service("keyspace/orders")
    one = verifier(token)
    assert one.verify(ours.key)
    assert not one.verify(theirs.key)
    assert [policy.name for policy in one._follower.feed.replica.keyspaces()] == ["orders"]  # noqa: SLF001


def test_a_keyspace_that_is_made_later_is_followed(control: Control, verifier: MakeVerifier) -> None:
    one = verifier()
    control.keyspace("users")
    key = control.issue("users")
    eventually(lambda: one.counters()["reloads"] == 2)
    assert one.verify(key.key)
    assert one.ready


def test_a_right_that_is_withdrawn_stops_it_at_once(control: Control, verifier: MakeVerifier) -> None:
    """Nothing is admitted, and nothing is held, after the right to replicate is gone."""
    key = control.issue()
    token, (grant,) = control.service("keyspace/orders")
    one = verifier(token)
    assert one.verify(key.key)
    assert eventually(lambda: control.post(f"/grants/{grant}/revoke")["effective"])
    assert one.verify(key.key).code == "UNAVAILABLE"
    feed = one._follower.feed  # noqa: SLF001
    assert feed.replica.counts().keyspaces == 0
    assert isinstance(feed.last_refusal, errors.ForbiddenError)
    eventually(lambda: not control.verifiers())


def test_one_of_two_rights_withdrawn_drops_that_keyspace(control: Control, verifier: MakeVerifier) -> None:
    """Losing one keyspace leaves the other."""
    control.keyspace("users")
    ours, theirs = control.issue(), control.issue("users")
    token, (_, grant) = control.service("keyspace/orders", "keyspace/users")
    one = verifier(token)
    assert one.verify(ours.key)
    assert one.verify(theirs.key)
    assert eventually(lambda: control.post(f"/grants/{grant}/revoke")["effective"])
    assert not one.verify(theirs.key)
    assert one.verify(ours.key)


def test_without_the_right_it_is_never_ready(control: Control) -> None:
    """A token without `keyspace.replicate` gets neither peppers nor digests."""
    token, _ = control.service("key/orders/*", actions=("key.verify",))
    one = Verifier(control.server.url, token)
    assert one.verify(control.issue().key).code == "UNAVAILABLE"
    eventually(lambda: one.counters()["failures"])
    assert not one.ready
    assert not control.verifiers()
    one.close()


@pytest.mark.usefixtures("own_server")
@pytest.mark.slow
@pytest.mark.cluster
def test_it_goes_on_without_the_control_plane_for_as_long_as_it_is_fresh(
    control: Control, verifier: MakeVerifier
) -> None:
    """A server that stands still is no outage until `stale_after_seconds`, and nothing is admitted after it."""
    control.patch("/keyspaces/orders", stale_after_seconds=3)
    key = control.issue()
    one = verifier()

    def asked_while_it_stands_still() -> list[tuple[float, str]]:
        eventually(lambda: one.verify(key.key))
        control.server.pause()
        stopped = time.monotonic()
        found: list[tuple[float, str]] = []
        while len([code for _, code in found if code != "VALID"]) < 20:
            found.append((time.monotonic() - stopped, one.verify(key.key).code))
            time.sleep(0.02)
        control.server.resume()
        # On a busy machine it may have been stale when the pause began, and then that is another pause's to show.
        return found if found[0][1] == "VALID" else []

    seen = eventually(asked_while_it_stands_still)
    codes = [code for _, code in seen]
    turned = codes.index("UNAVAILABLE")
    assert set(codes[:turned]) == {"VALID"}
    assert set(codes[turned:]) == {"UNAVAILABLE"}
    # It began to count with a confirm that was sent before the server stood still.
    assert seen[turned - 1][0] < 3.0
    eventually(lambda: one.verify(key.key))


@pytest.mark.slow
@pytest.mark.cluster
def test_it_asks_the_server_when_stale_if_that_is_wanted(control: Control, verifier: MakeVerifier) -> None:
    key = control.issue()
    one = verifier(on_stale="server")
    with one._lock:  # noqa: SLF001
        one._follower.feed.freshness.start_resync()  # noqa: SLF001
    assert one.verify(key.key)


@pytest.mark.usefixtures("own_server")
@pytest.mark.slow
@pytest.mark.cluster
def test_it_survives_a_killed_server(control: Control, verifier: MakeVerifier) -> None:
    """The keys stay verified over a crash and restart, and changes are followed again."""
    key = control.issue()
    one = verifier(label="shop-7")
    assert one.verify(key.key)
    control.server.kill9()
    assert one.verify(key.key)
    control.server.restart()
    other = control.issue()
    eventually(lambda: all(node["behind"] == 0 for node in control.verifiers()))
    assert one.verify(other.key)
    # On PostgreSQL the server that was killed may still be waited for; the verifier is not.
    assert "shop-7" not in control.revoke(key)["laggards"]
    assert one.verify(key.key).code == "REVOKED"


def test_a_forgotten_node_registers_again(control: Control, verifier: MakeVerifier) -> None:
    """A verifier that no revocation waits for any more stops being fresh, and comes back."""
    key = control.issue()
    one = verifier()
    (node,) = control.verifiers()
    control.post(f"/replica/nodes/{node['id']}/deregister")
    eventually(lambda: one._follower.feed.node != node["id"])  # noqa: SLF001
    eventually(lambda: one.ready)
    assert one.verify(key.key)
    assert eventually(lambda: control.revoke(key)["effective"])
    assert one.verify(key.key).code == "REVOKED"


def test_close_leaves_the_registry_and_admits_nothing(control: Control, verifier: MakeVerifier) -> None:
    key = control.issue()
    one = verifier()
    assert one.verify(key.key)
    one.close()
    one.close()
    assert one.verify(key.key).code == "UNAVAILABLE"
    assert not control.verifiers()


def test_usage_comes_back(control: Control, verifier: MakeVerifier) -> None:
    key = control.issue()
    one = verifier()
    eventually(lambda: one.verify(key.key, cost=0))
    before = one.counters()["counted"]
    for _ in range(7):
        one.verify(key.key, ip="192.0.2.7", user_agent="test/1", method="GET", path="/orders?secret=1")
    one.close()
    assert one.counters()["reported"] == one.counters()["counted"] == before + 7
    detail = control.get(f"/keys/{key.id}")
    shown = [use for version in detail["versions"] for use in (version["last_used"] or {}).get("callers", [])]
    assert "secret" not in str(detail)
    assert shown is not None


_CHILD = """
    import sys, time
    from keyturn.client import Verifier

    url, token, key, folder = sys.argv[1:]
    one = Verifier(url, token, journal_dir=folder)
    assert one.wait_ready(120)
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(50):
        assert one.verify(key)
    while not one._reporter._waiting:
        time.sleep(0.01)
    print("journalled", flush=True)
    time.sleep(60)
"""


@pytest.mark.usefixtures("own_server")
@pytest.mark.slow
@pytest.mark.cluster
def test_a_killed_process_loses_nothing_that_was_journalled(
    control: Control, verifier: MakeVerifier, tmp_path: Path
) -> None:
    """What a process that was killed had counted is sent by the next one, and counts once."""
    key = control.issue()
    folder = tmp_path / "journal"
    command = [sys.executable, "-c", textwrap.dedent(_CHILD), control.server.url, control.token]
    with subprocess.Popen(
        [*command, key.key, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        control.server.pause()
        child.stdin.write("go\n")
        child.stdin.flush()
        assert child.stdout.readline() == "journalled\n"
        child.send_signal(signal.SIGKILL)
    control.server.resume()
    control.server.wait_until_ready()
    one = verifier(journal_dir=folder)
    eventually(lambda: one.counters()["reported"] >= 50 and not one.counters()["waiting"])
    one.close()
    assert control.get(f"/keys/{key.id}/usage")["totals"]["VALID"] == 50
    assert not list(folder.iterdir())


_ANSWERING = """
    import sys
    from keyturn.client import Verifier

    url, token, label = sys.argv[1:]
    one = Verifier(url, token, label=label)
    assert one.wait_ready(120)
    print("ready", flush=True)
    for line in sys.stdin:
        print(one.verify(line.strip()).code, flush=True)
"""


@pytest.mark.slow
@pytest.mark.cluster
def test_a_process_that_was_paused_admits_nothing_after_effective_by(control: Control, verifier: MakeVerifier) -> None:
    """A revocation names the process that stands still, and is obeyed by it once it runs again."""
    control.keyspace("strict", stale_after_seconds=3)
    key, other = control.issue("strict"), control.issue("strict")
    here = verifier(label="here")
    command = [sys.executable, "-c", textwrap.dedent(_ANSWERING), control.server.url, control.token]
    with subprocess.Popen(
        [*command, "paused"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            assert child.stdout.readline() == "ready\n"

            def told() -> str:
                child.stdin.write(f"{key.key}\n")  # type: ignore[union-attr]
                return str(child.stdout.readline())  # type: ignore[union-attr]

            eventually(lambda: told() == "VALID\n")
            child.send_signal(signal.SIGSTOP)
            revoked = control.revoke(key)
            assert not revoked["effective"]
            assert "paused" in revoked["laggards"]
            assert here.verify(key.key).code == "REVOKED"
            eventually(lambda: time.time() >= parse_rfc3339(revoked["effective_by"]))
            eventually(lambda: control.revoke(other)["effective"])
            child.send_signal(signal.SIGCONT)
            child.stdin.write(f"{key.key}\n{other.key}\n")
            assert {child.stdout.readline(), child.stdout.readline()} <= {"REVOKED\n", "UNAVAILABLE\n"}
        finally:
            child.kill()


def test_the_token_and_peppers_are_shown_nowhere(control: Control, verifier: MakeVerifier) -> None:
    """Nothing that prints itself prints a secret."""
    one = verifier()
    token = control.token
    policy = next(iter(one._follower.feed.replica.keyspaces()))  # noqa: SLF001
    (pepper,) = policy.peppers.values()
    shown = repr([one, one._endpoint, one._follower.feed, policy, one._endpoint.call("GET", "/x")])  # noqa: SLF001
    assert token not in shown
    assert repr(pepper) not in shown


def test_a_verdict_that_is_copied_or_stored_takes_nothing_of_the_replica_with_it(
    control: Control, verifier: MakeVerifier
) -> None:
    key = control.issue(metadata={"tier": "gold"})
    one = verifier()
    for presented in (key.key, "no key at all"):
        verdict = one.verify(presented)
        stored = pickle.dumps(verdict)
        copies = [pickle.loads(stored), copy.copy(verdict), copy.deepcopy(verdict)]  # noqa: S301 -- our own
        assert all(
            type(copied) is Verification and copied == verdict and copied.valid == verdict.valid for copied in copies
        )
        assert b"keyturn.verify" not in stored


def test_http_to_another_machine_needs_consent() -> None:
    """A token is not sent in clear by mistake."""
    with pytest.raises(errors.ConfigError):
        Verifier("http://keys.example.com", Secret("kt"), start=False)
    Verifier("http://keys.example.com", Secret("kt"), start=False, allow_insecure=True).close()


def test_threads_share_it_while_it_changes(control: Control, verifier: MakeVerifier) -> None:
    """No thread sees half of a change."""
    one = verifier()
    keys = [control.issue() for _ in range(5)]
    eventually(lambda: all(one.verify(key.key) for key in keys))
    stop, wrong = threading.Event(), []

    def ask() -> None:
        while not stop.is_set():
            for key in keys:
                code = one.verify(key.key).code
                if code not in {"VALID", "DISABLED"}:
                    wrong.append(code)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for key in keys:
        control.post(f"/keys/{key.id}/disable")
        control.post(f"/keys/{key.id}/enable")
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.cluster
def test_a_forked_child_follows_on_its_own(control: Control, verifier: MakeVerifier) -> None:
    """A worker that was forked registers itself, and does not answer from what its parent had loaded."""
    key = control.issue()
    one = verifier()
    assert one.verify(key.key)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover -- another process
        code = b"failed"
        try:
            ready = one.wait_ready(120)
            code = one.verify(key.key).code.encode() if ready else b"late"
        finally:
            os.write(writing, code)
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        assert stream.read() == b"VALID"
    os.waitpid(child, 0)
    assert len(control.verifiers()) == 2
    assert one.verify(key.key)
