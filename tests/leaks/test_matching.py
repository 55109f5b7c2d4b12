"""Whose a value is can be asked by its digest, by who may ask, and told to who may know."""

import hashlib

import msgspec
import pytest

from keyturn.errors import ForbiddenError, ThrottledError
from keyturn.kernel import tokenformat
from keyturn.leaks.matching import Matching
from keyturn.leaks.service import LeakService
from keyturn.vault.fingerprints import Fingerprints
from keyturn.wire.certainty import Certainty
from keyturn.wire.keys import ImportedKey, ImportKeys, RevokeKey, RotateKey
from keyturn.wire.leaks import MatchLeaks
from keyturn.wire.secrets import SelectVersions
from tests.leaks.station import LONG, Station, candidate


async def test_an_issued_key_is_named_to_the_version_with_its_owner(station: Station) -> None:
    await station.desk.keyspace()
    key_id, key = await station.key()

    (match,) = await station.match("nothing of ours, and long enough", key)

    assert (match.index, match.certainty, match.works, match.state) == (1, Certainty.OWN, True, "active")
    assert (match.key, match.keyspace, match.owner, match.environment) == (key_id, "orders", "billing", "production")
    assert match.version == tokenformat.version_id_of(key)
    assert match.next_command == f"keyturn keys rotate {key_id}"


async def test_a_wrong_digest_with_a_real_version_answers_as_no_match(station: Station) -> None:
    """Version ids stand in logs: knowing one must not be enough to learn whose key it is."""
    await station.desk.keyspace()
    _, key = await station.key()
    other = tokenformat.mint("acme", "live").key.reveal()
    request = MatchLeaks(
        candidates=(
            candidate(key, digest=hashlib.sha256(b"a guess").hexdigest()),
            candidate(other),
            candidate(key, version=tokenformat.version_id_of(other)),
        )
    )

    assert (await station.leaks.match(station.admin, request)).matches == ()


async def test_keys_under_a_superseded_pepper_and_after_a_rotation_are_found(station: Station) -> None:
    await station.desk.keyspace()
    key_id, key = await station.key()
    await station.desk.keyspaces.rotate_pepper(station.admin, "orders")
    await station.desk.keys.rotate(station.admin, key_id, RotateKey(overlap_seconds=60))
    _, newer = await station.key()

    assert [(one.works, one.key) for one in await station.match(key)] == [(True, key_id)]
    station.desk.clock.advance(61)
    assert [(one.works, one.state) for one in await station.match(key)] == [(False, "expired")]
    assert len(await station.match(newer)) == 1


async def test_imported_keys_are_found_by_their_digest(station: Station) -> None:
    await station.desk.keyspace()
    foreign = "-".join(("sk", "foreign", "0123456789abcdef"))
    hashed = hashlib.sha256(b"another-foreign-key").hexdigest()
    given = (
        ImportedKey(format="plaintext", value=foreign, owner="billing", purpose="tests"),
        ImportedKey(format="sha256_hex", value=hashed, owner="stock", purpose="tests"),
    )
    await station.desk.keys.import_keys(station.admin, ImportKeys(keyspace="orders", keys=given))

    matches = await station.match(foreign, "another-foreign-key")

    assert [one.owner for one in matches] == ["billing", "stock"]


async def test_a_management_token_is_found_with_its_principal(station: Station) -> None:
    _, token = await station.desk.hire("ci")

    (match,) = await station.match(token.token.reveal())

    assert (match.certainty, match.keyspace) == (Certainty.OWN, "~system")
    assert match.next_command is not None
    assert match.next_command.startswith(f"keyturn principals tokens revoke {match.owner} tok_")


async def test_a_revoked_key_is_known_and_works_no_more(station: Station) -> None:
    await station.desk.keyspace()
    key_id, key = await station.key()
    await station.desk.keys.revoke(station.admin, key_id, RevokeKey())

    (match,) = await station.match(key)

    assert (match.works, match.state, match.next_command) == (False, "revoked", None)


async def test_keys_of_another_workspace_are_nobodys(station: Station) -> None:
    await station.desk.keyspace()
    _, key = await station.key()
    await station.put("production/a/one")
    tenant = await station.desk.tenant("other")

    assert await station.match(key, LONG, by=tenant) == ()


async def test_a_held_value_is_found_whatever_space_is_around_it(station: Station) -> None:
    written = await station.put("production/a/one")

    (match,) = await station.match(f" {LONG}\n")

    assert (match.certainty, match.secret_path, match.field) == (Certainty.HELD, "production/a/one", "token")
    assert (match.works, match.sequence) == (True, written.sequence)


@pytest.mark.parametrize("length", [19, 20, 400])
async def test_a_short_held_value_is_not_found_whatever_length_is_claimed(station: Station, length: int) -> None:
    """Who may ask could try every short value."""
    short = "x" * 19
    await station.put("production/a/one", short)

    asked = MatchLeaks(candidates=(candidate(short, length=length),))

    assert (await station.leaks.match(station.admin, asked)).matches == ()


async def test_a_long_value_is_not_compared_when_it_is_said_to_be_short(station: Station) -> None:
    await station.put("production/a/one")

    assert (
        await station.leaks.match(station.admin, MatchLeaks(candidates=(candidate(LONG, length=19),)))
    ).matches == ()


async def test_a_destroyed_value_is_not_found_and_one_that_was_replaced_does_not_work(station: Station) -> None:
    await station.put("production/a/one")
    await station.put("production/a/one", LONG + "-newer")

    assert [one.works for one in await station.match(LONG)] == [False]
    await station.vault.destroy(station.admin, "production/a/one", SelectVersions(versions=(1,)))
    assert await station.match(LONG) == ()


async def test_the_path_of_a_secret_is_told_only_to_who_may_list_it(station: Station) -> None:
    """A scanner of a build may ask whether something is held, and not learn where."""
    await station.put("production/a/one")
    await station.put("staging/b/two")
    _, blind = await station.desk.hire("blind", ("finding.match", "finding/match"))
    _, staging = await station.desk.hire(
        "stager", ("finding.match", "finding/match"), ("secret.list", "secret/staging/*")
    )

    (to_blind,) = await station.match(LONG, by=blind)
    (to_staging,) = await station.match(LONG, by=staging)

    assert (to_blind.certainty, to_blind.secret_path, to_blind.field, to_blind.sequence) == ("held", None, None, None)
    assert to_staging.secret_path == "staging/b/two"
    assert b"production" not in msgspec.json.encode(to_staging)


async def test_asking_takes_its_own_right_and_is_on_record(station: Station) -> None:
    await station.put("production/a/one")
    _, reader = await station.desk.hire("reader", ("finding.read", "finding/*"), ("finding.report", "finding/*"))

    with pytest.raises(ForbiddenError):
        await station.match(LONG, by=reader)
    await station.match(LONG, "not held by anybody at all")

    leaves = await station.desk.leaves("finding.match")
    assert [leaf["outcome"] for leaf in leaves] == ["denied", "allowed"]
    assert leaves[1]["detail"] == {"candidates": 2, "own": 0, "held": 1}


async def test_a_principal_that_asks_about_too_many_is_held_back(station: Station) -> None:
    matching = Matching(station.desk.keyring, Fingerprints(station.desk.keyring))
    leaks = LeakService(station.desk.door, matching, per_second=1.0, burst=3.0)
    three = MatchLeaks(candidates=tuple(candidate(LONG + str(number)) for number in range(3)))
    _, other = await station.desk.hire("other", ("finding.match", "finding/match"))

    await leaks.match(station.admin, three)
    with pytest.raises(ThrottledError) as caught:
        await leaks.match(station.admin, three)
    await leaks.match(other, three)
    station.desk.clock.advance(3)
    await leaks.match(station.admin, three)

    assert caught.value.retry_after_seconds == pytest.approx(3.0)


async def test_what_was_asked_about_is_stored_nowhere(station: Station) -> None:
    """The digest of a value that can be guessed is as good as the value."""
    await station.match(LONG)

    stored = await station.everything_stored()
    digest = hashlib.sha256(LONG.encode())
    assert digest.hexdigest().encode() not in stored
    assert repr(digest.digest())[2:-1].encode() not in stored
