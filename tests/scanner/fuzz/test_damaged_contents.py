"""Damaged and made-up contents: nothing is raised, nothing hangs, and no more comes out than the budget allows."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.scanner.fuzz.seeds import PATHS, SEEDS, TIGHT, unfold

EDITS = st.lists(
    st.tuples(
        st.sampled_from(["set", "cut", "drop", "repeat", "insert", "full", "splice"]),
        st.floats(0, 1, exclude_max=True),
        st.integers(0, 255),
        st.integers(1, 64),
        st.sampled_from(SEEDS),
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=400)
@given(seed=st.sampled_from(SEEDS), edits=EDITS, path=st.sampled_from(PATHS))
def test_damaged_samples_raise_nothing_and_stay_in_bounds(
    seed: bytes, edits: list[tuple[str, float, int, int, bytes]], path: str
) -> None:
    """Whatever stands in a repository, a scan of it must end and say so."""
    data = bytearray(seed)
    for kind, share, byte, count, other in edits:
        at = int(share * len(data))
        match kind:
            case "set":
                data[at : at + 1] = bytes([byte])
            case "cut":
                del data[at:]
            case "drop":
                del data[at : at + count]
            case "repeat":
                data[at:at] = data[at : at + count] * 3
            case "insert":
                data[at:at] = bytes([byte]) * count
            case "full":
                data[at : at + min(count, 8)] = b"\xff" * min(count, 8)
            case _:
                data[at:at] = other
    total, _ = unfold(bytes(data), path)
    assert total <= TIGHT.bytes * 3


@settings(max_examples=200)
@given(data=st.binary(max_size=2000), path=st.sampled_from(PATHS))
def test_any_bytes_raise_nothing(data: bytes, path: str) -> None:
    unfold(data, path)


@settings(max_examples=200)
@given(text=st.text(st.sampled_from('%\\"nux{}0123456789abcdefABCDEF+/=-_ \n:H4sIeJw'), max_size=400))
def test_any_text_of_what_encodings_are_made_of_raises_nothing(text: str) -> None:
    unfold(text.encode(), "a")


def test_every_sample_is_opened_without_a_notice() -> None:
    """The samples are valid, so that what the other tests damage is what is meant."""
    for seed in SEEDS:
        total, notices = unfold(seed, "a.lzma" if seed.startswith(b"\x5d\0\0") else "a")
        assert total
        assert notices == 0
