"""The full history of a repository: ours, gitleaks and Kingfisher, see `benchmarks.scanners`.

    python -m benchmarks.scan_history [--short] [--json FILE]

The repository is the one in SCAN_HISTORY, or else one that is made.  `keyturn again` is a second scan of ours, which
passes over the blobs that held nothing; the others have no such thing.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Final

from benchmarks.report import arguments, finish
from benchmarks.scan_inputs import make_history
from benchmarks.scanners import OURS, gitleaks, kingfisher, ours, rows_of, showing, side_by_side

COMMITS: Final = 6000
GIT: Final = "git"


def measure(*, short: bool = False) -> dict[str, Any]:
    """Run the benchmark and return its result."""
    with tempfile.TemporaryDirectory() as name:
        given = os.environ.get("SCAN_HISTORY")
        repository = Path(given) if given else Path(name) / "made.git"
        if not given:
            make_history(repository, COMMITS // 10 if short else COMMITS)
        commands = {
            OURS: ours("--history", str(repository), forgets=True),
            "keyturn again": ours("--history", str(repository)),
            "gitleaks": gitleaks("git", str(repository)),
            "kingfisher": kingfisher(str(repository)),
        }
        rows = rows_of(side_by_side(commands, 1 if short else 3))
        about = {"commits": _commits(repository), "MB packed": _packed(repository)}
    return {"input": about, "rows": rows}


def _commits(repository: Path) -> int:
    return int(_git(repository, "rev-list", "--count", "--all"))


def _packed(repository: Path) -> float:
    told = dict(line.split(": ") for line in _git(repository, "count-objects", "-v").splitlines())
    return round((int(told["size"]) + int(told["size-pack"])) / 1e3, 1)


def _git(repository: Path, *command: str) -> str:
    whole = [GIT, "-C", str(repository), *command]
    return subprocess.run(whole, check=True, capture_output=True, text=True).stdout


show = showing("gitleaks >= 4")

if __name__ == "__main__":
    given_arguments = arguments(__doc__)
    finish("scan_history", measure(short=given_arguments.short), show, given_arguments)
