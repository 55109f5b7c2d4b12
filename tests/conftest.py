import fcntl
import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ["keyturn.testing.plugin"]

# How long an example takes says how busy the machine is, not whether the program is right.
settings.register_profile("keyturn", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("keyturn")


def pytest_xdist_auto_num_workers() -> int:
    """Return how many workers `-n auto` means: tests that start programs wait as often as they compute."""
    return len(os.sched_getaffinity(0)) + 1


def pytest_configure() -> None:
    """Take nothing of how this run was started.

    A shell lets what it starts in the background ignore some signals, and what a program ignores stays ignored in the
    programs it starts; what it handles is back at its default.  Without a buffer, programs fail elsewhere than users'
    do; and without compiled modules each would compile hundreds first.
    """
    for name in ("PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"):
        os.environ.pop(name, None)
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number is signal.SIGINT else lambda *_: None)


@pytest.fixture(scope="session")
def shared_rules_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where engines and programs keep compiled rules, as XDG_CACHE_HOME: one folder for all workers of a run.

    The rules that ship with Keyturn are there already, because compiling them takes seconds.
    """
    from keyturn.scanner.cache import Cache
    from keyturn.scanner.engine.open import open_engine

    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "rules-cache"
    cache = Cache(folder / "keyturn")
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        open_engine(cache=cache)
    return folder
