"""A plain WSGI application behind the middleware; keys are verified by calls to the server.

KEYTURN_URL=http://127.0.0.1:8700 KEYTURN_TOKEN_FILE=data/admin-token python wsgi_app.py
"""

import json
import os
from pathlib import Path
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIServer, make_server

from keyturn.client import Keyturn
from keyturn.client.middleware.wsgi import KeyturnMiddleware


class ThreadingServer(ThreadingMixIn, WSGIServer):
    daemon_threads = True


def orders(environ, start_response):
    key = environ.get("keyturn.verification")
    body = json.dumps({"owner": key.owner, "key": key.key_id} if key else {"status": "ok"}).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


keyturn = Keyturn(os.environ["KEYTURN_URL"], Path(os.environ["KEYTURN_TOKEN_FILE"]).read_text().strip())
app = KeyturnMiddleware(orders, keyturn, scopes="orders:read", exempt=["/health"])

if __name__ == "__main__":
    port = int(os.environ.get("PORT", "8000"))
    make_server("127.0.0.1", port, app, server_class=ThreadingServer).serve_forever()
