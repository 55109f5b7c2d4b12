"""Alembic's entry: run the revisions on the connection that `keyturn.storage.migrate` has opened and locked."""

from __future__ import annotations

from alembic import context

from keyturn.storage.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
