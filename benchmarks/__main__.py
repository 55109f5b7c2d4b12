"""Every benchmark, one after the other: `make bench`, or `python -m benchmarks [--short] [--only NAME] [--json FILE]`.

Each runs in a process of its own.  The whole takes about forty minutes, a short run six.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.running import machine

NAMES = (
    "verify_inprocess",
    "verifier",
    "limits",
    "verify_http",
    "verify_valkey",
    "verify_under_writes",
    "revoke_to_deny",
    "issue",
    "audit",
    "leases",
    "secret_reads",
    "vault_scale",
    "scan_engine",
    "scan_tree",
    "scan_history",
    "scan_staged",
    "scan_image",
    "scan_accuracy",
)
SHORT = {"verify_inprocess": ["--keys", "1000"]}


def main() -> None:
    """Run the benchmarks, print each, and write one JSON document when asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="fewer and shorter measurements: a smoke test")
    parser.add_argument("--only", choices=NAMES, action="append", help="run this one; may be repeated")
    parser.add_argument("--json", type=Path, help="also write all results to this file")
    given = parser.parse_args()
    about = machine()
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    here = Path(__file__).parent
    found = [name for name in given.only or NAMES if (here / f"{name}.py").exists()]
    results: dict[str, Any] = {}
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        for name in found:
            print(f"\n--- {name}", flush=True)
            path = Path(folder) / f"{name}.json"
            short = SHORT.get(name, ["--short"]) if given.short else []
            done = subprocess.run(
                [sys.executable, "-m", f"benchmarks.{name}", "--json", str(path), *short], check=False
            )
            if done.returncode:
                failed.append(name)
            elif path.exists():
                results[name] = json.loads(path.read_text("utf-8"))
    if given.json is not None:
        given.json.write_text(json.dumps({"machine": about, "results": results}, indent=2) + "\n", encoding="utf-8")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
