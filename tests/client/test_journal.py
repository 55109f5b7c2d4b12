"""The journal of usage, over crashes."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from keyturn.client.counting import ENTRIES_MAX, UsageCounts, total
from keyturn.client.journal import Journal, _line, unsent
from keyturn.verify.model import Request
from keyturn.wire.replication import UsageBatch, UsageItem


def batch(number: int = 1, count: int = 3) -> UsageBatch:
    item = UsageItem(version_id="v" * 12, outcome="VALID", minute=60, count=count, first_at=61.0, at=62.0)
    return UsageBatch(f"batch_{number:04d}", (item,))


def left_by_a_dead_process(journal: Journal) -> None:
    """Let go of the lock, and leave the file as it is."""
    os.close(journal._file)  # noqa: SLF001 -- what a kill does


def test_what_was_not_acknowledged_is_taken_over_once(tmp_path: Path) -> None:
    first = Journal(tmp_path)
    for number in range(3):
        assert first.append(batch(number))
    first.acknowledge("batch_0001")
    left_by_a_dead_process(first)
    second = Journal(tmp_path)
    assert [one.batch_id for one in second.inherited] == ["batch_0000", "batch_0002"]
    assert Journal(tmp_path).inherited == []
    assert [one.batch_id for one in Journal(tmp_path).inherited] == []


def test_a_living_process_keeps_its_journal(tmp_path: Path) -> None:
    first = Journal(tmp_path)
    first.append(batch())
    assert Journal(tmp_path).inherited == []
    assert first.append(batch(2))


def test_taking_over_survives_another_crash(tmp_path: Path) -> None:
    first = Journal(tmp_path)
    first.append(batch())
    left_by_a_dead_process(first)
    left_by_a_dead_process(Journal(tmp_path))
    assert [one.batch_id for one in Journal(tmp_path).inherited] == ["batch_0001"]


def test_a_journal_with_nothing_left_is_removed(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append(batch())
    journal.acknowledge("batch_0001")
    journal.close()
    assert list(tmp_path.iterdir()) == []


def test_it_is_bounded(tmp_path: Path) -> None:
    journal = Journal(tmp_path, bytes_max=400)
    taken = [journal.append(batch(number)) for number in range(10)]
    assert True in taken
    assert taken[-1] is False
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 400


def test_only_its_owner_may_read_it(tmp_path: Path) -> None:
    """The addresses of callers are in it."""
    folder = tmp_path / "journal"
    Journal(folder).append(batch())
    assert folder.stat().st_mode & 0o077 == 0
    assert all(path.stat().st_mode & 0o077 == 0 for path in folder.iterdir())


@given(cut=st.integers(0, 2000), flipped=st.integers(0, 2000))
def test_a_torn_or_spoilt_journal_yields_no_wrong_batch(cut: int, flipped: int) -> None:
    """A crash in the middle of a write never makes a count up."""
    written = [batch(number, count=number + 1) for number in range(4)]
    content = bytearray(_content(written))
    known = {one.batch_id: one for one in written}
    content[flipped % len(content)] ^= 1
    for found in unsent(bytes(content[: cut % len(content)])):
        assert known[found.batch_id] == found


def _content(batches: list[UsageBatch]) -> bytes:
    return b"".join(_line(b"B", msgspec.json.encode(one)) for one in batches)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b"]),
            st.sampled_from(["/x", "/x?k=1", "/y", None]),
            st.sampled_from([59.9, 60.0, 185.5]),
        ),
        max_size=60,
    )
)
def test_counts_add_up(calls: list[tuple[str, str | None, float]]) -> None:
    counts = UsageCounts()
    for version, path, at in calls:
        counts.count(version * 12, "VALID", Request("k", path=path), at)
    assert len(counts) == len({(version, (path or "").partition("?")[0], at) for version, path, at in calls})
    taken = counts.take()
    for item in () if taken is None else taken.items:
        assert item.minute == {59.9: 0, 60.0: 60, 185.5: 180}[item.at]
    assert (0 if taken is None else total(taken)) == len(calls) == counts.counted
    assert "?" not in repr(taken)
    assert counts.take() is None


def test_counting_is_bounded_and_says_what_it_lost() -> None:
    counts = UsageCounts()
    calls = 2 * ENTRIES_MAX
    for number in range(calls):
        counts.count(f"version{number}", "VALID", Request("k", ip="192.0.2.1"), 60.0)
    taken = counts.take()
    assert taken is not None
    assert len(taken.items) <= 5000
    assert total(taken) + taken.lost == calls
    assert counts.dropped == taken.lost > 0


def test_strange_text_does_not_stop_a_report() -> None:
    """What a client sends as its user agent cannot keep usage from being reported."""
    counts = UsageCounts()
    counts.count("a" * 12, "VALID", Request("k", user_agent="\udcff" + "x" * 5000, path="/\ud800"), 60.0)
    taken = counts.take()
    assert taken is not None
    assert msgspec.json.decode(msgspec.json.encode(taken), type=UsageBatch) == taken
