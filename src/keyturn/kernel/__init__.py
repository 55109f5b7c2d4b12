"""Values and formats that everything else is built from; pure, and the sole user of system time and randomness.

    clock        boottime plus an offset learned from the database; RFC 3339 text
    ids          sortable public ids
    secret       a value that does not print itself; the system CSPRNG; constant-time comparison
    tokenformat  the issued key: minting, shape and check, digest at rest
    envelope     sealed values: AES-256-GCM under a data key wrapped with AES-KWP
    merkle       the RFC 6962 tree over audit leaves: roots, proofs, tiles
    note         signed checkpoints: C2SP signed note, Ed25519
    match        the one matcher for scopes and grants
    token_bucket what may be done so often, by all together or by each of many
    redact       text and values without credentials, for logs

Nothing here does I/O, and nothing here imports more than `keyturn.errors`, the standard library and `cryptography`.
A malformed argument is a `ValueError`; bytes that do not prove what they claim raise `EnvelopeError` or `NoteError`.
Import the module that is needed; this package imports none of them.
"""
