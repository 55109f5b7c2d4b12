"""What is remembered of the workspaces of tokens, and when it is forgotten."""

import pytest
from sqlalchemy import Connection

from keyturn.access.caller import Credentials
from keyturn.access.known_workspaces import KnownWorkspaces
from keyturn.errors import UnauthenticatedError
from keyturn.kernel.secret import Secret
from keyturn.storage.change_log import Change
from keyturn.storage.transaction import ChangeKind
from keyturn.wire.access import UpdateWorkspace
from tests.access.house import House

STAGING = UpdateWorkspace(default_environment="staging")


async def followed(house: House, known: KnownWorkspaces, *kinds: ChangeKind) -> None:
    """Tell it of changes, as the follower does."""
    changes = [Change(seq, "wsp_1", kind, "x") for seq, kind in enumerate(kinds, 1)]

    def work(connection: Connection) -> None:
        known.refresh(connection, changes)()

    await house.database.read(work)


async def test_a_workspace_is_remembered_until_one_changes(house: House) -> None:
    known = KnownWorkspaces()
    first = await known.of(house.admin, house.access)
    await house.access.workspaces.update(house.admin, first.name, STAGING)
    assert (await known.of(house.admin, house.access)) is first
    await followed(house, known, ChangeKind.KEY, ChangeKind.SECRET)
    assert (await known.of(house.admin, house.access)) is first
    await followed(house, known, ChangeKind.KEY, ChangeKind.WORKSPACE)
    assert (await known.of(house.admin, house.access)).default_environment == "staging"


async def test_what_was_read_before_a_change_is_not_remembered_after_it(house: House) -> None:
    """A read that was slow must not bring back what the change log has already taken away."""
    known = KnownWorkspaces()

    class Slow:
        async def own_workspace(self, credentials: Credentials) -> object:
            found = await house.access.own_workspace(credentials)
            await followed(house, known, ChangeKind.WORKSPACE)
            return found

    before = await known.of(house.admin, Slow())  # type: ignore[arg-type] # all that is asked of it
    assert (await known.of(house.admin, house.access)) is not before


async def test_a_token_that_is_none_is_never_remembered(house: House) -> None:
    known = KnownWorkspaces()
    nobody = Credentials(Secret("nothing"))
    for _ in range(2):
        with pytest.raises(UnauthenticatedError):
            await known.of(nobody, house.access)
