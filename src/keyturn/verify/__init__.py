"""Verify: what decides about a presented key, in the server and inside a user's own process.

    presented key
      | tokenformat.version_id_of        shape and check: junk ends here, before any lookup
      v
    Replica.version(id)                  complete in memory; Replica.foreign(...) for imported shapes
      |
      v
    rules.decide(request, version, now)  -> Allowed | Denied(code)
        digest in constant time          nothing about the key is revealed before this
        version, key, keyspace state     REVOKED, DISABLED, NOT_YET_VALID, EXPIRED
        not-before, expiry               NOT_YET_VALID, EXPIRED
        restrictions                     FORBIDDEN; those of the keyspace, the plan and the key all apply
        scopes                           INSUFFICIENT_PERMISSIONS; those of the key and of its plan
      | Allowed
      v
    admission.admit(request, allowed, now, limiter, quotas)  -> Admission | None: ask `admit_later`
        quotas reserved                  USAGE_EXCEEDED, UNAVAILABLE
        limits, all or nothing           RATE_LIMITED; the reservation is given back

The first failure wins.  Until the secret is proven every answer is the same NOT_FOUND: an unknown id, a wrong
secret, a keyspace the caller may not verify, a system keyspace.  An unknown id costs the same digest
comparison as a known one.

Everything that decides is synchronous and pure: `now` (epoch seconds) and boottime are arguments, there is no I/O and
no thread; counters are kept behind the two ports of `spending`.  A caller that uses one replica from several tasks of
one event loop needs no lock: each change is applied without giving up control, and a resync is prepared beside the live
tables and then swapped in.
What decides about freshness is apart from what decides about keys:

    before = freshness.fresh(boottime, version.keyspace.stale_after_seconds)
    verdict = decide(...)
    after = freshness.fresh(boottime, ...)     both must hold, else read through to the database

Evolution: records come from a server that may be newer.  A state, digest kind, restriction, limit or quota that is
not known here denies, and so does a plan that is not loaded; none of them ever counts as absent.

Modules: `model` values, `standing` what versions have in common, `query` scope queries, `restrictions` (with
`networks`, `origins`, `paths`) where and how a key may be used, `terms` what keyspace, plan, owner and key say
together, `rules` the decision, `demands` what a request is charged for, `spending` the ports of those who keep
counters, `limits` a keeper in memory, `admission` the charging, `explain` the same check by check, `replica` (with
`sharing`) the tables, `freshness` the state machine that bounds staleness.  Only kernel, wire and errors are imported;
nothing of the server.  The modules that `setup.py` names may be compiled; they define no Struct, and no class that
others derive from.
"""
