"""Requests and responses of `/api/v1/root-keys` and `/api/v1/workspace-keys`; never a key, only ids and counts."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta

REWRAP_MAX: Final = 10_000
REWRAP_DEFAULT: Final = 500
RESEAL_MAX: Final = 10_000
RESEAL_DEFAULT: Final = 500


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A request: unknown fields are refused."""


class RewrapRootKey(_Strict, frozen=True, kw_only=True):
    """Wrap workspace keys under the root key that seals; ask again while some remain."""

    keys_max: Annotated[int, Meta(ge=1, le=REWRAP_MAX)] = REWRAP_DEFAULT


class ResealWorkspace(_Strict, frozen=True, kw_only=True):
    """Seal values under the workspace key that seals; ask again while some remain."""

    values_max: Annotated[int, Meta(ge=1, le=RESEAL_MAX)] = RESEAL_DEFAULT


class DestroyWorkspaceKey(_Strict, frozen=True, kw_only=True):
    """Destroy a workspace key; `force` also when held secrets are lost with it, and `confirm` repeats its id then."""

    force: bool = False
    confirm: Annotated[str, Meta(max_length=64)] = ""


class RootKeyInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A root key: whether this server has it, whether it seals, and how many workspace keys are wrapped under it."""

    id: str
    seals: bool
    given: bool
    retired: bool
    workspace_keys: int


class RootKeyList(msgspec.Struct, frozen=True, kw_only=True):
    """The root keys that this server has and those that the data wants, the one that seals first."""

    items: tuple[RootKeyInfo, ...]


class Rewrapped(msgspec.Struct, frozen=True, kw_only=True):
    """What one request rewrapped, under which root key, and how many workspace keys remain under others."""

    root_key: str
    rewrapped: int
    remaining: int


class WorkspaceKeyInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A workspace key: `open` or `destroyed`, its root key, and how many values are sealed under it."""

    id: str
    state: str
    seals: bool
    root_key: str
    values: int
    created_at: str


class WorkspaceKeyPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of workspace keys, oldest first."""

    items: tuple[WorkspaceKeyInfo, ...]
    next_cursor: str | None


class Resealed(msgspec.Struct, frozen=True, kw_only=True):
    """What one request resealed, under which workspace key; what remains under others, and what did not open."""

    workspace_key: str
    resealed: int
    remaining: int
    unopened: tuple[str, ...]


class WorkspaceKeyDestroyed(msgspec.Struct, frozen=True, kw_only=True):
    """A destroyed workspace key, and how many values became unreadable with it."""

    id: str
    state: str
    lost: int
