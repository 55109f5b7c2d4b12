"""The rules that are written for other scanners, given to those of them that can be run."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from keyturn.kernel.tokenformat import mint
from keyturn.leaks.patterns import pattern_of
from keyturn.wire.leak_intakes import PatternFormat


def planted(folder: Path) -> Path:
    """Make a folder with one key of the keyspace in it, and one of another."""
    source = folder / "source"
    source.mkdir()
    key = mint("acme", "live").key.reveal()
    other = mint("other", "live").key.reveal()
    (source / "settings.py").write_text(f'KEY = "{key}"\nOTHER = "{other}"\n')
    return source


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def test_gitleaks_finds_a_key_by_its_rule(tmp_path: Path) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text(
        pattern_of("acme", "live", PatternFormat.GITLEAKS).replace("useDefault = true", "useDefault = false")
    )
    report = tmp_path / "report.json"
    command = [program("gitleaks"), "dir", str(planted(tmp_path)), "-c", str(rules), "-r", str(report), "--redact"]
    subprocess.run(command, check=False, capture_output=True, timeout=120)
    found = json.loads(report.read_text())
    assert [(one["RuleID"], one["StartLine"]) for one in found] == [("acme-live-key", 1)]


def test_kingfisher_finds_a_key_by_its_rule(tmp_path: Path) -> None:
    rules = tmp_path / "rules.yml"
    rules.write_text(pattern_of("acme", "live", PatternFormat.KINGFISHER))
    command = [program("kingfisher"), "scan", str(planted(tmp_path)), "--rules-path", str(rules)]
    command += ["--load-builtins=false", "--no-validate", "--no-update-check", "--format", "json", "--redact"]
    environment = os.environ | {"KF_RULE_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run(command, check=False, capture_output=True, timeout=120, env=environment)
    first = next(line for line in done.stdout.splitlines() if line.startswith(b"{"))
    assert [one["finding"]["line"] for one in json.loads(first)["findings"]] == [1]


@pytest.mark.parametrize(("form", "place"), [("trufflehog", "detectors"), ("kingfisher", "rules")])
def test_a_rule_file_is_yaml_whose_pattern_takes_the_keys(form: str, place: str) -> None:
    [rule] = yaml.safe_load(pattern_of("acme", "live", PatternFormat(form)))[place]
    pattern = rule["regex"]["key"] if form == "trufflehog" else rule["pattern"]
    key = mint("acme", "live").key.reveal()
    assert re.search(pattern, f"x={key}\\n")
    assert not re.search(pattern, mint("acme", "test").key.reveal())
    if form == "trufflehog":
        assert all(word in key for word in rule["keywords"])


def test_the_fields_of_a_custom_pattern_take_the_keys() -> None:
    fields = json.loads(pattern_of("acme", "live", PatternFormat.GITHUB))
    whole = f"(?:{fields['before_secret']})({fields['secret_format']})(?:{fields['after_secret']})"
    key = mint("acme", "live").key.reveal()
    found = re.search(whole.replace(r"\z", r"\Z"), f'"{key}"')
    assert found is not None
    assert found[1] == key


@pytest.mark.parametrize("prefix", ["Acme", "a'b", "", "a\nb"])
def test_a_prefix_that_is_none_is_written_nowhere(prefix: str) -> None:
    for form in PatternFormat:
        with pytest.raises(ValueError, match="prefix"):
            pattern_of(prefix, "live", form)
