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

Modules: `schema` tables, `database` both engines, `transaction` the unit of work, `change_log` reading and
retention, `nodes` the registry and *confirm*, `follower` the poll loop, `kek` and `keyring` for sealed
keys, `election` for background work, `migrate` for Alembic.
"""
