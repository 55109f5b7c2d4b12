import io
import multiprocessing
import os
import signal
import zipfile
from collections.abc import Iterator

import pytest

from keyturn.errors import BrokenInvariantError, InputError, KeyturnError, UnavailableError
from keyturn.scanner import pieces
from keyturn.scanner.examination import examine
from keyturn.scanner.model import Batch, Document, Notice, Problem
from keyturn.scanner.running import ScanSettings, errors_of, scan
from tests.scanner.scanning import MemorySource, engine, judges, scanned, shop_key

PARENT = os.getpid()


def settings(jobs: int) -> ScanSettings:
    return ScanSettings(judges=judges(), jobs=jobs, progress=False)


def test_processes_find_what_one_process_finds_in_the_same_order() -> None:
    files = {f"src/{number:03d}.py": f"x = '{shop_key(chr(97 + number % 26))}'\n" * 3 for number in range(60)}
    alone, spread = scanned(files, jobs=1), scanned(files, jobs=3)
    assert len(alone.findings) == 180
    assert [(one.place, one.fingerprint, one.masked, one.line_text) for one in spread.findings] == [
        (one.place, one.fingerprint, one.masked, one.line_text) for one in alone.findings
    ]
    assert [one.secret.reveal() for one in spread.findings] == [one.secret.reveal() for one in alone.findings]
    assert (spread.documents, spread.bytes) == (alone.documents, alone.bytes)


def test_processes_share_the_parts_of_one_big_archive() -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for number in range(20):
            archive.writestr(f"m{number}.py", f"{shop_key(chr(97 + number))}\n" + " \n" * 200_000)
    (one, many) = (scanned({"a.zip": packed.getvalue()}, jobs=jobs) for jobs in (1, 3))
    assert len(one.findings) == 20
    assert [found.place for found in many.findings] == [found.place for found in one.findings]
    assert (many.documents, many.bytes) == (1, len(packed.getvalue()))


def killed(_: str) -> None:
    if os.getpid() != PARENT:
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_is_killed_ends_the_run_with_an_error() -> None:
    """What the killed one had was not scanned: the run must not pass for a clean one."""
    source = MemorySource({str(number): b"nothing" for number in range(20)}, before=killed)
    with pytest.raises(UnavailableError, match="SIGKILL"):
        scan(source, engine(), settings(2))


def interrupted(name: str) -> None:
    if os.getpid() != PARENT and name == "7":
        os.kill(PARENT, signal.SIGINT)
        signal.pause()


def test_an_interrupt_ends_every_process_at_once() -> None:
    source = MemorySource({str(number): b"nothing" for number in range(20)}, before=interrupted)
    with pytest.raises(KeyboardInterrupt):
        scan(source, engine(), settings(2))
    assert multiprocessing.active_children() == []


def failing(name: str) -> None:
    if name == "3":
        raise ValueError(shop_key())


def refusing(name: str) -> None:
    if name == "3":
        raise InputError("a file is not there")


@pytest.mark.parametrize(("before", "kind"), [(failing, BrokenInvariantError), (refusing, KeyturnError)])
def test_a_source_that_fails_in_a_process_ends_the_run_without_telling_what_it_read(
    before: object, kind: type[Exception]
) -> None:
    source = MemorySource({str(number): b"nothing" for number in range(20)}, before=before)  # type: ignore[arg-type]
    with pytest.raises(kind) as failed:
        scan(source, engine(), settings(2))
    assert shop_key() not in str(failed.value)


class Unreadable(MemorySource):
    """A source that cannot read one of its files."""

    def documents(self, batch: Batch) -> Iterator[Document | Notice]:
        for one in super().documents(batch):
            assert isinstance(one, Document)
            yield Notice(Problem.UNREADABLE, one.path, "permission denied") if one.path == "3" else one


@pytest.mark.parametrize("jobs", [1, 2])
def test_what_cannot_be_read_is_an_error_and_the_rest_is_scanned(jobs: int) -> None:
    source = Unreadable({str(number): shop_key().encode() for number in range(20)})
    report = scan(source, engine(), settings(jobs))
    assert [notice.path for notice in errors_of(report)] == ["3"]
    assert len(report.findings) == 19


def test_bounds_and_what_is_missing_are_errors_when_asked_for() -> None:
    report = scanned({})
    report.notices += [Notice(problem, "p", "d") for problem in Problem]
    assert {one.problem for one in errors_of(report)} == {"unreadable", "corrupt"}
    assert {one.problem for one in errors_of(report, strict=True)} == {one.value for one in Problem} - {"skipped"}


@pytest.mark.parametrize("jobs", [0, -1, 1000])
def test_numbers_of_processes_that_make_no_sense_are_refused(jobs: int) -> None:
    with pytest.raises(InputError, match="jobs"):
        settings(jobs)


def test_a_fault_of_ours_in_one_document_is_an_error_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """One strange file must neither hide what the others hold, nor let the run pass."""

    def broken(document: Document, *rest: object) -> object:
        if document.path == "b":
            raise ValueError(shop_key())
        return examine(document, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(pieces, "examine", broken)
    report = scanned({"a": shop_key(), "b": "x", "c": shop_key()})
    assert [found.place.path for found in report.findings] == ["a", "c"]
    assert [(one.path, shop_key() in one.detail) for one in errors_of(report)] == [("b", False)]
