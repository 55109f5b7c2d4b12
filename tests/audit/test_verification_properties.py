"""Whatever is done to an export: it is never accepted with other content, and never answered with a crash."""

import json
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from keyturn.audit import checkpoint, export_lines
from keyturn.audit.evidence import displaced, gaps_between, runs
from keyturn.audit.export_lines import Line
from keyturn.audit.leaf import Actor, Leaf
from keyturn.audit.pairing import Pairing, StoredLeaf
from keyturn.audit.verification import verify_export
from keyturn.errors import InputError
from keyturn.kernel import merkle
from keyturn.kernel.note import encode_verifier_key, new_signing_key, public_key

WORKSPACE = "wsp_0VPfh4Qa7mKx2LwZ9Yb3Rt"
SIZES = (1, 3, 4, 9)
PRIVATE = new_signing_key()
KEY = encode_verifier_key(checkpoint.origin_of(WORKSPACE), public_key(PRIVATE))


def made() -> list[str]:
    """An honest export of nine leaves and four checkpoints."""
    tree = merkle.Frontier()
    lines: list[Line] = [export_lines.header(WORKSPACE, KEY, 0, SIZES[-1], tree)]
    for index in range(SIZES[-1]):
        row = Leaf(WORKSPACE, "key.issue", "allowed", Actor("prn_x", "user"), "key/x", 1.0, {"n": index}).row()
        hashed = merkle.leaf_hash(row.body)
        tree.append(hashed)
        lines.append(
            export_lines.leaf(index, hashed, seq=index + 1, leaf_id=row.id, content=row.body, columns_differ=False)
        )
        if index + 1 in SIZES:
            number = SIZES.index(index + 1) + 1
            note = checkpoint.sign(WORKSPACE, index + 1, tree.root(), number, PRIVATE)
            lines.append(Line(checkpoint=note, frontier=export_lines.frontier_text(tree)))
    return [export_lines.encode(line).decode().rstrip("\n") for line in (*lines, Line(end=True))]


HONEST = made()
BODIES = [json.loads(line)["body"] for line in HONEST if "body" in json.loads(line)]

PLACES = st.integers(1, len(HONEST) - 1)
EDITS: st.SearchStrategy[Callable[[list[str]], None]] = st.one_of(
    st.builds(lambda at: lambda lines: lines.pop(min(at, len(lines) - 1)), PLACES),
    st.builds(lambda at, to: lambda lines: lines.insert(to, lines[min(at, len(lines) - 1)]), PLACES, PLACES),
    st.builds(lambda at, text: lambda lines: lines.insert(at, text), PLACES, st.text(max_size=20)),
    st.builds(
        lambda at, where, new: lambda lines: replace_at(lines, min(at, len(lines) - 1), where, new),
        PLACES,
        st.integers(0, 600),
        st.characters(),
    ),
    st.builds(
        lambda at, name, value: lambda lines: set_field(lines, min(at, len(lines) - 1), name, value),
        PLACES,
        st.sampled_from(["index", "seq", "hash", "body", "id", "to", "from", "frontier", "missing", "end"]),
        st.one_of(st.none(), st.booleans(), st.integers(-3, 12), st.integers(10**17, 10**21), st.text(max_size=5)),
    ),
)


def replace_at(lines: list[str], at: int, where: int, new: str) -> None:
    line = lines[at]
    if line:
        where %= len(line)
        lines[at] = line[:where] + new + line[where + 1 :]


def set_field(lines: list[str], at: int, name: str, value: object) -> None:
    try:
        line = json.loads(lines[at])
    except ValueError:
        return
    if isinstance(line, dict):
        lines[at] = json.dumps({**line, name: value})


def bodies_of(lines: list[str]) -> list[str]:
    return [json.loads(line)["body"] for line in lines if line.strip() and "body" in json.loads(line)]


@settings(max_examples=400, deadline=None)
@given(st.lists(EDITS, min_size=1, max_size=4))
def test_edited_export_is_refused_unless_its_leaves_are_the_signed_ones(
    edits: list[Callable[[list[str]], None]],
) -> None:
    lines = [*HONEST]
    for edit in edits:
        if len(lines) > 1:
            edit(lines)

    report = verify_export(lines, KEY)

    if report.ok:
        assert bodies_of(lines) == BODIES
        assert report.size == SIZES[-1]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(st.text(max_size=80), st.binary(max_size=80)), max_size=5), st.booleans())
def test_anything_at_all_is_answered_by_a_report_or_a_refusal(lines: list[str | bytes], headed: bool) -> None:  # noqa: FBT001
    try:
        report = verify_export([*(HONEST[:1] if headed else []), *lines], KEY)
    except InputError:
        return
    assert not report.ok


@given(st.lists(st.integers(0, 30), unique=True))
def test_displaced_lines_are_as_few_as_can_be_and_the_rest_is_in_order(places: list[int]) -> None:
    moved = displaced(places)
    rest = [place for at, place in enumerate(places) if at not in moved]

    assert rest == sorted(rest)
    assert (moved == []) == (places == sorted(places))


@given(st.sets(st.integers(0, 30)), st.integers(0, 30), st.integers(0, 30))
def test_gaps_are_what_is_not_there(places: set[int], start: int, end: int) -> None:
    missing = [place for place in range(start, end) if place not in places]

    assert gaps_between(sorted(places), start, end) == runs(missing)


@given(st.sets(st.integers(0, 39), max_size=10), st.sets(st.integers(0, 39), max_size=3))
def test_pairing_finds_every_cut_and_inserted_leaf(cut: set[int], inserted: set[int]) -> None:
    hashes = [bytes([n]) * 32 for n in range(40)]
    leaves: list[StoredLeaf] = []
    for n in range(40):
        if n in inserted:
            leaves.append(StoredLeaf(2 * n, f"forged{n}", b"", bytes([100 + n]) * 32))
        if n not in cut:
            leaves.append(StoredLeaf(2 * n + 1, f"evt{n}", b"", hashes[n]))
    pairing = Pairing(0, hashes_end=True, leaves_end=True)
    pairing.hashes.extend(hashes)
    pairing.leaves.extend(leaves)
    pairs = list(pairing.pairs())

    together = {pair.index for pair in pairs if pair.leaf is not None and pair.leaf.computed == pair.stated}
    assert together == set(range(40)) - cut
    assert [pair.index for pair in pairs if pair.index is not None] == list(range(40))
    assert [pair.leaf.id for pair in pairs if pair.leaf is not None] == [leaf.id for leaf in leaves]
