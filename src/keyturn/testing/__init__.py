"""What tests of Keyturn, and of programs that use it, are built from.

`clock` holds a clock that stands still until told, `postgres` a private PostgreSQL server,
`databases` migrated databases of it, `server` a real
`keyturn serve` process, and `plugin` the pytest fixtures over them (`pytest_plugins = ["keyturn.testing.plugin"]`).
Nothing here is imported by the server.
"""
