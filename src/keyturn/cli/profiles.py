"""Profiles: an address and a token, saved by `keyturn login` in one file of mode 0600.

    ~/.config/keyturn/profiles.json    {"default": {"url": "…", "token": "…"}}

A file that others can read is refused.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from keyturn.errors import ConfigError
from keyturn.kernel.secret import Secret


@dataclass(frozen=True, slots=True)
class Profile:
    """A saved address and token."""

    url: str
    token: Secret


def profiles_path() -> Path:
    """Where profiles are saved."""
    return Path("~/.config/keyturn/profiles.json").expanduser()


def read_profile(name: str) -> Profile | None:
    """Read a profile; None when there is none.  Raises ConfigError when others can read the file."""
    path = profiles_path()
    if not path.exists():
        return None
    if path.stat().st_mode & 0o077:
        message = f"{path} can be read by others"
        raise ConfigError(message, hint=f"chmod 600 {path}")
    entry = _load(path).get(name)
    return None if entry is None else Profile(entry["url"], Secret(entry["token"]))


def write_profile(name: str, profile: Profile) -> Path:
    """Save a profile, replacing the file in one step; returns its path."""
    path = profiles_path()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    saved = _load(path) if path.exists() else {}
    saved[name] = {"url": profile.url, "token": profile.token.reveal()}
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(saved, file, indent=2)
    fresh.replace(path)
    return path


def _load(path: Path) -> dict[str, dict[str, str]]:
    try:
        saved: dict[str, dict[str, str]] = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        message = f"{path} cannot be read as profiles"
        raise ConfigError(message, hint="mend or remove it, then `keyturn login` again") from error
    return saved
