"""What happens to an account: every unit is available, leased, stranded, spent or gone with a line."""

from __future__ import annotations

import pytest

from keyturn.errors import ConflictError
from keyturn.quotas.calendar import Span
from keyturn.quotas.model import Account, Block
from keyturn.quotas.rules import Book, block_units, new_account

NOW = 1_767_225_600.0
MONTH = Span("2026-01", NOW, NOW + 31 * 86_400.0)
PREPAID = Span("prepaid", 0.0, None)
NO_REFILL = (None, None, None)


def opened(amount: int, span: Span = MONTH) -> Book:
    """Return the book of a new account."""
    book = Book(new_account(("qac_1", "wsp_1", "key/key_1", "monthly"), span, NO_REFILL, NOW), NOW)
    book.begin(amount)
    return book


def leased(book: Book, units: int, name: str = "qbl_1") -> Block:
    """Lease a block of it."""
    block = Block(name, book.account.id, "nod_1", 0, "log_1", NOW + 60, NOW)
    book.lease(block, units)
    return block


def parts(account: Account) -> tuple[int, int, int, int, int]:
    """Return granted, spent, leased, stranded and available."""
    return (account.granted, account.spent, account.leased, account.stranded, account.available)


def test_the_life_of_a_block() -> None:
    book = opened(100)
    block = leased(book, 20)
    assert parts(book.account) == (100, 0, 20, 0, 80)
    book.report(block, 5)
    assert parts(book.account) == (100, 5, 15, 0, 80)
    book.report(block, 4)
    book.close(block, 12)
    assert parts(book.account) == (100, 12, 0, 0, 88)
    assert [(line.kind, line.units) for line in book.added] == [("grant", 100), ("spend", 12)]


def test_what_is_stranded_is_returned_exactly() -> None:
    book = opened(100)
    block = leased(book, 20)
    book.report(block, 5)
    book.forfeit(block)
    assert parts(book.account) == (100, 5, 0, 15, 80)
    book.close(block, 9)
    assert parts(book.account) == (100, 9, 0, 0, 91)
    assert [line.kind for line in book.added] == ["grant", "spend", "forfeit", "return", "spend"]


def test_what_was_credited_and_had_been_spent_is_taken_from_what_is_available() -> None:
    book = opened(100)
    block = leased(book, 20)
    book.forfeit(block)
    book.credit([block], 20, "prn_1", "it burnt down")
    assert parts(book.account) == (100, 0, 0, 0, 100)
    book.close(block, 20)
    assert parts(book.account) == (100, 20, 0, 0, 80)


def test_what_was_credited_spent_again_and_had_been_spent_is_granted_on_a_line() -> None:
    book = opened(20)
    first = leased(book, 20)
    book.forfeit(first)
    book.credit([first], 20, "prn_1", "")
    second = leased(book, 20, "qbl_2")
    book.close(second, 20)
    book.close(first, 15)
    assert parts(book.account) == (35, 35, 0, 0, 0)
    assert (book.added[-1].kind, book.added[-1].units) == ("adjust", 15)


def test_no_more_is_credited_than_is_stranded() -> None:
    book = opened(20)
    block = leased(book, 20)
    book.forfeit(block)
    with pytest.raises(ConflictError):
        book.credit([block], 21, "prn_1", "")


def test_a_period_that_ends_takes_with_it_what_is_left() -> None:
    book = opened(100)
    block = leased(book, 20)
    book.forfeit(block)
    book.end([block], None)
    assert parts(book.account) == (0, 0, 0, 0, 0)
    book.close(block, 7)
    assert parts(book.account) == (7, 7, 0, 0, 0)


def test_a_rule_that_grants_less_takes_what_it_can_and_the_rest_as_it_comes_back() -> None:
    book = opened(100)
    block = leased(book, 60)
    book.follow_rule(10, NO_REFILL)
    assert parts(book.account) == (60, 0, 60, 0, 0)
    book.close(block, 5)
    book.follow_rule(10, NO_REFILL)
    assert parts(book.account) == (10, 5, 0, 0, 5)
    book.follow_rule(100, NO_REFILL)
    assert parts(book.account) == (100, 5, 0, 0, 95)


def test_a_top_up_outlives_a_change_of_the_rule() -> None:
    book = opened(100)
    book.top_up(50, "prn_1", "paid")
    book.follow_rule(40, NO_REFILL)
    assert book.account.available == 90


def test_a_refill_counts_what_is_leased_as_unspent_and_lets_what_is_stranded_lapse() -> None:
    book = opened(100, PREPAID)
    book.follow_rule(100, (50, "month", 1))
    lost, held = leased(book, 70), leased(book, 20, "qbl_2")
    book.forfeit(lost)
    book.refill([lost, held])
    assert parts(book.account) == (50, 0, 20, 0, 30)
    book.close(lost, 30)
    assert parts(book.account) == (80, 30, 20, 0, 30)


def test_a_balance_is_set_to_what_is_left_but_not_below_what_is_leased() -> None:
    book = opened(100, PREPAID)
    leased(book, 30)
    book.set_to(40, "prn_1", "")
    assert parts(book.account) == (40, 0, 30, 0, 10)
    book.set_to(5, "prn_1", "")
    assert parts(book.account) == (30, 0, 30, 0, 0)


@pytest.mark.parametrize(
    ("available", "nodes", "wished", "needed", "units"),
    [
        (1000, 1, 8, 1, 8),
        (1000, 1, 10_000, 1, 125),
        (1000, 5, 10_000, 1, 25),
        (7, 1, 8, 1, 1),
        (1, 3, 8, 1, 1),
        (0, 1, 8, 1, 0),
        (5, 1, 8, 6, 0),
        (6, 1, 8, 6, 6),
        (100, 1, 8, 0, 8),
        (7, 1, 8, 0, 0),
    ],
)
def test_blocks_are_a_share_and_shrink_to_one_near_zero(
    available: int, nodes: int, wished: int, needed: int, units: int
) -> None:
    assert block_units(available, nodes, wished, needed) == units
