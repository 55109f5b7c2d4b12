"""Keyturn: a self-hosted control plane for API keys, the ones you issue and the ones you hold.

`keyturn.client` calls a server, `keyturn.verify` decides about a presented key inside your own process; both need
only the base install.  Everything else is the server and needs the `server` extra.
Importing this package imports nothing else.
"""

__version__ = "0.1.0"
