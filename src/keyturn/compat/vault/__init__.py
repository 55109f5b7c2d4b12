"""The Vault-compatible surface, `/v1/*`: tools that speak to Vault or OpenBao work unchanged.

    mount `secret`            the workspace's default environment; any other mount is the environment of that name
    X-Vault-Token             a management or login token         X-Vault-Namespace    the workspace it has to be of
    LIST, GET ?list=true      the same; POST and PUT are too
    errors                    {"errors": ["…"]}, and 404 with metadata for a version that was deleted

    edge          ASGI: request -> route -> function -> envelope, wrapped when that is asked for
    asking        what a request asks: verb, path, query, body, token
    routing       which function answers which path
    answers       envelope, errors, statuses
    places        mounts and namespaces; 403 or 404 for what is not there
    kv tokens logins approle leases wrapping system      the routes, in terms of our services
    bodies translation durations refusing                its words and ours, pure

It decides nothing: rights, approvals, records and bounds are those of the services.  Who may not do something is told
so (403) whether or not there is anything; 404 is for callers who may.  What has no counterpart is refused by name.
"""
