"""Delivery: held secrets given to a process, without argv, and without a file that stays.

    keyturn run -- CMD     environment or files -> exec -> signals and exit status passed on; restarted on change
    dotenv                 read, compare, export and judge `.env` files
    templates              text with references, filled in

It stands on `keyturn.client` and needs the base install only.
"""
