from datetime import date
from typing import Any

import pytest
from msgspec.structs import replace as changed

from keyturn.errors import InputError
from keyturn.scanner.baseline import Entry, new_baseline, read_baseline, stale_entries, updated, write_baseline
from keyturn.scanner.fingerprints import Fingerprints
from keyturn.scanner.judging import judge
from keyturn.scanner.model import Context, Finding, Owner, Place
from keyturn.wire.certainty import Certainty
from tests.scanner.scanning import NAMED, NETRC, SHOP, SHOP_TEST, finding, hit, judges, scanned, shop_key


def test_a_fingerprint_is_of_the_family_and_the_secret_and_of_the_key() -> None:
    renamed = changed(SHOP, id="shop-api-key", family="shop-key")
    one = Fingerprints().of(SHOP, b"a")
    assert one == Fingerprints().of(renamed, b"a")
    assert (
        len({one, Fingerprints().of(SHOP, b"b"), Fingerprints().of(NAMED, b"a"), Fingerprints(b"s").of(SHOP, b"a")})
        == 4
    )
    assert Fingerprints(b"s", b"key").of(SHOP, b"a") != Fingerprints(b"s").of(SHOP, b"a")


def test_a_family_and_a_secret_cannot_be_told_to_be_others() -> None:
    assert Fingerprints().of(changed(SHOP, id="ab"), b"c") != Fingerprints().of(changed(SHOP, id="a"), b"bc")


def test_a_finding_is_recognised_where_it_moves_and_new_when_its_secret_changes() -> None:
    before = scanned({"a.py": f"k = '{shop_key()}'\n"})
    baseline = updated(new_baseline(), [])
    salted: dict[str, Any] = {"fingerprints": Fingerprints(bytes.fromhex(baseline.salt)), "baseline": None}
    found = scanned({"a.py": f"k = '{shop_key()}'\n"}, **salted).findings
    kept = updated(baseline, found)
    now: dict[str, Any] = {"fingerprints": Fingerprints(bytes.fromhex(baseline.salt)), "baseline": kept}
    moved = scanned({"b/c.py": f"\n\n\nother = '{shop_key()}'\n"}, **now)
    assert before.findings[0].fingerprint != found[0].fingerprint
    assert (moved.findings, [one.verdict for one in moved.ignored]) == ([], ["baseline"])
    assert len(scanned({"a.py": f"k = '{shop_key('b')}'\n"}, **now).findings) == 1


def test_an_entry_of_a_baseline_holds_through_its_last_day() -> None:
    found = Fingerprints().of(SHOP, shop_key().encode())
    baseline = updated(new_baseline(), [])
    kept = type(baseline)(salt=baseline.salt, findings={found: Entry(until=date(2026, 6, 1))})
    assert kept.accepts(found, date(2026, 6, 1))
    assert not kept.accepts(found, date(2026, 6, 2))


def test_a_baseline_is_written_in_one_order_and_read_as_it_was() -> None:
    names = [f"{number:040x}" for number in (3, 1, 2)]
    found = [finding(fingerprint=name, path=f'a "{name}"\n\x7f é.py') for name in names]
    first = new_baseline()
    kept = updated(first, found)
    text = write_baseline(kept)
    assert text == write_baseline(updated(first, reversed(found)))
    assert read_baseline(text, "b.toml") == kept
    assert [line for line in text.splitlines() if line.startswith("[findings.")] == [
        f"[findings.{name}]" for name in sorted(names)
    ]
    assert shop_key() not in text


def test_what_people_wrote_into_a_baseline_stays_when_it_is_written_anew() -> None:
    name = "ab" * 20
    old = type(new_baseline())(
        salt="00" * 16, findings={name: Entry(until=date(2027, 1, 1), reason="why"), "cd" * 20: Entry()}
    )
    fresh = updated(old, [finding(fingerprint=name)])
    assert (fresh.salt, fresh.findings[name].reason, fresh.findings[name].until) == (old.salt, "why", date(2027, 1, 1))
    assert list(fresh.findings) == [name]
    assert stale_entries(old, [finding(fingerprint=name)]) == ["cd" * 20]


@pytest.mark.parametrize(
    "text",
    ["version = 1", "version = 2\nsalt = '00'", f"version = 1\nsalt = '{'0' * 32}'\n[findings.zz]\n", "version ="],
)
def test_a_baseline_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"b\.toml"):
        read_baseline(text, "b.toml")


@pytest.mark.parametrize("place", ["key = '{key}'  # keyturn:allow {name}", "# keyturn:allow {name}\nkey = '{key}'"])
def test_a_comment_accepts_this_secret_alone(place: str) -> None:
    """A comment that stays when the key is exchanged must not let the new one through."""
    name = Fingerprints().of(SHOP, shop_key().encode())
    accepted = scanned({"a.py": place.format(key=shop_key(), name=name)})
    assert (accepted.findings, [one.verdict for one in accepted.ignored]) == ([], ["comment"])
    assert len(scanned({"a.py": place.format(key=shop_key("b"), name=name)}).findings) == 1


def test_a_comment_outlives_the_first_baseline() -> None:
    name = Fingerprints().of(SHOP, shop_key().encode())
    report = scanned({"a.py": f"'{shop_key()}'  # keyturn:allow {name}\n"}, fingerprints=Fingerprints(b"salt"))
    assert report.findings == []


def test_comments_are_not_heard_where_the_scanned_are_not_trusted() -> None:
    name = Fingerprints().of(SHOP, shop_key().encode())
    assert len(scanned({"a.py": f"'{shop_key()}'  # keyturn:allow {name}\n"}, comments=False).findings) == 1


def test_the_marks_of_a_foreign_rule_file_hold_for_their_line() -> None:
    report = scanned({"a.py": f"'{shop_key()}'  # other:allow\n'{shop_key('b')}'\n"})
    assert [one.place.line for one in report.findings] == [2]


def test_in_a_history_a_secret_of_a_file_is_told_once_where_it_came_in() -> None:
    hits = [
        hit(line=number, place=Place("a", number, 1, number, commit=f"c{number}", committed_at=float(at)))
        for number, at in ((5, 300), (7, 100), (9, 200))
    ]
    reported, _ = judge(hits, judges())
    assert [one.place.commit for one in reported] == ["c7"]


def test_what_a_server_tells_decides_certainty_environment_and_verdict() -> None:
    owner = Owner(key="key_1", environment="test", next_command="keyturn keys revoke key_1")

    def owners(_: object) -> list[tuple[Certainty, Owner] | None]:
        return [(Certainty.OWN, owner), None]

    hits = [hit(path="tests/a.py", contexts=frozenset({Context.TEST})), hit(secret=shop_key("b").encode(), path="z")]
    reported, _ = judge(hits, judges(owners=owners))
    assert [(one.certainty, one.verdict) for one in reported] == [("own", "warn"), ("provider", "block")]
    assert reported[0].owner == owner


def test_a_rule_of_paths_alone_tells_files_apart() -> None:
    report = scanned({"a/.netrc": "machine x", "b/.netrc": "machine y"})
    assert [one.rule for one in report.findings] == [NETRC, NETRC]
    assert len({one.fingerprint for one in report.findings}) == 2


def test_findings_stand_in_one_order() -> None:
    files = {name: f"\n{shop_key('b')}\n{shop_key()} {'t' + shop_key()}\n" for name in ("b", "a", "c/d")}
    places = [(one.place.path, one.place.line, one.place.column) for one in scanned(files).findings]
    assert places == sorted(places)
    assert SHOP_TEST in [one.rule for one in scanned(files).findings]


def test_contexts_of_a_run_are_those_of_every_finding() -> None:
    (found,) = scanned({"tests/a.py": shop_key()}, contexts=frozenset({Context.PUBLIC})).findings
    assert isinstance(found, Finding)
    assert found.contexts == {Context.TEST, Context.PUBLIC}
