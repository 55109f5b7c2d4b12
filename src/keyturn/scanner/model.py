"""What the scanner passes from step to step."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Protocol, TypeAlias

import msgspec

from keyturn.kernel.secret import Secret
from keyturn.scanner.ruleset.model import Rule
from keyturn.wire.certainty import Certainty

Bytes: TypeAlias = bytes | memoryview
"""What is scanned; a memory map is given as a memory view."""


class Context(StrEnum):
    """Where a key stands; a finding has every one that applies."""

    SOURCE = "source"
    TEST = "test"
    FIXTURE = "fixture"
    EXAMPLE = "example"
    DOCUMENTATION = "documentation"
    CONFIGURATION = "configuration"
    ENVIRONMENT_FILE = "environment-file"
    CLIENT_BUNDLE = "client-bundle"
    SOURCE_MAP = "source-map"
    IMAGE_LAYER = "image-layer"
    IMAGE_CONFIG = "image-config"
    CI_LOG = "ci-log"
    CI_CONFIGURATION = "ci-configuration"
    BINARY = "binary"
    ARCHIVE = "archive"
    HISTORY = "history"
    COMMIT_MESSAGE = "commit-message"
    """The message of a commit or of a tag, who made it, or the name of a branch or a tag."""
    DELETED = "deleted"
    STAGED = "staged"
    PUBLIC = "public"


class Problem(StrEnum):
    """Why something was not scanned, or not whole."""

    UNREADABLE = "unreadable"
    """An error: the run is no pass."""
    CORRUPT = "corrupt"
    """An error: the run is no pass."""
    BOUND = "bound"
    """A bound of depth, bytes, ratio or members was hit."""
    MISSING = "missing"
    """A partial or shallow clone lacks it, or it is of a submodule."""
    CLOSED = "closed"
    """It is encrypted, or of a format that is not opened."""
    SKIPPED = "skipped"
    """Nothing that can be scanned: a FIFO, a device, a link."""


class Notice(msgspec.Struct, frozen=True):
    """One thing that was not scanned, or not whole; `detail` is a sentence without secrets."""

    problem: Problem
    path: str
    detail: str


class Document(msgspec.Struct, frozen=True):
    r"""Some bytes and where they are from.

    `path` is as a person reads it: relative to what was scanned, bytes that are no UTF-8 written as `\xNN`.
    `members` lead from the file at `path` into it: the member of an archive, the member of that one.
    `blob` and `commit` are git's object names, empty outside of histories; `commit` is the one that introduced it.
    `first_line` is the number of the first line of `data`, for a document that is a part of a file; to be added are the
    lines of `before`, which are counted when somebody asks.
    `lead` and `tail` are how many bytes at its start and end are there as surroundings alone: a secret that begins in
    them is reported by the document that has them as its own, so that one on a border is found once.
    `lines` are those that are new, as first and last numbers in the file: what touches none of them was there before,
    and is not reported; empty for a document that is new as a whole.
    """

    data: Bytes
    path: str
    members: tuple[str, ...] = ()
    blob: str = ""
    commit: str = ""
    committed_at: float | None = None
    first_line: int = 1
    contexts: frozenset[Context] = frozenset()
    lead: int = 0
    tail: int = 0
    lines: tuple[tuple[int, int], ...] = ()
    before: Bytes = b""


class Detection(msgspec.Struct, frozen=True):
    """Where a rule matched in some bytes: the whole match, and the secret in it; offsets are half open."""

    rule: Rule
    start: int
    end: int
    secret_start: int
    secret_end: int


class Place(msgspec.Struct, frozen=True):
    """Where a finding stands; lines and columns count from 1, a column counts bytes."""

    path: str
    line: int
    column: int
    end_line: int
    members: tuple[str, ...] = ()
    encodings: tuple[str, ...] = ()
    blob: str = ""
    commit: str = ""
    committed_at: float | None = None


class Owner(msgspec.Struct, frozen=True):
    """Whose key it is, as a server told."""

    finding: str = ""
    keyspace: str = ""
    key: str = ""
    secret_path: str = ""
    field: str = ""
    owner: str = ""
    environment: str = ""
    state: str = ""
    works: bool = True
    next_command: str = ""


class Finding(msgspec.Struct, frozen=True):
    """One secret at one place.

    `fingerprint` is that of the secret's content and its rule's family; see `fingerprints`.
    `line_text` is the line with every secret of it masked.
    """

    rule: Rule
    certainty: Certainty
    secret: Secret
    masked: str
    fingerprint: str
    place: Place
    contexts: frozenset[Context] = frozenset()
    environment: str = ""
    line_text: str = ""
    owner: Owner | None = None
    verdict: str = "report"


class Report(msgspec.Struct):
    """What a run found; `ignored` were judged before, by a baseline or a comment, or are allowed by the policy.

    `stale` are fingerprints of the baseline that were not found any more.  `judged_by` names the files of policy and
    baseline, which may be a part of what was scanned.
    """

    findings: list[Finding] = []
    ignored: list[Finding] = []
    notices: list[Notice] = []
    stale: list[str] = []
    judged_by: list[str] = []
    documents: int = 0
    bytes: int = 0
    seconds: float = 0.0


Batch: TypeAlias = tuple[str | bytes, ...] | tuple[tuple[str, ...], ...]
"""A piece of a source that one worker takes: small, and picklable."""


class Source(Protocol):
    """Where documents come from.  It is made in one process and read in several, so it holds no open file."""

    def batches(self) -> Iterator[Batch | Notice]:
        """Name everything there is, in pieces of similar cost; raises `KeyturnError` when it cannot be read at all."""
        ...

    def documents(self, batch: Batch) -> Iterator[Document | Notice]:
        """Read the documents of a piece, one at a time; what cannot be read is a notice."""
        ...
