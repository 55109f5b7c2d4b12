from collections.abc import Callable
from typing import Any

import pytest

from keyturn.errors import InputError, TooLargeError
from keyturn.scanner.baseline import read_baseline
from keyturn.scanner.policy import read_policy
from keyturn.scanner.ruleset.given import is_ours
from keyturn.scanner.ruleset.load import parse_rules
from keyturn.scanner.tables import CHARACTERS_MAX
from keyturn.scanner.watching import read_watches

READERS = (read_policy, read_baseline, read_watches, is_ours, parse_rules)


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("text", ["a = " + "[" * 100_000, "a = " + "{a=" * 100_000, "a = ]", "rule = 5\nwatch = 5"])
def test_a_hostile_file_is_refused_with_its_name(read: Callable[[str, str], Any], text: str) -> None:
    if read is is_ours and text.startswith("rule"):
        pytest.skip("it says that it is one of ours, and no more")
    with pytest.raises(InputError, match=r"f\.toml"):
        read(text, "f.toml")


@pytest.mark.parametrize("read", READERS)
def test_a_huge_file_is_not_read(read: Callable[[str, str], Any]) -> None:
    with pytest.raises(TooLargeError):
        read("#" * (CHARACTERS_MAX + 1), "f.toml")
