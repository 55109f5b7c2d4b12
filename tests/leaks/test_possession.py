"""What whoever holds a key may cost: nothing that grows with how often it is asked."""

from __future__ import annotations

import asyncio

import pytest

from keyturn.errors import ThrottledError
from keyturn.kernel.secret import Secret
from keyturn.kernel.tokenformat import mint
from keyturn.leaks.matching import Matching
from keyturn.leaks.possession import AGAIN_SECONDS, PossessionService
from keyturn.vault.fingerprints import Fingerprints
from tests.leaks.station import Station

SOMEWHERE = "198.51.100.7"
ELSEWHERE = "203.0.113.7"


@pytest.fixture
def possession(station: Station) -> PossessionService:
    desk = station.desk
    matching = Matching(desk.keyring, Fingerprints(desk.keyring))
    return PossessionService(desk.database, matching, station.leaks, desk.clock.boottime, wait_seconds=0.0)


async def head_of(station: Station) -> int:
    return (await station.desk.database.head()).seq


async def test_a_key_that_is_reported_again_and_again_is_written_down_once(
    station: Station, possession: PossessionService
) -> None:
    """Who holds one key, dead or alive, must not buy commits with it, nor fill the places of its finding."""
    await station.desk.keyspace()
    _, key = await station.key()
    first = await possession.report(Secret(key), where="here", ip=SOMEWHERE)
    await station.respond()
    before = await station.findings()

    told = [await possession.report(Secret(key), where=f"{n}", ip=SOMEWHERE) for n in range(5)]

    assert (first.reported, first.revoked) == (True, False)
    assert all(one.reported and one.revoked for one in told)
    assert await station.findings() == before


async def test_a_later_report_is_filed_again(station: Station, possession: PossessionService) -> None:
    await station.desk.keyspace()
    _, key = await station.key()
    await possession.report(Secret(key), where="here", ip=SOMEWHERE)
    station.desk.clock.advance(AGAIN_SECONDS + 1)
    await possession.report(Secret(key), where="there", ip=SOMEWHERE)

    (found,) = await station.findings()
    assert found.places_count == 2


async def test_reports_of_one_network_are_bounded_even_with_true_keys(
    station: Station, possession: PossessionService
) -> None:
    await station.desk.keyspace()
    _, key = await station.key()
    asked = [possession.report(Secret(key), ip=SOMEWHERE) for _ in range(40)]

    told = await asyncio.gather(*asked, return_exceptions=True)

    refused = [one for one in told if isinstance(one, ThrottledError)]
    assert len(refused) == 10
    assert "keys were shown" in refused[0].message
    (found,) = await station.findings()
    assert found.places_count == 1
    assert (await possession.report(Secret(key), ip=ELSEWHERE)).reported
    assert (await possession.check(Secret(key), ip=SOMEWHERE)).ours


async def test_a_made_up_value_costs_no_write(station: Station) -> None:
    before = await head_of(station)
    for value in ("a value that nobody here has ever seen", mint("acme", "live").key.reveal()):
        told = await station.leaks.reported_outside(
            station.desk.founded.workspace.id, origin="partner", presented=Secret(value), place={}, source="partner"
        )
        assert not told.matched
    assert await head_of(station) == before


@pytest.mark.parametrize("place", ["path", "url", "commit"])
async def test_where_a_value_was_found_is_kept_without_the_value(station: Station, place: str) -> None:
    """An address may hold the very value, and a terminal obeys what a file's name says."""
    value = "-".join(("held", "by", "us", "and", "long", "enough", "a+b/c"))
    await station.put("production/shop/stripe", value)
    written = f"https://example.com/?a={value}&b=held-by-us-and-long-enough-a%2Bb%2Fc\x1b]0;title\x07"
    told = await station.leaks.reported_outside(
        station.desk.founded.workspace.id,
        origin="partner",
        presented=Secret(value),
        place={place: written},
        source="partner",
    )

    (seen,) = (await station.shown(told.finding)).places
    shown = seen.commit if place == "commit" else seen.path
    assert shown.startswith("https://example.com/?a=[redacted]&b=[redacted]")
    assert shown.isprintable()
    assert b"long-enough-a" not in await station.everything_stored()
