"""Intakes as they are stored, on both databases."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sqlalchemy import Connection

from keyturn.bootstrap.logins import GuardedFetcher
from keyturn.errors import ConflictError, InputError, PreconditionError
from keyturn.leaks import intake_store
from keyturn.leaks.intakes import IntakeService
from keyturn.webhooks.guard import SETTING
from keyturn.wire.leak_intakes import CreateLeakIntake, IntakeState, UpdateLeakIntake
from tests.leaks.station import Station


@pytest.fixture
def intakes(station: Station) -> IntakeService:
    return IntakeService(station.desk.door, GuardedFetcher(setting=SETTING))


def wanted(**given: Any) -> CreateLeakIntake:
    """Return a request for an intake with a pinned key."""
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    document = {"name": "github", "keys": [{"key_identifier": "one", "key": pem}]} | given
    return msgspec.convert(document, type=CreateLeakIntake)


async def test_an_intake_takes_reports_as_long_as_it_stands(station: Station, intakes: IntakeService) -> None:
    def is_open(connection: Connection) -> bool:
        return intake_store.find_open(connection, "default", "github") is not None

    made = await intakes.create(station.admin, wanted())
    with pytest.raises(ConflictError):
        await intakes.create(station.admin, wanted())
    assert await station.desk.database.read(is_open)

    off = UpdateLeakIntake(state=IntakeState.DISABLED)
    with pytest.raises(PreconditionError):
        await intakes.update(station.admin, "github", off, if_match=made.revision + 1)
    await intakes.update(station.admin, "github", off, if_match=made.revision)
    assert not await station.desk.database.read(is_open)
    await intakes.delete(station.admin, "github")
    assert (await intakes.create(station.admin, wanted())).id != made.id
    assert await station.desk.database.read(is_open)


@pytest.mark.parametrize(
    "url", ["https://127.0.0.1/keys", "https://[::1]/keys", "https://169.254.169.254/keys", "http://10.0.0.1/keys"]
)
async def test_keys_are_read_from_no_network_of_the_server(intakes: IntakeService, station: Station, url: str) -> None:
    """Whoever may make an intake must not make the server ask about for them."""
    with pytest.raises(InputError) as refused:
        await intakes.create(station.admin, wanted(keys=[], keys_url=url))
    assert SETTING in str(refused.value.hint)
