"""Disks without room, as a running server meets them."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from keyturn.testing.server import RunningServer


@contextlib.contextmanager
def file_size_limit(server: RunningServer) -> Iterator[None]:
    """Let no file of a running server grow any more."""
    largest = max(path.stat().st_size for path in server.data_dir.iterdir())
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    pids = server.pids
    for pid in pids:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (largest, hard))
    try:
        yield
    finally:
        for pid in pids:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))


@contextlib.contextmanager
def filled_disk(server: RunningServer) -> Iterator[None]:
    """Fill the disk of a running server to the last byte."""
    filler = server.data_dir / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(512))
    try:
        yield
    finally:
        filler.unlink()


@contextlib.contextmanager
def mounted_disk(folder: Path) -> Iterator[Path]:
    """Mount a file system of a few megabytes; a test that may not is skipped."""
    folder.mkdir()
    mount = ["/bin/mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small file system needs root; the file size limit is tried everywhere")
    try:
        yield folder
    finally:
        subprocess.run(["/bin/umount", "-l", str(folder)], check=True)
