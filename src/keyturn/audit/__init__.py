"""Audit: what happened, in an order nobody can change afterwards unnoticed.

    operation --same transaction--> leaf bytes (numbered by the change log)
    builder (one elected worker, behind the log) --> RFC 6962 tree per workspace --> signed checkpoint --> outside sink
    reader --> list, export (JSONL), inclusion and consistency proofs, `audit verify` online and offline

A leaf is the exact bytes stored: canonical JSON with a 128-bit salt, so that its hash tells nothing about its
content and the content may be erased while the hash stays.  Leaves are in the order of the change log, which is
commit order.  See `leaf` for the format.
"""
