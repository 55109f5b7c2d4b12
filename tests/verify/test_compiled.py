"""What decides about a key may be compiled from the same source, and then says the same."""

import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMPILED: dict[str, tuple[str, ...]] = runpy.run_path(str(ROOT / "setup.py"))["COMPILED"]
MODULES = [f"{package}/{name}" for package, names in COMPILED.items() for name in names]
# Slow by themselves, or about the files of the repository, or about what is never compiled alone.
LEFT_OUT = ("test_compiled.py", "test_freshness.py", "test_replica.py")


@pytest.mark.parametrize("module", MODULES)
def test_no_struct_is_compiled(module: str) -> None:
    """Compiled, a frozen Struct is not frozen, and one that forbids unknown fields lets them in."""
    assert "Struct" not in (ROOT / "src/keyturn" / f"{module}.py").read_text()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("gcc") is None, reason="there is no C compiler")
def test_compiled_modules_pass_the_same_tests(tmp_path: Path) -> None:
    """Vectors of the token format, the decision, its explanation, charging and limits: the same as interpreted."""
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("src", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    environment = {**os.environ, "KEYTURN_COMPILE": "1", "PYTHONPATH": str(tmp_path / "src")}
    build = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    subprocess.run(build, cwd=tmp_path, env=environment, check=True, capture_output=True)
    for module in MODULES:
        assert list((tmp_path / "src/keyturn").glob(f"{module}.*.so")), module

    areas = [str(path) for path in (tmp_path / "tests/verify").glob("test_*.py") if path.name not in LEFT_OUT]
    vectors = str(tmp_path / "tests/kernel/test_tokenformat.py")
    # The one left out counts calls of `str.encode`, which compiled code makes without asking the object.
    chosen = ["-k", "not cost_the_same_digest", vectors, *areas]
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *chosen]
    done = subprocess.run(tests, cwd=tmp_path, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:]
