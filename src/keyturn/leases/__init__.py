"""Leases: credentials that are made on demand and end by themselves.

    source          a system that accounts are made in: postgresql | mysql | redis | aws-sts
      role          what an account of it may do, and for how long
    lease           intent -> active -> revoking -> revoked
                      |         (renewed within its maximum)     `-> irrevocable, when every attempt failed
                      `-> abandoned -> lingering -> failed, nothing is left of it

The intent with the account's name is committed before the account is created, so that a process that is killed leaves
none that nobody knows.  What is due is found by its time in the table: no lease has a timer, a restart costs nothing.

    ports         what a connector is; entry points `keyturn.credentials`, ours in `connectors`
    rules         which state follows which, and when something is due; pure
    sources       sources and roles
    creation      intent, account, lease, answer
    service       look up, renew, revoke, retry, resolve
    endings       accounts dropped, and what came of it written down
    dispatcher    the elected loop that ends what is due, each source apart
"""
