"""The bodies of this surface, as far as they are read; what else a body holds is left aside unless it would matter.

Durations and numbers come as JSON numbers or as text, as Vault's clients send them.
"""

from __future__ import annotations

from typing import Any

import msgspec

Duration = int | float | str | None
"""Read by `keyturn.compat.vault.durations`."""
Words = str | list[str] | None
"""Words in a list, or in one text with commas."""


class DataBody(msgspec.Struct, frozen=True):
    """`<mount>/data/<path>`."""

    data: dict[str, Any] | None = None
    options: dict[str, Any] | None = None

    def __repr__(self) -> str:
        return "DataBody([redacted])"


class VersionsBody(msgspec.Struct, frozen=True):
    """`<mount>/{delete,undelete,destroy}/<path>`."""

    versions: list[int | str] | int | str | None = None


class MetadataBody(msgspec.Struct, frozen=True):
    """`<mount>/metadata/<path>`."""

    max_versions: int | None = None
    cas_required: bool | None = None
    delete_version_after: Duration = None
    custom_metadata: dict[str, str | int | float | bool | None] | None = None


class ConfigBody(msgspec.Struct, frozen=True):
    """`<mount>/config`."""

    max_versions: int | None = None
    cas_required: bool | None = None
    delete_version_after: Duration = None


class TokenBody(msgspec.Struct, frozen=True):
    """What names a token, by itself or by its accessor, and for how long it is to be renewed."""

    token: str | None = None
    accessor: str | None = None
    increment: Duration = None

    def __repr__(self) -> str:
        return "TokenBody([redacted])"


class NewTokenBody(msgspec.Struct, frozen=True):
    """`auth/token/create`."""

    id: str | None = None
    policies: Words = None
    meta: dict[str, str] | None = None
    no_parent: bool = False
    renewable: bool = True
    ttl: Duration = None
    lease: Duration = None
    explicit_max_ttl: Duration = None
    period: Duration = None
    num_uses: int = 0
    display_name: str | None = None
    entity_alias: str | None = None
    type: str | None = None

    def __repr__(self) -> str:
        return "NewTokenBody([redacted])"


class LoginBody(msgspec.Struct, frozen=True):
    """`auth/<method>/login`."""

    role: str | None = None
    name: str | None = None
    jwt: str | None = None
    role_id: str | None = None
    secret_id: str | None = None

    def __repr__(self) -> str:
        return "LoginBody([redacted])"


class MethodBody(msgspec.Struct, frozen=True):
    """`sys/auth/<path>`."""

    type: str | None = None


class RoleBody(msgspec.Struct, frozen=True):
    """`auth/<approle>/role/<name>`."""

    principal: str | None = None
    """Not Vault's: the principal that those who log in become; without it, the one named as the role."""
    role_id: str | None = None
    bind_secret_id: bool = True
    secret_id_bound_cidrs: Words = None
    bound_cidr_list: Words = None
    secret_id_num_uses: int | None = None
    secret_id_ttl: Duration = None
    local_secret_ids: bool = False
    enable_local_secret_ids: bool = False
    token_ttl: Duration = None
    token_max_ttl: Duration = None
    token_policies: Words = None
    policies: Words = None
    token_bound_cidrs: Words = None
    token_explicit_max_ttl: Duration = None
    token_no_default_policy: bool = False
    token_num_uses: int = 0
    token_period: Duration = None
    period: Duration = None
    token_type: str | None = None


class MountBody(msgspec.Struct, frozen=True):
    """`sys/mounts/<mount>` and its `tune`."""

    type: str | None = None
    options: dict[str, Any] | None = None
    default_lease_ttl: Duration = None
    max_lease_ttl: Duration = None

    @property
    def version(self) -> str:
        """The version of KV that is asked for; empty when none is."""
        return "2" if self.type == "kv-v2" else str((self.options or {}).get("version") or "")


class SecretIdBody(msgspec.Struct, frozen=True):
    """`auth/<approle>/role/<name>/secret-id`, and what names one."""

    metadata: str | dict[str, str] | None = None
    cidr_list: Words = None
    token_bound_cidrs: Words = None
    num_uses: int | None = None
    ttl: Duration = None
    secret_id: str | None = None
    secret_id_accessor: str | None = None

    def __repr__(self) -> str:
        return "SecretIdBody([redacted])"


class LeaseBody(msgspec.Struct, frozen=True):
    """`sys/leases/…`."""

    lease_id: str | None = None
    increment: Duration = None
    prefix: str | None = None


class PathsBody(msgspec.Struct, frozen=True):
    """`sys/capabilities-self`."""

    paths: Words = None
    path: Words = None
