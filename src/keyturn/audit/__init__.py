"""Audit: what happened, in an order nobody can change afterwards unnoticed.

    operation --same transaction--> leaf bytes (numbered by the change log)
    builder (one elected worker, behind the log) --> RFC 6962 tree per workspace --> signed checkpoint --> outside sink
    reader --> list, export (JSONL), inclusion and consistency proofs, `audit verify` online and offline

A leaf is the exact bytes stored: canonical JSON with a 128-bit salt, so that its hash tells nothing about its
content and the content may be erased while the hash stays.  Leaves are in the order of the change log, which is
commit order.  See `leaf` for the format.

Writing: `leaf` and `model` what is recorded; `unauthenticated` failures nobody can be named for, counted; `tree` tiles,
frontier and checkpoints as they are stored; `builder` plans a growth in a read and stores it in one short write that
compares before it swaps; `checkpoint` and `sinks` what is signed, and where it also goes.
Reading: `service` through the door (`ports`); `store` and `proofs` what it asks the database; `export` a page at a
time, with `pairing` where log and tree may not fit together.
Verifying: `export_lines`, `verification`, `evidence` and `findings` are pure and need the base install only; who
verifies an export needs neither the server nor its database.

The builder refuses to sign a tree that is not the one it signed last, and the verifier computes everything again from
the exact bytes: a leaf is named where its hash is proven, else the interval between two checkpoints.  What nobody
outside ever saw can be rewritten by who holds the database and the root key; that is what sinks are for.
"""
