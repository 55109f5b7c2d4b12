"""What must be true of every balance, checked to the unit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyturn.quotas import store

if TYPE_CHECKING:
    from sqlalchemy import Connection


def discrepancies(connection: Connection) -> list[str]:
    """Return what does not add up, one sentence each; empty when every balance is exact.

    granted, spent and stranded are what the ledger adds up to; leased and stranded are what the blocks hold; what is
    available is never negative.
    """
    found: list[str] = []
    for account, added in store.sums(connection):
        expected = {
            "granted": added["granted"],
            "spent": added["spent"],
            "leased": added["leased_blocks"],
            "stranded": added["stranded"],
            "lines": added["lines"],
        }
        for name, value in expected.items():
            if getattr(account, name) != value:
                found.append(f"{account.id}: {name} is {getattr(account, name)}, and {value} by its parts")
        if added["stranded"] != added["stranded_blocks"]:
            found.append(
                f"{account.id}: {added['stranded']} are stranded, and {added['stranded_blocks']} in its blocks"
            )
        if account.available < 0:
            found.append(f"{account.id}: {account.available} are available")
    return found
