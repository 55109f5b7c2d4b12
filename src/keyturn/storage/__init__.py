"""Storage: one engine over SQLite and PostgreSQL, one unit of work, one change log.

    service --closure--> Database.write --> batch --> state rows, then ONE last step:
                                                      head += n; n change rows; audit leaves --> COMMIT

A unit of work is a synchronous closure over a `Transaction`.  SQLite runs it in the one writer thread
(`BEGIN IMMEDIATE`); PostgreSQL runs it through `run_sync`.  Either way a worker has at most one numbered
transaction open, closures that arrive together share its commit, and each runs in a savepoint of its own,
so one that fails takes nothing else with it.

The change log is numbered from a single head row that is updated in the last step before COMMIT.  Its row
lock is held until the commit is durable, so sequence order is commit order and there are no gaps: a
follower that has seen number n has seen everything before it.  A database sequence would not give that.

Write transactions of all nodes also follow one another, so that what a unit has read is still so when it
commits.  The order of the log does not depend on that.

    schema, migrations, migrate          tables, their history, and bringing a database up to date
    engine, sqlite, postgresql           which engine, and both of them; `upsert` where their dialects differ
    database, transaction, faults        the port, the unit of work, and drivers' errors turned into ours
    change_log, follower, retention      numbering and reading, the poll loop, and what is dropped by time
    nodes, confirmer, effect, election   the registry, *confirm*, when a change has effect everywhere, leases
    kek, keyring                         the root key, and the keys that are sealed under it
    backup, backup_format                a snapshot of everything in one file, for either engine
"""
