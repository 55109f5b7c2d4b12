import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest
from structlog.testing import capture_logs

from keyturn.audit.builder import Builder
from keyturn.audit.checkpoint import notes_in
from keyturn.audit.sinks import PENDING_MAX, FileSink, HttpsSink, Publisher, checkpoint_line, open_sink
from keyturn.errors import ConfigError, UnavailableError
from keyturn.storage.change_log import Head
from tests.audit.log import Log


class FailingSink:
    """Fails until it is told to work."""

    name = "failing"

    def __init__(self) -> None:
        self.works = False
        self.lines: list[str] = []
        self.closed = False
        self.asked = asyncio.Event()

    async def deliver(self, lines: Sequence[str]) -> None:
        self.asked.set()
        if not self.works:
            raise UnavailableError("the sink is out of reach")
        self.lines.extend(lines)

    async def close(self) -> None:
        self.closed = True


async def test_checkpoints_reach_the_file_in_order(file_log: Log, tmp_path: Path) -> None:
    sink = tmp_path / "checkpoints.jsonl"
    file_log.builder = Builder(file_log.database, file_log.keyring, "nod_test", [FileSink(sink)])
    stop = asyncio.Event()
    running = asyncio.create_task(file_log.builder.run(stop))
    await file_log.grow(1, 1, 1)
    stop.set()
    await running

    signed = await file_log.service().checkpoints(None)
    assert notes_in(sink.read_text()) == [one.note for one in signed.items[::-1]]
    assert file_log.builder.health.sinks[0].delivered == 3


async def test_what_is_signed_at_the_stop_is_published_too(file_log: Log, tmp_path: Path) -> None:
    """The newest checkpoint is the one a rollback would undo, so it must not be the one that is missing."""
    sink = tmp_path / "checkpoints.jsonl"
    file_log.builder = Builder(file_log.database, file_log.keyring, "nod_test", [FileSink(sink)])
    stop = asyncio.Event()
    stop.set()
    await file_log.append(1)
    await file_log.builder.run(stop)

    assert notes_in(sink.read_text()) == [(await file_log.latest()).note]


async def test_new_leader_publishes_the_newest_checkpoint_again(file_log: Log, tmp_path: Path) -> None:
    """Who signed it may have been killed before it was delivered."""
    await file_log.grow(1)
    await file_log.builder._resign()  # noqa: SLF001 -- killed, and its lease ended
    sink = tmp_path / "checkpoints.jsonl"
    stop = asyncio.Event()
    stop.set()
    await Builder(file_log.database, file_log.keyring, "nod_other", [FileSink(sink)]).run(stop)

    assert notes_in(sink.read_text()) == [(await file_log.latest()).note]


async def test_line_cut_off_by_a_full_disk_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints.jsonl"
    path.write_text('{"checkpoint":"cut o')
    await FileSink(path).deliver([checkpoint_line("whole")])

    assert notes_in('{"checkpoint":"first"}\n' + path.read_text()) == ["first", "whole"]


async def test_file_that_cannot_be_written_is_an_unavailable_sink(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError):
        await FileSink(tmp_path / "gone" / "file").deliver(["x"])


async def test_https_sink_posts_lines_and_wants_success() -> None:
    seen: list[tuple[str, str]] = []
    statuses = iter([204, 500, 301])

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append((request.headers["content-type"], request.content.decode()))
        return httpx.Response(next(statuses))

    sink = HttpsSink("https://sink.example/" + "p" * 12, transport=httpx.MockTransport(answer))
    await sink.deliver(["a", "b"])
    for _ in range(2):
        with pytest.raises(UnavailableError):
            await sink.deliver(["c"])
    await sink.close()

    assert seen[0] == ("application/jsonl", "a\nb\n")


async def test_failure_of_a_sink_shows_neither_address_nor_token() -> None:
    """The address of a sink may carry a credential; health and logs must not."""

    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError(f"no route to {request.url}")

    secret = "-".join(["very", "hidden"])
    sink = HttpsSink(f"https://user:{secret}@sink.example/{secret}", transport=httpx.MockTransport(refuse))
    with pytest.raises(UnavailableError) as raised:
        await sink.deliver(["a"])
    await sink.close()

    assert secret not in str(raised.value) + sink.name


async def test_failing_sink_is_counted_and_never_blocks_the_builder(file_log: Log) -> None:
    sink = FailingSink()
    file_log.builder = Builder(file_log.database, file_log.keyring, "nod_test", [sink])
    stop = asyncio.Event()
    running = asyncio.create_task(file_log.builder.run(stop))
    await file_log.append(1)
    await asyncio.wait_for(sink.asked.wait(), 10)
    await file_log.grow(1)

    health = file_log.builder.health.sinks[0]
    assert (health.delivered, health.waiting >= 1, health.failures >= 1) == (0, True, True)
    sink.works = True
    stop.set()
    await running
    assert sink.closed
    assert notes_in("\n".join(sink.lines)) == [
        one.note for one in (await file_log.service().checkpoints(None)).items[::-1]
    ]


async def test_waiting_checkpoints_are_bounded_and_the_newest_stay() -> None:
    publisher = Publisher(FailingSink())
    publisher.publish(str(number) for number in range(PENDING_MAX + 5))

    assert publisher.health.waiting == PENDING_MAX


@pytest.mark.parametrize(
    "setting", ["http://sink.example/x", "ftp://sink.example/x", "/no/such/folder/file", "s3://bucket/x"]
)
def test_sinks_that_are_not_safe_or_not_there_are_refused(setting: str) -> None:
    with pytest.raises(ConfigError):
        open_sink(setting)


def test_setting_names_the_sink(tmp_path: Path) -> None:
    assert open_sink("") is None
    assert isinstance(open_sink(str(tmp_path / "file")), FileSink)
    assert isinstance(open_sink("https://sink.example/x"), HttpsSink)
    assert isinstance(open_sink("http://127.0.0.1:9/x"), HttpsSink)
    with pytest.raises(ConfigError):
        open_sink(str(tmp_path) + os.sep)


class BrokenSink(FailingSink):
    """Has a bug; its error says more than a log should."""

    async def deliver(self, lines: Sequence[str]) -> None:
        self.asked.set()
        if not self.works:
            raise ValueError("the address https://sink.example/hidden")
        self.lines.extend(lines)


async def test_bug_of_a_sink_ends_neither_its_deliveries_nor_the_building(file_log: Log) -> None:
    sink = BrokenSink()
    file_log.builder = Builder(file_log.database, file_log.keyring, "nod_test", [sink])
    stop = asyncio.Event()
    with capture_logs() as logged:
        running = asyncio.create_task(file_log.builder.run(stop))
        await file_log.append(1)
        await asyncio.wait_for(sink.asked.wait(), 10)
        sink.works = True
        await file_log.append(1)
        stop.set()
        await running

    assert len(sink.lines) >= 1
    assert (await file_log.latest()).size == 2
    assert "hidden" not in str(logged)
    assert any(line.get("reason") == "the checkpoint sink failed: ValueError" for line in logged)


async def test_bug_in_building_is_counted_and_outlived(file_log: Log) -> None:
    """One worker would otherwise sign nothing more until it is started again."""
    met = asyncio.Event()
    real = file_log.database.head

    async def broken() -> Head:
        met.set()
        raise ValueError("a bug of our own")

    file_log.database.head = broken  # type: ignore[method-assign]
    stop = asyncio.Event()
    running = asyncio.create_task(file_log.builder.run(stop))
    await asyncio.wait_for(met.wait(), 10)
    file_log.database.head = real  # type: ignore[method-assign]
    await file_log.append(1)
    stop.set()
    await running

    assert file_log.builder.health.failures >= 1
    assert (await file_log.latest()).size == 1
