"""A push that is let through in spite of findings: who did it, what and why, on record before it is accepted.

Who pushes asks for it with push options (`git push -o …`; the server allows them by `receive.advertisePushOptions`):

    keyturn.allow=<fingerprint>     once for each finding; the fingerprint is in the refusal
    keyturn.reason=<text>           why; a bypass without a reason is none

The server's repository says by `keyturn.bypass` whether that is allowed: `reason` (the default) or `never`.  The
record is one line of JSON for each push, appended to `keyturn-bypasses.jsonl` in the repository and on disk before the
hook ends.  A record that cannot be written refuses the push.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from keyturn.errors import InputError, StorageError
from keyturn.kernel.redact import scrub

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from keyturn.scanner.hooks.pushing import RefChange

RECORD: Final = "keyturn-bypasses.jsonl"
REASON_MAX: Final = 500
OPTIONS_MAX: Final = 1000

_fingerprint: Final = re.compile(r"[0-9a-f]{16,64}").fullmatch
# Who pushes, as the programs in front of git say it: HTTP servers, GitLab, Gitea and Forgejo, Gitolite, SSH.
_PUSHERS: Final = ("REMOTE_USER", "GL_USERNAME", "GITEA_PUSHER_NAME", "GL_USER", "GIT_PUSH_CERT_SIGNER", "LOGNAME")


@dataclass(frozen=True, slots=True)
class Bypass:
    """What a push asks for."""

    fingerprints: frozenset[str] = frozenset()
    reason: str = ""


def push_options(environment: Mapping[str, str]) -> list[str]:
    """Return the options of the push, as git tells a hook in its environment; none when they are garbled."""
    count = environment.get("GIT_PUSH_OPTION_COUNT", "0")
    if not count.isascii() or not count.isdigit():
        return []
    return [environment.get(f"GIT_PUSH_OPTION_{number}", "") for number in range(min(int(count), OPTIONS_MAX))]


def read_bypass(options: Iterable[str]) -> Bypass:
    """Read what is asked for; raises InputError when a fingerprint is none, or no reason is given."""
    fingerprints: set[str] = set()
    reason = ""
    for option in options:
        name, _, value = option.partition("=")
        if name == "keyturn.allow":
            if _fingerprint(value) is None:
                raise InputError("keyturn.allow is no fingerprint", field="keyturn.allow")
            fingerprints.add(value)
        elif name == "keyturn.reason":
            reason = scrub("".join(c for c in value if c.isprintable()).strip()[:REASON_MAX])
    if fingerprints and not reason:
        raise InputError(
            "a bypass needs a reason",
            code="reason_required",
            field="keyturn.reason",
            hint="push with -o keyturn.reason='…'",
        )
    return Bypass(frozenset(fingerprints), reason)


def pusher_of(environment: Mapping[str, str]) -> str:
    """Return who pushes, as far as the program in front of git says; `unknown` when none does."""
    found = next((environment[name] for name in _PUSHERS if environment.get(name)), "unknown")
    return "".join(c for c in found if c.isprintable())[:200]


def record(
    folder: Path, bypass: Bypass, allowed: Iterable[str], *, pusher: str, at: str, changes: list[RefChange]
) -> None:
    """Put a push that is let through on record; raises StorageError when it cannot be, and the push is refused."""
    line = {
        "at": at,
        "pusher": pusher,
        "reason": bypass.reason,
        "fingerprints": sorted(allowed),
        "refs": [{"ref": one.ref, "old": one.old, "new": one.new} for one in changes],
    }
    data = (json.dumps(line, sort_keys=True) + "\n").encode()
    try:
        descriptor = os.open(folder / RECORD, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            if os.write(descriptor, data) != len(data):
                raise StorageError("the record of bypasses was not written whole")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise StorageError(f"the record of bypasses cannot be written: {error.strerror}") from None
