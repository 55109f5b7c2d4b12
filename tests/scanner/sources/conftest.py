from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import pytest

from keyturn.scanner.model import Batch, Context, Document, Notice, Problem
from keyturn.scanner.sources.git import Repository, open_repository


class Source(Protocol):
    def batches(self) -> Iterator[Batch | Notice]: ...

    def documents(self, batch: Batch) -> Iterator[Document | Notice]: ...


@dataclass
class Clone:
    """A real repository in a folder of the test's own; nothing of the machine's settings is used."""

    folder: Path
    clock: int = 1_700_000_000

    def environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder.parent),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_AUTHOR_NAME": "a",
            "GIT_AUTHOR_EMAIL": "a@example.org",
            "GIT_COMMITTER_NAME": "a",
            "GIT_COMMITTER_EMAIL": "a@example.org",
            "GIT_AUTHOR_DATE": f"{self.clock} +0000",
            "GIT_COMMITTER_DATE": f"{self.clock} +0000",
        }

    def git(self, *arguments: str, given: bytes = b"", **more: str) -> str:
        ended = subprocess.run(
            ["/usr/bin/env", "git", "-c", "init.defaultBranch=main", "-c", "protocol.file.allow=always", *arguments],
            cwd=self.folder,
            env={**self.environment(), **more},
            input=given,
            capture_output=True,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout.decode("utf-8", "surrogateescape").strip()

    def write(self, path: str | bytes, data: bytes) -> None:
        full = os.path.join(os.fsencode(self.folder), os.fsencode(path))  # noqa: PTH118 -- may be no text
        Path(os.fsdecode(full)).parent.mkdir(parents=True, exist_ok=True)
        Path(os.fsdecode(full)).write_bytes(data)

    def commit(self, message: str = "change", **files: bytes) -> str:
        """Commit everything; a file's name has `__` for a dot."""
        for name, data in files.items():
            self.write(name.replace("__", "."), data)
        self.clock += 60
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD")

    def open(self, **more: str) -> Repository:
        return open_repository(str(self.folder), {"PATH": os.environ["PATH"], **more})


@dataclass
class Seen:
    """What a source gave; `words` are what commits, tags and refs say, `documents` all else."""

    documents: list[Document] = field(default_factory=list)
    words: list[Document] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)

    def holding(self, text: bytes) -> list[Document]:
        return [document for document in self.documents if text in bytes(document.data)]

    def paths(self) -> set[str]:
        return {document.path for document in self.documents}

    def problems(self) -> set[Problem]:
        return {notice.problem for notice in self.notices}


def read(source: Source) -> Seen:
    seen = Seen()
    for batch in source.batches():
        for one in [batch] if isinstance(batch, Notice) else source.documents(batch):
            if isinstance(one, Notice):
                seen.notices.append(one)
            elif Context.COMMIT_MESSAGE in one.contexts:
                seen.words.append(one)
            else:
                seen.documents.append(one)
    close = getattr(source, "close", None)
    if close is not None:
        close()
    return seen


@pytest.fixture
def reads() -> Callable[[Source], Seen]:
    return read


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    folder = tmp_path / "clone"
    folder.mkdir()
    made = Clone(folder)
    made.git("init", "-q")
    return made


@pytest.fixture
def make_clone(tmp_path: Path) -> Callable[..., Clone]:
    def make(name: str, *arguments: str) -> Clone:
        folder = tmp_path / name
        folder.mkdir()
        made = Clone(folder)
        made.git("init", "-q", *arguments)
        return made

    return make
