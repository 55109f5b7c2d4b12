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
        restrictions                     FORBIDDEN; those of the keyspace and of the key both apply
        scopes                           INSUFFICIENT_PERMISSIONS

The first failure wins.  Until the secret is proven every answer is the same NOT_FOUND: an unknown id, a wrong
secret, a keyspace the caller may not verify, a system keyspace.  An unknown id costs the same digest
comparison as a known one.

Everything here is synchronous and pure: `now` (epoch seconds) and boottime are arguments, there is no I/O and
no thread.  A caller that uses one replica from several tasks of one event loop needs no lock: each change is
applied without giving up control, and a resync is prepared beside the live tables and then swapped in.

What decides about freshness is apart from what decides about keys:

    before = freshness.fresh(boottime, version.keyspace.stale_after_seconds)
    verdict = decide(...)
    after = freshness.fresh(boottime, ...)     both must hold, else read through to the database

Evolution: records come from a server that may be newer.  A state, digest kind or restriction that is not known
here denies; it never counts as absent.

Modules: `model` values, `query` scope queries, `restrictions` (with `networks`, `origins`, `paths`) where and how a
key may be used, `rules` the decision, `explain` the same decision check by check, `replica` (with `sharing`) the
tables, `freshness` the state machine that bounds staleness.  Only kernel, wire and errors are imported; nothing of
the server.
"""
