"""The keys a log was signed with, one after another, as far as a pinned one vouches for them.

    key 0 --handover at checkpoint 40--> key 1 --handover at checkpoint 95--> key 2
    signs 1 to 40                        signs 40 to 95                       signs from 95 on

Each handover is a checkpoint signed by both keys, so whoever holds one key of the chain can follow it either way: old
logs with the new key, the grown log with an old one.  A key signs only what lies between its handovers; what it signs
elsewhere, as it can once it was stolen, proves nothing.

Pure; needs the base install only.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

from keyturn.audit import checkpoint
from keyturn.kernel.note import NoteError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keyturn.audit.checkpoint import Handover, SignedCheckpoint
    from keyturn.kernel.note import VerifierKey


class Signers:
    """The keys of one log, the oldest first."""

    def __init__(self, key: VerifierKey) -> None:
        """Begin with one key, which signs everything until a handover is followed."""
        self._keys = [key]
        self._handovers: list[Handover] = []

    @classmethod
    def known_to(cls, pinned: VerifierKey, notes: Sequence[str]) -> Signers:
        """Follow the handovers of a log, the oldest first, from the pinned key in both directions.

        Raises NoteError unless they form one chain, signed throughout, that the pinned key is part of.
        """
        if not notes:
            return cls(pinned)
        handovers = [checkpoint.read_handover(one) for one in notes]
        if handovers[0] is None:
            raise NoteError("expected handovers, found a checkpoint that is none")
        signers = cls(handovers[0].before)
        for one in handovers:
            if one is None:
                raise NoteError("expected handovers, found a checkpoint that is none")
            signers._append(one)
        if pinned not in signers._keys:
            raise NoteError("the handovers of the log do not lead to the key it is verified with")
        return signers

    @property
    def newest(self) -> VerifierKey:
        """The key that signs from the last handover on."""
        return self._keys[-1]

    def follow(self, note: str) -> None:
        """Go on to the next key, when the note is the next handover; raises NoteError for one that proves nothing."""
        found = checkpoint.read_handover(note)
        if found is not None and (not self._handovers or found.number > self._handovers[-1].number):
            self._append(found)

    def read(self, note: str) -> SignedCheckpoint:
        """Return what a note states; raises NoteError unless the key whose turn it was signed it."""
        place = bisect_left(self._handovers, checkpoint.number_of(note), key=lambda one: one.number)
        return checkpoint.read(note, self._keys[place])

    def _append(self, found: Handover) -> None:
        if found.before != self.newest:
            raise NoteError(f"checkpoint {found.number} hands over from a key that did not sign so far")
        if self._handovers and found.number <= self._handovers[-1].number:
            raise NoteError(f"the handover at checkpoint {found.number} stands out of order")
        if found.after in self._keys:
            raise NoteError(f"checkpoint {found.number} hands over to a key that was replaced before")
        self._handovers.append(found)
        self._keys.append(found.after)
