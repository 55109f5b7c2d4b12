"""Protection of a web application by API keys, for ASGI, WSGI, Django, Flask and FastAPI.

    request -> presented key, address, origin, method, path -> verifier -> the application, with the verdict at hand
                    | none, or two                               | refused
                    `-> 401                                      `-> 401, 403, 429, 503 as problem details

One core, `protection`, knows what to ask and what to answer; each framework has a thin module of its own that is
imported by its users only:

    keyturn.client.middleware.asgi.KeyturnMiddleware       scope["state"]["keyturn"]
    keyturn.client.middleware.wsgi.KeyturnMiddleware       environ["keyturn.verification"]
    keyturn.client.middleware.django.KeyturnMiddleware     request.keyturn
    keyturn.client.middleware.flask.Protect                flask.g.keyturn
    keyturn.client.middleware.fastapi.Protect              what `Depends` gives

A verifier is a `Keyturn`, an `AsyncKeyturn` (asynchronous applications only) or a `Verifier`.  Whatever goes wrong
while a key is verified refuses the request: there is no way through but a verdict that admits.
"""
