"""Leases: credentials that are made on demand and end by themselves.

    source          a system that accounts are made in: postgresql | mysql | redis | aws-sts
      role          what an account of it may do, and for how long
    lease           intent -> active -> revoking -> revoked
                      |         (renewed within its maximum)     `-> irrevocable, when every attempt failed
                      `-> failed, nothing was made

The intent with the account's name is committed before the account is created, so that a process that is killed leaves
none that nobody knows.  What is due is found by its time in the table: no lease has a timer, a restart costs nothing.
"""
