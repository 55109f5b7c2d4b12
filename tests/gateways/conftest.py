from collections.abc import Iterator

import pytest

from tests.gateways.programs import STARTERS, absence
from tests.gateways.stack import Control, Gateway, controlled, echoing, running_gateway


@pytest.fixture(scope="session")
def control(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Control]:
    with controlled(tmp_path_factory.mktemp("gateways")) as running:
        yield running


@pytest.fixture(scope="session")
def application() -> Iterator[int]:
    with echoing() as port:
        yield port


@pytest.fixture(scope="session", params=sorted(STARTERS))
def gateway(request: pytest.FixtureRequest, control: Control, application: int) -> Iterator[Gateway]:
    """Each gateway in turn, with the configuration that is shipped."""
    name: str = request.param
    if (reason := absence(name)) is not None:
        pytest.skip(reason)
    starter = STARTERS[name]
    with running_gateway(name, lambda made: starter(made, control.server.port, application, control.token)) as running:
        yield running
