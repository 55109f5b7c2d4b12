import importlib.util
import subprocess
import sys
import textwrap

import pytest

_SERVER_LIBRARIES = [
    "alembic",
    "argon2",
    "asyncpg",
    "bcrypt",
    "granian",
    "jinja2",
    "litestar",
    "prometheus_client",
    "redis",
    "sqlalchemy",
    "structlog",
]

_PROGRAM = """
    import importlib, pkgutil, sys

    OF_A_FRAMEWORK = {f"keyturn.client.middleware.{name}" for name in ("django", "fastapi", "flask")}
    name, *absent = sys.argv[1:]
    for library in absent:
        sys.modules[library] = None  # an import of it raises ImportError
    package = importlib.import_module(name)
    for module in pkgutil.walk_packages(getattr(package, "__path__", []), f"{name}."):
        if module.name not in OF_A_FRAMEWORK:  # each is imported by the users of its framework alone
            importlib.import_module(module.name)
"""


@pytest.mark.parametrize(
    "name",
    [
        "keyturn.cli.main",
        "keyturn.client",
        "keyturn.delivery",
        "keyturn.kernel",
        "keyturn.scanner",
        "keyturn.verify",
        "keyturn.wire",
    ],
)
def test_works_without_the_libraries_of_the_server(name: str) -> None:
    """A verifier in somebody else's process brings no web framework and no database driver with it."""
    if importlib.util.find_spec(name.rpartition(".")[0]) is None or importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not written yet")
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(_PROGRAM), name, *_SERVER_LIBRARIES]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
