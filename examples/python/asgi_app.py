"""A plain ASGI application behind the middleware; keys are verified by calls to the server.

KEYTURN_URL=http://127.0.0.1:8700 KEYTURN_TOKEN_FILE=data/admin-token python asgi_app.py
"""

import json
import os
from pathlib import Path

import uvicorn

from keyturn.client import AsyncKeyturn
from keyturn.client.middleware.asgi import KeyturnMiddleware


async def orders(scope, receive, send):
    if scope["type"] != "http":
        return
    key = scope.get("state", {}).get("keyturn")
    body = json.dumps({"owner": key.owner, "key": key.key_id} if key else {"status": "ok"}).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": body})


keyturn = AsyncKeyturn(os.environ["KEYTURN_URL"], Path(os.environ["KEYTURN_TOKEN_FILE"]).read_text().strip())
app = KeyturnMiddleware(orders, keyturn, scopes="orders:read", exempt=["/health"])

if __name__ == "__main__":
    port = int(os.environ.get("PORT", "8000"))
    uvicorn.run(app, host="127.0.0.1", port=port, lifespan="off", log_level="warning")
