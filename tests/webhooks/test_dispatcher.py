"""What the dispatcher guarantees: nothing skipped, nothing lost, nobody delayed by somebody else."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import update

from keyturn.errors import NotFoundError
from keyturn.storage.schema import election, sealed_key, webhook_attempt, webhook_delivery
from keyturn.storage.transaction import Transaction
from keyturn.webhooks import dispatcher as module
from keyturn.webhooks import outbox, rules
from keyturn.webhooks.model import Answer
from keyturn.wire.webhooks import CreateWebhook, DeliveryState, RedeliverWebhook, RotateWebhookSecret, UpdateWebhook
from tests.webhooks.post import Post, url_of

DOWN = Answer(5, 500, "answered 500")


async def only(post: Post, name: str = "hook") -> Any:
    """Return the only delivery of an endpoint that is no answer to its own creation."""
    items = (await post.deliveries.list(post.desk.admin, name)).items
    found = [one for one in items if not one.type.startswith("webhook.")]
    assert len(found) == 1
    return found[0]


async def test_an_event_names_what_changed_and_is_signed(post: Post) -> None:
    made = await post.endpoint("hook", "key.*")
    await post.desk.keyspace()
    issued = await post.desk.key()
    assert await post.round() == 1
    (message,) = post.receiver.messages
    assert message.url == url_of("hook")
    assert made.secret is not None
    assert message.is_signed_with(made.secret)
    assert message.headers["content-type"] == "application/json"
    event = message.event
    assert event["type"] == "key.issue"
    data = event["data"]
    assert (data["resource"], data["kind"], data["entity"]) == (f"key/orders/{issued.id}", "key", issued.id)
    assert data["actor"] == post.desk.founded.principal.id
    assert data["event"].startswith("evt_")
    assert set(data) == {"event", "seq", "workspace", "resource", "kind", "entity", "actor"}


async def test_no_event_holds_a_secret(post: Post) -> None:
    """Bodies are ids: not the key that was issued, not a token, not the endpoint's own secret."""
    made = await post.endpoint()
    await post.desk.keyspace()
    issued = await post.desk.key()
    _, robot = await post.desk.hire("robot", ("key.*", "*"))
    await post.round()
    sent = b"".join(one.body for one in post.receiver.messages).decode()
    assert issued.key is not None
    assert made.secret is not None
    for secret in (issued.key, made.secret, robot.token.reveal()):
        assert secret not in sent


async def test_every_change_comes_once_and_in_order(post: Post) -> None:
    await post.endpoint()
    await post.desk.keyspace()
    for _ in range(5):
        await post.desk.key()
    await post.round()
    assert sorted(post.receiver.types()) == sorted(["webhook.create", "keyspace.create", *["key.issue"] * 5])
    ids = [one.id for one in post.receiver.messages]
    assert len(set(ids)) == len(ids)
    assert await post.round() == 0


async def test_what_happened_before_an_endpoint_is_not_for_it(post: Post) -> None:
    await post.desk.keyspace()
    await post.endpoint("first", "key.*", "keyspace.*")
    await post.desk.key()
    await post.round()
    assert post.receiver.types() == ["key.issue"]


async def test_a_refusal_is_no_event(post: Post) -> None:
    await post.endpoint()
    _, nobody = await post.desk.hire("nobody")
    await post.round()
    post.receiver.messages.clear()
    with pytest.raises(NotFoundError):
        await post.webhooks.show(nobody, "hook")
    assert await post.round() == 0


async def test_another_workspace_hears_nothing(post: Post) -> None:
    """Events stay in their workspace."""
    tenant = await post.desk.tenant("tenant")
    await post.webhooks.create(tenant, CreateWebhook(name="theirs", url=url_of("theirs")))
    await post.desk.keyspace()
    await post.round()
    assert set(post.receiver.types()) == {"webhook.create"}


async def test_a_failure_is_tried_again_on_the_schedule_and_is_dead_after_the_last(post: Post) -> None:
    await post.endpoint("hook", "keyspace.*")
    post.receiver.answers[url_of("hook")] = DOWN
    await post.desk.keyspace()
    assert await post.round() == 1
    for wait in rules.WAITS_SECONDS:
        post.desk.clock.advance(wait - 0.5)
        assert await post.round() == 0
        post.desk.clock.advance(1)
        assert await post.round() == 1
    assert await post.states() == [("keyspace.create", "dead", 10)]
    assert len({one.id for one in post.receiver.messages}) == 1
    assert len({one.body for one in post.receiver.messages}) == 1
    post.desk.clock.advance(10 * 86400)
    assert await post.round() == 0
    assert post.dispatcher.health.dead == 1


async def test_retry_after_is_honoured_and_bounded(post: Post) -> None:
    await post.endpoint("hook", "keyspace.*")
    post.receiver.answers[url_of("hook")] = Answer(1, 429, "answered 429", retry_after="600")
    await post.desk.keyspace()
    await post.round()
    post.desk.clock.advance(599)
    assert await post.round() == 0
    post.desk.clock.advance(2)
    post.receiver.answers[url_of("hook")] = Answer(1, 429, "answered 429", retry_after="99999999")
    assert await post.round() == 1
    post.desk.clock.advance(86_401)
    assert await post.round() == 1


async def test_gone_disables_the_endpoint_on_record(post: Post) -> None:
    await post.endpoint("hook", "keyspace.*")
    await post.endpoint("watch", "webhook.update")
    post.receiver.answers[url_of("hook")] = Answer(1, 410, "answered 410")
    await post.desk.keyspace()
    await post.round()
    shown = await post.webhooks.show(post.desk.admin, "hook")
    assert (shown.state, shown.state_reason) == ("disabled", "gone")
    leaf = (await post.desk.leaves("webhook.update"))[-1]
    assert (leaf["actor"]["id"], leaf["detail"]) == ("system", {"reason": "gone", "state": "disabled"})
    assert post.receiver.types(url_of("watch")) == ["webhook.update"]


async def test_an_endpoint_that_fails_for_days_is_paused_on_record(post: Post) -> None:
    await post.endpoint("hook", "keyspace.*")
    post.receiver.answers[url_of("hook")] = DOWN
    await post.desk.keyspace("first")
    await post.round()
    assert (await post.webhooks.show(post.desk.admin, "hook")).failing_since is not None
    post.desk.clock.advance(rules.PAUSE_AFTER_SECONDS + 1)
    await post.round()
    shown = await post.webhooks.show(post.desk.admin, "hook")
    assert (shown.state, shown.state_reason) == ("disabled", "failing")
    assert (await post.desk.leaves("webhook.update"))[-1]["detail"]["reason"] == "failing"
    post.receiver.answers.clear()
    await post.webhooks.enable(post.desk.admin, "hook")
    post.desk.clock.advance(86_400)
    await post.round()
    assert await post.states() == [("keyspace.create", "delivered", 3)]
    assert (await post.webhooks.show(post.desk.admin, "hook")).failing_since is None


async def test_what_happens_while_disabled_is_a_dead_letter_and_can_be_sent_again(post: Post) -> None:
    await post.endpoint("hook", "keyspace.*")
    await post.webhooks.disable(post.desk.admin, "hook")
    await post.desk.keyspace("missed")
    assert await post.round() == 0
    assert await post.states() == [("keyspace.create", "dead", 0)]
    since = post.desk.clock.now_utc()
    await post.webhooks.enable(post.desk.admin, "hook")
    assert await post.round() == 0
    again = await post.deliveries.redeliver_dead(post.desk.admin, "hook", RedeliverWebhook(since=since))
    assert (again.count, again.more) == (1, False)
    assert await post.round() == 1
    assert await post.states() == [("keyspace.create", "delivered", 1)]


async def test_wider_patterns_do_not_send_the_past(post: Post) -> None:
    await post.endpoint("hook", "key.revoke")
    await post.desk.keyspace("before")
    await post.round()
    await post.webhooks.update(post.desk.admin, "hook", UpdateWebhook(events=("keyspace.*",)))
    await post.desk.keyspace("after")
    await post.round()
    assert [one.event["data"]["resource"] for one in post.receiver.messages] == ["keyspace/after"]


async def test_what_happened_before_narrower_patterns_is_sent(post: Post) -> None:
    """Nothing is skipped between a commit and the round that would have found it."""
    await post.endpoint("hook", "keyspace.*")
    await post.desk.keyspace("before")
    await post.webhooks.update(post.desk.admin, "hook", UpdateWebhook(events=("key.revoke",)))
    await post.desk.keyspace("after")
    await post.round()
    assert [one.event["data"]["resource"] for one in post.receiver.messages] == ["keyspace/before"]


async def test_a_log_of_no_interest_costs_no_write(post: Post) -> None:
    await post.endpoint("hook", "key.revoke")
    await post.round()
    before = await post.desk.database.read(outbox.read_cursor)
    await post.desk.keyspace()
    await post.round()
    assert await post.desk.database.read(outbox.read_cursor) == before


async def test_one_delivery_can_be_sent_again_under_the_same_id(post: Post) -> None:
    await post.endpoint("hook", "keyspace.*")
    await post.desk.keyspace()
    await post.round()
    one = await only(post)
    assert one.state is DeliveryState.DELIVERED
    again = await post.deliveries.redeliver(post.desk.admin, "hook", one.id)
    assert again.state is DeliveryState.PENDING
    await post.round()
    first, second = post.receiver.messages
    assert (first.id, first.body) == (second.id, second.body)
    shown = await post.deliveries.show(post.desk.admin, "hook", one.id)
    assert [attempt.number for attempt in shown.attempt_log] == [1, 2]


async def test_a_slow_endpoint_delays_nobody_and_is_not_flooded(post: Post) -> None:
    await post.endpoint("slow", "keyspace.*")
    await post.endpoint("quick", "keyspace.*")
    gate = post.receiver.gates[url_of("slow")] = asyncio.Event()
    for number in range(12):
        await post.desk.keyspace(f"orders-{number}")
    for _ in range(1000):
        await post.dispatcher.dispatch_once()
        await asyncio.sleep(0.01)
        if len(post.receiver.types(url_of("quick"))) == 12:
            break
    assert len(post.receiver.types(url_of("quick"))) == 12
    assert len(post.receiver.types(url_of("slow"))) == module.PER_ENDPOINT
    gate.set()
    await post.dispatcher.settled()
    await post.round()
    assert len(post.receiver.types(url_of("slow"))) == 12


async def test_slow_endpoints_of_one_workspace_leave_room_for_others(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A workspace with many endpoints that stand still does not take every place there is."""
    monkeypatch.setattr(module, "PER_WORKSPACE", 3)
    gates = []
    for name in ("one", "two"):
        await post.endpoint(name, "keyspace.*")
        gates.append(asyncio.Event())
        post.receiver.gates[url_of(name)] = gates[-1]
    for number in range(6):
        await post.desk.keyspace(f"orders-{number}")

    assert await post.dispatcher.dispatch_once() == 3
    assert await post.dispatcher.dispatch_once() == 0
    for gate in gates:
        gate.set()
    await post.dispatcher.settled()
    await post.round()
    assert [len(post.receiver.types(url_of(name))) for name in ("one", "two")] == [6, 6]


async def test_a_failing_endpoint_gets_one_attempt_at_a_time(post: Post) -> None:
    await post.endpoint("hook", "keyspace.*")
    post.receiver.answers[url_of("hook")] = DOWN
    await post.desk.keyspace("first")
    await post.round()
    for number in range(6):
        await post.desk.keyspace(f"orders-{number}")
    gate = post.receiver.gates[url_of("hook")] = asyncio.Event()
    assert await post.dispatcher.dispatch_once() == 1
    assert await post.dispatcher.dispatch_once() == 0
    gate.set()
    await post.dispatcher.settled()


async def test_two_workers_send_each_event_once(post: Post) -> None:
    """Election and claims: no storm of duplicates when several workers dispatch at once."""
    await post.endpoint("hook", "keyspace.*")
    second = post.another("nod_second")
    for number in range(10):
        await post.desk.keyspace(f"orders-{number}")
    for _ in range(10):
        await asyncio.gather(post.dispatcher.dispatch_once(), second.dispatch_once())
        await asyncio.gather(post.dispatcher.settled(), second.settled())
    ids = [one.id for one in post.receiver.messages]
    assert len(ids) == len(set(ids)) == 10


async def test_a_successor_sends_what_a_killed_leader_had_claimed(post: Post) -> None:
    await post.endpoint("hook", "keyspace.*")
    await post.desk.keyspace()
    gate = post.receiver.gates[url_of("hook")] = asyncio.Event()
    assert await post.dispatcher.dispatch_once() == 1
    await asyncio.sleep(0)
    del post.receiver.gates[url_of("hook")]
    second = post.another("nod_second")
    assert await post.round(second) == 0
    post.desk.clock.advance(module.LEASE_SECONDS + module.STAND_AGAIN_SECONDS)
    await end_lease(post)
    assert await post.round(second) == 1
    gate.set()
    await post.dispatcher.settled()
    assert await post.states() == [("keyspace.create", "delivered", 2)]


async def end_lease(post: Post) -> None:
    """Let the lease end: it runs in database time, which the clock of a test does not move."""

    def end(transaction: Transaction) -> None:
        transaction.connection.execute(update(election).where(election.c.name == module.ELECTION).values(until=0.0))

    await post.desk.database.write(end)


async def test_a_failure_that_comes_late_does_not_undo_a_success(post: Post) -> None:
    await post.endpoint("hook", "keyspace.*")
    await post.desk.keyspace()
    gate = post.receiver.gates[url_of("hook")] = asyncio.Event()
    post.receiver.answers[url_of("hook")] = DOWN
    await post.dispatcher.dispatch_once()
    await asyncio.sleep(0)
    del post.receiver.gates[url_of("hook")]
    post.desk.clock.advance(module.CLAIM_SECONDS + 1)
    await end_lease(post)
    second = post.another("nod_second")
    post.receiver.answers.clear()
    assert await post.round(second) == 1
    post.receiver.answers[url_of("hook")] = DOWN
    gate.set()
    await post.dispatcher.settled()
    assert await post.states() == [("keyspace.create", "delivered", 2)]


async def test_during_an_overlap_both_secrets_sign(post: Post) -> None:
    """A receiver that has either secret can verify; after the overlap only the new one counts."""
    first = await post.endpoint("hook", "keyspace.*")
    second = await post.webhooks.rotate_secret(post.desk.admin, "hook", RotateWebhookSecret(overlap_seconds=3600))
    assert first.secret is not None
    assert second.secret is not None
    assert first.secret != second.secret
    await post.desk.keyspace("during")
    await post.round()
    post.desk.clock.advance(3601)
    await post.desk.keyspace("after")
    await post.round()
    during, after = post.receiver.messages
    assert [during.is_signed_with(one) for one in (first.secret, second.secret)] == [True, True]
    assert [after.is_signed_with(one) for one in (first.secret, second.secret)] == [False, True]


async def test_a_rotation_without_overlap_ends_every_old_secret(post: Post) -> None:
    first = await post.endpoint("hook", "keyspace.*")
    second = await post.webhooks.rotate_secret(post.desk.admin, "hook", RotateWebhookSecret(overlap_seconds=3600))
    third = await post.webhooks.rotate_secret(post.desk.admin, "hook", RotateWebhookSecret(overlap_seconds=0))
    await post.desk.keyspace()
    await post.round()
    (message,) = post.receiver.messages
    secrets = [one.secret for one in (first, second, third)]
    assert [message.is_signed_with(str(one)) for one in secrets] == [False, False, True]


async def test_a_deleted_endpoint_gets_nothing_more_and_its_name_is_free(post: Post) -> None:
    made = await post.endpoint("hook", "keyspace.*")
    await post.desk.keyspace("waits")
    post.receiver.answers[url_of("hook")] = DOWN
    await post.round()
    deleted = await post.webhooks.delete(post.desk.admin, "hook")
    assert deleted.state == "deleted"
    post.desk.clock.advance(86_400)
    await post.desk.keyspace("later")
    assert await post.round() == 0
    assert await post.states() == [("keyspace.create", "cancelled", 1)]
    assert (await post.endpoint("hook")).id != made.id


async def test_finished_deliveries_are_kept_for_thirty_days(post: Post) -> None:
    await post.endpoint("hook", "keyspace.*")
    await post.desk.keyspace()
    await post.round()
    post.desk.clock.advance(29 * 86_400)
    await post.round()
    assert len(await post.states()) == 1
    post.desk.clock.advance(2 * 86_400)
    await post.round()
    assert await post.states() == []
    rows = await post.desk.database.read(lambda c: c.execute(webhook_attempt.select()).all())
    assert rows == []


async def test_an_alarm_is_an_event(post: Post) -> None:
    from keyturn.bootstrap.application import _record_time_jump

    await post.endpoint("hook", "system.*")
    await post.desk.database.write(lambda t: _record_time_jump(t, "nod_0"))
    await post.round()
    (message,) = post.receiver.messages
    assert (message.type, message.event["data"]["resource"]) == ("system.alarm", "node/nod_0")


async def test_a_stop_gives_back_what_is_under_way(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DRAIN_SECONDS", 0.05)
    await post.endpoint("hook", "keyspace.*")
    await post.desk.keyspace()
    post.receiver.gates[url_of("hook")] = asyncio.Event()
    stop = asyncio.Event()
    running = asyncio.create_task(post.dispatcher.run(stop))
    await arrived(post)
    stop.set()
    await running
    del post.receiver.gates[url_of("hook")]
    assert await post.round(post.another("nod_second")) == 1
    assert await post.states() == [("keyspace.create", "delivered", 2)]


async def arrived(post: Post) -> None:
    """Return once a message came."""
    for _ in range(3000):
        if post.receiver.messages:
            return
        await asyncio.sleep(0.01)
    pytest.fail("no message came")


async def test_an_endpoint_whose_secret_does_not_open_holds_up_nobody(post: Post) -> None:
    """A sealed secret that was moved from another endpoint is refused; the others still get their events."""
    broken = await post.endpoint("broken", "keyspace.*")
    await post.endpoint("sound", "keyspace.*")

    def damage(transaction: Transaction) -> None:
        transaction.connection.execute(
            update(sealed_key).where(sealed_key.c.path == broken.id).values(sealed=b"nothing of the kind")
        )

    await post.desk.database.write(damage)
    await post.desk.keyspace()
    await post.round()
    assert [one.url for one in post.receiver.messages] == [url_of("sound")]


async def test_the_log_of_a_delivery_tells_of_every_attempt(post: Post) -> None:
    await post.endpoint("hook", "keyspace.*")
    post.receiver.answers[url_of("hook")] = Answer(7, None, "no answer within 15 s")
    await post.desk.keyspace()
    await post.round()
    one = await only(post)
    assert (one.state, one.last_status, one.last_error) == (DeliveryState.PENDING, None, "no answer within 15 s")
    assert one.next_attempt_at is not None
    post.desk.clock.advance(6)
    post.receiver.answers.clear()
    await post.round()
    shown = await post.deliveries.show(post.desk.admin, "hook", one.id)
    assert [(a.number, a.status, a.error, a.duration_ms) for a in shown.attempt_log] == [
        (1, None, "no answer within 15 s", 7),
        (2, 204, None, 1),
    ]
    assert shown.finished_at is not None
    rows = await post.desk.database.read(lambda c: c.execute(webhook_delivery.select()).all())
    assert len(rows) == 1
