"""The examples marked ```sh run are pasted into a shell, page by page, against a real server."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from keyturn.testing.server import RunningServer
from tests.docs.test_docs import tracked

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"^```sh run\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PROMISE = re.compile(r"# -> (.+)$", re.MULTILINE)
_WRITTEN = re.compile(r"(?:(?<![0-9&<])>>?|\btee|-o|--output|--token-file)\s+([\w./-]+)")
_SECONDS_MAX = 300


def _script(page: Path) -> str:
    return "\n".join(_BLOCK.findall(page.read_text()))


PAGES = [page for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))) if _script(page)]


def test_the_pages_a_newcomer_reads_first_have_examples_that_are_run() -> None:
    assert {"README.md", "docs/quickstart.md"} <= {str(page.relative_to(ROOT)) for page in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_example_overwrites_a_file_of_the_repository(page: Path) -> None:
    """The shell stands in the clone, where `make run` was typed, and where an earlier paste has left its own files."""
    written = {ROOT / name for name in _WRITTEN.findall(_script(page))}
    assert written.intersection(tracked()) == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_example_rests_on_a_setting_that_it_does_not_make(page: Path) -> None:
    """The test below sets KEYTURN_URL, since its port is another; who pastes has only what the page says."""
    assert "KEYTURN_URL" not in _script(page)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_example_works_as_pasted(page: Path, start_server: Callable[..., RunningServer], tmp_path: Path) -> None:
    """The shell stands where `make run` was typed: `.venv` and `data` are there, and the server answers.

    A command that fails fails the test, and what a comment `# -> text` promises has to be printed.
    """
    script = _script(page)
    if "curl" in script and shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    server = start_server(data_dir=tmp_path / "data", env={"KEYTURN_SOURCE_ALLOW": "127.0.0.1/32"})
    (tmp_path / ".venv").symlink_to(Path(sys.executable).parents[1])
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KEYTURN_")}
    pasted = subprocess.run(
        ["/bin/bash", "-eu", "-o", "pipefail", "-c", script.replace("http://127.0.0.1:8700", server.url)],
        cwd=tmp_path,
        env={**environment, "HOME": str(tmp_path), "KEYTURN_URL": server.url},
        capture_output=True,
        text=True,
        timeout=_SECONDS_MAX,
        check=False,
    )
    assert pasted.returncode == 0, pasted.stdout + pasted.stderr
    printed = " ".join(pasted.stdout.split())
    assert [promise for promise in _PROMISE.findall(script) if promise not in printed] == [], pasted.stdout
