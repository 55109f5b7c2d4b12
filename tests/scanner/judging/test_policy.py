from datetime import date

import pytest
from msgspec import structs

from keyturn.errors import InputError
from keyturn.scanner.model import Context, Finding, Owner
from keyturn.scanner.patterns import path_matches
from keyturn.scanner.policy import default_policy, read_policy
from keyturn.scanner.ruleset.model import Rule
from keyturn.wire.certainty import Certainty
from tests.scanner.scanning import NAMED, SHOP, SHOP_TEST, SITE, TODAY, finding


def at(rule: Rule, *contexts: Context, certainty: Certainty = Certainty.PROVIDER) -> Finding:
    return finding(rule, contexts=frozenset(contexts), certainty=certainty)


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (at(SHOP, Context.SOURCE), "block"),
        (at(SHOP, Context.TEST), "block"),
        (at(SHOP, Context.CLIENT_BUNDLE), "block"),
        (at(SITE, Context.CLIENT_BUNDLE), "allow"),
        (at(SITE, Context.SOURCE_MAP), "allow"),
        (at(SITE, Context.SOURCE), "warn"),
        (at(SHOP_TEST, Context.TEST), "warn"),
        (at(SHOP_TEST, Context.DOCUMENTATION), "warn"),
        (at(SHOP_TEST, Context.SOURCE), "block"),
        (at(NAMED, Context.TEST, certainty=Certainty.GENERIC), "warn"),
        (at(NAMED, Context.SOURCE, certainty=Certainty.GENERIC), "block"),
    ],
)
def test_without_a_file_a_key_that_may_be_of_production_is_blocked_everywhere(found: Finding, verdict: str) -> None:
    assert default_policy().verdict_of(found, TODAY) == verdict


def test_the_first_rule_that_applies_decides() -> None:
    policy = read_policy(
        """
        version = 1
        [[rule]]
        paths = ["deploy/**"]
        providers = ["sh*"]
        verdict = "warn"
        [[rule]]
        rules = ["shop-*"]
        verdict = "allow"
        """,
        "leaks.toml",
    )
    assert policy.verdict_of(finding(path="deploy/a/b.yaml"), TODAY) == "warn"
    assert policy.verdict_of(finding(path="b.yaml"), TODAY) == "allow"
    assert policy.verdict_of(finding(NAMED), TODAY) == "block"


def test_a_rule_holds_through_its_last_day() -> None:
    policy = read_policy('version = 1\n[[rule]]\nverdict = "allow"\nuntil = 2026-06-01\n', "leaks.toml")
    assert policy.verdict_of(finding(), date(2026, 6, 1)) == "allow"
    assert policy.verdict_of(finding(), date(2026, 6, 2)) == "block"


def test_a_key_of_an_environment_that_nobody_told_is_unknown() -> None:
    policy = read_policy('version = 1\n[[rule]]\nverdict = "warn"\nenvironments = ["unknown"]\n', "leaks.toml")
    told = structs.replace(finding(), environment="production", owner=Owner(environment="production"))
    assert policy.verdict_of(finding(), TODAY) == "warn"
    assert policy.verdict_of(told, TODAY) == "block"


def test_without_defaults_what_no_rule_applies_to_is_blocked() -> None:
    policy = read_policy("version = 1\ndefaults = false\n", "leaks.toml")
    assert policy.verdict_of(at(SITE, Context.CLIENT_BUNDLE), TODAY) == "block"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("version = 2", "version 2"),
        ("", "version None"),
        ("version = 1\n[[rule]\n", "line 2"),
        ('version = 1\n\n[[rule]]\nverdict = "block"\n\n[[rule]]\nverdict = "no"\n', "line 7, rule 2"),
        ('version = 1\n[[rule]]\nverdict = "block"\ncontext = ["test"]\n', "line 4, rule 1: object contains unknown"),
        (
            'version = 1\n[[rule]]\nverdict = "block"\ncontexts = ["tests"]\n',
            "line 4, rule 1: invalid enum value 'tests'",
        ),
        ('version = 1\n[[rule]]\nname = "x"\n', "rule 1: object missing required field `verdict`"),
        ("version = 1\nrules = 3\n", "line 2"),
        ('version = 1\n[[rule]]\nverdict = "block"\nuntil = "soon"\n', "line 4, rule 1"),
    ],
)
def test_a_mistake_is_named_by_line_rule_and_field(text: str, told: str) -> None:
    with pytest.raises(InputError) as failed:
        read_policy(text, "leaks.toml")
    assert "leaks.toml" in failed.value.message
    assert told in failed.value.message


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("*.pem", "a/b/c.pem", True),
        ("vendor/", "a/vendor/b", True),
        ("src/**", "src/a/b", True),
        ("src/**", "lib/src/a", False),
        ("src/*.py", "src/a/b.py", False),
        ("**/dist/*.js", "dist/a.js", True),
        ("**/dist/*.js", "a/b/dist/a.js", True),
        ("a.b", "aXb", False),
        ("**" * 100 + "x", "y" * 5000, False),
    ],
)
def test_patterns_of_paths(pattern: str, path: str, matches: bool) -> None:  # noqa: FBT001 -- a column of the table
    assert path_matches(pattern, path) is matches
