"""A signed checkpoint as this log writes it.

    keyturn/wsp_0VPf…                  origin, and the name of the signing key: the workspace's log
    1042                               leaves in the tree
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB…   root, base64
    keyturn checkpoint 87              extension: its number, counted from 1 without gaps, so that none can be dropped

    — keyturn/wsp_0VPf… Az3grl…

The checkpoint at which a new key takes over has one more line, and a signature of each of the two keys:

    keyturn handover <verifier key that signed so far> <verifier key that signs from now on>

See `keyturn.kernel.note` for the form.  Pure; needs the base install only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import msgspec

from keyturn.kernel import note
from keyturn.kernel.note import NoteError, VerifierKey

_NUMBER: Final = re.compile(r"keyturn checkpoint ([1-9][0-9]{0,18})")
_NUMBER_LINE: Final = 3
_HANDOVER_START: Final = "keyturn handover "
_SIZE: Final = re.compile(r"0|[1-9][0-9]{0,19}")
_SIGNATURE_START: Final = "\N{EM DASH} "
_SIGNATURE_BLOCK: Final = f"\n\n{_SIGNATURE_START}"


@dataclass(frozen=True, slots=True)
class Handover:
    """A checkpoint that two keys signed: the one that signed so far, and the one that signs from then on."""

    number: int
    before: VerifierKey
    after: VerifierKey
    note: str


@dataclass(frozen=True, slots=True)
class SignedCheckpoint:
    """What a checkpoint states, once its signature was proven."""

    origin: str
    size: int
    root: bytes
    number: int
    note: str


def origin_of(workspace: str) -> str:
    """Return the name of a workspace's log, which is also the name it signs under."""
    return f"keyturn/{workspace}"


def sign(
    workspace: str, size: int, root: bytes, number: int, private_key: bytes, *, outgoing: bytes | None = None
) -> str:
    """Return the signed note of a tree; `outgoing` is the key that signed so far, where this one takes over."""
    origin = origin_of(workspace)
    body = f"{note.checkpoint_body(origin, size, root)}keyturn checkpoint {number}\n"
    if outgoing is None:
        return note.sign(body, origin, private_key)
    body = f"{body}{_HANDOVER_START}{verifier_key(workspace, outgoing)} {verifier_key(workspace, private_key)}\n"
    return note.sign(body, origin, outgoing, private_key)


def verifier_key(workspace: str, private_key: bytes) -> str:
    """Return what checkpoints of the workspace that this key signs are verified with."""
    return note.encode_verifier_key(origin_of(workspace), note.public_key(private_key))


def read(text: str, key: VerifierKey) -> SignedCheckpoint:
    """Return what a note states; raises NoteError unless it is a checkpoint of this log signed by this key."""
    stated = note.verify(text, key.name, key.public_key)
    if stated.origin != key.name:
        raise NoteError(f"expected a checkpoint of {key.name!r}, found one of {stated.origin!r}")
    return SignedCheckpoint(stated.origin, stated.size, stated.root, number_of(text), text)


def read_handover(text: str) -> Handover | None:
    """Return the handover that a note states; None when it states none.

    Raises NoteError unless both keys signed it.  Proves only that each of them agreed to the other.
    """
    lines = text.partition("\n\n")[0].split("\n")
    stated = [line.removeprefix(_HANDOVER_START) for line in lines if line.startswith(_HANDOVER_START)]
    if not stated:
        return None
    before, _, after = stated[0].partition(" ")
    found = Handover(number_of(text), note.parse_verifier_key(before), note.parse_verifier_key(after), text)
    if len(stated) > 1 or found.before == found.after:
        raise NoteError("expected one handover, from one key to another")
    for key in (found.before, found.after):
        read(text, key)
    return found


def number_of(text: str) -> int:
    """Return the number a note of this log carries; raises NoteError when it has none.  Proves nothing."""
    lines = text.split("\n")
    found = _NUMBER.fullmatch(lines[_NUMBER_LINE]) if len(lines) > _NUMBER_LINE else None
    if found is None:
        raise NoteError("expected the line `keyturn checkpoint <number>` after the root")
    return int(found[1])


def size_of(text: str) -> int:
    """Return the size a note states; raises NoteError when it is not a checkpoint at all.  Proves nothing."""
    lines = text.split("\n")
    found = _SIZE.fullmatch(lines[1]) if len(lines) > _NUMBER_LINE else None
    if found is None or _SIGNATURE_BLOCK not in text:
        raise NoteError("expected a signed checkpoint: origin, size, root, number, an empty line and signatures")
    return int(lines[1])


def notes_in(text: str) -> list[str]:
    """Return the checkpoints in a file: one note, notes one after another, or the JSONL of a sink or an export.

    What is neither is returned as it is, for `size_of` and `read` to refuse.
    """
    if text.lstrip().startswith("{"):
        return [note for line in text.splitlines() if (note := _note_in(line)) is not None]
    notes: list[str] = []
    current: list[str] = []
    for line in text.splitlines(keepends=True):
        if current and current[-1].startswith(_SIGNATURE_START) and not line.startswith(_SIGNATURE_START):
            notes.append("".join(current))
            current = []
        if current or line.strip():
            current.append(line)
    return [*notes, "".join(current)] if current else notes


def _note_in(line: str) -> str | None:
    try:
        value = msgspec.json.decode(line)
    except msgspec.DecodeError:
        return None
    note = value.get("checkpoint") if isinstance(value, dict) else None
    return note if isinstance(note, str) else None
