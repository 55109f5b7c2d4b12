"""Leaks: whose a leaked key is, and what is done about it.

    report (a scan | a partner | the holder) -> match -> finding -> policy -> notify | rotate | disable | revoke
                                                  |          |
                                                  |          `-> open -> confirmed -> rotated; false_positive; accepted
                                                  `-> own: this issued key   held: this held secret   provider   generic

A scanner sends digests, never values: SHA-256 of a candidate, and for a key of ours its public version id.  An issued
key is matched by what is stored of it, a held secret by its keyed fingerprint.  Only those two start an action by
themselves, and only the one that a policy names, which was written by somebody who may do it.

    model, rules    findings and policies: what is decided
    matching        digests in, issued keys and held secrets out
    store           SQL of findings, their places and their history
    service         the operations: report, match, list, decide
    policies        what is done by itself, and who said so
    responding      an elected worker does it, and tries again; and closes what works no more
    intakes, partner    who may report from outside: GitHub's secret-scanning partner protocol
    possession      whoever holds a key may report it, and revoke it
    patterns        the format of a keyspace's keys as rules of other scanners
    decoys          keys and secrets whose use is an alarm

Nothing here holds or shows a value.
"""
