"""SQL of intakes.  Every query of an operation names the workspace; no row is deleted."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import func, insert, select, update

from keyturn.errors import BrokenInvariantError
from keyturn.storage.schema import leak_intake, workspace
from keyturn.wire.leak_intakes import IntakeKey, IntakeKind, IntakeState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

_NAME = re.compile(r"[a-z0-9_-]{1,64}")
_LIVING = leak_intake.c.deleted_at == 0.0


class IntakeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What is stored of an intake's keys."""

    keys: tuple[IntakeKey, ...] = ()
    keys_url: str = ""
    description: str = ""


@dataclass(frozen=True, slots=True)
class Intake:
    """Somebody outside who may report leaks."""

    id: str
    workspace: str
    name: str
    kind: IntakeKind
    state: IntakeState
    config: IntakeConfig
    created_at: float
    created_by: str
    updated_at: float
    deleted_at: float
    revision: int

    @property
    def resource(self) -> str:
        """The name that grants match."""
        return f"leak_intake/{self.name}"


def insert_intake(connection: Connection, made: Intake) -> None:
    """Store a new intake; the database refuses a name that a living one of the workspace has."""
    connection.execute(insert(leak_intake).values(_values(made)))


def update_intake(connection: Connection, changed: Intake) -> None:
    """Store an intake under the next revision, which `changed` already holds."""
    done = connection.execute(
        update(leak_intake)
        .where(leak_intake.c.id == changed.id, leak_intake.c.revision == changed.revision - 1)
        .values(_values(changed))
    )
    if done.rowcount != 1:
        message = f"intake {changed.id} changed while it was being changed"
        raise BrokenInvariantError(message)


def load_intake(connection: Connection, workspace_id: str, name: str) -> Intake | None:
    """Return a living intake of the workspace by name."""
    if _NAME.fullmatch(name) is None:
        return None
    row = connection.execute(
        select(*leak_intake.c).where(leak_intake.c.workspace == workspace_id, leak_intake.c.name == name, _LIVING)
    ).first()
    return None if row is None else _intake(row)


def load_by_id(connection: Connection, intake_id: str) -> Intake | None:
    """Return an intake by id, whatever its state."""
    row = connection.execute(select(*leak_intake.c).where(leak_intake.c.id == intake_id)).first()
    return None if row is None else _intake(row)


def find_open(connection: Connection, workspace_name: str, name: str) -> Intake | None:
    """Return an intake that takes reports, by the names in its address."""
    if _NAME.fullmatch(name) is None:
        return None
    row = connection.execute(
        select(*leak_intake.c)
        .join(workspace, workspace.c.id == leak_intake.c.workspace)
        .where(
            workspace.c.name == workspace_name,
            workspace.c.state == "active",
            leak_intake.c.name == name,
            leak_intake.c.state == IntakeState.ACTIVE,
            _LIVING,
        )
    ).first()
    return None if row is None else _intake(row)


def list_intakes(connection: Connection, workspace_id: str, after: str, limit: int) -> Sequence[Intake]:
    """Return living intakes in order of id, after the id given."""
    rows = connection.execute(
        select(*leak_intake.c)
        .where(leak_intake.c.workspace == workspace_id, _LIVING, leak_intake.c.id > after)
        .order_by(leak_intake.c.id)
        .limit(limit)
    ).all()
    return [_intake(row) for row in rows]


def count_intakes(connection: Connection, workspace_id: str) -> int:
    """Return how many living intakes a workspace has."""
    return connection.execute(
        select(func.count()).select_from(leak_intake).where(leak_intake.c.workspace == workspace_id, _LIVING)
    ).scalar_one()


def workspace_name(connection: Connection, workspace_id: str) -> str:
    """Return the name of a workspace, which stands in the address of its intakes."""
    return connection.execute(select(workspace.c.name).where(workspace.c.id == workspace_id)).scalar_one()


def _values(one: Intake) -> dict[str, Any]:
    return {
        "id": one.id,
        "workspace": one.workspace,
        "name": one.name,
        "kind": one.kind.value,
        "config_json": msgspec.json.encode(one.config).decode(),
        "state": one.state.value,
        "created_at": one.created_at,
        "created_by": one.created_by,
        "updated_at": one.updated_at,
        "deleted_at": one.deleted_at,
        "revision": one.revision,
    }


def _intake(row: Any) -> Intake:  # noqa: ANN401 -- a row of the table
    return Intake(
        id=row.id,
        workspace=row.workspace,
        name=row.name,
        kind=IntakeKind(row.kind),
        state=IntakeState(row.state),
        config=msgspec.json.decode(row.config_json, type=IntakeConfig),
        created_at=row.created_at,
        created_by=row.created_by,
        updated_at=row.updated_at,
        deleted_at=row.deleted_at,
        revision=row.revision,
    )
