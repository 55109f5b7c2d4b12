from __future__ import annotations

import base64
import re
from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keyturn.scanner.ruleset.model import Required, Rule, Ruleset
from keyturn.scanner.sources.git import HistorySource, surroundings
from keyturn.scanner.sources.reach import bytes_between_line_ends
from keyturn.scanner.sources.trimming import holds_block, new_lines, new_stretches, reaching_far

if TYPE_CHECKING:
    from tests.scanner.sources.conftest import Clone, Seen, Source

    Reads = Callable[[Source], Seen]

CONTEXT = 256
ARMOUR = b"-----"
RULES = (
    re.compile(rb"\bkey_[0-9a-z]{8}\b"),
    re.compile(rb"begin-long [^!]{100,240} end-long"),
    re.compile(ARMOUR + rb"BEGIN (?:A|B) KEY" + ARMOUR + rb"[^!]{1,20000}?" + ARMOUR + rb"END (?:A|B) KEY" + ARMOUR),
    re.compile(rb"name\s*=\s*\n?\s*value[0-9]{6}"),
    re.compile(rb"token[ \n]{1,4}[0-9a-f]{20,3000}(?:[ \n]{1,4}end)?"),
)


def found(data: bytes) -> set[bytes]:
    """Stand in for an engine: each rule alone, every match that it would find anywhere."""
    return {match[0] for rule in RULES for match in rule.finditer(data)}


def armoured(number: int, size: int, indent: bytes = b"") -> bytes:
    body = base64.b64encode(bytes((number * 7 + index * index) % 256 for index in range(size)))
    lines = [body[at : at + 64] for at in range(0, len(body), 64)]
    kind = b"AB"[number % 2 : number % 2 + 1]
    whole = [ARMOUR + b"BEGIN %s KEY" % kind + ARMOUR, *lines, ARMOUR + b"END %s KEY" % kind + ARMOUR]
    return b"\n".join(indent + line for line in whole)


pieces = st.one_of(
    st.integers(0, 10**8 - 1).map(lambda number: b"secret: key_%08d\n" % number),
    st.integers(0, 60).map(lambda number: b"plain text of line %d\n" % number),
    st.tuples(st.integers(0, 9), st.integers(1, 60)).map(
        lambda pair: b"many lines %d, all alike\n" % pair[0] * pair[1]
    ),
    st.tuples(st.integers(0, 5), st.integers(40, 3000)).map(lambda pair: armoured(*pair) + b"\n"),
    st.tuples(st.integers(0, 5), st.integers(40, 900)).map(lambda pair: armoured(*pair, b"    ") + b"\n"),
    st.integers(100, 239).map(lambda size: b"begin-long " + b"x" * size + b" end-long\n"),
    st.sampled_from(
        [b"name =\n", b"  value123456\n", b"begin-long ", b" end-long\n", b"\n", b"\r\n", b"no end of line"]
    ),
    st.sampled_from([ARMOUR + b"BEGIN A KEY" + ARMOUR + b"\n", ARMOUR + b"END B KEY" + ARMOUR + b"\n"]),
    st.binary(min_size=0, max_size=40).map(lambda data: data.replace(b"\0", b"\1")),
)

edits = st.lists(
    st.tuples(st.sampled_from(["insert", "delete", "replace", "move", "cut"]), st.integers(0, 10**6), pieces),
    min_size=1,
    max_size=4,
)


def edited(data: bytes, changes: list[tuple[str, int, bytes]]) -> bytes:
    for what, number, piece in changes:
        lines = data.splitlines(keepends=True)
        at = number % (len(lines) + 1)
        if what == "insert":
            lines[at:at] = [piece]
        elif what == "delete":
            del lines[at : at + 1 + number % 40]
        elif what == "replace":
            lines[at : at + 1] = [piece]
        elif what == "move":
            half = lines[at:]
            lines = [*half, *lines[:at]]
        else:
            data = b"".join(lines)
            position = number % (len(data) + 1)
            data = data[:position] + data[position + number % 100 :]
            continue
        data = b"".join(lines)
    return data


@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
@given(first=st.lists(pieces, max_size=30).map(b"".join), history=st.lists(edits, min_size=1, max_size=6))
def test_no_secret_of_any_version_is_lost(first: bytes, history: list[list[tuple[str, int, bytes]]]) -> None:
    """What is found in the stretches that are scanned of all versions is what is found in all versions whole."""
    versions = [first]
    for changes in history:
        versions.append(edited(versions[-1], changes))
    whole = set().union(*(found(version) for version in versions))
    trimmed = found(first)
    for base, data in pairwise(versions):
        stretches = new_stretches(base, data, "a.txt", CONTEXT, blocks=holds_block(base))
        for start, end in [(0, len(data))] if stretches is None else stretches:
            trimmed |= found(data[start:end])
    assert trimmed == whole


@settings(max_examples=200, deadline=None)
@given(
    data=st.lists(pieces, min_size=30, max_size=60).map(b"".join),
    changes=edits,
    context=st.sampled_from([64, 256, 1024]),
)
def test_stretches_are_whole_lines_in_order(data: bytes, changes: list[tuple[str, int, bytes]], context: int) -> None:
    after = edited(data, changes)
    stretches = new_stretches(data, after, "a.txt", context)
    last = -1
    for start, end in stretches or []:
        assert last < start <= end
        assert start == 0 or after[start - 1 : start] == b"\n"
        assert end == len(after) or after[end - 1 : end] == b"\n"
        last = end


def test_of_a_long_file_little_is_scanned_again() -> None:
    data = b"".join(b"line number %d\n" % number for number in range(20_000))
    changed = data.replace(b"line number 5000\n", b"key_00000001\n").replace(b"line number 15000\n", b"key_00000002\n")
    stretches = new_stretches(data, changed, "a.txt", 4096)
    assert stretches is not None
    assert len(stretches) == 2
    assert sum(end - start for start, end in stretches) < 20_000
    assert new_stretches(data, data, "a.txt", 4096) == []


@pytest.mark.parametrize(
    ("before", "after", "path"),
    [
        (b"short\n", b"short\nsecret\n", "a.txt"),
        (b"text\n" * 9000, b"te\0t\n" * 9000, "a.bin"),
        (b"te\0t\n" * 9000, b"text\n" * 9000, "a.bin"),
        (b"text\n" * 9000, b"text\n" * 8000 + b"x\n", "a.ipynb"),
        (b"a" * 50_000, b"a" * 50_001, "one-line"),
    ],
)
def test_what_is_no_long_text_is_scanned_whole(before: bytes, after: bytes, path: str) -> None:
    assert new_stretches(before, after, path, 4096) is None


def test_key_that_was_rotated_in_the_middle_of_a_file_is_whole() -> None:
    around = b"".join(b"line number %d\n" % number for number in range(4000))
    for indent in (b"", b"        "):
        old, new = armoured(1, 9000, indent), armoured(1, 9000, indent)
        new = new[:8000] + (b"A" if new[8000:8001] != b"A" else b"B") + new[8001:]
        data = around + new + b"\n" + around
        stretches = new_stretches(around + old + b"\n" + around, data, "a.pem", 1024)
        assert stretches is not None
        assert any(new in data[start:end] for start, end in stretches)


def test_lines_that_are_new_are_those_that_were_nowhere_before() -> None:
    assert new_lines(b"a\nb\nc\n", b"c\nx\ny\na\nz") == ((2, 3), (5, 5))
    assert new_lines(b"a\r\nb\r\n", b"a\nb\n") == ()
    assert new_lines(b"a\nb\n", b"a\r\nb\r\n") == ()
    assert new_lines(b"", b"a\n") == ((1, 1),)
    assert new_lines(b"a\n", b"") == ()


def test_rules_say_how_much_surrounds_what_is_new() -> None:
    plain = Rule(id="a", title="a", regex="a")
    armour = Rule(id="b", title="b", regex=(ARMOUR + b"BEGIN A[^x]{1,20000}").decode(), window=1 << 16)
    long = Rule(id="c", title="c", regex=r"c[^,]{1,9000}", window=9001)
    near = Rule(id="d", title="d", regex="d", requires=(Required(rule="a", within_lines=5),))
    far = Rule(id="e", title="e", regex="e", requires=(Required(rule="a"),))
    assert surroundings(Ruleset(name="r", rules=(plain, armour, near))) == 4096
    assert surroundings(Ruleset(name="r", rules=(plain, long))) == 9000
    assert surroundings(Ruleset(name="r", rules=(plain, far))) == 0


FAR = tuple(
    Rule(id=str(number), title="far", regex=regex, window=8192)
    for number, regex in enumerate(
        (
            r"(?m)^head:\s{1,4}a\n[^\x00]*?key_[0-9]{8}",
            r"(?:\"one\":(?i)two[^{}]*?key_[0-9]{8}|key_[0-9]{8}[^{}]*?\"one\")",
            r"(([a-z]{4}) begins[^{}]*?)key_[0-9]{8}",
        )
    )
)


@pytest.mark.parametrize(
    ("text", "begins"),
    [
        (b"x\nhead:  a\nb", True),
        (b"x head: a", False),
        (b'"one":TWO', True),
        (b"key_12345678", True),
        (b"this begins", True),
        (b"is begins", False),
        (ARMOUR + b"BEGIN A", False),
        (b"plain", False),
    ],
)
def test_what_reaches_far_is_told_by_its_beginning(text: bytes, begins: bool) -> None:  # noqa: FBT001
    armour = Rule(id="b", title="b", regex=(ARMOUR + b"BEGIN A[^x]{1,20000}").decode(), window=1 << 16)
    line = Rule(id="p", title="p", regex="plain[^\n]{1,5000}", window=6000)
    far = reaching_far(Ruleset(name="r", rules=(*FAR, armour, line)))
    assert far.within(text, 0, len(text)) is begins
    assert not far.applies("a/b.txt")


def test_a_rule_of_few_paths_reaches_far_in_all_of_their_files() -> None:
    rule = Rule(id="a", title="a", regex=r"(?im)^\s{0,4}[^\x00]*?key_[0-9]{8}", path=r"(?:^|/)\.mailrc$", window=8192)
    far = reaching_far(Ruleset(name="r", rules=(rule,)))
    assert far.applies("home/.mailrc")
    assert not far.applies("mailrc.txt")
    assert not far.within(b"anything\n at all", 0, 17)


def test_nothing_reaches_far_without_such_a_rule() -> None:
    line = Rule(id="p", title="p", regex="plain[^\n]{1,5000}", window=6000)
    far = reaching_far(Ruleset(name="r", rules=(line,)))
    assert not far.within(b"plain \n \x00\xff", 0, 9)


@pytest.mark.parametrize("born", [0, 1, 2])
def test_what_is_far_from_the_beginning_of_its_match_is_scanned_with_it(clone: Clone, reads: Reads, born: int) -> None:
    """The match begins 3000 bytes before what is new: in the first version, or from a later one on, or never."""
    lines = [b"this is line %03d of the file" % number for number in range(900)]
    for commit in range(4):
        if commit == born:
            lines[300] = b"head: a"
        lines[400] = b"key_%08d" % commit
        clone.commit(a__txt=b"\n".join(lines))
    far = reaching_far(Ruleset(name="r", rules=FAR[:1]))
    whole = re.compile(rb"(?m)^head: a\n[^\x00]*?key_[0-9]{8}")
    seen = reads(HistorySource(clone.open(), context=8192, far=far))
    found = {match[0][-12:] for one in seen.documents for match in whole.finditer(bytes(one.data))}
    assert found == {b"key_%08d" % commit for commit in range(born, 4)}
    less = reads(HistorySource(clone.open(), context=8192, far=reaching_far(Ruleset(name="r", rules=()))))
    assert sum(len(one.data) for one in less.documents) < sum(len(one.data) for one in seen.documents) / 1.2


@pytest.mark.parametrize(
    ("regex", "reach"),
    [
        (r"[0-9a-f]{9000}", 0),
        (r"[^\n]{9000}", 0),
        (r".{9000}", 0),
        (r"(?s).{9000}", 9000),
        (r"(?is:.{9000})", 9000),
        (r"a\s{0,4}=\s{0,4}(?:'|\")([0-9a-f]{9000})\b", 9),
        (r"a(?:b\s{2}(c\s[0-9]{9000}))", 4),
        (r"a\s[0-9]{9000}\s?b", 9002),
        (r"a[^b]{50}", 50),
        (r"(?:a\sb){20}", 60),
        (r"(?:[0-9]{9000}|\s{5}a\s)", 7),
        (r"x\n{3}", 3),
        (r"a\s*", 9999),
    ],
)
def test_reach_of_a_rule_is_between_its_first_and_last_line_end(regex: str, reach: int) -> None:
    assert bytes_between_line_ends(Rule(id="a", title="a", regex=regex, window=9999)) == reach


def test_line_numbers_of_stretches_are_those_of_the_file(clone: Clone, reads: Reads) -> None:
    lines = [b"this is line %d of the file" % number for number in range(1, 3001)]
    for commit in range(12):
        for number in (100 + 7 * commit, 2900 - 31 * commit, 1500):
            lines[number] = b"line %d was changed by %d: key_%08d" % (number + 1, commit, commit)
        clone.commit(a__txt=b"\n".join(lines))
    seen = reads(HistorySource(clone.open(), context=4096))
    assert len(seen.documents) > 12
    for document in seen.documents:
        for offset, line in enumerate(bytes(document.data).split(b"\n")):
            numbered = re.search(rb"line (\d+) ", line)
            before = bytes(document.before).count(b"\n")
            assert numbered is None or int(numbered[1]) == document.first_line + before + offset


def test_history_of_merges_gives_the_same_secrets_trimmed_and_whole(clone: Clone, reads: Reads) -> None:
    lines = [b"this is line %d of the file" % number for number in range(2000)]

    def write(number: int, text: bytes) -> None:
        lines[number] = text
        clone.commit(a__txt=b"\n".join(lines))

    write(10, b"key_00000001")
    clone.git("checkout", "-q", "-b", "side")
    write(500, b"key_00000002")
    write(1900, b"key_00000003")
    clone.git("checkout", "-q", "main")
    lines[:] = (clone.folder / "a.txt").read_bytes().split(b"\n")
    write(1000, b"key_00000004")
    clone.git("merge", "-q", "--no-commit", "side")
    lines[:] = (clone.folder / "a.txt").read_bytes().split(b"\n")
    write(700, b"key_00000005")
    write(10, b"key_00000006")
    whole = reads(HistorySource(clone.open()))
    trimmed = reads(HistorySource(clone.open(), context=4096))
    assert set().union(*(found(bytes(one.data)) for one in whole.documents)) == set().union(
        *(found(bytes(one.data)) for one in trimmed.documents)
    )
    assert sum(len(one.data) for one in trimmed.documents) < sum(len(one.data) for one in whole.documents) / 2
