"""Quotas: strict balances by day, week, month or prepaid, spent on many nodes and never overspent.

    account   one balance: whose it is (`key/<id>`, `owner/<name>`), its quota's name, and its period
    block     units of an account that one node holds for a while
    ledger    one line for everything that happened to an account

    granted = spent + leased + stranded + available, to the unit, at all times

A node leases a block in one short write transaction that serves many accounts at once, and spends it from memory.
Each spend is counted in a file that outlives a kill, before the call is admitted.  Blocks are small (an eighth of
what is available, by the number of nodes, and no larger than the pace asks for) and shrink to 1 near zero; so a call
may be refused while the last units are leased elsewhere, for a second or so.

    node stops                 what it holds is given back
    node is killed             its next process on the folder, or a sibling, settles its file: nothing is lost
    node is gone               its blocks are forfeited when their leases have ended: the units are *stranded*, on a
                               line of the ledger, until the node comes back, a person credits them, or the period ends
    machine went down          an older count may be in the file, so it is not believed: as if the node were gone
    node is paused             it stops at the end of its lease, by boottime; what it counted is settled when it wakes
    an answer is lost          blocks are named by their nodes, so the next exchange says what the node holds
    time jumps                 forfeiting strands units and never makes them available, so no clock can overspend
    database is out of reach   what is leased is spent until its lease ends (a minute), then `unavailable`
    database is restored       blocks leased before are forfeited: its log is another one

A person who credits stranded units decides that they were not spent.  If the node comes back and says otherwise, the
difference is taken from what is available, and what is missing then is granted on a line of its own.

Refills and rule changes: a calendar balance follows its rule by the difference; a prepaid one keeps what it has, and
is raised to its refill amount, counting what nodes lease as unspent.

Modules: `calendar` periods, `model` and `rules` what happens to an account, `store` SQL, `exchange` units of work,
`counters` the file, `holding` and `keeper` the node, `inspection` what must be true, `service` what people do.
"""
