"""Imports: keys that somebody else issued, taken over without a break.

    format           what is given                      what is stored
    plaintext        the key itself                     keyed BLAKE2b of its SHA-256, as for our own
    sha256_hex       64 hexadecimal digits              keyed BLAKE2b of it: the same
    sha256_base64    the same 32 bytes in base64        keyed BLAKE2b of it: the same
    bcrypt, argon2   the encoded digest, and `lookup`   as it is, until its first use

A slow digest cannot be looked up, so how the key begins has to be declared: at least 4 characters, and enough that
few keys begin alike.  Work factors beyond what verification would spend are refused here.

A plaintext of our own shape names its version itself and keeps that name, so that it is found as any other.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from keyturn.errors import ConflictError, InputError
from keyturn.kernel import tokenformat
from keyturn.kernel.ids import new_version_id
from keyturn.keys import issuing, keyspace_store, rules, store
from keyturn.keys.model import CURRENT, Version
from keyturn.keys.records import PEPPER
from keyturn.keys.slow_proofs import (
    ARGON2_KIB_MAX,
    ARGON2_LANES_MAX,
    ARGON2_PASSES_MAX,
    BCRYPT_ROUNDS_MAX,
    CANDIDATES_MAX,
)
from keyturn.storage.transaction import ChangeKind
from keyturn.wire.actions import Action
from keyturn.wire.keys import LOOKUP_LENGTH_MIN, ImportedKey, ImportKeys

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keyturn.access.door import Operation
    from keyturn.keys.model import Key, Keyspace
    from keyturn.storage.keyring import Keyring, OpenedKey

PLAINTEXT_LENGTH_MIN: Final = 8
_SHA256_BYTES: Final = 32
_HEX: Final = re.compile(r"[0-9A-Fa-f]{64}")
_BCRYPT: Final = re.compile(r"\$2[aby]\$([0-9]{2})\$[./A-Za-z0-9]{53}")
_ARGON2: Final = re.compile(
    r"\$argon2(?:id|i|d)\$(?:v=[0-9]{1,3}\$)?m=([0-9]{1,9}),t=([0-9]{1,9}),p=([0-9]{1,9})"
    r"\$[A-Za-z0-9+/]{8,128}\$[A-Za-z0-9+/]{16,128}"
)
_BCRYPT_ROUNDS_MIN: Final = 4


@dataclass(frozen=True, slots=True, repr=False)
class Material:
    """What an imported key is proven by: the SHA-256 of it, or an encoded slow digest."""

    kind: str
    value: bytes
    version_id: str | None = None
    lookup: str | None = None


def material_of(given: ImportedKey) -> Material:
    """Read what was given; raises InputError naming the field, never repeating its value."""
    value = given.value
    if given.format == "plaintext":
        if len(value) < PLAINTEXT_LENGTH_MIN:
            raise InputError(f"expected a key of at least {PLAINTEXT_LENGTH_MIN} characters", field="value")
        return Material("blake2b", tokenformat.sha256(value), tokenformat.version_id_of(value))
    if given.format == "sha256_hex":
        if _HEX.fullmatch(value) is None:
            raise InputError("expected 64 hexadecimal digits", field="value")
        return Material("blake2b", bytes.fromhex(value))
    if given.format == "sha256_base64":
        return Material("blake2b", _base64(value))
    if given.lookup is None:
        raise InputError(
            f"expected how the key begins, at least {LOOKUP_LENGTH_MIN} characters",
            field="lookup",
            hint=f"a {given.format} digest cannot be looked up without it",
        )
    if given.format == "bcrypt":
        _check_bcrypt(value)
    else:
        _check_argon2(value)
    return Material(given.format, value.encode("ascii"), None, given.lookup)


def import_all(
    op: Operation, keyring: Keyring, targets: issuing.Keyspaces, request: ImportKeys, ids: Sequence[str]
) -> list[Key]:
    """Store the keys given, record each, and let the keyspace accept foreign shapes from now on.

    Whoever calls it has authorised each and holds the keyspace's lock, so that two imports cannot miss each other.
    """
    keyspace = targets.usable(request.keyspace)
    peppers = keyring.all(op.connection, op.workspace, PEPPER, keyspace.id)
    keys: list[Key] = []
    versions: list[Version] = []
    matches: list[list[bytes]] = []
    for place, (given, key_id) in enumerate(zip(request.keys, ids, strict=True)):
        try:
            material = material_of(given)
            key = issuing.new_key(op, targets, keyspace, given, key_id, rules.expiry(given.expires_at, None, op.now))
        except InputError as error:
            raise InputError(
                error.message, field=f"keys[{place}].{error.field}", hint=error.hint, code=error.code
            ) from None
        keys.append(key)
        versions.append(_version(op, keyspace, peppers[0], key_id, material))
        matches.append(_equal_digests(material, peppers))
    _refuse_duplicates(op, keyspace, matches)
    issuing.insert_within_caps(op, keys)
    store.insert_versions(op.connection, versions)
    _refuse_crowded(op, keyspace, versions)
    for key, version in zip(keys, versions, strict=True):
        issuing.record_new(op, Action.KEY_IMPORT, key, version)
    if not keyspace.accepts_foreign and any(version.foreign for version in versions):
        accepting = replace(keyspace, accepts_foreign=True, revision=keyspace.revision + 1)
        keyspace_store.update_keyspace(op.connection, accepting)
        op.announce(ChangeKind.KEYSPACE, keyspace.id)
    return keys


def _version(op: Operation, keyspace: Keyspace, pepper: OpenedKey, key_id: str, material: Material) -> Version:
    fast = material.kind == "blake2b"
    return Version(
        id=material.version_id or new_version_id(),
        key=key_id,
        keyspace=keyspace.id,
        number=1,
        state=CURRENT,
        digest_kind=material.kind,
        digest=tokenformat.digest(pepper.value, material.value) if fast else material.value,
        pepper=pepper.number if fast else 0,
        foreign=material.version_id is None,
        lookup=material.lookup,
        created_at=op.now,
        created_by=op.caller.principal,
        valid_until=None,
        retired_at=None,
    )


def _equal_digests(material: Material, peppers: Sequence[OpenedKey]) -> list[bytes]:
    """Return every digest under which the same key may be stored already."""
    if material.kind != "blake2b":
        return [material.value]
    return [tokenformat.digest(pepper.value, material.value) for pepper in peppers]


def _refuse_duplicates(op: Operation, keyspace: Keyspace, matches: Sequence[Sequence[bytes]]) -> None:
    """Raise ConflictError naming the place of a key that is given twice, or is in the keyspace already."""
    stored = store.equal_digests(op.connection, keyspace.id, [digest for one in matches for digest in one])
    seen: dict[bytes, int] = {}
    for place, digests in enumerate(matches):
        if any(digest in stored for digest in digests):
            what = "is in the keyspace already"
        elif digests[0] in seen:
            what = f"is the same as keys[{seen[digests[0]]}]"
        else:
            seen[digests[0]] = place
            continue
        raise ConflictError(f"keys[{place}] {what}", code="duplicate", field=f"keys[{place}].value")


def _refuse_crowded(op: Operation, keyspace: Keyspace, versions: Sequence[Version]) -> None:
    """Raise InputError when more keys begin alike than verification would try."""
    lookups = {version.lookup for version in versions if version.lookup is not None}
    for lookup in sorted(lookups):
        prefixes = [lookup[:length] for length in range(LOOKUP_LENGTH_MIN, len(lookup) + 1)]
        alike = store.count_lookups(op.connection, keyspace.id, prefixes)
        if alike > CANDIDATES_MAX:
            place = next(place for place, version in enumerate(versions) if version.lookup == lookup)
            raise InputError(
                f"{alike} keys would begin alike, and {CANDIDATES_MAX} is the most",
                field=f"keys[{place}].lookup",
                hint="declare more of how each key begins",
            )


def _base64(value: str) -> bytes:
    try:
        padded = value + "=" * (-len(value) % 4)
        decoded = base64.b64decode(padded.replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError):
        decoded = b""
    if len(decoded) != _SHA256_BYTES:
        raise InputError("expected 32 bytes in base64", field="value")
    return decoded


def _check_bcrypt(value: str) -> None:
    found = _BCRYPT.fullmatch(value)
    if found is None:
        raise InputError("expected a bcrypt digest, $2b$ and so on", field="value")
    if not _BCRYPT_ROUNDS_MIN <= int(found[1]) <= BCRYPT_ROUNDS_MAX:
        raise InputError(
            f"expected a bcrypt cost of {_BCRYPT_ROUNDS_MIN} to {BCRYPT_ROUNDS_MAX}, found {int(found[1])}",
            field="value",
        )


def _check_argon2(value: str) -> None:
    found = _ARGON2.fullmatch(value)
    if found is None:
        raise InputError("expected an encoded argon2 digest, $argon2id$ and so on", field="value")
    memory, passes, lanes = (int(one) for one in found.groups())
    if memory > ARGON2_KIB_MAX or passes > ARGON2_PASSES_MAX or lanes > ARGON2_LANES_MAX:
        raise InputError(
            f"expected argon2 parameters up to m={ARGON2_KIB_MAX}, t={ARGON2_PASSES_MAX}, p={ARGON2_LANES_MAX}",
            field="value",
        )
