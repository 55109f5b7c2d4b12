"""An API on Django, in one file: every request needs a key, one view needs a scope as well.

    KEYTURN_URL=http://127.0.0.1:8700 KEYTURN_TOKEN_FILE=data/admin-token python django_app.py

Keys are verified inside this process.
"""

import os
from pathlib import Path

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import JsonResponse
from django.urls import path

from keyturn.client import Verifier

verifier = Verifier(os.environ["KEYTURN_URL"], Path(os.environ["KEYTURN_TOKEN_FILE"]).read_text().strip())

settings.configure(
    SECRET_KEY=os.urandom(32).hex(),
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    MIDDLEWARE=["keyturn.client.middleware.django.KeyturnMiddleware"],
    KEYTURN={"VERIFIER": verifier, "EXEMPT": ["/health"]},
)

from keyturn.client.middleware.django import requires  # noqa: E402 -- Django wants its settings first


@requires("orders:read")
def orders(request):
    return JsonResponse({"owner": request.keyturn.owner, "key": request.keyturn.key_id})


def health(_request):
    return JsonResponse({"status": "ok"})


urlpatterns = [path("orders", orders), path("health", health)]
app = get_wsgi_application()

if __name__ == "__main__":
    from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler

    server = ThreadedWSGIServer(("127.0.0.1", int(os.environ.get("PORT", "8000"))), WSGIRequestHandler)
    server.set_app(app)
    verifier.wait_ready()
    try:
        server.serve_forever()
    finally:
        verifier.close()
