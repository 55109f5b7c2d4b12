"""HTTP: the native API as thin routes over the services.

    granian worker -> gate (`lanes`: request id, host of both lanes)
                        |-- POST /api/v1/verify -> the verify lane, raw ASGI
                        `-- everything else     -> litestar (`app`): routes of `keys`, `access`, `audit`, `health`

A route module exports `ROUTES` and is a few lines an operation: it takes a decoded wire type and credentials, calls
one service method, and returns what that returned.  What every route shares is in `edge`; how a body is read is in
`body`; how an error looks is in `problems`; who the caller's machine is, is in `peer`.
"""
