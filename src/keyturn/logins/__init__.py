"""Logins: how a workload proves who it is, and the short-lived token it gets.

    method          jwt | approle | kubernetes | certificate: how identities are proven
      role          which identities are let in, the principal each becomes, and the bounds of its tokens
    login           method + role + assertion -> token (minutes), or the live token that the same assertion got before
    token           `kt_login_…`, in a table of its own: in no replica, key list or change log

A login that fails is counted like any other failed authentication.  A token never outlives its role's maximum, and a
role's caps bound how many are live.

    service       a login from end to end; the operations are on its `methods`, `roles`, `secret_ids` and `tokens`
    jwt, jwk, jwks, claims, presets      JSON Web Tokens and the keys of their issuers
    clusters, certificates, secret_ids   the other proofs
    tokens        made, proven in the database at every use, and handed out again
    rights        nobody lets others in with more than they hold
    throttle      a network that fails too often has to wait
"""
