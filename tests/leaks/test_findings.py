"""A leaked value is one finding, whose it is and where it was seen; a person decides what it is."""

import hashlib
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from keyturn.errors import ConflictError, ForbiddenError, InputError, NotFoundError, PreconditionError
from keyturn.wire.keys import RevokeKey
from keyturn.wire.leaks import DecideFinding, FindingDetail, FindingFilter
from tests.leaks.station import LONG, Station, digest_of, reported

UNKNOWN = "-".join(("nobody", "here", "knows", "this", "value"))


async def decide(station: Station, finding_id: str, decision: str, **given: Any) -> FindingDetail:
    request = msgspec.convert({"decision": decision} | given, type=DecideFinding)
    return await station.leaks.decide(station.admin, finding_id, request)


async def test_a_reported_key_is_a_finding_with_its_owner_and_place(station: Station) -> None:
    await station.desk.keyspace()
    key_id, key = await station.key()

    (answer,) = await station.report(reported(key, masked="acme_live_…", contexts=["test"]))

    assert (answer.new, answer.certainty, answer.state, answer.owner) == (True, "own", "open", "billing")
    detail = await station.shown(answer.id)
    assert (detail.finding.key, detail.finding.keyspace, detail.finding.origin) == (key_id, "orders", "scan")
    assert [(one.source, one.path, one.line, one.contexts) for one in detail.places] == [
        ("repository", "src/app.py", 3, ("test",))
    ]
    assert await station.history(answer.id) == ["reported"]
    assert await station.standing(answer.id) == ("open", "notify", "notified")


async def test_a_value_is_one_finding_whatever_its_places_and_reports(station: Station) -> None:
    first = await station.report(reported(UNKNOWN), reported(UNKNOWN, "other.py"), reported(LONG))
    again = await station.report(reported(UNKNOWN, "third.py"), reported(UNKNOWN))

    assert [one.new for one in first] == [True, True, True]
    assert [one.new for one in again] == [False, False]
    assert {one.id for one in again} == {first[0].id} == {first[1].id} != {first[2].id}
    detail = await station.shown(first[0].id)
    assert sorted(one.path for one in detail.places) == ["other.py", "src/app.py", "third.py"]
    assert detail.finding.places_count == 3


async def test_only_the_server_says_that_a_value_is_own_or_held(station: Station) -> None:
    claims = [reported(f"{UNKNOWN}-{name}", certainty=name) for name in ("own", "held", "provider", "generic")]

    answers = await station.report(*claims)

    assert [one.certainty for one in answers] == ["provider", "provider", "provider", "generic"]


async def test_a_held_value_is_found_and_its_path_told_to_who_may_list_it(station: Station) -> None:
    await station.put("production/a/one")
    _, scanner = await station.desk.hire("scanner", ("finding.report", "finding/report"), ("finding.read", "finding/*"))

    (to_scanner,) = await station.report(reported(LONG), by=scanner)

    assert (to_scanner.certainty, to_scanner.secret_path) == ("held", None)
    shown = await station.leaks.show(scanner, to_scanner.id)
    assert (shown.finding.secret_path, shown.finding.field, shown.finding.next_command) == (None, None, None)
    assert (await station.shown(to_scanner.id)).finding.secret_path == "production/a/one"
    wanted = FindingFilter(secret="production/a/one")
    assert (await station.leaks.list(scanner, wanted)).items == ()
    assert len((await station.leaks.list(station.admin, wanted)).items) == 1


async def test_no_digest_of_a_reported_value_is_stored_in_the_clear(station: Station) -> None:
    """Who reads the database or the audit log could else guess values that were found."""
    await station.desk.keyspace()
    _, key = await station.key()

    await station.report(reported(UNKNOWN, masked=UNKNOWN, title=f"found {key}"), reported(key, f"logs/{key}.txt"))

    stored = await station.everything_stored()
    for value in (UNKNOWN, key):
        digest = hashlib.sha256(value.encode())
        assert value.encode() not in stored
        assert digest.hexdigest().encode() not in stored
        assert repr(digest.digest())[2:-1].encode() not in stored
    (found,) = [one for one in await station.findings() if one.certainty == "generic"]
    assert found.masked == "[redacted]"


async def test_no_value_is_stored_that_a_scanner_tells_by_mistake(station: Station) -> None:
    """A scanner may mask badly, and a file or an address may be named by the very secret."""
    place = {"path": f"https://example.com/{UNKNOWN}?token={UNKNOWN}&page=2", "members": [f"keys/{UNKNOWN}"]}
    masked, title = f"key={UNKNOWN} (whole)", f"found {UNKNOWN} here"

    (told,) = await station.report(reported(UNKNOWN, masked=masked, title=title, place=place))

    assert UNKNOWN.encode() not in await station.everything_stored()
    shown = await station.shown(told.id)
    assert shown.finding.title == "found [redacted] here"
    assert shown.places[0].path == "https://example.com/[redacted]?token=[redacted]&page=2"
    assert shown.places[0].members == ("keys/[redacted]",)


async def test_the_same_value_has_another_fingerprint_in_another_workspace(station: Station) -> None:
    tenant = await station.desk.tenant("other")
    await station.report(reported(UNKNOWN))
    (theirs,) = await station.report(reported(UNKNOWN), by=tenant)

    first, second = await station.findings()

    assert first.fingerprint != second.fingerprint
    assert first.fingerprint.hex() != digest_of(UNKNOWN)
    with pytest.raises(NotFoundError):
        await station.shown(theirs.id)


async def test_reports_are_on_record_and_each_known_value_by_itself(station: Station) -> None:
    await station.desk.keyspace()
    key_id, key = await station.key()

    (own, _) = await station.report(reported(key), reported(UNKNOWN))
    await station.report(reported(key))

    leaves = [(leaf["resource"], leaf["detail"]) for leaf in await station.desk.leaves("finding.report")]
    assert [resource for resource, _ in leaves] == [f"finding/{own.id}", "finding/report", "finding/report"]
    assert (leaves[0][1]["key"], leaves[0][1]["owner"]) == (key_id, "billing")
    assert {name: leaves[1][1][name] for name in ("findings", "new", "own", "held")} == {
        "findings": 2,
        "new": 2,
        "own": 1,
        "held": 0,
    }
    assert ("finding", own.id) in await station.desk.news()


async def test_an_empty_report_tells_a_silent_watch_from_a_clean_one(station: Station) -> None:
    await station.report(source="watched", next_due_seconds=60, summary={"documents": 12})
    station.desk.clock.advance(1)
    await station.report(source="other")

    listed = (await station.leaks.list_scans(station.admin)).items
    assert [(one.source, one.overdue, one.summary) for one in listed] == [
        ("watched", False, {"documents": 12}),
        ("other", False, {}),
    ]
    station.desk.clock.advance(61)
    assert [one.overdue for one in (await station.leaks.list_scans(station.admin)).items] == [True, False]
    await station.report(source="watched")
    watched = (await station.leaks.list_scans(station.admin, source="watched")).items
    assert [one.overdue for one in watched] == [False, False]


async def test_findings_are_listed_by_what_they_are(station: Station) -> None:
    await station.desk.keyspace()
    key_id, key = await station.key()
    (own,) = await station.report(reported(key))
    (other,) = await station.report(reported(UNKNOWN), source="elsewhere")

    async def listed(**given: Any) -> list[str]:
        wanted = msgspec.convert(given, type=FindingFilter)
        return [one.id for one in (await station.leaks.list(station.admin, wanted)).items]

    assert sorted(await listed()) == sorted([own.id, other.id])
    for only_own in ({"key": key_id}, {"certainty": "own"}, {"owner": "billing"}, {"keyspace": "orders"}):
        assert await listed(**only_own) == [own.id]
    assert await listed(source="elsewhere") == [other.id]
    assert await listed(state="accepted") == []
    assert len((await station.leaks.list(station.admin, limit=1)).items) == 1


async def test_a_decision_changes_the_state_and_is_in_the_history(station: Station) -> None:
    (found,) = await station.report(reported(UNKNOWN))

    assert (await decide(station, found.id, "confirm")).finding.state == "confirmed"
    assert (await decide(station, found.id, "dismiss", note="a sample")).finding.state == "false_positive"
    assert (await decide(station, found.id, "reopen")).finding.state == "open"
    closed = await decide(station, found.id, "close")
    assert (closed.finding.state, closed.finding.closed_at is not None) == ("rotated", True)

    assert [one.event for one in closed.history] == ["reported", "confirm", "dismiss", "reopen", "close"]
    assert closed.history[2].detail == {"was": "confirmed", "note": "a sample"}
    assert {one.actor for one in closed.history} == {station.desk.founded.principal.id}
    leaves = await station.desk.leaves("finding.decide")
    assert [leaf["detail"]["decision"] for leaf in leaves] == ["confirm", "dismiss", "reopen", "close"]


async def test_what_was_dismissed_or_accepted_stays_so_when_it_is_reported_again(station: Station) -> None:
    dismissed, accepted = await station.report(reported(UNKNOWN), reported(LONG))
    await decide(station, dismissed.id, "dismiss")
    await decide(station, accepted.id, "accept")

    again = await station.report(reported(UNKNOWN), reported(LONG, "new.py"))

    assert [one.state for one in again] == ["false_positive", "accepted"]


async def test_an_acceptance_ends_at_its_date(station: Station) -> None:
    (found,) = await station.report(reported(UNKNOWN))
    until = datetime.fromtimestamp(station.desk.clock.now() + 60, tz=UTC).isoformat()
    await decide(station, found.id, "accept", until=until)

    await station.pass_time(30)
    assert (await station.shown(found.id)).finding.state == "accepted"
    await station.pass_time(31)
    assert (await station.shown(found.id)).finding.state == "open"
    assert await station.history(found.id) == ["reported", "accept", "reopened"]


async def test_a_key_that_works_is_not_closed_by_anybodys_word(station: Station) -> None:
    await station.desk.keyspace()
    key_id, key = await station.key()
    (found,) = await station.report(reported(key))

    with pytest.raises(ConflictError) as caught:
        await decide(station, found.id, "close")
    assert caught.value.code == "still_works"
    await station.desk.keys.revoke(station.admin, key_id, RevokeKey())
    await station.respond()
    with pytest.raises(ConflictError):
        await decide(station, found.id, "reopen")


async def test_an_end_belongs_to_an_acceptance_and_lies_ahead(station: Station) -> None:
    (found,) = await station.report(reported(UNKNOWN))

    for given in (
        {"decision": "confirm", "until": "2999-01-01T00:00:00Z"},
        {"decision": "accept", "until": "1971-01-01T00:00:00Z"},
    ):
        with pytest.raises(InputError):
            await station.leaks.decide(station.admin, found.id, msgspec.convert(given, type=DecideFinding))


async def test_a_decision_about_an_older_revision_is_refused(station: Station) -> None:
    (found,) = await station.report(reported(UNKNOWN))
    await decide(station, found.id, "confirm")

    with pytest.raises(PreconditionError):
        await station.leaks.decide(
            station.admin, found.id, msgspec.convert({"decision": "dismiss"}, type=DecideFinding), if_match=1
        )


async def test_reading_reporting_and_deciding_are_rights_of_their_own(station: Station) -> None:
    (found,) = await station.report(reported(UNKNOWN))
    _, reporter = await station.desk.hire("reporter", ("finding.report", "finding/report"))
    _, reader = await station.desk.hire("reader", ("finding.read", "finding/*"))

    await station.report(reported(LONG), by=reporter)
    with pytest.raises(NotFoundError):
        await station.leaks.show(reporter, found.id)
    assert (await station.leaks.list(reporter)).items == ()
    with pytest.raises(ForbiddenError):
        await station.leaks.list_scans(reporter)
    with pytest.raises(ForbiddenError):
        await station.report(by=reader)
    with pytest.raises(ForbiddenError):
        await station.leaks.decide(reader, found.id, msgspec.convert({"decision": "dismiss"}, type=DecideFinding))
    with pytest.raises(NotFoundError):
        await station.shown("fnd_" + "0" * 22)
