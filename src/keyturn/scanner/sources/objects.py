"""Objects of a repository by name: one `git cat-file --batch` that stays open."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Iterator, Sequence
from typing import IO

import msgspec

from keyturn.scanner.sources.repository import Repository

NAMES_AT_ONCE = 400
"""So many names and their line ends are fewer bytes than any pipe holds: writing them never waits for git to read."""

_SIZE_OF_A_PIPE = 1031  # F_SETPIPE_SZ of Linux
_PIPE_BYTES = 1 << 20


class Read(msgspec.Struct, frozen=True):
    """An object: `data` is None when there is none, and `why` says so.

    `why` is `missing`, `corrupt` or `big`; `size` is known for a big one.
    """

    name: str
    kind: str
    size: int
    data: bytes | None
    why: str = ""


class ObjectReader:
    """Reads objects one after the other; it belongs to the process that uses it first, and is no two threads'."""

    def __init__(self, repository: Repository, *, bytes_max: int) -> None:
        self._repository = repository
        self._bytes_max = bytes_max
        self._process: subprocess.Popen[bytes] | None = None
        self._owed = 0

    def read(self, names: Sequence[str]) -> Iterator[Read]:
        """Read some objects in the order of their names; what cannot be read is given without data."""
        for first in range(0, len(names), NAMES_AT_ONCE):
            yield from self._read_some(names[first : first + NAMES_AT_ONCE])

    def close(self) -> None:
        """End git."""
        process, self._process, self._owed = self._process, None, 0
        if process is None:
            return
        process.kill()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:
                    continue
        process.wait()

    def _read_some(self, names: Sequence[str]) -> Iterator[Read]:
        position = 0
        while position < len(names):
            out = self._ask(names[position:])
            while position < len(names):
                found = self._next(out, names[position])
                position += 1
                self._owed -= 1
                if found.why in {"corrupt", "big"}:
                    self.close()  # git is gone, or is about to write what nobody wants
                    yield found
                    break
                yield found

    def _ask(self, names: Iterable[str]) -> IO[bytes]:
        if self._owed:
            self.close()  # who asked before has not read all answers
        if self._process is None:
            self._process = self._repository.start("cat-file", "--batch")
            _widen(self._process)
        asked = [*names]
        self._owed = len(asked)
        into, out = self._process.stdin, self._process.stdout
        if into is None or out is None:
            raise BrokenPipeError
        try:
            into.write("\n".join([*asked, ""]).encode())
            into.flush()
        except BrokenPipeError:
            pass  # the answer that does not come says the same
        return out

    def _next(self, out: IO[bytes], name: str) -> Read:
        header = out.readline().split()
        if len(header) == 2 and header[1] == b"missing":
            return Read(name, "", 0, None, "missing")
        if len(header) != 3:
            return Read(name, "", 0, None, "corrupt")
        kind, size = header[1].decode(), int(header[2])
        if size > self._bytes_max:
            return Read(name, kind, size, None, "big")
        data = out.read(size)
        if len(data) < size or out.read(1) != b"\n":
            return Read(name, kind, size, None, "corrupt")
        return Read(name, kind, size, data)


def sizes(repository: Repository, names: Sequence[str]) -> dict[str, tuple[str, int]]:
    """Return kind and size of those objects that are there."""
    found: dict[str, tuple[str, int]] = {}
    given = "\n".join([*names, ""]).encode()
    ended = repository.attempt("cat-file", "--batch-check", "--buffer", given=given)
    for line in ended.stdout.decode("ascii", "replace").split("\n"):
        words = line.split(" ")
        if len(words) == 3:
            found[words[0]] = (words[1], int(words[2]))
    return found


def every_object(repository: Repository) -> Iterator[tuple[str, str, int]]:
    """Name every object there is, reachable or not, with its kind and size; raises `GitError`."""
    out = repository.run("cat-file", "--batch-all-objects", "--batch-check", "--unordered", "--buffer")
    for line in out.decode("ascii", "replace").split("\n"):
        words = line.split(" ")
        if len(words) == 3:
            yield words[0], words[1], int(words[2])


def _widen(process: subprocess.Popen[bytes]) -> None:
    if process.stdout is None:
        return
    try:
        import fcntl

        fcntl.fcntl(process.stdout.fileno(), _SIZE_OF_A_PIPE, _PIPE_BYTES)
    except (ImportError, OSError):
        return  # a narrow pipe is slower, and no more than that
