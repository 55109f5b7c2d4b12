"""The counter file: what a killed process leaves, and when it is not believed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from keyturn.errors import StorageError
from keyturn.quotas.counters import HEADER, RECORD, RECORDS_FIRST, CounterFile, Left, orphans


def left_in(folder: Path) -> list[Left]:
    """Read what ended processes left, and leave it there."""
    found = orphans(folder)
    for one in found:
        one.close(remove=False)
    return [one.left for one in found]


def test_what_was_counted_is_there_after_the_process_has_ended(tmp_path: Path) -> None:
    file = CounterFile.create(tmp_path, "nod_1")
    cells = [file.add(f"qbl_{number}", 10) for number in range(3)]
    file.cells[cells[0]] = 7
    file.remove(cells[1])
    assert left_in(tmp_path) == []
    file.close(remove=False)
    assert left_in(tmp_path) == [Left("nod_1", {"qbl_0": 7, "qbl_2": 0}, believed=True)]


def test_a_file_grows_and_keeps_its_counts(tmp_path: Path) -> None:
    file = CounterFile.create(tmp_path, "nod_1")
    count = 3 * RECORDS_FIRST
    for number in range(count):
        cell = file.add(f"qbl_{number}", 1)
        file.cells[cell] = number
    assert file.used == count
    file.close(remove=False)
    (found,) = left_in(tmp_path)
    assert found.spent == {f"qbl_{number}": number for number in range(count)}


def test_a_copy_of_a_file_is_not_believed(tmp_path: Path) -> None:
    """Its process may live on the other side of the copy, and spend on."""
    file = CounterFile.create(tmp_path / "a", "nod_1")
    file.add("qbl_1", 10)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert [one.believed for one in left_in(tmp_path / "b")] == [False]
    file.close(remove=True)


@pytest.mark.parametrize("at", [RECORD, RECORD + 5], ids=["first", "sixth"])
def test_a_file_of_another_run_of_the_machine_is_not_believed(tmp_path: Path, at: int) -> None:
    """What the system had not written out when the machine went down is lost, so its counts may be too low."""
    file = CounterFile.create(tmp_path, "nod_1")
    file.add("qbl_1", 10)
    file.close(remove=False)
    path = tmp_path / "nod_1.counters"
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    with path.open("r+b") as opened:
        opened.write(data)
    assert [one.believed for one in left_in(tmp_path)] == [False]


def test_a_file_that_is_cut_or_of_another_name_is_not_believed(tmp_path: Path) -> None:
    for name in ("nod_1", "nod_2"):
        CounterFile.create(tmp_path, name).close(remove=False)
    (tmp_path / "nod_1.counters").rename(tmp_path / "nod_3.counters")
    with (tmp_path / "nod_2.counters").open("r+b") as opened:
        opened.truncate(HEADER - 1)
    assert [one.believed for one in left_in(tmp_path)] == [False, False]


def test_a_file_is_settled_by_one_process_at_a_time(tmp_path: Path) -> None:
    CounterFile.create(tmp_path, "nod_1").close(remove=False)
    first = orphans(tmp_path)
    assert len(first) == 1
    assert orphans(tmp_path) == []
    first[0].close(remove=True)
    assert orphans(tmp_path) == []


def test_counters_are_for_their_owner_alone(tmp_path: Path) -> None:
    file = CounterFile.create(tmp_path / "quotas", "nod_1")
    assert (tmp_path / "quotas").stat().st_mode & 0o077 == 0
    assert (tmp_path / "quotas" / "nod_1.counters").stat().st_mode & 0o077 == 0
    file.close(remove=True)


def test_a_folder_that_cannot_be_written_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "quotas").write_text("a file")
    with pytest.raises(StorageError, match="counters"):
        CounterFile.create(tmp_path / "quotas", "nod_1")
