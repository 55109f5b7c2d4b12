from __future__ import annotations

import base64
from binascii import crc32

import pytest

from keyturn.scanner.ruleset.checksums import CHECKSUMS
from keyturn.scanner.ruleset.samples import ALPHABETS, expand


@pytest.mark.parametrize(
    ("checksum", "prefix", "drawn", "check"),
    [
        ("crc32-base62", "ghp_", "zQWBuTSOoRi4A9spHcVY5ncnsDkxkJ", "0mLq17"),
        ("crc32-base62", "npm_", "qkJaB6MffYVzZXWqmcoF49yrUxP3wf", "0LsakP"),
    ],
)
def test_a_key_that_a_provider_published_as_a_sample_is_right(
    checksum: str, prefix: str, drawn: str, check: str
) -> None:
    verify = CHECKSUMS[checksum].verify
    assert verify(f"{prefix}{drawn}{check}".encode())
    assert not verify(f"{prefix}{drawn[:-1]}{'A' if drawn[-1] != 'A' else 'B'}{check}".encode())


@pytest.mark.parametrize("prefix", ["glpat-", "glrt-t1_", "acme-glpat-"])
def test_the_check_of_a_routable_token_is_over_the_prefix_too(prefix: str) -> None:
    check = CHECKSUMS["gitlab-routable"]
    body = expand(prefix + "{{base64url:27}}.01.0r", prefix)
    token = body + check.check_of(body)
    assert int(token[-7:], 36) == crc32(body.encode())
    assert check.verify(token.encode())
    assert not check.verify(token.replace(prefix, "x" + prefix[1:]).encode())


@pytest.mark.parametrize("kind", ["SU", "SA", "SO", "SX"])
def test_the_check_of_a_seed_of_nats_is_over_its_kind_too(kind: str) -> None:
    check = CHECKSUMS["nkey"]
    body = expand(kind + "{{base32:52}}", kind)
    seed = body + check.check_of(body)
    raw = base64.b32decode(seed + "=" * 6)
    assert len(raw) == 36
    assert check.verify(seed.encode())
    assert not check.verify(seed.replace(kind, "SN").encode())
    assert not check.verify(seed[:-1].encode())
    assert not check.verify(seed.lower().encode())


@pytest.mark.parametrize("name", sorted(CHECKSUMS))
def test_no_text_makes_a_check_fail_in_another_way_than_by_saying_no(name: str) -> None:
    """What is verified comes from foreign files, and may be anything that a pattern takes."""
    for secret in (b"", b"_", b"-", b".", b"\xff\xfe\x00", ALPHABETS["base64"].encode() * 20, b"_" * 80):
        assert CHECKSUMS[name].verify(secret) in {True, False}


def _signed(header: str, claims: str) -> bytes:
    parts = [base64.urlsafe_b64encode(part.encode()).rstrip(b"=") for part in (header, claims)]
    return b".".join([*parts, b"A" * 86])


@pytest.mark.parametrize(
    ("header", "claims", "is_secret"),
    [
        ('{"typ":"JWT","alg":"ed25519-nkey"}', '{"nats":{"type":"account"}}', False),
        ('{"typ":"JWT","alg":"ed25519-nkey"}', '{"nats":{"type":"operator"}}', False),
        ('{"typ":"jwt","alg":"ed25519"}', '{"type":"account","nats":{}}', False),
        ('{"typ":"JWT","alg":"ed25519-nkey"}', '{"nats":{"type":"user","bearer_token":true}}', True),
        ('{"typ":"JWT","alg":"ed25519-nkey"}', '{"sub":"nobody knows"}', True),
        ('{"typ":"JWT","alg":"ed25519-nkey"}', "no claims at all", True),
        ('{"typ":"JWT","alg":"ed25519-nkey"}', "[" * 5000, True),
        ('{"typ":"JWT","alg":"EdDSA"}', '{"nats":{"type":"account"}}', True),
        ('{"alg":"HS256"}', '{"type":"account"}', True),
    ],
)
def test_what_nats_signs_for_all_to_see_is_no_secret(header: str, claims: str, *, is_secret: bool) -> None:
    """The token of a user is one: it may be a bearer token."""
    assert CHECKSUMS["jwt"].verify(_signed(header, claims)) is is_secret
