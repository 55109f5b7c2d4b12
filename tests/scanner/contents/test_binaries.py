"""The strings of what is no text."""

from __future__ import annotations

import random
import re

import pytest

from keyturn.scanner.contents.binaries import strings


@pytest.mark.parametrize("alphabet", [bytes(range(256)), b"abc\n\t\x01\x80", b"abcdefgh\0", b"\n", b"a"])
def test_strings_are_the_runs_of_printable_bytes(alphabet: bytes) -> None:
    drawn = random.Random(3)
    for size in range(1, 200):
        data = b"".join(bytes(drawn.choices(alphabet, k=size)) for _ in range(3))
        runs = re.findall(rb"[\t\x20-\x7e]{8,}", data)
        # A first character that is the length of the rest is no part of the string.
        runs = [run[1:] if run[0] == len(run) - 1 else run for run in runs]
        assert strings(data).split(b"\n")[: len(runs)] == runs
