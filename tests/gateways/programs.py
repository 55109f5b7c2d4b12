"""How each gateway is started with the files in `examples/`: only addresses, user and folders are the test's."""

import shutil
from collections.abc import Callable
from pathlib import Path

from tests.gateways.stack import EXAMPLES, Gateway, copied, launch

_SEARCHED = "/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/sbin:/bin"
_NGINX = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log notice;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    include site.conf;
}}
"""


def program(name: str) -> str | None:
    """Return where a program is, None when it is not installed."""
    return shutil.which(name, path=_SEARCHED)


def start_nginx(gateway: Gateway, keyturn: int, application: int, token: str) -> None:
    source = EXAMPLES / "nginx"
    addresses = {"8700": str(keyturn), "8080": str(application), "8000": str(gateway.port)}
    copied(gateway, source / "site.conf", {f"127.0.0.1:{old}": f"127.0.0.1:{new}" for old, new in addresses.items()})
    copied(gateway, source / "server.conf", {}, "keyturn/server.conf")
    copied(gateway, source / "location.conf", {}, "keyturn/location.conf")
    copied(gateway, source / "token.conf", {"put-the-token-here": token}, "keyturn/token.conf")
    main = gateway.folder / "nginx.conf"
    main.write_text(_NGINX.format(folder=gateway.folder))
    launch(gateway, [Path(program("nginx") or ""), "-p", gateway.folder, "-c", main])


def start_haproxy(gateway: Gateway, keyturn: int, application: int, token: str) -> None:
    source = EXAMPLES / "haproxy"
    copied(gateway, source / "keyturn.lua", {})
    copied(gateway, source / "keyturn-token", {"put-the-token-here": token})
    config = copied(
        gateway,
        source / "haproxy.cfg",
        {
            "127.0.0.1:8700": f"127.0.0.1:{keyturn}",
            "127.0.0.1:8080": f"127.0.0.1:{application}",
            "127.0.0.1:8000": f"127.0.0.1:{gateway.port}",
            "/etc/haproxy/": f"{gateway.folder}/",
        },
    )
    launch(gateway, [Path(program("haproxy") or ""), "-db", "-f", config])


STARTERS: dict[str, Callable[[Gateway, int, int, str], None]] = {
    "haproxy": start_haproxy,
    "nginx": start_nginx,
}
"""By the name of the program."""
