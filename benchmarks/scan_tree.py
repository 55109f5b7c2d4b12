"""A source tree: ours, gitleaks and Kingfisher, see `benchmarks.scanners`.

    python -m benchmarks.scan_tree [--short] [--json FILE]

The tree is the folder in SCAN_TREE, or else one that is made.  Everything is decoded that each of them can decode.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any, Final

from benchmarks.report import arguments, finish
from benchmarks.scan_inputs import make_tree
from benchmarks.scanners import OURS, gitleaks, kingfisher, ours, rows_of, showing, side_by_side

BYTES: Final = 70_000_000


def measure(*, short: bool = False) -> dict[str, Any]:
    """Run the benchmark and return its result."""
    with tempfile.TemporaryDirectory() as name:
        given = os.environ.get("SCAN_TREE")
        tree = Path(given) if given else Path(name)
        if not given:
            make_tree(tree, BYTES // 10 if short else BYTES)
        sizes = [path.stat().st_size for path in tree.rglob("*") if path.is_file() and not path.is_symlink()]
        commands = {
            OURS: ours(str(tree)),
            "gitleaks": gitleaks("dir", str(tree)),
            "kingfisher": kingfisher(str(tree)),
        }
        rows = rows_of(side_by_side(commands, 2 if short else 5))
    return {"input": {"files": len(sizes), "MB": round(sum(sizes) / 1e6, 1)}, "rows": rows}


show = showing("gitleaks >= 5, kingfisher >= 1")

if __name__ == "__main__":
    given_arguments = arguments(__doc__)
    finish("scan_tree", measure(short=given_arguments.short), show, given_arguments)
