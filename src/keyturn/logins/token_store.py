"""SQL of login tokens and of assertions that may be used once."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final

import msgspec
from sqlalchemy import bindparam, func, insert, select, update

from keyturn.logins.model import ACTIVE, REVOKED, LoginToken, to_json
from keyturn.storage.schema import issued_key, login_method, login_replay, login_role, login_token
from keyturn.storage.upsert import insert_on_conflict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection, Row

PARENTS_MAX: Final = 8
"""How many tokens may stand below one another."""
BELOW_MAX: Final = 1000
"""Live tokens right below one management token."""

_texts = msgspec.json.Decoder(tuple[str, ...]).decode
_metadata = msgspec.json.Decoder(dict[str, str]).decode
_JSON: Final = frozenset({"scopes", "resources", "cidrs", "metadata"})

# Built once: every call with a login token begins with it.
_BY_LOOKUP = (
    select(
        login_token,
        login_role.c.deleted_at.label("role_deleted_at"),
        login_method.c.state.label("method_state"),
        login_method.c.deleted_at.label("method_deleted_at"),
    )
    .outerjoin(login_role, login_role.c.id == login_token.c.role)
    .outerjoin(login_method, login_method.c.id == login_token.c.method)
    .where(login_token.c.lookup == bindparam("lookup"))
)


def token_by_lookup(connection: Connection, lookup: str) -> tuple[LoginToken, bool] | None:
    """Return a token by its public part, and whether the method and role that gave it still stand."""
    row = connection.execute(_BY_LOOKUP, {"lookup": lookup}).first()
    if row is None:
        return None
    values = dict(row._mapping)  # noqa: SLF001 -- SQLAlchemy's public name
    role_deleted, state = values.pop("role_deleted_at"), values.pop("method_state")
    method_deleted = values.pop("method_deleted_at")
    standing = values["role"] is None or (role_deleted == 0.0 and state == ACTIVE and method_deleted == 0.0)
    return _token(values), standing


def token_by_id(connection: Connection, workspace_id: str, token_id: str) -> LoginToken | None:
    """Return a token of the workspace by its id."""
    return _first(
        connection.execute(
            select(login_token).where(login_token.c.workspace == workspace_id, login_token.c.id == token_id)
        ).first()
    )


def token_by_mark(connection: Connection, role: str, mark: bytes) -> LoginToken | None:
    """Return the token that an assertion got before."""
    return _first(
        connection.execute(select(login_token).where(login_token.c.role == role, login_token.c.mark == mark)).first()
    )


def tokens_after(
    connection: Connection, workspace_id: str, after: str, limit: int, *, role: str | None = None
) -> Sequence[LoginToken]:
    """Return tokens by id, above a cursor."""
    chosen = select(login_token).where(login_token.c.workspace == workspace_id, login_token.c.id > after)
    if role is not None:
        chosen = chosen.where(login_token.c.role == role)
    rows = connection.execute(chosen.order_by(login_token.c.id).limit(limit)).all()
    return [_token(dict(row._mapping)) for row in rows]  # noqa: SLF001 -- SQLAlchemy's public name


def count_live(connection: Connection, role: str, now: float) -> int:
    """Count the live tokens of a role, those made below others too."""
    return connection.execute(
        select(func.count())
        .select_from(login_token)
        .where(login_token.c.role == role, login_token.c.state == ACTIVE, login_token.c.expires_at > now)
    ).scalar_one()


def count_live_below(connection: Connection, parent: str, now: float) -> int:
    """Count the live tokens right below another."""
    return connection.execute(
        select(func.count())
        .select_from(login_token)
        .where(login_token.c.parent == parent, login_token.c.state == ACTIVE, login_token.c.expires_at > now)
    ).scalar_one()


def end_of_parent(connection: Connection, parent: str | None) -> float | None:
    """Return when the token above ends; None when there is none, or it has no end."""
    if parent is None:
        return None
    found = connection.execute(select(login_token.c.expires_at).where(login_token.c.id == parent)).scalar()
    if found is not None:
        return found
    return connection.execute(select(issued_key.c.expires_at).where(issued_key.c.id == parent)).scalar()


def insert_token(connection: Connection, made: LoginToken) -> None:
    """Store a new token."""
    named = {one.name: getattr(made, one.name) for one in fields(made)}
    connection.execute(
        insert(login_token).values(
            {(f"{n}_json" if n in _JSON else n): (to_json(v) if n in _JSON else v) for n, v in named.items()}
        )
    )


def extend_token(connection: Connection, token_id: str, expires_at: float) -> None:
    """Store a later end."""
    connection.execute(update(login_token).where(login_token.c.id == token_id).values(expires_at=expires_at))


def set_mark(connection: Connection, token_id: str, mark: bytes, sealed: bytes) -> None:
    """Remember the assertion that got a token, and the token sealed under it."""
    connection.execute(update(login_token).where(login_token.c.id == token_id).values(mark=mark, sealed=sealed))


def forget_mark(connection: Connection, token_id: str) -> None:
    """Let the assertion of a token get another one."""
    connection.execute(update(login_token).where(login_token.c.id == token_id).values(mark=None, sealed=None))


def revoke_tree(connection: Connection, token_id: str, now: float) -> int:
    """Revoke a token and everything below it; return how many were not revoked before.

    One statement, however many there are: a workload that makes tokens without end below its own cannot be spared so.
    """
    tree = select(login_token.c.id).where(login_token.c.id == token_id).cte("tree", recursive=True, nesting=True)
    tree = tree.union(select(login_token.c.id).join(tree, login_token.c.parent == tree.c.id))
    done = connection.execute(
        update(login_token)
        .where(login_token.c.id.in_(select(tree.c.id)), login_token.c.state == ACTIVE)
        .values(state=REVOKED, revoked_at=now, mark=None, sealed=None)
    )
    return done.rowcount


def parents_stand(connection: Connection, parent: str | None, now: float) -> bool:
    """Tell whether every token above is neither revoked nor past its end."""
    for _ in range(PARENTS_MAX + 1):
        if parent is None:
            return True
        row = connection.execute(
            select(login_token.c.state, login_token.c.expires_at, login_token.c.parent).where(
                login_token.c.id == parent
            )
        ).first()
        if row is None:
            return _management_stands(connection, parent, now)
        if row.state != ACTIVE or now >= row.expires_at:
            return False
        parent = row.parent
    return False


def depth(connection: Connection, parent: str | None) -> int:
    """Count how many tokens stand above, one included for a management token."""
    found = 0
    while parent is not None and found <= PARENTS_MAX:
        found += 1
        parent = connection.execute(select(login_token.c.parent).where(login_token.c.id == parent)).scalar()
    return found


def claim_replay(connection: Connection, replay: str, expires_at: float) -> bool:
    """Remember an assertion that may be used once; False when it was used before."""
    done = connection.execute(
        insert_on_conflict(connection, login_replay).values(id=replay, expires_at=expires_at).on_conflict_do_nothing()
    )
    return done.rowcount == 1


def _management_stands(connection: Connection, key_id: str, now: float) -> bool:
    row = connection.execute(
        select(issued_key.c.state, issued_key.c.expires_at).where(issued_key.c.id == key_id)
    ).first()
    return row is not None and row.state == ACTIVE and (row.expires_at is None or now < row.expires_at)


def _first(row: Row[Any] | None) -> LoginToken | None:
    return None if row is None else _token(dict(row._mapping))  # noqa: SLF001 -- SQLAlchemy's public name


def _token(values: dict[str, Any]) -> LoginToken:
    return LoginToken(
        scopes=_texts(values.pop("scopes_json")),
        resources=_texts(values.pop("resources_json")),
        cidrs=_texts(values.pop("cidrs_json")),
        metadata=_metadata(values.pop("metadata_json")),
        **values,
    )
