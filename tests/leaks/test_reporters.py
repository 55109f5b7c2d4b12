"""The keys of reporters, and what is answered to whom; the database and the findings have their own tests."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keyturn.errors import ForbiddenError, UnavailableError
from keyturn.kernel.secret import Secret
from keyturn.leaks.intake_store import Intake, IntakeConfig
from keyturn.leaks.model import ReportedOutside
from keyturn.leaks.reporters import AGAIN_SECONDS, FRESH_SECONDS, Reporters
from keyturn.logins.ports import Fetched, FetchError
from keyturn.wire.leak_intakes import IntakeKey, IntakeKind, IntakeState

URL = "https://keys.example.com/public_keys"


class Signer:
    def __init__(self, name: str) -> None:
        self.name = name
        self._key = ec.generate_private_key(ec.SECP256R1())

    @property
    def pem(self) -> str:
        return self._key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    def sign(self, body: bytes) -> dict[str, Any]:
        signature = base64.b64encode(self._key.sign(body, ec.ECDSA(SHA256()))).decode()
        return {"identifier": self.name, "signature": signature}


class Publisher:
    """Where keys are published; counts how often it is asked."""

    def __init__(self, *signers: Signer) -> None:
        self.signers = list(signers)
        self.down = False
        self.asked = 0

    def check(self, url: str) -> None:
        """Take every address."""

    async def get(self, url: str, *, ca_pem: str | None, bytes_max: int) -> Fetched:
        self.asked += 1
        assert (url, ca_pem) == (URL, None)
        assert bytes_max > 1000
        if self.down:
            raise FetchError("refused")
        keys = [{"key_identifier": one.name, "key": one.pem, "is_current": True} for one in self.signers]
        return Fetched(200, json.dumps({"public_keys": keys}).encode())

    async def post(self, url: str, *rest: object, **named: object) -> Fetched:
        raise AssertionError(url, rest, named)


class Database:
    """Finds the one intake, whatever is asked."""

    def __init__(self, found: Intake | None) -> None:
        self.found = found
        self.clock = self

    def now(self) -> float:
        return 0.0

    async def read(self, work: object) -> Intake | None:
        assert callable(work)
        return self.found


class Reports:
    """Knows one token."""

    def __init__(self, known: str) -> None:
        self.known = known
        self.filed: list[tuple[str, str, str]] = []

    async def reported_outside(
        self, workspace: str, *, origin: str, presented: Secret, place: Any, source: str, ip: str | None = None
    ) -> ReportedOutside:
        assert (workspace, origin, ip) == ("ws_1", "partner", "192.0.2.7")
        self.filed.append((presented.reveal(), place["url"], source))
        return ReportedOutside(matched=presented.reveal() == self.known)


class Refused:
    def __init__(self) -> None:
        self.count_of = 0

    def count(self, ip: str | None, at: float) -> None:
        assert (ip, at) == ("192.0.2.7", 0.0)
        self.count_of += 1


class Bench:
    """One intake with its surroundings, and a clock to set."""

    def __init__(self, publisher: Publisher, *, pinned: tuple[Signer, ...] = (), url: str = URL) -> None:
        keys = tuple(IntakeKey(key_identifier=one.name, key=one.pem) for one in pinned)
        config = IntakeConfig(keys=keys, keys_url=url)
        self.intake = Intake(
            "lki_1", "ws_1", "gh", IntakeKind.GITHUB, IntakeState.ACTIVE, config, 0.0, "prn_1", 0.0, 0.0, 1
        )
        self.database, self.reports, self.refused, self.now = Database(self.intake), Reports("ours"), Refused(), 0.0
        self.publisher = publisher
        sink: Any = self.database
        self.reporters = Reporters(sink, self.reports, publisher, self.refused, lambda: self.now)

    async def send(self, signer: Signer, body: bytes = b'[{"token":"ours","type":"t","url":"u"}]') -> list[str]:
        answered = await self.reporters.receive("default", "gh", body, ip="192.0.2.7", **signer.sign(body))
        return [one.label for one in answered]


async def test_a_proven_report_is_filed_and_answered_token_by_token() -> None:
    signer = Signer("a")
    bench = Bench(Publisher(signer))
    body = b'[{"token":"ours","type":"t","url":"u1"},{"token":"other","type":"t","url":"u2"}]'
    assert await bench.send(signer, body) == ["true_positive", "false_positive"]
    assert bench.reports.filed == [("ours", "u1", "github/gh"), ("other", "u2", "github/gh")]


async def test_a_report_that_is_not_proven_files_nothing_and_is_counted() -> None:
    bench = Bench(Publisher(Signer("a")))
    for signer in (Signer("a"), Signer("b")):
        with pytest.raises(ForbiddenError):
            await bench.send(signer)
    assert bench.reports.filed == []
    assert bench.refused.count_of == 2


async def test_an_intake_that_there_is_not_answers_like_one_that_there_is() -> None:
    """The names of workspaces stand in the addresses of intakes; whoever signs with a well-known key learns none."""
    bench = Bench(Publisher(Signer("a")))
    answers = []
    for found in (bench.intake, None):
        bench.database.found = found
        for signer in (Signer("a"), Signer("b")):
            with pytest.raises(ForbiddenError) as refused:
                await bench.send(signer)
            answers.append((refused.value.code, refused.value.message, refused.value.hint))
    assert set(answers) == {answers[0]}
    assert answers[0][0] == "signature_invalid"


async def test_published_keys_are_kept_and_read_again_for_a_new_one_but_not_for_every_unknown_one() -> None:
    first, second = Signer("a"), Signer("b")
    bench = Bench(Publisher(first))
    await bench.send(first)
    await bench.send(first)
    assert bench.publisher.asked == 1
    bench.publisher.signers.append(second)
    with pytest.raises(ForbiddenError):
        await bench.send(second)
    assert bench.publisher.asked == 1
    bench.now += AGAIN_SECONDS
    assert await bench.send(second) == ["true_positive"]
    assert bench.publisher.asked == 2


async def test_an_outage_of_the_publisher_loses_no_report_of_a_known_key_and_is_not_asked_all_the_time() -> None:
    signer = Signer("a")
    bench = Bench(Publisher(signer))
    await bench.send(signer)
    bench.publisher.down = True
    bench.now += FRESH_SECONDS
    assert await bench.send(signer) == ["true_positive"]
    asked = bench.publisher.asked
    with pytest.raises(UnavailableError):
        await bench.send(Signer("b"))
    assert bench.publisher.asked == asked


async def test_pinned_keys_need_no_publisher() -> None:
    signer = Signer("a")
    bench = Bench(Publisher(), pinned=(signer,), url="")
    assert await bench.send(signer) == ["true_positive"]
    with pytest.raises(ForbiddenError):
        await bench.send(Signer("b"))
    assert bench.publisher.asked == 0


async def test_a_key_that_is_taken_off_the_list_counts_no_more() -> None:
    first, second = Signer("a"), Signer("b")
    bench = Bench(Publisher(first))
    await bench.send(first)
    bench.publisher.signers[:] = [second]
    bench.now += FRESH_SECONDS
    with pytest.raises(ForbiddenError):
        await bench.send(first)


async def test_a_slow_publisher_holds_up_the_reports_of_nobody_else() -> None:
    """An intake of one workspace must not be able to stop those of the others."""
    slow, quick = Signer("a"), Signer("b")
    publisher, answered = Publisher(quick), asyncio.Event()
    bench = Bench(publisher)
    asked_at_once = publisher.get

    async def get(url: str, *, ca_pem: str | None, bytes_max: int) -> Fetched:
        if url != URL:
            await answered.wait()
            raise FetchError("no answer")
        return await asked_at_once(url, ca_pem=ca_pem, bytes_max=bytes_max)

    publisher.get = get  # type: ignore[method-assign]
    quick_intake = bench.intake
    config = IntakeConfig(keys_url="https://slow.example.com/keys")
    bench.database.found = dataclasses.replace(quick_intake, config=config)
    held_up = asyncio.create_task(bench.send(slow))
    await asyncio.sleep(0)
    bench.database.found = quick_intake

    async with asyncio.timeout(120):
        assert await bench.send(quick) == ["true_positive"]
    answered.set()
    with pytest.raises(UnavailableError):
        await held_up


async def test_the_addresses_that_are_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keyturn.leaks.reporters.ADDRESSES_MAX", 3)
    bench = Bench(Publisher())
    bench.publisher.get = _nothing  # type: ignore[method-assign]
    for number in range(10):
        config = IntakeConfig(keys_url=f"https://{number}.example.com/keys")
        bench.database.found = dataclasses.replace(bench.intake, config=config)
        with pytest.raises(UnavailableError):
            await bench.send(Signer("a"))

    assert bench.reporters.addresses <= 3


async def _nothing(url: str, *, ca_pem: str | None, bytes_max: int) -> Fetched:
    raise FetchError(f"{url} {ca_pem} {bytes_max}")
