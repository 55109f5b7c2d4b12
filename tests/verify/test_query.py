import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyturn.errors import InputError
from keyturn.kernel.match import compile_patterns
from keyturn.verify.query import QUERY_CHARS_MAX, QUERY_DEPTH_MAX, QUERY_NAMES_MAX, compile_query

# Granted scopes, query, answer.
ANSWERS: list[tuple[tuple[str, ...], str, bool]] = [
    (("a",), "a", True),
    (("a",), "b", False),
    ((), "a", False),
    (("a", "b"), "a AND b", True),
    (("a",), "a AND b", False),
    (("b",), "a OR b", True),
    (("c",), "a OR b", False),
    (("a",), "a or b and c", True),
    (("b",), "a OR b AND c", False),
    (("b", "c"), "a OR b AND c", True),
    (("a", "c"), "(a OR b) AND c", True),
    (("a",), "(a OR b) AND c", False),
    (("a",), "( ( a ) )", True),
    (("a", "b"), "a\tAnd\n(b)", True),
    (("a", "b"), "(a)AND(b)", True),
    (("*",), "a:b AND c.d", True),
    (("orders:*",), "orders:read AND orders:write:own", True),
    (("orders:*",), "orders", False),
    (("orders:*",), "orders:~root", False),
    (("and:x", "orbit"), "and:x AND orbit", True),
]


@pytest.mark.parametrize(("granted", "query", "answer"), ANSWERS)
def test_answers(granted: tuple[str, ...], query: str, answer: bool) -> None:  # noqa: FBT001 -- a table
    compiled = compile_query(query)
    matcher = compile_patterns(granted)
    assert compiled.satisfied_by(matcher) is answer
    if answer and "OR" not in query.upper().split():
        assert compiled.missing(matcher) == ()


# Query, what the message says.
REFUSED: list[tuple[str, str]] = [
    ("", "expected a scope name at position 0, found the end"),
    ("   ", "expected a scope name at position 3, found the end"),
    ("AND", "expected a scope name at position 0, found 'AND'"),
    ("a AND", "expected a scope name at position 5, found the end"),
    ("a OR OR b", "expected a scope name at position 5, found 'OR'"),
    ("a b", "expected AND, OR or the end at position 2, found 'b'"),
    ("a not b", "expected AND, OR or the end at position 2, found 'not'"),
    ("(a", "expected AND, OR or ) at position 2, found the end"),
    ("(a b)", "expected AND, OR or ) at position 3, found 'b'"),
    ("a)", "expected AND, OR or the end at position 1, found ')'"),
    ("()", "expected a scope name at position 1, found ')'"),
    ("a AND b:*", "expected a scope name at position 6, found the wildcard 'b:*'"),
    ("*", "expected a scope name at position 0, found the wildcard '*'"),
    ("a AND b::c", "expected a scope name at position 6, found 'b::c'"),
    ("a,b", "expected a scope name at position 0, found 'a,b'"),
    ("a AND \x00", "expected a scope name at position 6, found '\\x00'"),
    ("sch\u00f6n", "expected a scope name at position 0, found 'sch\\xf6n'"),
]


@pytest.mark.parametrize(("query", "message"), REFUSED)
def test_a_malformed_query_is_refused_at_its_position(query: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        compile_query(query)
    assert caught.value.message.startswith(message)
    assert caught.value.field == "scopes"


def test_size_names_and_depth_are_bounded() -> None:
    """A query costs little, however it was written."""
    compile_query("(" * QUERY_DEPTH_MAX + "a" + ")" * QUERY_DEPTH_MAX)
    compile_query(" OR ".join(["a"] * QUERY_NAMES_MAX))
    for query in (
        "(" * (QUERY_DEPTH_MAX + 1) + "a" + ")" * (QUERY_DEPTH_MAX + 1),
        "(" * QUERY_CHARS_MAX,
        " OR ".join(["a"] * (QUERY_NAMES_MAX + 1)),
        "a" * (QUERY_CHARS_MAX + 1),
    ):
        with pytest.raises(InputError) as caught:
            compile_query(query)
        assert caught.value.field == "scopes"
        assert len(caught.value.message) < 300


def test_equal_queries_are_compiled_once_and_the_memory_is_bounded() -> None:
    assert compile_query("a AND b") is compile_query("a AND b")
    assert compile_query.cache_info().maxsize is not None


@given(st.text(alphabet="ab:*()ANDOR andor\t\x00\u00e9", max_size=60))
def test_any_text_is_compiled_or_refused_on_its_field(text: str) -> None:
    try:
        query = compile_query(text)
    except InputError as refused:
        error = refused
    else:
        assert query.names
        assert "*" not in text
        return
    assert error.field == "scopes"
    assert "position" in error.message


Tree = str | tuple[str, "Tree", "Tree"]
_NAMES = st.sampled_from(["a", "b", "c", "d:e"])
_TREES: st.SearchStrategy[Tree] = st.recursive(
    _NAMES, lambda inner: st.tuples(st.sampled_from(["AND", "OR", "and", "Or"]), inner, inner), max_leaves=8
)


def _written(tree: Tree, *, inside: str = "") -> str:
    """Write a tree with no more parentheses than precedence needs."""
    if isinstance(tree, str):
        return tree
    keyword, left, right = tree
    text = f"{_written(left, inside=keyword)} {keyword} {_written(right, inside=keyword)}"
    return f"({text})" if inside.upper() == "AND" and keyword.upper() == "OR" else text


def _value(tree: Tree, granted: set[str]) -> bool:
    if isinstance(tree, str):
        return tree in granted
    keyword, left, right = tree
    if keyword.upper() == "AND":
        return _value(left, granted) and _value(right, granted)
    return _value(left, granted) or _value(right, granted)


@given(tree=_TREES, granted=st.sets(_NAMES))
def test_a_written_query_means_what_its_tree_means(tree: Tree, granted: set[str]) -> None:
    assert compile_query(_written(tree)).satisfied_by(compile_patterns(granted)) is _value(tree, granted)
