import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyturn.kernel.tokenformat import mint
from keyturn.scanner.masking import LINE_BYTES_MAX, literal_prefixes, masked, masked_line
from keyturn.scanner.ruleset.load import shipped_rules
from keyturn.scanner.ruleset.model import Rule
from tests.scanner.scanning import SHOP, scanned, shop_key


@pytest.mark.parametrize(
    ("regex", "expected"),
    [
        (r"\b(ghx_[0-9A-Za-z]{36})\b", ("ghx_",)),
        (r"\b((?:sk|rk)_live_[0-9a-z]{24})", ("rk_live_", "sk_live_")),
        (r"(?i)acme.{0,9}key\s*=\s*([0-9a-f]{32})", ()),
        (r"-----BEGIN [A-Z ]+KEY", ("-----BEGIN ",)),
        (r"(xo[bp]-a?b)", ("xo",)),
        (r"(?P<all>ab\.c[d])", ("ab.c",)),
        (r"[(](key_\d+)", ("key_",)),
    ],
)
def test_only_what_a_rule_gives_away_itself_is_shown(regex: str, expected: tuple[str, ...]) -> None:
    assert literal_prefixes(regex, 0) == expected


def test_a_masked_value_has_the_prefix_and_the_length() -> None:
    assert masked(SHOP, shop_key().encode()) == "shop_…(29 characters)"


def test_a_secret_that_is_nearly_its_prefix_is_not_shown() -> None:
    assert masked(Rule(id="a-b", title="t", regex="(hunter[0-9]?)"), b"hunter2") == "…(7 characters)"


def test_no_shipped_rule_shows_the_end_of_a_secret() -> None:
    """At most the first half of a secret is ever shown, and no more than the rule itself says."""
    for rule in shipped_rules():
        for prefix in literal_prefixes(rule.regex, rule.secret_group):
            secret = prefix + "Zq9" * 3
            shown = masked(rule, secret.encode()).partition("…")[0]
            assert secret.startswith(shown)
            assert 2 * len(shown) <= len(secret)


def test_every_secret_of_a_line_is_masked_whether_it_is_reported_or_not() -> None:
    """A line is shown for one finding; the others on it must not leak through it."""
    one, two = shop_key("a"), shop_key("b")
    report = scanned({"a.py": f"pair('{one}', '{two}')  # once more: {one} and {one[:20]}\n"})
    assert len(report.findings) == 2
    for finding in report.findings:
        assert one not in finding.line_text
        assert two not in finding.line_text
        assert finding.line_text.startswith("pair('shop_…(29 characters)', 'shop_…(29 characters)')")


def test_a_long_line_is_cut_and_what_is_cut_in_two_is_masked() -> None:
    key, other = shop_key("a"), shop_key("b")
    padding = " " * (LINE_BYTES_MAX // 2 - 10)
    report = scanned({"a.js": f"{'x' * 5000}('{other}'){padding}'{key}'{padding}('{other}'){'y' * 5000}\n"})
    assert {len(finding.line_text) < 3 * LINE_BYTES_MAX for finding in report.findings} == {True}
    for finding in report.findings:
        assert not any(other[at : at + 6] in finding.line_text for at in range(5, len(other) - 6))


def test_a_secret_of_several_lines_is_masked_on_its_first_line() -> None:
    body = "\n".join("Zm9vYmFyYmF6" * 3 for _ in range(4))
    (found,) = scanned({"id": f"key: -----BEGIN KEY-----\n{body}\n-----END KEY----- # mine\n"}).findings
    assert found.line_text.startswith("key: -----BEGIN KEY-----…(")
    assert "Zm9v" not in found.line_text
    assert (found.place.line, found.place.end_line) == (1, 6)


@given(st.binary(max_size=80), st.integers(-5, 90), st.integers(1, 40), st.binary(min_size=4, max_size=6))
def test_what_a_span_covers_is_never_in_the_line(window: bytes, start: int, length: int, secret: bytes) -> None:
    marked = window[:40] + secret + window[40:]
    text = masked_line(marked, [(start, start + length, "M")], [secret])
    assert all(character.isprintable() for character in text)
    if secret.isalnum() and secret.isascii() and b"M" not in secret:
        assert secret.decode() not in text.replace("M", "\0").replace("…", "\0")


@pytest.mark.parametrize("shift", range(3))
@pytest.mark.parametrize("around", [0, 100, 150])
def test_a_line_does_not_show_its_secret_in_another_encoding(shift: int, around: int) -> None:
    """What stands beside a key may be the same key, encoded, where no rule looks for it."""
    key = shop_key()
    forms = [
        base64.b64encode(b"x" * shift + key.encode()).decode(),
        base64.urlsafe_b64encode(b"?" * shift + key.encode()).decode(),
        key.encode().hex(),
        key.encode().hex().upper(),
    ]
    for form in forms:
        (found,) = scanned({"a.txt": f"{key} {'-' * around} x {form} end"}).findings
        assert key not in found.line_text
        assert not any(form[at : at + 8] in found.line_text for at in range(8, len(form) - 8))


def test_a_key_of_ours_is_named_by_its_public_id() -> None:
    """That is what its owner and the server know it by; nothing of the secret behind it is shown."""
    rule = next(one for one in shipped_rules() if one.checksum == "keyturn")
    minted = mint("acme", "live")
    key = minted.key.reveal()
    assert masked(rule, key.encode()) == f"acme_live_{minted.version_id}…({len(key)} characters)"
    assert masked(rule, key[:-1].encode()) == f"…({len(key) - 1} characters)"
