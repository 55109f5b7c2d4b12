"""The schema's history, one Alembic revision for each release that changes it; run by `keyturn.storage.migrate`."""
