"""What verification can find, and its report.  Pure; needs the base install only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class FindingKind(StrEnum):
    """What was done to the log, as exactly as can be proven."""

    ALTERED = "altered"
    """The content of one leaf is not what was signed."""
    HASH_ALTERED = "hash_altered"
    """The content of one leaf is what was signed; its stored hash is not."""
    CUT = "cut"
    """Leaves are missing."""
    INSERTED = "inserted"
    """A leaf is there that was never signed."""
    REORDERED = "reordered"
    """Leaves stand in each other's places."""
    INTERVAL = "interval"
    """Leaves between two checkpoints, content and hash together, were altered, cut, inserted or reordered."""
    CHECKPOINT_MISSING = "checkpoint_missing"
    """A signed checkpoint is missing."""
    CHECKPOINT_MISPLACED = "checkpoint_misplaced"
    """A signed checkpoint stands out of order, or twice."""
    SIGNATURE = "signature"
    """A checkpoint was not signed by the key."""
    KEY_REPLACED = "key_replaced"
    """The log presents another key than the one it is verified with."""
    ROLLED_BACK = "rolled_back"
    """The log is older than a checkpoint that was given."""
    SPLIT_VIEW = "split_view"
    """Two different trees were signed: the log does not contain the one of a checkpoint that was given."""
    TRUNCATED = "truncated"
    """The export ends before its end."""
    ERASED_UNRECORDED = "erased_unrecorded"
    """The content of a leaf is gone and no `audit.erase` accounts for it."""
    COLUMNS_ALTERED = "columns_altered"
    """The columns that lists are filtered by do not say what the leaf says."""
    UNREADABLE = "unreadable"
    """A line of the export cannot be read."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong; leaves are `first` to `last`, both included, counted from 0."""

    kind: FindingKind
    message: str
    first: int | None = None
    last: int | None = None
    ids: tuple[str, ...] = ()
    line: int | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """The result of a verification."""

    origin: str
    first: int
    """The leaf verification began with."""
    size: int
    """How many leaves the log is proven to have; those from `first` on were recomputed from their bytes."""
    leaves: int
    checkpoints: int
    erased: int
    """Leaves verified by their hash alone, because their content was erased on record."""
    findings: tuple[Finding, ...]
    findings_left_out: int
    unproven: tuple[tuple[int, int], ...]
    """Leaves, both ends included, that nothing could be proven about because of a finding before them."""
    verifier_key: str
    """The key that signs the log now: the one it was verified with, or the one that key handed over to."""
    latest: str | None
    """The newest checkpoint that was proven: keep it, and give it to the next verification."""

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.findings and not self.findings_left_out
