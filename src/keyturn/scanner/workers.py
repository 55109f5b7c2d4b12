"""The pieces of a source, scanned by processes that share nothing but what they were forked with.

    parent    sends pieces, two ahead, and reads what was found; it alone judges and writes
    worker    reads the documents of a piece, examines them, and answers once for the piece

A worker that ends early, killed by whomever, ends the run with an error: what it had is not scanned.
"""

from __future__ import annotations

import contextlib
import pickle
import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, final

import msgspec

from keyturn.errors import BrokenInvariantError, KeyturnError, UnavailableError
from keyturn.scanner.examination import Hit
from keyturn.scanner.model import Context, Notice, Place, Source
from keyturn.scanner.pieces import Task, Yielded, scan_task
from keyturn.wire.certainty import Certainty

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from multiprocessing.connection import Connection
    from multiprocessing.context import ForkProcess

    from keyturn.scanner.engine.detect import Engine

_AHEAD: Final = 2
_AHEAD_BYTES: Final = 32 << 10
_TICK_SECONDS: Final = 0.2
_END_SECONDS: Final = 2.0


class _WireHit(msgspec.Struct, array_like=True):
    rule: int
    certainty: Certainty
    secret: bytes
    masked: str
    place: Place
    contexts: frozenset[Context]
    line_text: str
    allowed: frozenset[str]


class _Answer(msgspec.Struct, array_like=True):
    hits: list[_WireHit]
    notices: list[Notice]
    documents: int
    bytes: int
    failure: str = ""


@final
class Workers:
    """Processes that scan pieces of one source."""

    def __init__(self, source: Source, engine: Engine, count: int) -> None:
        """Start so many processes; `close` ends them."""
        import multiprocessing

        context = multiprocessing.get_context("fork")
        self._rules = engine.ruleset.rules
        self._processes: list[ForkProcess] = []
        self._connections: list[Connection] = []
        self._decoder = msgspec.msgpack.Decoder(_Answer)
        self._waiting: list[int] = [0] * count
        for _ in range(count):
            ours, theirs = context.Pipe()
            self._connections.append(ours)
            arguments = (theirs, list(self._connections), source, engine)
            process = context.Process(target=_work, args=arguments, daemon=True)
            process.start()
            theirs.close()
            self._processes.append(process)

    def run(self, tasks: Iterable[Task], tick: Callable[[], None]) -> Iterator[Yielded]:
        """Yield what was found in each piece, in the order in which they are done; `tick` is called now and then.

        Raises:
            UnavailableError: a worker ended before its work was done.

        """
        from multiprocessing.connection import wait

        packed = (pickle.dumps(task) for task in tasks)
        ahead = next(packed, None)
        while ahead is not None or any(self._waiting):
            for index in range(len(self._processes)):
                while ahead is not None and self._takes(index, ahead):
                    self._send(index, ahead)
                    ahead = next(packed, None)
            busy = [one for one, waiting in zip(self._connections, self._waiting, strict=True) if waiting]
            ready = wait(busy, _TICK_SECONDS)
            for index, connection in enumerate(self._connections):
                if connection in ready:
                    yield self._receive(index)
            tick()

    def close(self) -> None:
        """End every process, at once when it still works."""
        for connection in self._connections:
            connection.close()
        for process, busy in zip(self._processes, self._waiting, strict=True):
            if busy:
                process.kill()
        for process in self._processes:
            process.join(_END_SECONDS)
            if process.is_alive():
                process.kill()
                process.join()

    def _takes(self, index: int, packed: bytes) -> bool:
        # What a worker has not read yet must fit into the pipe, or both would wait for the other.
        waiting = self._waiting[index]
        return waiting == 0 or (waiting < _AHEAD and len(packed) < _AHEAD_BYTES and min(self._waiting) >= waiting)

    def _send(self, index: int, packed: bytes) -> None:
        try:
            self._connections[index].send_bytes(packed)
        except OSError:
            raise self._died(index) from None
        self._waiting[index] += 1

    def _receive(self, index: int) -> Yielded:
        try:
            raw = self._connections[index].recv_bytes()
        except (EOFError, OSError):
            raise self._died(index) from None
        self._waiting[index] -= 1
        answer = self._decoder.decode(raw)
        if answer.failure:
            raise BrokenInvariantError(answer.failure)
        hits = [_unpacked(hit, self._rules[hit.rule]) for hit in answer.hits]
        return Yielded(hits, answer.notices, answer.documents, answer.bytes)

    def _died(self, index: int) -> UnavailableError:
        process = self._processes[index]
        process.join(_END_SECONDS)
        code = process.exitcode
        how = f"with exit status {code}"
        if code is not None and code < 0:
            how = f"by {signal.Signals(-code).name}"
        return UnavailableError(
            f"a process of the scan was ended {how} before its work was done",
            hint="nothing was decided; perhaps memory ran out: try again with fewer --jobs",
        )


def _unpacked(hit: _WireHit, rule: Any) -> Hit:  # noqa: ANN401 -- a Rule, taken from the ruleset
    return Hit(rule, hit.certainty, hit.secret, hit.masked, hit.place, hit.contexts, hit.line_text, hit.allowed)


def _work(connection: Connection, others: list[Connection], source: Source, engine: Engine) -> None:
    # With a copy of the parent's ends open, no worker would learn that the parent is gone.
    for other in others:
        other.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    numbers = {rule.id: number for number, rule in enumerate(engine.ruleset.rules)}
    own = engine.clone()
    encoder = msgspec.msgpack.Encoder()
    with contextlib.suppress(EOFError, OSError):
        while True:
            task: Task = pickle.loads(connection.recv_bytes())  # noqa: S301 -- from the process that made this one
            try:
                found = scan_task(source, task, own)
                answer = _packed(found, numbers)
            except KeyturnError as error:
                answer = _Answer([], [], 0, 0, error.message)
            except Exception as error:  # noqa: BLE001 -- told to the parent, which fails
                answer = _Answer([], [], 0, 0, f"a process of the scan failed: {type(error).__name__}")
            connection.send_bytes(encoder.encode(answer))


def _packed(found: Yielded, numbers: dict[str, int]) -> _Answer:
    hits = [
        _WireHit(
            numbers[hit.rule.id],
            hit.certainty,
            hit.secret,
            hit.masked,
            hit.place,
            hit.contexts,
            hit.line_text,
            hit.allowed,
        )
        for hit in found.hits
    ]
    return _Answer(hits, found.notices, found.documents, found.bytes)
