"""How a benchmark takes its arguments and gives its result: a table for people, JSON for everything else."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.running import machine

if TYPE_CHECKING:
    from collections.abc import Callable


def arguments(doc: str | None) -> argparse.Namespace:
    """Parse what every benchmark takes."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="fewer and shorter measurements: a smoke test")
    parser.add_argument("--json", type=Path, help="also write the result to this file")
    return parser.parse_args()


def finish(
    name: str, result: dict[str, Any], show: Callable[[dict[str, Any]], None], given: argparse.Namespace
) -> dict[str, Any]:
    """Print a result, write it where it was asked for, and return it with its machine."""
    show(result)
    whole = {"benchmark": name, "machine": machine(), **result}
    if given.json is not None:
        given.json.write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
    return whole
