"""The scanner's engine: bytes a second of one process, and what it costs to have the rules ready.

    python -m benchmarks.scan_engine [--short] [--json FILE]

The tree is the folder in SCAN_TREE, or else one that is made: source-like files of many sizes, with one key in every
twentieth.  Its files are read before anything is measured, and every row is of processor time.

    find       hyperscan alone: where it is worth looking
    detect     with RE2's confirmation and everything that a rule asks for, as a scan has it; `first` is the first pass
    keywords   the same without hyperscan
    flood      one line of 5 MB under a rule that matches everywhere
    compile    the shipped rules from their files: a cold start
    open       the same from the cache: a warm start, in a process of its own with everything imported there
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.report import arguments, finish
from keyturn.scanner.cache import Cache
from keyturn.scanner.engine.open import open_engine
from keyturn.scanner.ruleset.model import Rule, Ruleset

if TYPE_CHECKING:
    from collections.abc import Callable

    from keyturn.scanner.engine.detect import Engine

TARGET_MB: Final = 120.0
MADE_BYTES: Final = 40_000_000
FLOOD_BYTES: Final = 5_000_000
WARM: Final = (
    "import sys, time; start = time.perf_counter()\n"
    "from pathlib import Path\n"
    "from keyturn.scanner.cache import Cache; from keyturn.scanner.engine.open import open_engine\n"
    "loaded = time.perf_counter(); engine = open_engine(cache=Cache(Path(sys.argv[1])))\n"
    "print(loaded - start, time.perf_counter() - loaded)\n"
)
Files = list[tuple[str, bytes]]


def _files(size: int) -> Files:
    given = os.environ.get("SCAN_TREE")
    if given is None:
        return _made(size)
    folder = Path(given)
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink())
    return [(str(path.relative_to(folder)), path.read_bytes()) for path in paths]


def _made(size: int) -> Files:
    drawn = random.Random(5)
    words = [path.read_text("utf-8").splitlines(keepends=True) for path in Path("src").rglob("*.py")]
    lines = [line for text in words for line in text]
    files: Files = []
    while size > 0:
        text = "".join(drawn.choices(lines, k=min(4000, int(drawn.lognormvariate(5, 1.2)) + 1)))
        if len(files) % 20 == 0:
            text += "GITLAB_TOKEN=" + "gl" + "pat-" + "".join(drawn.choices("abcdefghjkmnpqrstuvwxyz23456789", k=20))
        files.append((f"made/{len(files)}.py", text.encode()))
        size -= len(text)
    return files


def _rate(files: Files, run: Callable[[bytes, str], object]) -> float:
    start = time.process_time()
    for path, data in files:
        run(data, path)
    return round(sum(len(data) for _, data in files) / 1e6 / (time.process_time() - start), 1)


def _rates(engine: Engine, files: Files, passes: int) -> dict[str, float]:
    finder = engine._finder  # noqa: SLF001 -- a part is measured by itself
    detect = [_rate(files, engine.detect) for _ in range(passes)]
    find = [_rate(files, lambda data, _path: finder.windows(data)) for _ in range(passes)]
    return {"find": max(find), "detect": max(detect), "first": detect[0]}


def _flood() -> float:
    rules = (Rule(id="a", title="a", regex="[A-Za-z0-9]{20,}"), Rule(id="b", title="b", regex="(?i)key.*"))
    engine = open_engine(Ruleset(name="flood", rules=rules), cache=None)
    return _rate([("a.js", b"aB3dEf key9" * (FLOOD_BYTES // 11))], engine.detect)


def _warm(folder: str, times: int) -> tuple[float, float]:
    found = []
    for _ in range(times):
        done = subprocess.run([sys.executable, "-c", WARM, folder], check=True, capture_output=True, text=True)
        found.append(tuple(1e3 * float(one) for one in done.stdout.split()))
    return min(one[0] for one in found), min(one[1] for one in found)


def measure(*, short: bool = False) -> dict[str, Any]:
    """Run the benchmark and return its result."""
    files = _files(MADE_BYTES // 10 if short else MADE_BYTES)
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        engine = open_engine(cache=Cache(Path(folder) / "cache"))
        compiled = time.process_time() - start
        imports, warm = _warm(f"{folder}/cache", 3 if short else 9)
        entry = next((Path(folder) / "cache").iterdir()).stat().st_size
    rates = _rates(engine, files, 2 if short else 4)
    some = files[:: 40 if short else 10]
    rates["keywords"] = _rate(some, open_engine(cache=None, fallback=True).detect)
    return {
        "rules": len(engine.ruleset.rules),
        "files": len(files),
        "bytes": sum(len(data) for _, data in files),
        "mb_per_second": {**rates, "flood": _flood()},
        "compile_s": round(compiled, 2),
        "import_ms": round(imports, 1),
        "open_ms": round(warm, 1),
        "cache_bytes": entry,
        "detections": sum(len(engine.detect(data, path)) for path, data in files),
    }


def show(result: dict[str, Any]) -> None:
    """Print the result as a table."""
    print(f"{result['rules']} rules, {result['files']} files, {result['bytes'] / 1e6:.1f} MB, one process, MB/s")
    for name, rate in result["mb_per_second"].items():
        print(f"  {name:<9}{rate:>8.1f}")
    print(f"  compile {result['compile_s']} s, import {result['import_ms']} ms, open {result['open_ms']} ms,", end="")
    print(f" cached {result['cache_bytes'] / 1e6:.1f} MB, {result['detections']} detections")
    print(f"  target: detect >= {TARGET_MB:.0f} MB/s")


if __name__ == "__main__":
    given = arguments(__doc__)
    finish("scan_engine", measure(short=given.short), show, given)
