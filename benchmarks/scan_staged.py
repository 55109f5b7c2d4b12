"""What a commit waits for: three staged files, ours, gitleaks and Kingfisher, see `benchmarks.scanners`.

    python -m benchmarks.scan_staged [--short] [--json FILE]

The repository is made.  `python` is an interpreter that does nothing: no program in Python is faster.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.report import arguments, finish
from benchmarks.scan_inputs import make_staged
from benchmarks.scanners import OURS, Command, gitleaks, kingfisher, ours, rows_of, showing, side_by_side


def measure(*, short: bool = False) -> dict[str, Any]:
    """Run the benchmark and return its result."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "repository"
        folder.mkdir()
        make_staged(folder)
        commands = {
            OURS: ours("--staged", folder=folder),
            "gitleaks": gitleaks("git", "--pre-commit", "--staged", str(folder), folder=folder),
            "kingfisher": kingfisher("--staged", str(folder), folder=folder),
            "python": Command((sys.executable, "-c", "pass")),
        }
        rows = rows_of(side_by_side(commands, 3 if short else 15))
    return {"input": {"files staged": 3}, "rows": rows}


show = showing("ours <= 0.15 s of the clock")

if __name__ == "__main__":
    given_arguments = arguments(__doc__)
    finish("scan_staged", measure(short=given_arguments.short), show, given_arguments)
