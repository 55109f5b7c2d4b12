import asyncio

import argon2
import bcrypt
import pytest

from keyturn.kernel.secret import random_base62
from keyturn.keys import slow_proofs
from keyturn.keys.slow_proofs import matches
from keyturn.testing.waiting import until_async
from tests.verification.world import Issued, World

SECRET = "old-" + random_base62(24)


def bcrypt_digest(secret: str = SECRET, rounds: int = 4) -> tuple[str, bytes, str]:
    return "bcrypt", bcrypt.hashpw(secret.encode(), bcrypt.gensalt(rounds)), "old-"


def argon2_digest(secret: str = SECRET) -> tuple[str, bytes, str]:
    hasher = argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
    return "argon2", hasher.hash(secret).encode(), "old-"


async def test_an_imported_key_is_verified_by_its_computed_digest(world: World) -> None:
    keyspace = await world.create_keyspace(foreign=True)
    issued = await world.issue(keyspace, presented=SECRET)
    await world.follow()
    assert (await world.verify(SECRET)).key_id == issued.id
    assert world.verify_now(SECRET) is not None
    assert (await world.verify(SECRET + "x")).code == "NOT_FOUND"


async def test_foreign_shapes_cost_nothing_where_no_keyspace_takes_them(world: World) -> None:
    await world.create_keyspace(foreign=False)
    await world.follow()
    await world.verify("junk")
    world.take_database_away()
    assert (await world.verify(SECRET)).code == "NOT_FOUND"


async def test_a_key_imported_elsewhere_just_now_is_looked_up(world: World) -> None:
    keyspace = await world.create_keyspace(foreign=True)
    await world.follow()
    await world.verify("junk")
    issued = await world.issue(keyspace, presented=SECRET)
    assert (await world.verify(SECRET)).key_id == issued.id


async def test_a_look_up_in_one_keyspace_does_not_answer_for_another(world: World) -> None:
    """Two who ask at once about the same secret, each in its own keyspace, do not share an answer."""
    old, new = await world.create_keyspace("old", foreign=True), await world.create_keyspace("new", foreign=True)
    await world.follow()
    await world.verify("junk")
    issued = await world.issue(new, presented=SECRET)
    there, here = await asyncio.gather(world.verify(SECRET, keyspace=old.name), world.verify(SECRET, keyspace=new.name))
    assert (there.code, here.key_id) == ("NOT_FOUND", issued.id)


async def test_an_imported_key_is_not_found_by_another_workspace(world: World) -> None:
    keyspace = await world.create_keyspace(foreign=True)
    await world.issue(keyspace, presented=SECRET)
    _, stranger = await world.tenant("other")
    await world.follow()
    assert (await world.verify(SECRET, by=stranger)).code == "NOT_FOUND"


async def test_an_imported_key_is_not_found_by_the_id_of_its_version(world: World) -> None:
    """The id is public; a key of our shape that names it proves nothing and starts no slow proof."""
    keyspace = await world.create_keyspace(foreign=True)
    issued = await world.issue(keyspace, presented=SECRET, slow=bcrypt_digest())
    await world.follow()
    from keyturn.kernel.tokenformat import mint

    shaped = mint("acme", "live").key.reveal()
    forged = shaped[:-61] + issued.version_id + shaped[-49:]
    assert (await world.verify(forged)).code == "NOT_FOUND"
    assert world.slow.refused == 0


@pytest.mark.parametrize("kind", ["bcrypt", "argon2"])
async def test_a_slow_digest_is_proven_and_replaced_on_first_use(world: World, kind: str) -> None:
    keyspace = await world.create_keyspace(foreign=True)
    slow = bcrypt_digest() if kind == "bcrypt" else argon2_digest()
    issued = await world.issue(keyspace, presented=SECRET, slow=slow)
    await world.follow()
    assert world.verify_now(SECRET) is None
    answer = await world.verify(SECRET)
    assert (answer.valid, answer.key_id) == (True, issued.id)
    await world.rehasher.drain()
    row = await world.stored_version(issued.version_id)
    assert (row.digest_kind, row.pepper, row.lookup) == ("blake2b", 1, None)
    assert row.digest != slow[1]
    await world.follow()
    await world.verify(SECRET)
    fast = world.verify_now(SECRET)
    assert fast is not None
    assert fast.valid


async def test_a_wrong_secret_is_not_found_and_nothing_is_replaced(world: World) -> None:
    keyspace = await world.create_keyspace(foreign=True)
    issued = await world.issue(keyspace, presented=SECRET, slow=bcrypt_digest())
    await world.follow()
    answer = await world.verify("old-but-wrong")
    assert (answer.code, answer.key_id) == ("NOT_FOUND", None)
    await world.rehasher.drain()
    assert (await world.stored_version(issued.version_id)).digest_kind == "bcrypt"


async def test_a_slow_key_is_proven_while_stale_too(world: World) -> None:
    keyspace = await world.create_keyspace(foreign=True)
    issued = await world.issue(keyspace, presented=SECRET, slow=bcrypt_digest())
    await world.follow()
    world.go_stale()
    assert (await world.verify(SECRET)).key_id == issued.id


async def test_a_key_revoked_while_its_secret_was_proven_is_denied(world: World) -> None:
    """A slow proof takes long enough for news to overtake it; the news wins."""
    keyspace = await world.create_keyspace(foreign=True)
    issued = await world.issue(keyspace, presented=SECRET, slow=bcrypt_digest())
    await world.follow()
    await world.verify("warm")
    prove = world.slow.prove

    async def overtaken(*given: object) -> object:
        found = await prove(*given)  # type: ignore[arg-type]
        await world.set_key_state(issued, "revoked")
        await world.follow()
        return found

    world.slow.prove = overtaken  # type: ignore[method-assign,assignment]
    assert (await world.verify(SECRET)).code == "REVOKED"


async def test_guesses_at_a_slow_digest_are_throttled(world: World) -> None:
    """Guessing costs us CPU, so it is bounded for each key; what was not tried is not called wrong."""
    keyspace = await world.create_keyspace(foreign=True)
    await world.issue(keyspace, presented=SECRET, slow=bcrypt_digest())
    await world.follow()
    codes = [(await world.verify(f"old-{number}")).code for number in range(int(slow_proofs.ATTEMPTS_BURST) + 3)]
    assert codes.count("NOT_FOUND") == slow_proofs.ATTEMPTS_BURST
    assert codes[-3:] == ["UNAVAILABLE"] * 3
    world.clock.advance(5)
    await world.confirm()
    assert (await world.verify(SECRET)).valid


async def test_proofs_that_wait_are_bounded(world: World) -> None:
    keyspace = await world.create_keyspace(foreign=True)
    secrets = [f"k{number:02}-{SECRET}" for number in range(slow_proofs.WAITING_MAX * 2)]
    for secret in secrets:
        kind, stored, _ = bcrypt_digest(secret, 6)
        await world.issue(keyspace, presented=secret, slow=(kind, stored, secret[:8]))
    await world.follow()
    await world.verify("warm")
    answers = await asyncio.gather(*(world.verify(secret) for secret in secrets))
    codes = [answer.code for answer in answers]
    assert set(codes) == {"VALID", "UNAVAILABLE"}
    assert codes.count("VALID") >= slow_proofs.WAITING_MAX


async def test_the_same_secret_is_proven_once_for_all_who_wait(world: World) -> None:
    keyspace = await world.create_keyspace(foreign=True)
    await world.issue(keyspace, presented=SECRET, slow=bcrypt_digest())
    await world.follow()
    await world.verify("warm")
    answers = await asyncio.gather(*(world.verify(SECRET) for _ in range(40)))
    assert all(answer.valid for answer in answers)
    assert world.slow.refused == 0


# --- digests -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "stored"),
    [
        ("bcrypt", b""),
        ("bcrypt", b"$2b$04$short"),
        ("bcrypt", b"\xff" * 60),
        ("argon2", b""),
        ("argon2", b"$argon2id$v=19$m=64,t=1,p=1$nothing"),
        ("argon2", "ünreadable".encode()),
        ("scrypt", b"whatever"),
    ],
)
def test_a_digest_that_cannot_be_read_matches_nothing(kind: str, stored: bytes) -> None:
    assert not matches(kind, stored, SECRET)


def test_a_digest_may_not_ask_for_more_work_than_is_allowed() -> None:
    """Whoever imports digests must not be able to make each guess cost seconds or gigabytes."""
    costly = b"$2b$15$" + bcrypt_digest()[1][7:]
    assert not matches("bcrypt", costly, SECRET)
    _, stored, _ = argon2_digest()
    greedy = stored.replace(b"m=64", b"m=%d" % (slow_proofs.ARGON2_KIB_MAX + 1))
    assert not matches("argon2", greedy, SECRET)


def test_bcrypt_reads_as_much_of_a_key_as_its_maker_did() -> None:
    long = "k" * 100
    stored = bcrypt.hashpw(long.encode()[:72], bcrypt.gensalt(4))
    assert matches("bcrypt", stored, long)
    assert not matches("bcrypt", stored, "k" * 71)


@pytest.mark.parametrize("secret", ["", "\x00", "a\x00b", "\ud800", "é" * 200])
def test_odd_secrets_match_nothing_and_never_raise(secret: str) -> None:
    assert not matches("bcrypt", bcrypt_digest()[1], secret)
    assert not matches("argon2", argon2_digest()[1], secret)


# --- peppers -------------------------------------------------------------------------------------------------------


async def test_a_version_under_an_old_pepper_moves_to_the_newest_when_used(world: World) -> None:
    keyspace = await world.create_keyspace()
    used, unused = await world.issue(keyspace), await world.issue(keyspace)
    await world.rotate_pepper(keyspace)
    await world.follow()
    assert (await world.verify(used.key)).valid
    await world.rehasher.drain()
    assert (await world.stored_version(used.version_id)).pepper == 2
    assert (await world.stored_version(unused.version_id)).pepper == 1
    await world.follow()
    for issued in (used, unused):
        assert (await world.verify(issued.key)).valid
    assert world.rehasher.rehashed == 1


async def test_a_version_that_changed_meanwhile_is_not_overwritten(world: World) -> None:
    """A digest is replaced only if it is still the one that the secret was proven against."""
    keyspace = await world.create_keyspace()
    issued: Issued = await world.issue(keyspace)
    await world.rotate_pepper(keyspace)
    await world.follow()
    assert (await world.verify(issued.key)).valid
    version = world.replication.replica.version(issued.version_id)
    assert version is not None
    await world.rehasher.drain()
    row = await world.stored_version(issued.version_id)
    world.rehasher.offer(version, issued.key)
    await world.rehasher.drain()
    assert (await world.stored_version(issued.version_id)) == row
    assert world.rehasher.rehashed == 1


async def test_nothing_moves_to_a_pepper_that_is_not_the_newest_any_more(world: World) -> None:
    """Or a version could end under a pepper that is about to be retired, and be lost."""
    keyspace = await world.create_keyspace()
    issued = await world.issue(keyspace)
    await world.rotate_pepper(keyspace)
    await world.follow()
    await world.rotate_pepper(keyspace)
    assert (await world.verify(issued.key)).valid
    await world.rehasher.drain()
    assert (await world.stored_version(issued.version_id)).pepper == 1
    await world.follow()
    await world.verify(issued.key)
    await world.rehasher.drain()
    assert (await world.stored_version(issued.version_id)).pepper == 3


async def test_the_rehasher_runs_by_itself_and_survives_a_failing_database(world: World) -> None:
    keyspace = await world.create_keyspace()
    issued = await world.issue(keyspace)
    await world.rotate_pepper(keyspace)
    await world.follow()
    assert (await world.verify(issued.key)).valid
    write = world.database.write
    world.take_database_away()
    await world.rehasher.drain()
    assert world.rehasher.trouble.failures == 1
    world.database.write = write  # type: ignore[method-assign]
    world.rehasher.start()
    assert world.verify_now(issued.key) is not None
    await until_async(lambda: world.rehasher.rehashed)
    assert world.rehasher.rehashed == 1
