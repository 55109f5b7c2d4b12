from __future__ import annotations

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


@pytest.mark.parametrize("name", sorted(CHECKSUMS))
def test_no_text_makes_a_check_fail_in_another_way_than_by_saying_no(name: str) -> None:
    """What is verified comes from foreign files, and may be anything that a pattern takes."""
    for secret in (b"", b"_", b"-", b".", b"\xff\xfe\x00", ALPHABETS["base64"].encode() * 20, b"_" * 80):
        assert CHECKSUMS[name].verify(secret) in {True, False}
