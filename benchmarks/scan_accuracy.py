"""How much of what it should find the scanner finds, and how much else.

    python -m benchmarks.scan_accuracy [--short] [--json FILE]

    syntaxes    every shipped rule's examples, and one value of each, written in thirty syntaxes; and what is no key in
                the same places: placeholders, digests, identifiers, references and the rules' counter-examples
    published   the examples in the rule files of another scanner, in YAML: the folder in SCAN_RULE_FILES
    noise       findings for each MB of open source: the folders in SCAN_SOURCES, divided by colons; its findings were
                not looked at one by one, so that a true key among them counts as noise too

What is not given is left out.  A value counts as found when a finding's secret holds it or is held by it.
"""

from __future__ import annotations

import base64
import json
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.report import arguments, finish
from keyturn.scanner.contents.budget import Budget
from keyturn.scanner.engine.open import open_engine
from keyturn.scanner.examination import Hit, examine
from keyturn.scanner.model import Document
from keyturn.scanner.ruleset.checksums import CHECKSUMS
from keyturn.scanner.ruleset.load import shipped_rules
from keyturn.scanner.ruleset.samples import expand

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from keyturn.scanner.engine.detect import Engine
    from keyturn.scanner.ruleset.model import SampledRule

SHOWN: Final = 40


def _escaped(text: str) -> str:
    return json.dumps(text)[1:-1]


SYNTAXES: Final[dict[str, tuple[str, Callable[[str], str]]]] = {
    "shell": ("deploy.sh", lambda v: f"export PROVIDER_TOKEN='{v}'\n"),
    "environment file": (".env", lambda v: f"PROVIDER_TOKEN={v}\nNEXT=1\n"),
    "dockerfile": ("Dockerfile", lambda v: f"FROM base\nENV PROVIDER_TOKEN {v}\n"),
    "compose": ("docker-compose.yml", lambda v: f"services:\n  web:\n    environment:\n      - PROVIDER_TOKEN={v}\n"),
    "yaml": ("values.yaml", lambda v: f"provider:\n  token: {v}\n"),
    "quoted yaml": ("values.yaml", lambda v: f'provider:\n  token: "{v}" # live\n'),
    "json": ("settings.json", lambda v: f'{{"provider": {{"token": "{_escaped(v)}"}}}}\n'),
    "json in json": ("event.json", lambda v: json.dumps({"body": json.dumps({"token": v})})),
    "toml": ("settings.toml", lambda v: f'[provider]\ntoken = "{v}"\n'),
    "ini": ("settings.ini", lambda v: f"[provider]\ntoken = {v}\n"),
    "properties": ("app.properties", lambda v: f"provider.token={v}\n"),
    "xml element": ("app.xml", lambda v: f"<config><token>{v}</token></config>\n"),
    "xml attribute": ("app.xml", lambda v: f'<add key="Token" value="{v}" />\n'),
    "plist": ("Info.plist", lambda v: f"<key>Token</key>\n<string>{v}</string>\n"),
    "hcl": ("main.tf", lambda v: f'provider "x" {{\n  token = "{v}"\n}}\n'),
    "python": ("app.py", lambda v: f'TOKEN = "{v}"\n'),
    "python dictionary": ("app.py", lambda v: f"client(headers={{'X-Token': '{v}'}})\n"),
    "javascript": ("app.js", lambda v: f"const token = '{v}';\n"),
    "minified javascript": ("app.min.js", lambda v: f'!function(e){{var t="{v}",n=e(t)}}(window);'),
    "template string": ("app.ts", lambda v: f"const headers = {{ token: `{v}` }}\n"),
    "source map": ("app.js.map", lambda v: json.dumps({"sourcesContent": [f'const t = "{v}";\n']})),
    "go": ("main.go", lambda v: f'\ttoken := "{v}"\n'),
    "java": ("App.java", lambda v: f'  private static final String TOKEN = "{v}";\n'),
    "c": ("main.c", lambda v: f'#define TOKEN "{v}"\n'),
    "c#": ("App.cs", lambda v: f'  var token = @"{v}";\n'),
    "ruby": ("app.rb", lambda v: f"token = '{v}'\nconfig[:token] => '{v}'\n"),
    "php": ("config.php", lambda v: f"<?php define('TOKEN', '{v}');\n"),
    "rust": ("main.rs", lambda v: f'const TOKEN: &str = "{v}";\n'),
    "sql": ("seed.sql", lambda v: f"UPDATE settings SET token = '{v}' WHERE id = 1;\n"),  # noqa: S608 -- a text to scan
    "header": ("request.http", lambda v: f"GET / HTTP/1.1\nX-Token: {v}\n\n"),
    "url": ("links.txt", lambda v: f"https://service.test/v1/items?token={v}&page=2\n"),
    "command line": ("history.txt", lambda v: f"$ tool --token {v} --verbose\n"),
    "html": ("page.html", lambda v: f"<input type=hidden name=token value={v}>\n"),
    "markdown": ("notes.md", lambda v: f"Use `{v}` as the token.\n"),
    "csv": ("export.csv", lambda v: f"1,alice,{v},2024\n"),
    "ci log": ("build.log", lambda v: f"\x1b[32m2024-01-01T00:00:00Z\x1b[0m token=\x1b[1m{v}\x1b[0m\n"),
    "base64": ("secret.yaml", lambda v: f"data:\n  token: {base64.b64encode(v.encode()).decode()}\n"),
    "utf-16": ("settings.reg", lambda v: f'"Token"="{v}"\r\n'),
}
"""A file's name and what writes a value into it."""

NEGATIVES: Final = (
    "your-token-here",
    "<your token>",
    "${PROVIDER_TOKEN}",
    "{{ provider_token }}",
    "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    "changeme",
    "REPLACE_WITH_YOUR_TOKEN",
    "00000000000000000000000000000000",
    "process.env.PROVIDER_TOKEN",
    "os.environ['PROVIDER_TOKEN']",
    "vault:secret/data/provider#token",
    "{{uuid}}",
    "sha256:{{hex:64}}",
    "sha512-{{base64:86}}==",
    "arn:aws:secretsmanager:eu-west-1:123456789012:secret:provider",
    "projects/example/secrets/provider/versions/3",
    "TokenAuthenticationMiddlewareFactory",
    "get_provider_token_from_keychain",
    "/run/secrets/provider_token",
    "https://service.test/oauth/token",
    "2024-01-01T00:00:00.000Z",
    "-----BEGIN PUBLIC KEY-----",
    "application/x-www-form-urlencoded",
    "abcdefghijklmnopqrstuvwxyz0123456789",
    "SGVsbG8sIFdvcmxkISBUaGlzIGlzIGEgdGV4dC4=",
)


def _scan(engine: Engine, name: str, data: bytes) -> list[Hit]:
    return [one for one in examine(Document(data, name), engine, Budget()) if isinstance(one, Hit)]


def _has(hits: list[Hit], value: str) -> bool:
    sought = value.encode()
    return any(sought in hit.secret or (len(hit.secret) >= 8 and hit.secret in sought) for hit in hits)


def _expanded(rule: SampledRule, template: str, seed: str) -> str:
    return expand(template, seed, CHECKSUMS[rule.checksum].check_of if rule.checksum else None)


def _values(engine: Engine, rules: list[SampledRule]) -> Iterator[tuple[SampledRule, str]]:
    """Yield a value for each rule that knows its keys by their own format: bare, it is still found by the rule."""
    for rule in rules:
        if rule.generic or rule.path or rule.requires or rule.component:
            continue
        for template in rule.examples:
            found = [
                one for one in engine.detect(_expanded(rule, template, rule.id).encode()) if one.rule.id == rule.id
            ]
            text = _expanded(rule, template, rule.id).encode()
            value = text[found[0].secret_start : found[0].secret_end] if found else b""
            plain = value.isascii() and not set(value) & set(b"\"'`\\<>&\n\r\t {}")
            if plain and any(one.rule.id == rule.id for one in engine.detect(value)):
                yield rule, value.decode()
                break


def _positives(engine: Engine, rules: list[SampledRule]) -> dict[str, Any]:
    missed: Counter[str] = Counter()
    by_rule: Counter[str] = Counter()
    tried = 0
    values = list(_values(engine, rules))
    for rule, value in values:
        for syntax, (name, write) in SYNTAXES.items():
            tried += 1
            data = write(value).encode("utf-16" if syntax == "utf-16" else "utf-8")
            if not _has(_scan(engine, name, data), value):
                missed[syntax] += 1
                by_rule[rule.id] += 1
    return {
        "rules": len(values),
        "syntaxes": len(SYNTAXES),
        "tried": tried,
        "found": tried - missed.total(),
        "recall": round(1 - missed.total() / tried, 5),
        "missed_by_syntax": dict(missed.most_common()),
        "missed_by_rule": dict(by_rule.most_common(SHOWN)),
    }


def _examples(engine: Engine, rules: list[SampledRule]) -> dict[str, Any]:
    tried = found = 0
    missed = []
    for rule in rules:
        if rule.path:
            continue
        for template in rule.examples:
            tried += 1
            text = _expanded(rule, template, f"accuracy {rule.id}").encode()
            if _scan(engine, "", text):
                found += 1
            else:
                missed.append(rule.id)
    return {"tried": tried, "found": found, "recall": round(found / tried, 5), "missed": sorted(set(missed))[:SHOWN]}


def _negatives(engine: Engine, rules: list[SampledRule]) -> dict[str, Any]:
    wrong: Counter[str] = Counter()
    tried = 0
    for number, template in enumerate(NEGATIVES):
        value = expand(template, f"negative {number}")
        for syntax, (name, write) in SYNTAXES.items():
            tried += 1
            data = write(value).encode("utf-16" if syntax == "utf-16" else "utf-8")
            wrong.update(f"{hit.rule.id}: {template}" for hit in _scan(engine, name, data))
    for rule in rules:
        for template in rule.counter_examples:
            tried += 1
            text = _expanded(rule, template, rule.id).encode()
            wrong.update(f"{rule.id}" for hit in _scan(engine, "", text) if hit.rule.id == rule.id)
    return {"tried": tried, "reported": wrong.total(), "which": dict(wrong.most_common(SHOWN))}


def _published(engine: Engine, folder: Path) -> dict[str, Any]:
    """Measure on the examples of rule files; they are read here and kept nowhere."""
    import yaml

    tried = found = negatives = reported = 0
    missed: Counter[str] = Counter()
    false: Counter[str] = Counter()
    for path in sorted(folder.rglob("*.y*ml")):
        for rule in (yaml.safe_load(path.read_text("utf-8")) or {}).get("rules") or ():
            for example in rule.get("examples") or ():
                tried += 1
                hit = bool(_scan(engine, "", str(example).encode()))
                found += hit
                missed[rule["id"]] += not hit
            for example in rule.get("negative_examples") or ():
                negatives += 1
                hit = bool(_scan(engine, "", str(example).encode()))
                reported += hit
                false[rule["id"]] += hit
    return {
        "examples": tried,
        "found": found,
        "recall": round(found / max(1, tried), 4),
        "negatives": negatives,
        "reported": reported,
        "missed_by_rule": dict((+missed).most_common(SHOWN)),
        "reported_by_rule": dict((+false).most_common(SHOWN)),
    }


def _noise(engine: Engine, folders: list[Path]) -> dict[str, Any]:
    size = 0
    kinds: Counter[str] = Counter()
    rules: Counter[str] = Counter()
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_symlink() or not path.is_file():
                continue
            data = path.read_bytes()
            size += len(data)
            for hit in _scan(engine, str(path.relative_to(folder)), data):
                kinds[hit.certainty] += 1
                rules[hit.rule.id] += 1
    megabytes = size / 1e6
    return {
        "MB": round(megabytes, 1),
        "findings": kinds.total(),
        "per_MB": round(kinds.total() / megabytes, 3),
        "generic_per_MB": round(kinds["generic"] / megabytes, 3),
        "by_rule": dict(rules.most_common(SHOWN)),
    }


def measure(*, short: bool = False) -> dict[str, Any]:
    """Run the benchmark and return its result."""
    engine = open_engine(cache=None)
    rules = shipped_rules()[:: 10 if short else 1]
    result: dict[str, Any] = {
        "syntaxes": _positives(engine, rules),
        "examples": _examples(engine, rules),
        "negatives": _negatives(engine, rules),
    }
    if given := os.environ.get("SCAN_RULE_FILES"):
        result["published"] = _published(engine, Path(given))
    if given := os.environ.get("SCAN_SOURCES"):
        result["noise"] = _noise(engine, [Path(one) for one in given.split(":")])
    return result


def show(result: dict[str, Any]) -> None:
    """Print the result, a line for each part."""
    for name, part in result.items():
        told = ", ".join(f"{key} {value}" for key, value in part.items() if not isinstance(value, dict | list))
        print(f"  {name:<10}{told}")
        for key, value in part.items():
            if isinstance(value, dict | list) and value:
                print(f"      {key}: {json.dumps(value)[:600]}")


if __name__ == "__main__":
    given_arguments = arguments(__doc__)
    finish("scan_accuracy", measure(short=given_arguments.short), show, given_arguments)
