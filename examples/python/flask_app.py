"""An API on Flask: every request needs a key, one view needs a scope as well.

KEYTURN_URL=http://127.0.0.1:8700 KEYTURN_TOKEN_FILE=data/admin-token python flask_app.py
"""

import os
from pathlib import Path

from flask import Flask, g

from keyturn.client import Keyturn
from keyturn.client.middleware.flask import Protect

keyturn = Keyturn(os.environ["KEYTURN_URL"], Path(os.environ["KEYTURN_TOKEN_FILE"]).read_text().strip())
protect = Protect(keyturn, exempt=["/health"])
app = Flask(__name__)
protect.init_app(app)


@app.get("/orders")
@protect.requires("orders:read")
def orders():
    return {"owner": g.keyturn.owner, "key": g.keyturn.key_id}


@app.get("/health")
def health():
    return {"status": "ok"}


if __name__ == "__main__":
    app.run(host="127.0.0.1", port=int(os.environ.get("PORT", "8000")), threaded=True)
