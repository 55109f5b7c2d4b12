"""Delivery: held secrets given to a process, without argv, and without a file that stays.

    keyturn run -- CMD     environment or files -> exec -> signals and exit status passed on; restarted on change
    dotenv                 read, compare, export and judge `.env` files
    templates              text with references, filled in

    selection     which secrets, and which of their fields under which names
    supervision   a program run as if nothing stood between it and whoever started it
    watching      what to read again, and when to say that it is other than before
    files         private files, in memory where there is such a place
    offline       the sealed copy for an outage
    masking       values taken out of a stream
    dotenv, judging, templates

It stands on `keyturn.client` and needs the base install only.  The commands are in `keyturn.cli`.
"""
