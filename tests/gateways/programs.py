"""How each gateway is started with the files in `examples/`: only addresses, user and folders are the test's."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from keyturn.testing.ports import free_port
from tests.gateways.stack import EXAMPLES, Gateway, copied, launch

# Those that come as wheels are beside this Python.
_SEARCHED = f"{Path(sys.executable).parent}:/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/sbin:/bin"
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
_APACHE = """
ServerRoot {folder}
ServerName localhost
PidFile {folder}/apache.pid
ErrorLog {folder}/error.log
DefaultRuntimeDir {folder}
{modules}
Include {site}
"""
# What Debian enables by itself, and what site.conf says to enable.
_APACHE_MODULES = (
    *("mpm_event", "alias", "authz_core", "authz_host", "authn_core", "authz_user"),
    *("authnz_fcgi", "proxy", "proxy_http", "headers", "setenvif"),
)


def program(name: str) -> str | None:
    """Return where a program is, None when it is not installed."""
    return shutil.which(name, path=_SEARCHED)


def absence(name: str) -> str | None:
    """Say why a gateway cannot be tried here; None when it can."""
    return None if program(name) else f"{name} is not installed; `make test` and .ci/run install what they can"


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


def start_apache(gateway: Gateway, keyturn: int, application: int, token: str) -> None:
    source = EXAMPLES / "apache"
    authorizer = free_port()
    modules = Path("/usr/lib/apache2/modules")
    site = copied(
        gateway,
        source / "site.conf",
        {
            "127.0.0.1:8701": f"127.0.0.1:{authorizer}",
            "127.0.0.1:8080": f"127.0.0.1:{application}",
            "127.0.0.1:8000": f"127.0.0.1:{gateway.port}",
            "*:8000": f"*:{gateway.port}",
        },
    )
    loaded = "\n".join(f"LoadModule {name}_module {modules}/mod_{name}.so" for name in _APACHE_MODULES)
    main = gateway.folder / "apache2.conf"
    main.write_text(_APACHE.format(folder=gateway.folder, modules=loaded, site=site))
    token_file = gateway.folder / "token"
    token_file.write_text(token)
    settings = {
        "KEYTURN_ADDRESS": f"http://127.0.0.1:{keyturn}",
        "KEYTURN_TOKEN_FILE": str(token_file),
        "KEYTURN_LISTEN": f"127.0.0.1:{authorizer}",
    }
    launch(gateway, [sys.executable, source / "keyturn_authorizer.py"], environment=settings)
    launch(gateway, [Path(program("apache2") or ""), "-f", main, "-DFOREGROUND"])


def start_caddy(gateway: Gateway, keyturn: int, application: int, token: str) -> None:
    config = copied(
        gateway,
        EXAMPLES / "caddy" / "Caddyfile",
        {
            "127.0.0.1:8700": f"127.0.0.1:{keyturn}",
            "127.0.0.1:8080": f"127.0.0.1:{application}",
            "127.0.0.1:8000": f"127.0.0.1:{gateway.port}",
        },
    )
    # Its port for administration is one per machine.
    config.write_text(f"{{\n\tadmin off\n}}\n{config.read_text()}")
    settings = {"KEYTURN_TOKEN": token, "HOME": str(gateway.folder)}
    launch(gateway, [Path(program("caddy") or ""), "run", "--config", config], environment=settings)


def start_envoy(gateway: Gateway, keyturn: int, application: int, token: str) -> None:
    config = copied(
        gateway,
        EXAMPLES / "envoy" / "envoy.yaml",
        {
            "put-the-token-here": token,
            "127.0.0.1:8700": f"127.0.0.1:{keyturn}",
            "port_value: 8700": f"port_value: {keyturn}",
            "port_value: 8080": f"port_value: {application}",
            "port_value: 8000": f"port_value: {gateway.port}",
        },
    )
    # Its shared memory for restarts is one per machine.
    launch(gateway, [Path(program("envoy") or ""), "--disable-hot-restart", "--concurrency", "1", "-c", config])


def start_traefik(gateway: Gateway, keyturn: int, application: int, token: str) -> None:
    asking = f"127.0.0.1:{free_port()}"
    dynamic = copied(
        gateway,
        EXAMPLES / "traefik" / "dynamic.yml",
        {
            "put-the-token-here": token,
            "127.0.0.1:8001": asking,
            "127.0.0.1:8700": f"127.0.0.1:{keyturn}",
            "127.0.0.1:8080": f"127.0.0.1:{application}",
        },
    )
    static = copied(
        gateway,
        EXAMPLES / "traefik" / "traefik.yml",
        {
            "/etc/traefik/dynamic.yml": str(dynamic),
            "127.0.0.1:8001": asking,
            "127.0.0.1:8000": f"127.0.0.1:{gateway.port}",
        },
    )
    launch(gateway, [Path(program("traefik") or ""), f"--configFile={static}"])


STARTERS: dict[str, Callable[[Gateway, int, int, str], None]] = {
    "apache2": start_apache,
    "caddy": start_caddy,
    "envoy": start_envoy,
    "haproxy": start_haproxy,
    "nginx": start_nginx,
    "traefik": start_traefik,
}
"""By the name of the program."""
