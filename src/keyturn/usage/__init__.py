"""Usage: how often each key was verified, with what outcome, from where, and by whom it was used last.

    verify --count--> collector (memory) --100 ms later, or more--> rollups: version, minute, hour, day
                 |                                             |--> dimensions: owner, keyspace, endpoint, country, …
                 `--one store--> counter file                  `--> last used, one row for each caller of a version

Nothing is written per call.  A node that has much to write does so once a second rather than ten times.  Counts of the
same version, outcome, minute and caller are one entry; a flush is a unit of work without a change row, since no
follower needs it, and shares its commit with whatever else is written.

Endpoint, country, network and user agent are counted apart from one another, for each key and for each keyspace as a
whole; query strings are dropped, control characters and anything that looks like a credential removed.  An hour of a
key has a bounded number of values of each, and so has a version of callers; the rest is summed up as `other`.

What is lost is counted: `counted = written + waiting + in doubt + lost` at any time.  A unit whose answer never came
is sent again under its number, and done once.  What a killed process had counted is in its file, and what it had
written is in the database, so that the next start can say what is missing.

Outcomes that begin with SHADOW_ are what would have been, if a rule were enforced; they are in no total.

Kept: minutes 2 days, hours 90 days, days for good, those by network and user agent 400 days.

Modules: `rules` cleaning and periods, `places` caps, `collector` memory and flushing, `tally` what a kill loses,
`batches` what verifiers report, `noting` single uses that are no verification, `store` SQL of writing, `selection` and
`queries` what a question means and its SQL, `service` answering.
"""
