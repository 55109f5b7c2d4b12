"""What a policy says is done once, on its author's rights; and a finding closes with what leaked."""

import pytest
from sqlalchemy import update

from keyturn.errors import UnavailableError
from keyturn.kernel.secret import Secret
from keyturn.keys import lifecycle
from keyturn.leaks import responding
from keyturn.leaks.model import ReportedOutside
from keyturn.storage.change_log import drop_older
from keyturn.storage.schema import change
from keyturn.wire.certainty import Certainty
from keyturn.wire.keys import RevokeKey, RotateKey
from keyturn.wire.leaks import PolicyScope, UpdateLeakPolicy
from keyturn.wire.secrets import SelectVersions
from tests.leaks.station import LONG, Station, reported
from tests.leaks.test_findings import decide


async def leaked(station: Station, **given: str) -> tuple[str, str, str]:
    """Issue a key and report it; return its id, the key and the finding."""
    key_id, key = await station.key(**given)
    (answer,) = await station.report(reported(key))
    return key_id, key, answer.id


# --- actions -----------------------------------------------------------------------------------------------------


async def test_a_leaked_key_is_revoked_by_policy_and_its_finding_closes(station: Station) -> None:
    await station.desk.keyspace()
    await station.policy(action="revoke")
    key_id, key, found = await leaked(station)
    assert await station.standing(found) == ("open", "revoke", "due")

    await station.respond()

    assert await station.desk.verdict(key) == "REVOKED"
    shown = await station.desk.keys.show(station.admin, key_id)
    assert (shown.state, shown.revoke_reason) == ("revoked", "key_compromise")
    assert await station.standing(found) == ("rotated", "revoke", "done")
    assert await station.history(found) == ["reported", "action_due", "action_done", "closed"]


async def test_a_leaked_key_is_disabled_by_policy_and_opens_again_when_it_is_enabled(station: Station) -> None:
    await station.desk.keyspace()
    await station.policy(action="disable")
    key_id, key, found = await leaked(station)
    await station.respond()
    assert await station.desk.verdict(key) == "DISABLED"
    assert await station.standing(found) == ("rotated", "disable", "done")

    await station.desk.keys.enable(station.admin, key_id)
    await station.respond()
    await station.report(reported(key, "again.py"))
    await station.respond()

    assert await station.desk.verdict(key) == "VALID"
    assert await station.standing(found) == ("open", "disable", "done")
    assert (await station.history(found))[-1] == "reopened"


async def test_rotating_ends_the_leaked_version_and_leaves_the_next_one_to_its_owner(station: Station) -> None:
    """Nobody is given a secret that nobody has seen, and no overlap prolongs the one that leaked."""
    await station.desk.keyspace()
    await station.policy(action="rotate", overlap_seconds=600)
    key_id, key, found = await leaked(station)
    await station.respond()
    assert await station.desk.verdict(key) == "VALID"
    assert await station.standing(found) == ("open", "rotate", "done")

    station.desk.clock.advance(300)
    rotated = await station.desk.keys.rotate(station.admin, key_id, RotateKey(overlap_seconds=86_400))
    assert await station.desk.verdict(key) == "VALID"
    await station.pass_time(301)

    assert await station.desk.verdict(key) == "EXPIRED"
    assert await station.desk.verdict(rotated.key) == "VALID"
    assert (await station.shown(found)).finding.state == "rotated"


async def test_a_key_that_nobody_rotated_ends_and_can_be_rotated_afterwards(station: Station) -> None:
    await station.desk.keyspace()
    await station.policy(action="rotate", overlap_seconds=60)
    key_id, key, found = await leaked(station)
    await station.respond()
    await station.pass_time(61)
    assert await station.desk.verdict(key) == "EXPIRED"
    assert (await station.shown(found)).finding.state == "rotated"

    rotated = await station.desk.keys.rotate(station.admin, key_id, RotateKey(overlap_seconds=3600))
    await station.respond()

    assert await station.desk.verdict(key) == "EXPIRED"
    assert await station.desk.verdict(rotated.key) == "VALID"
    assert (await station.shown(found)).finding.state == "rotated"


async def test_a_management_token_is_revoked_by_a_policy_of_its_own_alone(station: Station) -> None:
    await station.policy("keys", "revoke", position=1)
    _, first = await station.desk.hire("first")
    (answer,) = await station.report(reported(first.token.reveal()))
    assert (answer.action, answer.action_state) == ("notify", "notified")

    await station.policy("tokens", "revoke", applies={"certainties": ["own"], "keyspaces": ["~system"]})
    (again,) = await station.report(reported(first.token.reveal(), "again.py"))
    await station.respond()

    assert again.action_state == "due"
    assert await station.standing(again.id) == ("rotated", "revoke", "done")
    assert len(await station.desk.leaves("token.revoke")) == 1


async def test_the_system_acts_and_the_policy_and_its_author_are_on_record(station: Station) -> None:
    await station.desk.keyspace()
    policy = await station.policy(action="revoke")
    key_id, _, found = await leaked(station)
    await station.respond()

    (leaf,) = await station.desk.leaves("system.leak_response")
    assert leaf["actor"]["id"] == "system"
    assert leaf["resource"] == f"finding/{found}"
    said = {name: leaf["detail"][name] for name in ("policy", "author", "key", "owner", "action", "action_state")}
    assert said == {
        "policy": policy.id,
        "author": station.desk.founded.principal.id,
        "key": key_id,
        "owner": "billing",
        "action": "revoke",
        "action_state": "done",
    }
    (revoked,) = await station.desk.leaves("key.revoke")
    assert revoked["actor"]["id"] == "system"


async def test_the_first_policy_by_position_counts(station: Station) -> None:
    await station.desk.keyspace()
    await station.desk.keyspace("stock", prefix="stck")
    await station.policy("all", "disable", position=20)
    await station.policy(
        "stock-in-tests", "notify", position=10, applies={"keyspaces": ["stock"], "contexts": ["test"]}
    )
    _, first = await station.key()
    _, second = await station.key("stock")
    _, third = await station.key("stock")

    answers = await station.report(
        reported(first, contexts=["test"]), reported(second, contexts=["test"]), reported(third, contexts=["source"])
    )

    assert [one.action for one in answers] == ["disable", "notify", "disable"]


async def test_a_worse_place_asks_for_more_and_a_better_one_for_nothing(station: Station) -> None:
    await station.desk.keyspace()
    await station.policy("public", "revoke", applies={"certainties": ["own"], "contexts": ["public"]})
    _, key = await station.key()

    (private,) = await station.report(reported(key, "a.py"))
    (public,) = await station.report(reported(key, "b.py", contexts=["public"]))
    (later,) = await station.report(reported(key, "c.py"))

    assert [one.action for one in (private, public, later)] == ["notify", "revoke", "revoke"]
    assert len(await station.history(private.id)) == 2


async def test_a_person_can_step_in_before_an_action_is_due(station: Station) -> None:
    await station.desk.keyspace()
    await station.policy(action="revoke", after_seconds=600)
    _, key, found = await leaked(station)
    await station.pass_time(599)
    assert await station.desk.verdict(key) == "VALID"

    await decide(station, found, "dismiss")
    await station.pass_time(10)

    assert await station.desk.verdict(key) == "VALID"
    assert await station.standing(found) == ("false_positive", "", "")


async def test_without_a_policy_somebody_is_told_and_nothing_is_done(station: Station) -> None:
    await station.desk.keyspace()
    _, key, found = await leaked(station)
    await station.respond()
    assert await station.desk.verdict(key) == "VALID"
    assert await station.standing(found) == ("open", "notify", "notified")


# --- rights ------------------------------------------------------------------------------------------------------


async def test_an_author_who_lost_the_right_starts_no_action(station: Station) -> None:
    """A policy must not outlive the rights that it was written with."""
    await station.desk.keyspace()
    who, writer = await station.desk.hire(
        "writer", ("leak_policy.create", "leak_policy/*"), ("key.revoke", "key/orders/*")
    )
    await station.policy(by=writer, applies={"certainties": ["own"], "keyspaces": ["orders"]})
    _, key, found = await leaked(station)
    for grant in (await station.desk.access.grants.list(station.admin)).items:
        if grant.principal == who and "key.revoke" in grant.actions:
            await station.desk.access.grants.revoke(station.admin, grant.id)

    await station.respond()

    assert await station.desk.verdict(key) == "VALID"
    assert await station.standing(found) == ("open", "revoke", "refused")
    shown = (await station.shown(found)).finding
    assert shown.last_error is not None
    assert "may not revoke" in shown.last_error
    (leaf,) = await station.desk.leaves("system.leak_response")
    assert leaf["detail"]["action_state"] == "refused"


@pytest.mark.parametrize("how", ["disabled", "deleted", "softened", "narrowed"])
async def test_an_action_whose_policy_no_longer_stands_is_left_to_a_person(station: Station, how: str) -> None:
    await station.desk.keyspace()
    who, writer = await station.desk.hire("writer", ("leak_policy.*", "leak_policy/*"), ("key.revoke", "key/*"))
    await station.policy(by=writer)
    _, key, found = await leaked(station)
    if how == "disabled":
        await station.desk.access.principals.disable(station.admin, who)
    elif how == "deleted":
        await station.policies.delete(station.admin, "rule")
    elif how == "narrowed":
        applies = PolicyScope(certainties=(Certainty.OWN,), keyspaces=("billing",))
        await station.policies.update(writer, "rule", UpdateLeakPolicy(applies=applies))
    else:
        await station.policies.update(writer, "rule", UpdateLeakPolicy(action="notify"))  # type: ignore[arg-type]

    await station.respond()

    assert await station.desk.verdict(key) == "VALID"
    assert await station.standing(found) == ("open", "revoke", "refused")


# --- faults ------------------------------------------------------------------------------------------------------


async def test_two_workers_do_an_action_once(station: Station) -> None:
    await station.desk.keyspace()
    await station.policy()
    await leaked(station)

    await station.respond()
    other = station.another("nod_second")
    assert await other.respond_once() == 0
    await station.step_down()
    while await other.respond_once():
        continue

    assert len(await station.desk.leaves("key.revoke")) == 1
    assert len(await station.desk.leaves("system.leak_response")) == 1


async def test_a_leader_that_was_paused_does_nothing_again(station: Station) -> None:
    """An election keeps nobody from going on after its lead has ended: the action itself has to be done once."""
    await station.desk.keyspace()
    await station.policy()
    _, _, found = await leaked(station)
    workspace = station.desk.founded.workspace.id

    first = await station.desk.database.write(lambda t: responding.act(t, workspace, found))
    second = await station.desk.database.write(lambda t: responding.act(t, workspace, found))
    await station.desk.database.write(lambda t: responding.put_off(t, workspace, found, "late"))

    assert (first.value, second.value) == ("done", None)
    assert len(await station.desk.leaves("key.revoke")) == 1
    assert (await station.shown(found)).finding.action_state == "done"


async def test_an_action_that_fails_is_tried_again_and_given_up_in_the_end(
    station: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    await station.desk.keyspace()
    await station.policy()
    _, key, found = await leaked(station)
    _, _, lucky = await leaked(station)
    tried: list[str] = []

    def fails(op: object, key: object, request: object) -> None:  # noqa: ARG001 -- the signature
        tried.append("tried")
        raise UnavailableError("the power is out")

    with monkeypatch.context() as broken:
        broken.setattr(lifecycle, "revoke", fails)
        await station.responder.respond_once()
        assert tried == ["tried", "tried"]
        await station.responder.respond_once()
        assert len(tried) == 2
        shown = (await station.shown(found)).finding
        assert (shown.attempts, shown.action_state, shown.last_error) == (1, "due", "the power is out")
        await decide(station, lucky, "dismiss")
        for _ in range(7):
            await station.pass_time(7200)
    assert await station.standing(found) == ("open", "revoke", "failed")
    assert len(tried) == 9
    assert await station.desk.verdict(key) == "VALID"


async def test_an_action_that_was_interrupted_was_not_done_at_all(
    station: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The change of the key and the finding's are one commit: killed in between, both are done again."""
    await station.desk.keyspace()
    await station.policy()
    _, key, found = await leaked(station)

    def dies(*_: object) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as broken:
        broken.setattr(responding, "_settle", dies)
        await station.responder.respond_once()
    assert await station.desk.verdict(key) == "VALID"
    await station.pass_time(2)

    assert await station.desk.verdict(key) == "REVOKED"
    assert await station.standing(found) == ("rotated", "revoke", "done")
    assert len(await station.desk.leaves("key.revoke")) == 1


# --- closing -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["revoke", "rotate", "disable", "keyspace"])
async def test_a_finding_closes_whoever_ended_the_key(station: Station, how: str) -> None:
    await station.desk.keyspace()
    key_id, _, found = await leaked(station)
    await station.respond()
    if how == "revoke":
        await station.desk.keys.revoke(station.admin, key_id, RevokeKey())
    elif how == "rotate":
        await station.desk.keys.rotate(station.admin, key_id, RotateKey(overlap_seconds=0))
    elif how == "disable":
        await station.desk.keys.disable(station.admin, key_id)
    else:
        await station.desk.keyspaces.disable(station.admin, "orders")

    await station.respond()

    shown = (await station.shown(found)).finding
    assert (shown.state, shown.next_command) == ("rotated", None)
    (leaf,) = await station.desk.leaves("system.finding_closed")
    assert (leaf["resource"], leaf["detail"]["event"]) == (f"finding/{found}", "closed")


async def test_a_finding_of_a_key_that_expires_closes(station: Station) -> None:
    await station.desk.keyspace()
    _, key = await station.key(expires_in_seconds=60)
    (answer,) = await station.report(reported(key))
    await station.pass_time(59)
    assert (await station.shown(answer.id)).finding.state == "open"
    await station.pass_time(5)
    assert (await station.shown(answer.id)).finding.state == "rotated"


async def test_a_key_that_works_no_more_is_a_closed_finding_from_the_start(station: Station) -> None:
    await station.desk.keyspace()
    await station.policy()
    key_id, key = await station.key()
    await station.desk.keys.revoke(station.admin, key_id, RevokeKey())

    (answer,) = await station.report(reported(key))

    assert (answer.state, answer.action) == ("rotated", "")


@pytest.mark.parametrize("how", ["put", "destroy", "delete", "remove"])
async def test_a_finding_of_a_held_value_closes_when_no_current_version_holds_it(station: Station, how: str) -> None:
    await station.put("production/a/one")
    (answer,) = await station.report(reported(LONG))
    await station.respond()
    if how == "put":
        await station.put("production/a/one", LONG + "-newer")
    elif how == "destroy":
        await station.vault.destroy(station.admin, "production/a/one", SelectVersions(versions=(1,)))
    elif how == "delete":
        await station.vault.delete(station.admin, "production/a/one", SelectVersions())
    else:
        await station.vault.remove(station.admin, "production/a/one")

    await station.respond()
    assert (await station.shown(answer.id)).finding.state == "rotated"

    if how == "delete":
        await station.vault.undelete(station.admin, "production/a/one", SelectVersions(versions=(1,)))
        await station.respond()
        assert (await station.shown(answer.id)).finding.state == "open"


async def test_a_value_that_is_held_elsewhere_too_stays_open_there(station: Station) -> None:
    await station.put("production/a/one")
    await station.put("production/b/two")
    (answer,) = await station.report(reported(LONG))
    await station.respond()

    await station.put("production/a/one", LONG + "-newer")
    await station.respond()

    shown = (await station.shown(answer.id)).finding
    assert (shown.state, shown.secret_path) == ("open", "production/b/two")


async def test_changes_that_nobody_led_through_are_caught_up_with(station: Station) -> None:
    await station.desk.keyspace()
    key_id, _, found = await leaked(station)
    await station.respond()
    await station.desk.keys.revoke(station.admin, key_id, RevokeKey())
    await station.step_down()

    assert await station.another("nod_second").respond_once() == 1

    assert (await station.shown(found)).finding.state == "rotated"


async def test_changes_that_were_dropped_are_caught_up_with(station: Station) -> None:
    await station.desk.keyspace()
    key_id, _, found = await leaked(station)
    await station.respond()
    await station.desk.keys.revoke(station.admin, key_id, RevokeKey())
    await station.desk.database.write(lambda t: t.connection.execute(update(change).values(at=0.0)).rowcount)
    await station.desk.database.write(lambda t: drop_older(t.connection, t.now))

    await station.respond()

    assert (await station.shown(found)).finding.state == "rotated"


# --- from outside ------------------------------------------------------------------------------------------------


async def test_a_key_that_its_holder_shows_is_revoked_unless_a_policy_says_otherwise(station: Station) -> None:
    await station.desk.keyspace()
    _, first = await station.key()
    _, second = await station.key()
    workspace = station.desk.founded.workspace.id
    told = await station.leaks.reported_outside(
        workspace, origin="possession", presented=Secret(first), place={}, source="possession"
    )
    await station.policy(action="notify", applies={"origins": ["possession"]})
    other = await station.leaks.reported_outside(
        workspace, origin="possession", presented=Secret(second), place={}, source="possession"
    )

    await station.respond()

    assert (told.matched, told.action, told.works) == (True, "revoke", True)
    assert (other.action, other.action_state) == ("notify", "notified")
    assert [await station.desk.verdict(key) for key in (first, second)] == ["REVOKED", "VALID"]
    assert await station.standing(told.finding) == ("rotated", "revoke", "done")


async def test_a_value_that_is_nobodys_leaves_nothing_behind(station: Station) -> None:
    told = await station.leaks.reported_outside(
        station.desk.founded.workspace.id,
        origin="partner",
        presented=Secret("a value that nobody here has ever seen"),
        place={"url": "https://example.com/a"},
        source="partner",
    )

    assert not told.matched
    assert await station.findings() == []


async def test_a_partners_report_says_where_and_is_the_systems(station: Station) -> None:
    await station.desk.keyspace()
    _, key = await station.key()
    told = await station.leaks.reported_outside(
        station.desk.founded.workspace.id,
        origin="partner",
        presented=Secret(f"{key}\n"),
        place={"url": "https://example.com/a", "line": 4},
        source="github",
    )

    detail = await station.shown(told.finding)
    assert [(one.source, one.path, one.line, one.contexts) for one in detail.places] == [
        ("github", "https://example.com/a", 4, ("public",))
    ]
    assert key not in detail.finding.masked
    (leaf,) = await station.desk.leaves("system.leak_report")
    assert leaf["resource"] == f"finding/{told.finding}"


async def shown_by_its_holder(station: Station, key: str) -> ReportedOutside:
    """Report a key as whoever holds it does."""
    return await station.leaks.reported_outside(
        station.desk.founded.workspace.id,
        origin="possession",
        presented=Secret(key),
        place={"path": "https://paste.example.com/1"},
        source="possession",
    )


@pytest.mark.parametrize("decision", ["dismiss", "accept"])
async def test_a_key_that_its_holder_shows_is_revoked_whatever_was_decided_before(
    station: Station, decision: str
) -> None:
    """A scan's place can be harmless; that somebody outside holds the key cannot."""
    await station.desk.keyspace()
    _, key = await station.key()
    (told,) = await station.report(reported(key))
    await decide(station, told.id, decision)

    shown = await shown_by_its_holder(station, key)
    await station.respond()

    assert (shown.finding, shown.state, shown.action) == (told.id, "open", "revoke")
    assert await station.desk.verdict(key) == "REVOKED"
    assert "reopened" in await station.history(told.id)


async def test_a_key_that_its_holder_shows_does_not_wait_for_another_policys_grace(station: Station) -> None:
    await station.desk.keyspace()
    _, key = await station.key()
    applies = {"certainties": ["own"], "origins": ["scan"]}
    await station.policy(applies=applies, after_seconds=3600)
    (told,) = await station.report(reported(key))
    await station.respond()
    assert await station.desk.verdict(key) == "VALID"

    await shown_by_its_holder(station, key)
    await station.report(reported(key))
    await station.respond()

    assert await station.desk.verdict(key) == "REVOKED"
    assert await station.standing(told.id) == ("rotated", "revoke", "done")


async def test_an_action_that_was_refused_stands_in_the_way_of_no_other(station: Station) -> None:
    """Regression: after a policy whose author had lost the right, not even the holder's word ended the key."""
    await station.desk.keyspace()
    _, key = await station.key()
    applies = {"certainties": ["own"], "origins": ["scan"]}
    policy = await station.policy(applies=applies)
    (told,) = await station.report(reported(key))
    await station.policies.delete(station.admin, policy.name)
    await station.respond()
    assert await station.standing(told.id) == ("open", "revoke", "refused")

    await shown_by_its_holder(station, key)
    await station.respond()

    assert await station.desk.verdict(key) == "REVOKED"
