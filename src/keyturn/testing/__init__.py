"""What tests of Keyturn, and of programs that use it, are built from.

`clock` holds a clock that stands still until told, `postgres` a private PostgreSQL server, `databases` migrated ones
of it that are used again, `server` a real `keyturn serve` process, and `plugin` the pytest fixtures over them
(`pytest_plugins = ["keyturn.testing.plugin"]`).
Nothing here is imported by the server.
"""
