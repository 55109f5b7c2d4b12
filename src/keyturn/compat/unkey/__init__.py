"""The Unkey-compatible edge: `POST /v2/<operation>`, for its public SDKs with another base URL.

    keys.createKey verifyKey getKey updateKey deleteKey rerollKey updateCredits whoami
    apis.createApi listKeys
    ratelimit.limit

    edge          ASGI: bearer token, body, dispatch, its error shape
    operations    each operation in terms of our services
    translation   its words and ours, pure
    wire          its bodies, as far as they are read and answered

A root key is a management token, an API is a keyspace and its id is the keyspace's name, an `externalId` is the
owner, permissions are scopes, credits are the prepaid quota `credits`.  What has no counterpart here is refused and
never ignored: roles, recoverable keys, another prefix than the keyspace's.  Two things are stronger: a reroll keeps
the key's id, and nothing is deleted (`deleteKey` revokes).
"""
