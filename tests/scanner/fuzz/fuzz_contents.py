"""Coverage-guided fuzzing of contents and decoding; not a test, and run by hand.

    uv venv /tmp/fuzz && uv pip install --python /tmp/fuzz atheris -e .
    PYTHONPATH=src:. /tmp/fuzz/bin/python tests/scanner/fuzz/fuzz_contents.py -max_total_time=120 -timeout=10

It starts from the samples of `seeds`; libFuzzer's options apply, and a crash is written to the current folder.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris  # type: ignore[import-untyped]

with atheris.instrument_imports(include=["keyturn.scanner"]):
    from tests.scanner.fuzz.seeds import PATHS, SEEDS, unfold


def one(data: bytes) -> None:
    """Open some bytes under a path that their first byte chooses."""
    if data:
        unfold(data[1:], PATHS[data[0] % len(PATHS)])


def main() -> None:
    """Fuzz until libFuzzer's options say it is enough."""
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(SEEDS):
            Path(corpus, str(number)).write_bytes(bytes([number % len(PATHS)]) + seed)
        atheris.Setup([*sys.argv, corpus, "-rss_limit_mb=1024"], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
