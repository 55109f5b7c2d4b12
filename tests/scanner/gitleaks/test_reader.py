from __future__ import annotations

import pytest

from keyturn.errors import InputError, TooLargeError
from keyturn.scanner.ruleset.gitleaks import read_gitleaks
from keyturn.scanner.ruleset.model import Allowlist, Required, Rule
from keyturn.scanner.tables import CHARACTERS_MAX

ONE = "[[rules]]\nid = 'one'\nregex = 'a(b)c'\n"


def rule(text: str) -> Rule:
    return read_gitleaks(text, name="rules.toml").rules[0]


def refusal(text: str) -> str:
    with pytest.raises(InputError) as caught:
        read_gitleaks(text, name="rules.toml")
    return caught.value.message


def test_a_rule_keeps_all_that_it_says() -> None:
    read = rule(
        ONE + "description = 'One'\nsecretGroup = 1\nentropy = 3.5\nkeywords = ['Ab', 'ab']\npath = '[.]py$'\n"
        "tags = ['x']\nskipReport = true\n[[rules.required]]\nid = 'one'\nwithinLines = 3\n"
    )
    assert (read.id, read.title, read.regex, read.path) == ("one", "One", "a(b)c", "[.]py$")
    assert (read.secret_group, read.entropy, read.keywords, read.component) == (1, 3.5, ("ab",), True)
    assert read.requires == (Required(rule="one", within_lines=3),)


def test_a_rule_without_a_description_is_titled_by_its_id() -> None:
    assert rule(ONE).title == "one"


def test_keys_are_taken_in_any_case_and_values_of_a_near_type() -> None:
    read = rule("[[Rules]]\nID = 'one'\nRegex = 'a(b)c'\nSecretgroup = '1'\nEntropy = '2.5'\nkeyWords = 'x,y'\n")
    assert (read.secret_group, read.entropy, read.keywords) == (1, 2.5, ("x", "y"))


@pytest.mark.parametrize("form", ["[rules.allowlist]", "[[rules.allowlists]]", "[rules.allowLists]"])
def test_both_forms_of_a_rules_allowlist_are_read(form: str) -> None:
    read = rule(
        ONE + form + "\ncondition = 'and'\nregexTarget = 'line'\nregexes = ['x']\npaths = ['y']\n"
        "commits = [' AbC ']\nstopwords = ['Word', 'word']\n"
    )
    expected = Allowlist(
        condition="all", target="line", regexes=("x",), paths=("y",), commits=("abc",), stopwords=("word",)
    )
    assert read.allow == (expected,)


@pytest.mark.parametrize("form", ["[allowlist]", "[[allowlists]]"])
def test_both_forms_of_the_global_allowlist_are_read(form: str) -> None:
    read = read_gitleaks(form + "\npaths = ['vendor/']\n" + ONE, name="rules.toml")
    assert read.allow == (Allowlist(paths=("vendor/",)),)
    assert read.inline_allow == ("gitleaks:allow",)


def test_an_allowlist_with_targets_holds_for_them_alone() -> None:
    read = read_gitleaks(
        "[[allowlists]]\ntargetRules = ['two']\nstopwords = ['x']\n" + ONE + ONE.replace("one", "two"), name="r"
    )
    assert read.allow == ()
    assert [one.allow for one in read.rules] == [(), (Allowlist(stopwords=("x",)),)]


def test_of_two_rules_with_one_id_the_later_counts() -> None:
    read = read_gitleaks(ONE + ONE.replace("a(b)c", "xyz"), name="r")
    assert [one.regex for one in read.rules] == ["xyz"]


def test_an_extended_file_is_merged_below_and_not_deeper_than_gitleaks_does() -> None:
    files = {
        "one.toml": "[extend]\npath = 'two.toml'\n[[rules]]\nid = 'b'\nregex = 'b1'\n[[rules]]\n"
        "id = 'c'\nregex = 'c1'\nkeywords = ['k1']\nentropy = 2\n[[allowlists]]\npaths = ['p1']\n"
        "[[allowlists]]\ntargetRules = ['b']\nstopwords = ['lost']\n",
        "two.toml": "[extend]\npath = 'three.toml'\n[[rules]]\nid = 'd'\nregex = 'd2'\n",
    }
    read = read_gitleaks(
        "[extend]\npath = 'one.toml'\ndisabledRules = ['b']\n"
        "[[rules]]\nid = 'c'\nkeywords = ['k0']\ndescription = 'C'\n[rules.allowlist]\nstopwords = ['w']\n",
        name="zero.toml",
        read_extended=files.__getitem__,
    )
    by_id = {one.id: one for one in read.rules}
    assert set(by_id) == {"c", "d"}
    merged = by_id["c"]
    assert (merged.regex, merged.entropy, merged.title, merged.keywords) == ("c1", 2, "C", ("k1", "k0"))
    assert merged.allow == (Allowlist(stopwords=("w",)),)
    assert read.allow == (Allowlist(paths=("p1",)),)


def test_the_default_file_is_the_users_own_copy() -> None:
    read = read_gitleaks("[extend]\nuseDefault = true\n", name="r", default=lambda: ONE)
    assert [one.id for one in read.rules] == ["one"]
    with pytest.raises(InputError, match="do not come with Keyturn") as caught:
        read_gitleaks("[extend]\nuseDefault = true\n", name="r")
    assert "--gitleaks-default" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[[rules]]\nregex = 'x'\n", "rules 1: the rule has no id"),
        ("[[rules]]\nid = 'one'\n", "rule one of rules.toml has neither regex nor path"),
        ("[[rules]]\nid = 'one'\nregex = '(?=x)'\n", "rule one of rules.toml: regex is no regular expression"),
        ("[[rules]]\nid = 'one'\nregex = '(a{1000}){1000}'\n", "rule one of rules.toml: regex is no regular"),
        ("[[rules]]\nid = 'one'\nregex = 'x'\npath = '('\n", "rule one of rules.toml: path is no regular"),
        ("[[rules]]\nid = 'one'\nregex = 'x'\nsecretGroup = 1\n", "secretGroup is 1, and its regex has 0 groups"),
        ("[[rules]]\nid = 'one'\nregex = 'x'\nsecretGroup = -1\n", "secretGroup is -1"),
        (
            "[[rules]]\nid = 'one'\nregex = 'x'\nentropy = 'high'\n",
            "rule one of rules.toml: entropy has to be a number",
        ),
        ("[[rules]]\nid = 'one'\nregex = 'x'\nentropy = nan\n", "entropy has to be a number"),
        ("[[rules]]\nid = 'one'\nregex = ['x']\n", "regex has to be text"),
        ("[[rules]]\nid = 'one'\nregex = 'x'\nskipReport = 'maybe'\n", "skipreport has to be true or false"),
        ("rules = ['x']\n", "rules has to be an array of tables"),
        ("extend = 'x'\n", "extend has to be a table"),
        (ONE + "[rules.allowlist]\n", "an allowlist needs commits, paths, regexes or stopwords"),
        (ONE + "[rules.allowlist]\nregexes = ['(']\n", "rule one of rules.toml, allowlist: regexes is no regular"),
        (ONE + "[[rules.allowlists]]\nregexes = ['x']\ncondition = 'XOR'\n", "condition is XOR"),
        (ONE + "[[rules.allowlists]]\nregexes = ['x']\nregexTarget = 'file'\n", "regexTarget is file"),
        (ONE + "[rules.allowlist]\npaths=['x']\n[[rules.allowlists]]\npaths=['x']\n", "only one of them can be used"),
        (ONE + "[[rules.required]]\nid = 'two'\n", "rule one of rules.toml requires two, and there is none"),
        (ONE + "[[rules.required]]\nwithinLines = 2\n", "what is required has no id"),
        (ONE + "[[rules.required]]\nid = 'one'\nwithinLines = 1e30\n", "withinlines is too large"),
        ("[[allowlists]]\ntargetRules = ['two']\npaths = ['x']\n" + ONE, "targets the rule two, and there is none"),
        ("[extend]\npath = 'x'\nuseDefault = true\n", "a file extends a path or the default, not both"),
        ("[extend]\npath = 'x'\n", "it extends x, and files that are extended are not read here"),
        ("title = 'nothing'\n", "rules.toml holds no rule"),
        ("= = =", "rules.toml is not TOML"),
        ("a = " + "[" * 5000, "rules.toml is nested too deeply"),
    ],
)
def test_a_refusal_says_which_rule_and_why(text: str, told: str) -> None:
    assert told in refusal(text)


def test_a_file_that_is_too_long_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(TooLargeError):
        read_gitleaks("#" * (CHARACTERS_MAX + 1), name="r")
