import base64

from keyturn.scanner.contents.budget import Budget
from keyturn.scanner.examination import Hit, examine
from keyturn.scanner.lines import Lines
from keyturn.scanner.model import Document, Notice, Problem
from keyturn.wire.certainty import Certainty
from tests.scanner.scanning import NAMED, SHOP, engine, scanned, shop_key


def hits(data: bytes, **given: object) -> list[Hit]:
    document = Document(data, "a.txt", **given)  # type: ignore[arg-type]
    return [one for one in examine(document, engine(), Budget()) if isinstance(one, Hit)]


def test_a_secret_that_two_rules_find_is_one_finding_of_the_most_certain() -> None:
    (found,) = scanned({"a.py": f"secret = {shop_key()}\n"}).findings
    assert (found.rule, found.certainty) == (SHOP, Certainty.PROVIDER)


def test_two_secrets_on_one_line_are_two_findings() -> None:
    report = scanned({"a.py": f"secret = hunterhunter2 ; '{shop_key()}'\n"})
    assert {found.rule for found in report.findings} == {SHOP, NAMED}


def test_a_finding_in_what_was_decoded_stands_where_the_encoded_text_stands() -> None:
    encoded = base64.b64encode(f"user:{shop_key()}:end of it".encode()).decode()
    (found,) = scanned({"a.yaml": f"a: 1\nb: 2\ndata: {encoded}\n"}).findings
    assert found.secret.reveal() == shop_key()
    assert (found.place.line, found.place.column, found.place.encodings) == (3, 7, ("base64",))
    assert encoded[:20] not in found.line_text


def test_what_is_encoded_twice_stands_where_the_outer_text_stands() -> None:
    inner = base64.b64encode(f"user:{shop_key()}:end of it".encode())
    outer = base64.b64encode(b"inner: " + inner + b" and more").decode()
    (found,) = scanned({"a.yaml": f"\n\ndata: {outer}\n"}).findings
    assert (found.place.line, found.place.encodings) == (3, ("base64", "base64"))


def test_a_secret_in_the_surroundings_is_of_the_document_that_has_it_as_its_own() -> None:
    data = f"{shop_key('a')}\n{shop_key('b')}\n{shop_key('c')}\n".encode()
    width = len(shop_key()) + 1
    (found,) = hits(data, lead=width, tail=width, first_line=11)
    assert found.secret == shop_key("b").encode()
    assert found.place.line == 12


def test_lines_are_counted_whatever_the_order_of_the_questions() -> None:
    data = b"ab\ncd\n\nefg"
    lines = Lines(memoryview(data), 5)
    told = {offset: (lines.line_of(offset), lines.start_of(offset)) for offset in (9, 0, 4, 3, 7, 2, 6)}
    assert told == {0: (5, 0), 2: (5, 0), 3: (6, 3), 4: (6, 3), 6: (7, 6), 7: (8, 7), 9: (8, 7)}
    assert (lines.end_of(4, 100), lines.end_of(7, 2), lines.near_start_of(9, 1)) == (5, 9, 8)


def test_many_keys_in_one_file_are_found_in_time_that_grows_with_them() -> None:
    text = "".join(f"k{number} = shop_{number:024d}\n" for number in range(5000))
    assert len(scanned({"a.py": text}).findings) == 5000


def test_encoded_text_that_is_not_decoded_is_told() -> None:
    """A file with countless encoded words must not hide what comes after them."""
    noise = b"".join(b"x%%41bcdefghijklmnop%d " % number for number in range(40))
    data = noise + base64.b64encode(b"user:" + shop_key().encode() + b":end of it")
    told = [*examine(Document(data, "a.txt"), engine(), Budget(layers=30))]
    assert [(one.problem, one.path) for one in told if isinstance(one, Notice)] == [(Problem.BOUND, "a.txt")]
    (found,) = hits(data)
    assert found.secret == shop_key().encode()


def test_secret_in_an_encoded_text_over_a_border_is_found_on_either_side() -> None:
    encoded = base64.b64encode(b"first line of it\n" * 30 + shop_key().encode() + b"\nlast line\n" * 30)
    (found,) = hits(encoded, lead=120)
    assert found.secret == shop_key().encode()
    assert not hits(encoded + b" rest", lead=len(encoded))
