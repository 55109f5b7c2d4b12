"""What is in a git repository, in one place: how it is opened, and the sources that read it."""

from __future__ import annotations

from keyturn.scanner.sources.history import HistorySource, PushSource, RangeSource
from keyturn.scanner.sources.index import StagedSource, WorkTreeSource
from keyturn.scanner.sources.repository import GitError, Repository, open_repository
from keyturn.scanner.sources.seen import SeenBlobs
from keyturn.scanner.sources.trimming import surroundings

__all__ = [
    "GitError",
    "HistorySource",
    "PushSource",
    "RangeSource",
    "Repository",
    "SeenBlobs",
    "StagedSource",
    "WorkTreeSource",
    "open_repository",
    "surroundings",
]
