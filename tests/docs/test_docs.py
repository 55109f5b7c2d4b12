"""What can be checked about every document and every tracked file."""

import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Put together here, so that this file does not contain what it looks for.
_REGISTRIES = [
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("files", "pythonhosted", "org"),
        ("docker", "io"),
        ("ghcr", "io"),
        ("quay", "io"),
        ("gcr", "io"),
        ("registry", "npmjs", "org"),
        ("registry", "yarnpkg", "com"),
        ("conda", "anaconda", "org"),
        ("proxy", "golang", "org"),
        ("crates", "io"),
        ("cdn", "jsdelivr", "net"),
        ("unpkg", "com"),
    )
]
_REGISTRY = re.compile(r"(?<![\w-])(" + "|".join(map(re.escape, _REGISTRIES)) + r")(?![\w-])", re.IGNORECASE)
_HOME = re.compile(r"(?<![\w.~*-])/(?:" + "|".join(("wo" + "rk", "ro" + "ot")) + r")/\w")
_FENCE = re.compile(r"^(```|~~~).*?^\1\s*$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]\n]*\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)|^\[[^\]\n]+\]:\s+(\S+)", re.MULTILINE)


@cache
def tracked() -> list[Path]:
    """Return the files of the repository, without what was made beside them."""
    if (ROOT / ".git").exists():
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)  # noqa: S607
        paths = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    else:  # a source archive
        ignored = {".venv", "data", "build", "dist"}
        paths = [path for path in ROOT.rglob("*") if not ignored & set(path.relative_to(ROOT).parts)]
    return [path for path in paths if path.is_file()]


def _texts() -> Iterator[tuple[Path, str]]:
    for path in tracked():
        content = path.read_bytes()
        if b"\0" not in content:
            yield path.relative_to(ROOT), content.decode("utf-8", errors="replace")


def _documents() -> list[Path]:
    return [path for path in tracked() if path.suffix == ".md"]


def _findings(pattern: re.Pattern[str]) -> list[str]:
    return [f"{path}: {found.group()}" for path, text in _texts() for found in pattern.finditer(text)]


def _anchors(document: Path) -> set[str]:
    """The anchors that the usual renderers make of headings."""
    anchors: dict[str, int] = {}
    for heading in re.findall(r"^#{1,6}\s+(.*?)\s*#*$", _FENCE.sub("", document.read_text()), re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        anchors[slug] = anchors.get(slug, -1) + 1
    return {slug if n == 0 else f"{slug}-{n}" for slug, last in anchors.items() for n in range(last + 1)}


def _broken(document: Path, root: Path = ROOT) -> Iterator[str]:
    for match in _LINK.finditer(_FENCE.sub("", document.read_text())):
        target = match.group(1) or match.group(2)
        if re.match(r"[a-z][a-z0-9+.-]*:", target):
            continue
        path, _, anchor = target.partition("#")
        destination = (document.parent / path).resolve() if path else document
        if not destination.is_relative_to(root) or not destination.exists():
            yield f"{target}: no such file"
        elif anchor and destination.suffix == ".md" and anchor not in _anchors(destination):
            yield f"{target}: no such heading"


@pytest.mark.parametrize("document", _documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(document: Path) -> None:
    assert list(_broken(document)) == []


def test_no_file_names_a_package_registry() -> None:
    """Where packages come from is the machine's choice; a pinned hash says which ones they are."""
    assert _findings(_REGISTRY) == []


def test_no_file_names_a_folder_of_one_machine() -> None:
    assert _findings(_HOME) == []


def test_the_readme_can_be_read_in_one_go() -> None:
    readme = ROOT / "README.md"
    if readme.exists():
        assert 100 <= len(readme.read_text().splitlines()) <= 150


def test_the_checks_of_this_file_find_what_they_look_for(tmp_path: Path) -> None:
    assert _REGISTRY.search("see https://" + _REGISTRIES[0] + "/simple")
    assert _HOME.search("open '/" + "ro" + "ot/file'")
    assert not _HOME.search("GET /api/v1/audit/" + "ro" + "ot/1")
    document = tmp_path / "page.md"
    document.write_text("# A heading\n[here](#a-heading) [away](#nowhere)\n```\n[no](link)\n```\n")
    assert list(_broken(document, tmp_path)) == ["#nowhere: no such heading"]
