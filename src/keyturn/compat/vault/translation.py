"""Our words and theirs for secrets, both ways; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from keyturn.compat.vault import durations
from keyturn.errors import InputError
from keyturn.http.body import printable
from keyturn.wire.secrets import VERSIONS_MAX_DEFAULT, Describe

if TYPE_CHECKING:
    from collections.abc import Mapping

    from keyturn.compat.vault.bodies import MetadataBody, Words
    from keyturn.wire.secrets import SecretInfo, SecretValue, SecretVersionInfo, SecretWritten

GONE_CODES: Final = frozenset({"version_not_found", "version_deleted", "version_destroyed"})
"""Codes of a NotFoundError about a version: the caller was authorised for the secret."""
_VERSIONS_NAMED_MAX: Final = 1000


def value_metadata(value: SecretValue) -> dict[str, Any]:
    """Describe a version whose value goes out."""
    return {
        "created_time": value.created_at,
        "custom_metadata": value.metadata or None,
        "deletion_time": "",
        "destroyed": False,
        "version": value.version,
    }


def written_metadata(written: SecretWritten) -> dict[str, Any]:
    """Describe a version that was written."""
    return {
        "created_time": written.created_at,
        "custom_metadata": written.metadata or None,
        "deletion_time": written.delete_at or "",
        "destroyed": False,
        "version": written.version,
    }


def gone_metadata(info: SecretVersionInfo, metadata: Mapping[str, str]) -> dict[str, Any]:
    """Describe a version without its value."""
    return {**_times(info), "custom_metadata": dict(metadata) or None, "version": info.number}


def secret_metadata(info: SecretInfo) -> dict[str, Any]:
    """Describe a secret and its versions, as far as they have numbers."""
    return {
        "cas_required": info.cas_required,
        "created_time": info.created_at,
        "current_version": info.current_version,
        "custom_metadata": info.metadata or None,
        "delete_version_after": durations.shown(info.delete_after_seconds),
        "max_versions": info.versions_max,
        "oldest_version": info.oldest_version,
        "updated_time": info.updated_at,
        "versions": {
            str(one.number): _times(one) for one in sorted(info.versions, key=_by_number) if one.number is not None
        },
    }


def describe(body: MetadataBody, given: Mapping[str, Any], *, merged_into: Mapping[str, str] | None = None) -> Describe:
    """Return what is to be told of a secret; a field that is not given stays as it is.  Raises InputError.

    Custom metadata takes the place of what was there, or is merged into it.
    """
    values: dict[str, Any] = {}
    if body.max_versions is not None:
        values["versions_max"] = body.max_versions or VERSIONS_MAX_DEFAULT
    if body.cas_required is not None:
        values["cas_required"] = body.cas_required
    if "delete_version_after" in given:
        values["delete_after_seconds"] = durations.seconds(body.delete_version_after, "delete_version_after") or None
    if body.custom_metadata is not None:
        told = {name: None if value is None else _text(value) for name, value in body.custom_metadata.items()}
        kept = dict(merged_into or {}) | told
        values["metadata"] = {name: value for name, value in kept.items() if value is not None}
    elif merged_into is not None and "custom_metadata" in given:
        values["metadata"] = {}
    try:
        return msgspec.convert(values, Describe)
    except msgspec.ValidationError as error:
        what = printable(str(error)).replace("`", "").replace("$.metadata", "custom_metadata").replace("$.", "")
        raise InputError(f"custom_metadata validation failed: {what}" if "metadata" in what else what) from None


def numbers(given: list[int | str] | int | str | None) -> list[int]:
    """Return numbers of versions, given as a list, one by one, or as text with commas; raises InputError."""
    parts = given if isinstance(given, list) else [] if given is None else [given]
    found: list[int] = []
    for part in parts:
        for word in str(part).split(","):
            text = word.strip()
            if not (text.isascii() and text.isdigit() and 0 < len(text) <= 10):
                raise InputError("versions: expected numbers of versions", field="versions")
            found.append(int(text))
    if len(found) > _VERSIONS_NAMED_MAX:
        raise InputError(f"versions: expected at most {_VERSIONS_NAMED_MAX}", field="versions")
    return list(dict.fromkeys(found))


def words(given: Words) -> list[str]:
    """Return words given as a list or as one text with commas."""
    parts = given.split(",") if isinstance(given, str) else given or []
    return list(dict.fromkeys(word.strip() for word in parts if word.strip()))


def _times(info: SecretVersionInfo) -> dict[str, Any]:
    return {
        "created_time": info.created_at,
        "deletion_time": info.deleted_at or info.delete_at or "",
        "destroyed": info.destroyed_at is not None,
    }


def _by_number(info: SecretVersionInfo) -> int:
    return info.number or 0


def _text(value: str | float | bool) -> str:  # noqa: FBT001 -- a value of theirs
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
