"""The vault: secrets that are held for somebody else's API.

    secret          a path, `<environment>/<segment>/…`, with owner, purpose, provider and dates
      version       a JSON object of fields, sealed for its place; never changed, only superseded, deleted or destroyed

    put -> current (the one before: previous, then superseded)       put pending -> promote -> current
    delete (soft) <-> undelete          destroy: the sealed value is gone for good

`sequence` counts versions as they are written; `number`, what users know a version by, is given on promotion, so that
the highest number is always the current version's.

Every access is on record before a value leaves.  A person reads with `secret.reveal`, a service or agent with
`secret.read`: the two are separate rights.  Paths under a guard need the approval of a second person.

    paths           what a path is, and how it is named in grants
    model, rules    secrets, versions and their labels: what is decided
    fields          what a version holds: checked, encoded, merged
    references      fields of other secrets that a text takes in
    sealing, store  a version sealed for its place; SQL of secrets and versions
    service         the operations that change something or tell of it
    writing, removal, listing       how those are done
    reading         the operations that let a value out: many at a time, one durable commit for all of them
    fingerprints    equal values are found without showing them
    approvals       guards and the approval of a second person
    wrapping        an answer that one holder of a token may open once
    sharing         what a secret holds, wrapped for somebody without a right here
"""
