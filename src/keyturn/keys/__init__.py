"""Issued keys: keyspaces, keys with their secret versions, imported foreign keys, and management tokens.

    keyspace 1 -- n key 1 -- n version
      |  prefix, tag, environment     |  state, digest, valid_until; the secret itself is never stored
      `- peppers, newest hashes       `- at most one is `current`

    key       active <-> disabled -> revoked (final)
    version   pending -> current -> previous -> revoked | compromised -> destroyed

Rotating a key adds a version: the key's id, policy and history stay.  The version before stays valid until its
`valid_until`, and is retired early only once it has been silent.  Nothing is deleted: every end is a state.

At rest a version is `BLAKE2b-256(pepper of the keyspace, SHA-256(key))`.  Imported plaintext and SHA-256 digests become
the same; bcrypt and argon2 digests stay as they are until their first use, and are found by a declared look-up prefix.

Every change is recorded with a change row of its key or keyspace, so that replicas read the state again.  What can
only restrict is awaited: the answer says when every node acts on it.

Management tokens are keys too, in the system keyspace `~system` of each workspace.  No wildcard matches it, the key
operations here never see it, and its tokens are proven against the database, never against a replica.

Modules:

    model, rules                    values; the two state machines and what may be written
    service, issuing, lifecycle     the operations on keys; `imports` foreign formats; `answers` what is shown
    keyspaces                       the operations on keyspaces and their peppers
    plans, owners                   the operations on plans and owners; `assignment` puts something on a plan
    limit_rules, policy             which limits and quotas may be written; what everything with a policy has alike
    authority, tokens               management tokens: proving and making them; the operations on them
    store, keyspace_store           SQL; `plan_store` that of plans and owners
    records                         what replicas are loaded from
    replication, verification       the replica of this node, and verify on top of it; `callers` who may verify,
                                    `lookup`, `slow_proofs` and `rehash` what memory alone cannot answer
"""
