"""Wires the Vault-compatible surface to the services of a worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyturn import __version__
from keyturn.compat.vault.approle import ApproleOperations
from keyturn.compat.vault.edge import VaultEdge
from keyturn.compat.vault.kv import KvOperations
from keyturn.compat.vault.leases import LeaseOperations
from keyturn.compat.vault.logins import LoginOperations
from keyturn.compat.vault.places import Places
from keyturn.compat.vault.routing import Routes, needs_no_token
from keyturn.compat.vault.system import SystemOperations
from keyturn.compat.vault.tokens import TokenOperations
from keyturn.compat.vault.wrapping import WrappingOperations

if TYPE_CHECKING:
    from keyturn.bootstrap.application import Application
    from keyturn.http.health import Monitor


def open_vault_edge(application: Application, monitor: Monitor) -> VaultEdge:
    """Build everything that answers below `/v1/`."""
    settings = application.settings
    vault, logins = application.vault, application.logins.logins
    places = Places(application.door, application.access, application.known_workspaces)
    wrapping = WrappingOperations(vault.wraps)

    async def ready() -> bool:
        return all(check.ok for check in await monitor.checks() if check.required)

    system = SystemOperations(
        vault.vault,
        logins,
        places,
        application.clock,
        ready=ready,
        draining=application.draining.is_set,
        release=__version__,
    )
    tables = (
        system.table(),
        KvOperations(vault.vault, vault.reader, places).table(),
        LoginOperations(logins).table(),
        TokenOperations(logins, application.tokens, application.access).table(),
        ApproleOperations(logins, application.access.principals, places).table(),
        LeaseOperations(application.leases.leases, places).table(),
        wrapping.table(),
    )
    return VaultEdge(
        Routes(tables, needs_no_token),
        wrapping,
        places,
        trusted_proxies=settings.trusted_proxies,
        draining=application.draining,
        observe=application.metrics.requests.observe,
        refused=lambda ip: application.unauthenticated.count(ip, application.clock.now()),
        over_tls=settings.serves_tls or settings.tls == "terminated",
    )
