"""The tarball of an image, 300 MB: ours, gitleaks and Kingfisher, see `benchmarks.scanners`.

    python -m benchmarks.scan_image [--short] [--json FILE]

The image is made: four layers, a third of them text and the rest binaries, and six keys planted in it.
`planted` names the places of those that each scanner reports.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any, Final

from benchmarks.report import arguments, finish
from benchmarks.scan_inputs import make_image
from benchmarks.scanners import OURS, gitleaks, kingfisher, ours, rows_of, showing, side_by_side

BYTES: Final = 300_000_000


def measure(*, short: bool = False) -> dict[str, Any]:
    """Run the benchmark and return its result."""
    with tempfile.TemporaryDirectory() as name:
        image = Path(name) / "image.tar"
        planted = make_image(image, BYTES // 10 if short else BYTES)
        size = image.stat().st_size
        commands = {
            OURS: ours(str(image), "--reveal"),
            "gitleaks": gitleaks("dir", str(image), "--max-archive-depth", "8"),
            "kingfisher": kingfisher("docker", "--archive", str(image)),
        }
        taken = side_by_side(commands, 1 if short else 3)
    rows = rows_of(taken)
    for scanner, row in rows.items():
        told = json.dumps(taken[scanner].report)
        row["planted"] = [where for where, key in planted.items() if key in told]
    return {"input": {"MB": round(size / 1e6, 1), "planted": len(planted)}, "rows": rows}


def show(result: dict[str, Any]) -> None:
    """Print the result as a table."""
    showing("measured; every planted key found")(result)
    for name, row in result["rows"].items():
        print(f"  {name:<22}{len(row['planted'])} of the planted keys: {', '.join(row['planted'])}")


if __name__ == "__main__":
    given = arguments(__doc__)
    finish("scan_image", measure(short=given.short), show, given)
