import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from keyturn.scanner.ruleset.load import shipped_rules
from keyturn.scanner.ruleset.samples import expand
from tests.scanner.scanning import shop_key

RULES = """
[[rule]]
id = "shop-key"
title = "Shop key"
provider = "shop"
regex = '''\\b(shop_[0-9a-z]{24})\\b'''
examples = ["key = shop_{{alnum:24}}"]
counter_examples = ["key = shop_{{alnum:23}}"]
"""

Run = Callable[..., subprocess.CompletedProcess[str]]


def environment_of(home: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / "cache"),
        "GIT_CONFIG_GLOBAL": os.devnull,
    }


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory, shared_rules_cache: Path) -> Path:
    """Return a cache that a first run left behind: the shipped rules and ours, compiled."""
    home = tmp_path_factory.mktemp("first")
    shutil.copytree(shared_rules_cache / "keyturn", home / "cache" / "keyturn")
    (home / "rules.toml").write_text(RULES)
    (home / "scanned").mkdir()
    command = [sys.executable, "-m", "keyturn", "scan", "--rules", "../rules.toml"]
    subprocess.run(command, cwd=home / "scanned", env=environment_of(home), capture_output=True, check=True)
    return home / "cache"


@pytest.fixture
def run(tmp_path: Path, compiled: Path) -> Run:
    """Return what runs `keyturn` in an empty folder, with rules that are read fast, and a cache of its own."""
    (tmp_path / "rules.toml").write_text(RULES)
    folder = tmp_path / "scanned"
    folder.mkdir()
    shutil.copytree(compiled, tmp_path / "cache")
    environment = environment_of(tmp_path)

    def run(*arguments: str, given: bytes = b"", rules: bool = True) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "keyturn", *arguments]
        if arguments[0] == "scan" and rules:
            command += ["--rules", "../rules.toml"]
        ended = subprocess.run(command, cwd=folder, env=environment, input=given, capture_output=True, check=False)
        return subprocess.CompletedProcess(command, ended.returncode, ended.stdout.decode(), ended.stderr.decode())

    return run


@pytest.fixture
def folder(tmp_path: Path, run: Run) -> Path:  # noqa: ARG001 -- makes it
    return tmp_path / "scanned"


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false")
    command = ("git", *identity, *arguments)
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


def findings(ended: subprocess.CompletedProcess[str]) -> list[tuple[str, int]]:
    return [(one["place"]["path"], one["place"]["line"]) for one in json.loads(ended.stdout)["findings"]]


def test_a_clean_folder_ends_with_0(run: Run, folder: Path) -> None:
    (folder / "a.py").write_text("x = 1\n")
    ended = run("scan")
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_leaked_key_ends_with_1_and_is_not_printed(run: Run, folder: Path) -> None:
    (folder / "a.py").write_text(f"\nkey = '{shop_key()}'\n")
    ended = run("scan")
    assert ended.returncode == 1
    assert "a.py:2: BLOCK shop-key" in ended.stdout
    assert "key = 'shop_…(29 characters)'" in ended.stdout
    assert shop_key() not in ended.stdout + ended.stderr
    assert shop_key() in run("scan", "--reveal").stdout


def test_the_shipped_rules_are_used_by_default(run: Run, folder: Path) -> None:
    rule = next(one for one in shipped_rules() if one.id == "keyturn-issued-key")
    from keyturn.scanner.ruleset.checksums import CHECKSUMS

    (folder / "a.py").write_text(expand(rule.examples[0], "1", CHECKSUMS["keyturn"].check_of))
    ended = run("scan", "--format", "json", rules=False)
    (found,) = json.loads(ended.stdout)["findings"]
    assert (ended.returncode, found["rule"], found["certainty"]) == (1, "keyturn-issued-key", "own")


@pytest.mark.parametrize(
    "arguments",
    [
        ("nowhere",),
        ("--rules", "nowhere.toml"),
        ("--policy", "nowhere.toml"),
        ("--baseline", "nowhere.toml"),
        ("--staged",),
        ("--staged", "--history"),
        ("--ref", "main"),
        ("-", "a"),
        ("--reveal", "--format", "sarif"),
        ("--jobs", "0"),
        ("--unheard-of",),
        ("--output", "nowhere/report.txt"),
    ],
)
def test_what_cannot_be_done_ends_with_2(run: Run, folder: Path, arguments: tuple[str, ...]) -> None:
    """Whoever mistypes an option must not believe that the scan found nothing."""
    (folder / "a.py").write_text("x = 1\n")
    ended = run("scan", *arguments)
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
    assert ended.stderr


def test_what_cannot_be_read_ends_with_2_and_a_finding_beside_it_with_1(run: Run, folder: Path) -> None:
    bad = folder / "bad.gz"
    bad.write_bytes(b"\x1f\x8b\x08\x00" + b"\x00" * 6 + b"\xff" * 40)
    assert run("scan").returncode == 2
    (folder / "a.py").write_text(shop_key())
    ended = run("scan")
    assert (ended.returncode, "error: bad.gz" in ended.stdout) == (1, True)


def test_standard_input_is_scanned(run: Run) -> None:
    ended = run("scan", "-", "--format", "json", given=f"a\nb\n{shop_key()}\n".encode())
    assert (ended.returncode, findings(ended)) == (1, [("stdin", 3)])


def test_an_image_is_opened_by_its_content(run: Run, folder: Path) -> None:
    def packed(files: dict[str, bytes]) -> bytes:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as archive:
            for name, data in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        return out.getvalue()

    layer = packed({"app/settings.py": f"k = '{shop_key()}'\n".encode()})
    gone = packed({"app/.wh.settings.py": b""})
    config = json.dumps(
        {
            "architecture": "amd64",
            "rootfs": {"diff_ids": []},
            "config": {"Env": [f"KEY={shop_key('b')}"]},
            "history": [],
        }
    ).encode()
    manifest = json.dumps(
        [{"Config": "c.json", "RepoTags": ["a:1"], "Layers": ["1/layer.tar", "2/layer.tar"]}]
    ).encode()
    image = {"manifest.json": manifest, "c.json": config, "1/layer.tar": layer, "2/layer.tar": gone}
    (folder / "image.tar").write_bytes(packed(image))
    ended = run("scan", "image.tar", "--format", "json")
    found = json.loads(ended.stdout)["findings"]
    assert len({one["fingerprint"] for one in found}) == 2
    assert {context for one in found for context in one["contexts"]} >= {"image-layer", "image-config"}


def test_only_what_is_staged_and_new_counts_for_a_hook(run: Run, folder: Path) -> None:
    git(folder, "init", "-q")
    (folder / "a.py").write_text(f"old = '{shop_key('o')}'\n")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "1")
    (folder / "a.py").write_text(f"old = '{shop_key('o')}'\nnew = '{shop_key('n')}'\n")
    git(folder, "add", ".")
    (folder / "a.py").write_text("")
    ended = run("scan", "--staged", "--format", "json")
    assert (ended.returncode, findings(ended)) == (1, [("a.py", 2)])
    git(folder, "commit", "-qm", "2")
    assert run("scan", "--staged").returncode == 0


def test_ranges_work_trees_and_histories_are_scanned(run: Run, folder: Path) -> None:
    git(folder, "init", "-q", "-b", "main")
    (folder / "gone.py").write_text(f"k = '{shop_key('g')}'\n")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "1")
    git(folder, "rm", "-q", "gone.py")
    (folder / "clean.py").write_text("x = 1\n")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "2")
    (folder / "new.py").write_text(f"k = '{shop_key('n')}'\n")
    assert findings(run("scan", "--worktree", "--format", "json")) == [("new.py", 1)]
    assert run("scan", "--range", "HEAD~1..HEAD").returncode == 0
    first = run("scan", "--history", "--format", "json")
    again = run("scan", "--history", "--format", "json")
    assert findings(first) == findings(again) == [("gone.py", 1)]
    (found,) = json.loads(first.stdout)["findings"]
    assert set(found["contexts"]) >= {"history", "deleted"}
    assert found["place"]["commit"] == git(folder, "rev-parse", "HEAD~1").strip()


def test_what_commits_and_tags_say_is_found_with_its_place(run: Run, folder: Path) -> None:
    git(folder, "init", "-q", "-b", "main")
    git(folder, "commit", "-q", "--allow-empty", "-m", f"rotate\n\nkey was {shop_key('m')}")
    git(folder, "tag", "-a", "tests/v1", "-m", f"key is {shop_key('t')}")
    git(folder, "branch", shop_key("b"))
    ended = run("scan", "--history", "--format", "json")
    found = {one["place"]["path"]: one for one in json.loads(ended.stdout)["findings"]}
    assert set(found) == {"commit message", "tag message of refs/tags/tests/v1", "ref names"}
    assert found["commit message"]["place"]["commit"] == git(folder, "rev-parse", "HEAD").strip()
    assert all(set(one["contexts"]) == {"history", "commit-message"} for one in found.values())
    policy = folder / "policy.toml"
    policy.write_text('version = 1\n[[rule]]\ncontexts = ["commit-message"]\nverdict = "warn"\n')
    assert (ended.returncode, run("scan", "--history", "--policy", "policy.toml").returncode) == (1, 0)
    assert shop_key("b") not in run("scan", "--history", "--format", "text").stdout


def test_a_baseline_accepts_what_was_there_and_nothing_new(run: Run, folder: Path) -> None:
    (folder / "a.py").write_text(f"k = '{shop_key()}'\n")
    assert run("scan", "--write-baseline", "elsewhere/baseline.toml").returncode == 2, "the folder is not there"
    assert run("scan", "--write-baseline", ".keyturn/baseline.toml").returncode == 0
    assert run("scan").returncode == 0
    (folder / "a.py").rename(folder / "b.py")
    assert run("scan").returncode == 0
    (folder / "b.py").write_text(f"k = '{shop_key('n')}'\n")
    ended = run("scan", "--format", "json")
    assert ended.returncode == 1
    assert len(json.loads(ended.stdout)["stale"]) == 1


def test_a_baseline_under_a_key_file_needs_it(run: Run, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("k" * 40)
    (tmp_path / "short").write_text("k")
    (folder / "a.py").write_text(f"k = '{shop_key()}'\n")
    key = ("--fingerprint-key-file", "../key")
    assert run("scan", "--write-baseline", "b.toml", *key).returncode == 0
    assert run("scan", "--baseline", "b.toml", *key).returncode == 0
    assert run("scan", "--baseline", "b.toml").returncode == 1
    assert run("scan", "--baseline", "b.toml", "--fingerprint-key-file", "../short").returncode == 2


def test_the_policy_of_what_is_scanned_decides(run: Run, folder: Path) -> None:
    (folder / "a.py").write_text(f"k = '{shop_key()}'\n")
    (folder / ".keyturn").mkdir()
    (folder / ".keyturn" / "leaks.toml").write_text('version = 1\n[[rule]]\nverdict = "warn"\n')
    ended = run("scan")
    assert (ended.returncode, "a.py:1: WARN" in ended.stdout) == (0, True)
    (folder / ".keyturn" / "leaks.toml").write_text('version = 1\n[[rule]]\nverdict = "maybe"\n')
    ended = run("scan")
    assert (ended.returncode, "line 3, rule 1" in ended.stderr) == (2, True)


def test_a_report_is_written_whole_or_not_at_all(run: Run, folder: Path) -> None:
    (folder / "a.py").write_text(shop_key())
    assert run("scan", "--format", "json", "--output", "../report.json").returncode == 1
    report = folder.parent / "report.json"
    assert json.loads(report.read_text())["summary"]["blocked"] == 1
    assert run("scan", "--format", "json", "--reveal", "-o", "../secret.json").returncode == 1
    assert (folder.parent / "secret.json").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in folder.parent.glob(".*json*")) == []


def test_a_reader_that_had_enough_is_no_error(run: Run, folder: Path, tmp_path: Path) -> None:  # noqa: ARG001 -- rules
    (folder / "a.py").write_text("".join(f"k = 'shop_{number:024d}'\n" for number in range(2000)))
    command = f"{sys.executable} -m keyturn scan --rules ../rules.toml | head -1; echo ${{PIPESTATUS[0]}}"
    environment = environment_of(tmp_path)
    shell = ["bash", "-c", command]
    ended = subprocess.run(shell, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[-1] == "1"
    assert ended.stderr == ""


def test_an_interrupt_ends_with_130_and_leaves_nothing_half_written(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "rules.toml").write_text(RULES)
    command = [sys.executable, "-m", "keyturn", "scan", "-", "--rules", "../rules.toml", "-o", "../report.txt"]
    environment = environment_of(tmp_path)
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        # More than a pipe holds: when that was taken, the program reads.
        process.stdin.write(b"x" * 300_000)
        process.stdin.flush()
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == b""
        assert process.wait(120) == 130
    assert not (tmp_path / "report.txt").exists()


def test_rules_can_be_listed_shown_and_checked(run: Run, folder: Path) -> None:
    assert "keyturn-issued-key" in run("rules", "list", "--provider", "keyturn").stdout
    shown = json.loads(run("rules", "show", "keyturn-issued-key", "--json").stdout)
    assert shown["examples"]
    assert run("rules", "check", "../rules.toml").returncode == 0
    (folder / "bad.toml").write_text(RULES.replace("alnum:23", "alnum:24"))
    ended = run("rules", "check", "bad.toml")
    assert (ended.returncode, "finds its counter-example" in ended.stdout) == (1, True)
    (folder / "worse.toml").write_text(RULES.replace("(shop_", "((shop_"))
    assert run("rules", "check", "worse.toml").returncode == 2


def test_rules_of_gitleaks_are_read(run: Run, folder: Path) -> None:
    (folder / "gitleaks.toml").write_text(
        "[[rules]]\nid = 'shop'\ndescription = 'd'\nregex = '''shop_[0-9a-z]{24}'''\nkeywords = ['shop_']\n"
        "[[rules.allowlists]]\npaths = ['''^ok/''']\n"
    )
    (folder / "ok").mkdir()
    (folder / "ok" / "a.py").write_text(shop_key())
    (folder / "b.py").write_text(f"{shop_key('b')}  # gitleaks:allow\n{shop_key('c')}\n")
    ended = run("scan", "--rules", "gitleaks.toml", "--format", "json", rules=False)
    assert findings(ended) == [("b.py", 2)]
