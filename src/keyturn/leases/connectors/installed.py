"""Every connector that is installed: the entry points `keyturn.credentials`."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from keyturn.leases.ports import Connector

GROUP: Final = "keyturn.credentials"


class InstalledConnectors:
    """Connectors by the name of their entry point; each is imported when it is first asked for."""

    def __init__(self) -> None:
        """Look at what is installed once."""
        self._found: dict[str, EntryPoint] = {point.name: point for point in entry_points(group=GROUP)}
        self._loaded: dict[str, Connector] = {}

    def get(self, kind: str) -> Connector | None:
        """Return the connector of a kind; None when none is installed."""
        if kind not in self._loaded:
            point = self._found.get(kind)
            if point is None:
                return None
            self._loaded[kind] = point.load()()
        return self._loaded[kind]

    def kinds(self) -> tuple[str, ...]:
        """Name the kinds that are installed."""
        return tuple(sorted(self._found))
