from __future__ import annotations

from pathlib import Path

import pytest

from keyturn.scanner.ruleset.samples import expand
from tests.scanner.gitleaks.binary import gitleaks, ours, theirs

PLAIN = """
[[rules]]
id = "acme-key"
regex = '''acme_[a-z0-9]{20}'''
keywords = ["ACME_"]

[[rules]]
id = "shop-token"
description = "Named by a word that need not stand in the match"
regex = '''(?i)token\\s*[:=]\\s*["']?([0-9a-f]{24})(?:["'\\n;]|$)'''
keywords = ["shopware"]

[[rules]]
id = "dated-key"
regex = '''(key)-([[:alnum:]]{8})-(?P<last>[0-9]{4})'''
secretGroup = 2
entropy = 2.5

[[rules]]
id = "first-group-that-matched"
regex = '''one=(x{4,9})?|two=([a-z]{6,12})\\z'''

[[rules]]
id = "block"
regex = '''(?i)-----BEGIN[ A-Z]{0,20}-----[\\s\\S-]{20,}?-----END'''

[[rules]]
id = "after-a-newline"
regex = '''\\nlead:[a-z]{5}'''

[[rules]]
id = "mid-flag"
regex = '''Alpha(?i:beta)(?i)GAMMA\\d+'''
"""
ALLOWED = """
[allowlist]
paths = ['''vendor/''', '''(?i)\\.MD$''']
regexes = ['''^acme_0+$''']
stopwords = ["PlaceHolder"]

[[rules]]
id = "acme-key"
regex = '''acme_[a-z0-9]{20}'''
[rules.allowlist]
regexTarget = "line"
regexes = ['''harmless''']

[[rules]]
id = "named"
regex = '''(?i)secret\\s*=\\s*"([a-z0-9]{12,40})"'''
[[rules.allowlists]]
condition = "AND"
paths = ['''tests/''']
stopwords = ["dummy"]
[[rules.allowlists]]
regexTarget = "match"
regexes = ['''SECRET''']
"""
TARGETED = """
[[rules]]
id = "aaa"
regex = '''aaa-([0-9a-f]{16})'''
[[rules]]
id = "bbb"
regex = '''bbb-([0-9a-f]{16})'''
[[rules]]
id = "generic-thing"
regex = '''(?i)thing\\w{0,4} = "?(?:bbb-)?([\\w-]{10,40})'''
[[allowlists]]
targetRules = ["bbb"]
regexes = ['''^0''']
[[allowlists]]
condition = "&&"
stopwords = ["ff"]
regexes = ['''ff$''']
"""
COMPOSED = """
[[rules]]
id = "near-lines"
regex = '''pass-([a-z0-9]{8})'''
[[rules.required]]
id = "user"
withinLines = 2
[[rules]]
id = "near-columns"
regex = '''col-([a-z0-9]{8})'''
[[rules.required]]
id = "user"
withinLines = 50
withinColumns = 10
[[rules]]
id = "anywhere"
regex = '''any-([a-z0-9]{8})'''
[[rules.required]]
id = "user"
[[rules.required]]
id = "hidden"
[[rules]]
id = "user"
regex = '''user-([a-z0-9]{8})'''
[[rules]]
id = "hidden"
regex = '''hidden-([a-z0-9]{8})'''
skipReport = true
"""
PATHS = """
[[rules]]
id = "container"
path = '''\\.p12$'''
[[rules]]
id = "only-there"
path = '''(?:^|/)conf/'''
regex = '''k=([a-z0-9]{10})'''
keywords = "k="
"""
EXTENDING = """
[extend]
path = "RULES/inherited.toml"
disabledRules = ["unwanted"]
[[rules]]
id = "shared"
entropy = 3
keywords = ["other"]
[[rules.allowlists]]
stopwords = ["sample"]
[[rules]]
id = "own"
regex = '''own-([a-z0-9]{12})'''
"""
INHERITED = """
[[rules]]
id = "shared"
description = "inherited"
regex = '''shared-([a-z0-9]{12})'''
keywords = ["shared-"]
[[rules]]
id = "unwanted"
regex = '''unwanted-([a-z0-9]{12})'''
[[rules]]
id = "kept"
regex = '''kept-([a-z0-9]{12})'''
[[allowlists]]
paths = ['''skipped/''']
[[allowlists]]
targetRules = ["kept"]
regexes = ['''.''']
"""
FILES = {
    "plain.txt": "acme_{{alnum:20}}\nx = acme_{{alnum:20}}.\nACME_{{alnum:20}}\nacme_{{alnum:19}}\n",
    "two/on-one-line.txt": "acme_{{alnum:20}} acme_{{alnum:20}} key-{{base62:8}}-{{digits:4}} key-aaaaaaaa-1234",
    "no-word.txt": "token: {{hex:24}}\n",
    "word-elsewhere.txt": 'ShopWare\n\ntoken: {{hex:24}}\nTOKEN="{{hex:24}}"\ntoken = {{hex:24}}',
    "groups.txt": "one=xxxxx one= two={{lower:8}}\ntwo={{lower:8}}",
    "block.pem": "a\n-----BEGIN A KEY-----\n{{base64:64}}\n{{base64:64}}\n-----END A KEY-----\nb\n",
    "leading.txt": "x\nlead:abcde\nlead:fghij",
    "flags.txt": "AlphaBETAgamma12\nalphabetagamma12\nAlphabetaGAMMA3",
    "vendor/lib.js": 'acme_{{alnum:20}} secret = "{{alnum:20}}"',
    "README.md": "acme_{{alnum:20}}",
    "src/app.js": 'acme_00000000000000000000 acme_{{alnum:20}} // harmless\nsecret = "{{alnum:20}}"'
    '\nSECRET = "{{alnum:20}}"'
    '\nsecret = "{{alnum:8}}placeholder{{alnum:8}}"\nsecret = "{{alnum:8}}dummy{{alnum:8}}"\n',
    "tests/app.js": 'secret = "{{alnum:8}}dummy{{alnum:8}}"\nsecret = "{{alnum:20}}" gitleaks:allow\n',
    "a.cfg": "aaa-{{hex:16}}\nbbb-0{{hex:15}}\nbbb-1{{hex:15}}\naaa-{{hex:14}}ff\n",
    "b.txt": 'aaa-{{hex:14}}ff\nthing = bbb-1{{hex:15}}\nthing = "{{hex:16}}" bbb-1{{hex:15}}\n'
    'thing = "{{base62:30}}"\n',
    "near.txt": "user-{{alnum:8}}\npass-{{alnum:8}}\n\n\npass-{{alnum:8}}\n",
    "columns.txt": "   user-{{alnum:8}}\n col-{{alnum:8}}\n" + " " * 40 + "col-{{alnum:8}}\n",
    "all.txt": "any-{{alnum:8}}\nuser-{{alnum:8}}\n" + "\n" * 80 + "hidden-{{alnum:8}}\nany-{{alnum:8}}",
    "some.txt": "any-{{alnum:8}} user-{{alnum:8}}",
    "certs/a.p12": "\0\1\2",
    "conf/a": "k={{alnum:10}}",
    "config/a": "k={{alnum:10}}",
    "skipped/x.txt": "own-{{alnum:12}}",
    "extended.txt": "shared-{{alnum:12}} shared-aaaaaaaaaaaa\nunwanted-{{alnum:12}}\nkept-{{alnum:12}}\n"
    "own-{{alnum:12}}\nshared-sample{{alnum:6}}\n",
}


def planted(folder: Path) -> Path:
    for name, template in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(expand(template, name))
    return folder


@pytest.mark.parametrize(
    ("text", "least"),
    [(PLAIN, 14), (ALLOWED, 4), (TARGETED, 5), (COMPOSED, 6), (PATHS, 2), (EXTENDING, 3)],
    ids=["plain", "allowlists", "targeted", "composed", "paths", "extending"],
)
def test_the_same_rules_find_the_same_places_and_secrets(tmp_path: Path, text: str, least: int) -> None:
    binary = gitleaks()
    tree, rules = planted(tmp_path / "tree"), tmp_path / "rules" / "rules.toml"
    rules.parent.mkdir()
    (rules.parent / "inherited.toml").write_text(INHERITED)
    rules.write_text(text.replace("RULES", str(rules.parent)))
    expected = theirs(binary, rules, tree)
    assert len(expected) >= least, expected
    assert ours(rules, tree) == expected
