"""The offline copy: what was read last, sealed in a file, for when the server cannot be reached.

    file     KTPH …      AES-256-GCM under a key derived from the token (keyturn.kernel.envelope), mode 0600
    opens    with the same token, server address and selection only
    holds    {"format": 1, "sealed_at": epoch, "boot": id, "boottime": seconds, "values": [...], "named": {...}}

Its age is that since sealing, by the wall clock and, on the same boot, also by a clock that nobody can step; a clock
that was set back before the time of sealing is a refusal.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from keyturn import errors
from keyturn.delivery.files import write_private
from keyturn.delivery.selection import Collected
from keyturn.kernel.clock import boottime, wall
from keyturn.kernel.envelope import EnvelopeError, open_under_phrase, seal_under_phrase
from keyturn.wire.secrets import SecretValue

if TYPE_CHECKING:
    from collections.abc import Callable

    from keyturn.delivery.selection import Selection
    from keyturn.kernel.secret import Secret

_PURPOSE: Final = b"keyturn offline copy 1\0"
_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")
BACK_SECONDS: Final = 5.0
"""How far a clock may be corrected backwards."""


class _Copy(msgspec.Struct, frozen=True):
    format: int
    sealed_at: float
    boot: str
    boottime: float
    values: list[SecretValue]
    named: dict[str, str]

    def __repr__(self) -> str:
        return "_Copy([redacted])"


@dataclass(frozen=True, slots=True)
class OfflineCopy:
    """One file, for one token, server and selection."""

    file: Path
    token: Secret
    url: str
    selection: Selection
    max_age_seconds: float
    now: Callable[[], float] = wall
    uptime: Callable[[], float] = boottime

    def save(self, collected: Collected) -> None:
        """Replace the file in one step; raises ConfigError when it cannot be written."""
        values = list(collected.values.values())
        copy = _Copy(1, self.now(), _boot(), self.uptime(), values, collected.named)
        sealed = seal_under_phrase(self.token.reveal_bytes(), self._context(), msgspec.json.encode(copy))
        write_private(self.file, sealed)

    def load(self) -> tuple[Collected, float]:
        """Return what was read last and its age in seconds; raises UnavailableError saying why it may not be used."""
        try:
            mode = self.file.stat()
            sealed = self.file.read_bytes()
        except OSError as error:
            raise self._refusal(f"cannot be read: {os.strerror(error.errno or 0)}") from None
        if mode.st_mode & 0o077 or mode.st_uid != os.geteuid():
            raise self._refusal("can be read by others, or is somebody else's")
        try:
            plain = open_under_phrase(self.token.reveal_bytes(), self._context(), sealed)
            copy = msgspec.json.decode(plain, type=_Copy)
        except (EnvelopeError, msgspec.DecodeError):
            raise self._refusal("does not open with this token, address and selection") from None
        if copy.format != 1:
            raise self._refusal(f"has format {copy.format}, expected 1")
        age = self._age(copy)
        values = {value.path: value for value in copy.values}
        return Collected(self.selection, values, copy.named), age

    def _age(self, copy: _Copy) -> float:
        age = self.now() - copy.sealed_at
        if age < -BACK_SECONDS:
            raise self._refusal("is from the future: the clock was set back")
        if copy.boot and copy.boot == _boot():
            age = max(age, self.uptime() - copy.boottime)
        if age > self.max_age_seconds:
            raise self._refusal(f"is {age:.0f} s old, expected at most {self.max_age_seconds:g} s")
        return max(age, 0.0)

    def _context(self) -> bytes:
        return _PURPOSE + self.url.rstrip("/").encode() + b"\0" + self.selection.identity.encode()

    def _refusal(self, what: str) -> errors.UnavailableError:
        return errors.UnavailableError(f"the offline copy {str(self.file)!r} {what}", code="offline_copy_refused")


def _boot() -> str:
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return ""
