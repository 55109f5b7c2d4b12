import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from keyturn.errors import StorageError
from keyturn.storage.counter_file import MAGIC, CounterFile, Slot, name_of, orphans, path_of


def test_numbers_are_kept_by_id(tmp_path: Path) -> None:
    file = CounterFile.create(path_of(tmp_path, "usage", "nod_1"), slots=3)
    one, two = file.slot("one"), file.slot("two")
    assert (one, two, file.slot("one")) == (0, 1, 0)
    file.set(1, 2**64 - 1, 7)
    assert file.get(1) == (2**64 - 1, 7)
    assert list(file) == [Slot(0, "one", 0, 0), Slot(1, "two", 2**64 - 1, 7)]
    assert file.path.stat().st_mode & 0o777 == 0o600
    file.remove()
    assert list(tmp_path.iterdir()) == []


def test_slots_run_out_and_come_back_empty(tmp_path: Path) -> None:
    file = CounterFile.create(path_of(tmp_path, "usage", "nod_1"), slots=2)
    assert (file.slot("a"), file.slot("b"), file.slot("c")) == (0, 1, None)
    file.set(0, 5, 5)
    file.release("a")
    assert [slot.id for slot in file] == ["b"]
    assert file.slot("c") == 0
    assert file.get(0) == (0, 0)
    file.close()


@pytest.mark.parametrize("slot_id", ["", "x" * 33, "a\0b"])
def test_an_id_that_does_not_fit_is_refused(tmp_path: Path, slot_id: str) -> None:
    file = CounterFile.create(path_of(tmp_path, "usage", "nod_1"))
    with pytest.raises(ValueError, match="32"):
        file.slot(slot_id)
    file.close()


def test_a_file_in_use_is_no_orphan(tmp_path: Path) -> None:
    """Nobody reads the counters of a process that lives."""
    file = CounterFile.create(path_of(tmp_path, "usage", "nod_1"))
    assert list(orphans(tmp_path, "usage")) == []
    file.close()
    (found,) = orphans(tmp_path, "usage")
    assert name_of(found.path, "usage") == "nod_1"
    assert list(orphans(tmp_path, "usage")) == []
    found.remove()
    assert list(orphans(tmp_path, "usage")) == []


def test_what_is_no_counter_file_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "usage-empty.counters").write_bytes(b"")
    (tmp_path / "usage-short.counters").write_bytes(MAGIC + b"\x30\0\0\0\xff\0\0\0")
    (tmp_path / "usage-other.counters").write_bytes(b"x" * 4096)
    CounterFile.create(path_of(tmp_path, "quota", "nod_1")).close()
    assert list(orphans(tmp_path, "usage")) == []
    assert len(list(tmp_path.iterdir())) == 4


def test_a_file_that_cannot_be_made_is_an_error_with_a_reason(tmp_path: Path) -> None:
    with pytest.raises(StorageError) as refused:
        CounterFile.create(tmp_path / "missing" / "usage-a.counters")
    assert refused.value.hint


_COUNTING = """
import sys
from pathlib import Path
from keyturn.storage.counter_file import CounterFile
file = CounterFile.create(Path(sys.argv[1]))
word = file.first_word(file.slot("usage"))
count = 0
while True:
    count += 1
    file.words[word] = count
    file.words[word + 1] = count
    if count == 10_000:
        print("counting", flush=True)
"""


def test_what_was_counted_outlives_a_kill(tmp_path: Path) -> None:
    path = path_of(tmp_path, "usage", "nod_1")
    process = subprocess.Popen([sys.executable, "-c", _COUNTING, str(path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"counting\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    (found,) = orphans(tmp_path, "usage")
    (slot,) = found
    assert slot.first >= 10_000
    assert slot.first - slot.second in {0, 1}
    found.remove()
