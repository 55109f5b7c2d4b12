"""Usage: how often each secret version was verified, with what outcome, and by whom it was used last.

    verify --count--> collector (memory) --every 100 ms at most--> rollups: minute, hour, day
                                                              `--> last used, one row for each caller of a version

Nothing is written per call.  Counts of the same version, outcome, minute and caller are one entry; a flush is a unit
of work without a change row, since no follower needs it, and shares its commit with whatever else is written.

A *caller* is a client network (/24 or /48), a user agent and an endpoint, each cleaned and cut: query strings are
dropped, control characters and anything that looks like a credential removed.  A version keeps 32 callers; the rest
is summed up as `other`.

What is lost is counted: `lost` did not fit while the database was away, `in_doubt` was in a commit whose answer never
came.  Entries of a flush that was refused are written with the next one.

Kept: minutes 2 days, hours 90 days, days for good.

Modules: `rules` cleaning and periods, `collector` memory and flushing, `store` SQL, `service` reading.
"""
