"""Versions against a model that is written as simply as it can be: lists and dictionaries."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keyturn.errors import ConflictError, KeyturnError, NotFoundError
from keyturn.kernel.match import check_name, matches
from keyturn.vault.fields import check_fields, decode_fields, encode_fields, merge_fields
from keyturn.vault.paths import parse_path
from keyturn.vault.references import Reference, parts
from keyturn.wire.secrets import Describe, PatchSecret, PromoteSecret, PutSecret, RollbackSecret, SelectVersions
from tests.vault.safe import STRIPE, Safe, opened_safe

TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
NAMES = st.sampled_from(["a", "b", "c"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(NAMES, below, max_size=3),
    max_leaves=8,
)
FIELDS = st.dictionaries(NAMES, VALUES, max_size=3)


@dataclass(frozen=True)
class Kept:
    """One version of the model."""

    fields: dict[str, Any] | None
    number: int | None
    deleted: bool = False


@dataclass
class Model:
    """A secret as the guide tells of it."""

    kept: list[Kept] = field(default_factory=list)
    last: int = 0
    versions_max: int = 4

    def write(self, fields: dict[str, Any], *, pending: bool = False) -> None:
        if not pending:
            self.last += 1
        self.kept.append(Kept(fields, None if pending else self.last))
        self._prune()

    def promote(self) -> None:
        waiting = [at for at, one in enumerate(self.kept) if one.number is None and one.fields is not None]
        if not waiting:
            raise NotFoundError("none")
        self.last += 1
        self.kept[waiting[-1]] = replace(self.kept[waiting[-1]], number=self.last)
        self._prune()

    def readable(self, number: int) -> dict[str, Any]:
        for one in self.kept:
            if one.number == number and one.fields is not None and not one.deleted:
                return one.fields
        raise NotFoundError("none")

    def mark(self, number: int, *, deleted: bool) -> None:
        at = self._at(number)
        if self.kept[at].fields is None and not deleted:
            raise NotFoundError("destroyed")
        if self.kept[at].fields is not None:
            self.kept[at] = replace(self.kept[at], deleted=deleted)

    def destroy(self, number: int) -> None:
        at = self._at(number)
        self.kept[at] = replace(self.kept[at], fields=None)

    def _at(self, number: int) -> int:
        found = [at for at, one in enumerate(self.kept) if one.number == number and number > 0]
        if not found:
            raise NotFoundError("none")
        return found[0]

    def _prune(self) -> None:
        for at, one in enumerate(self.kept):
            if one.number is not None and one.number <= self.last - self.versions_max:
                self.kept[at] = replace(one, fields=None)


STEPS = st.lists(
    st.tuples(st.just("put"), FIELDS)
    | st.tuples(st.just("pending"), FIELDS)
    | st.tuples(st.just("patch"), FIELDS)
    | st.tuples(st.sampled_from(["promote", "cas"]), st.integers(0, 3))
    | st.tuples(st.sampled_from(["delete", "undelete", "destroy", "rollback"]), st.integers(1, 7)),
    max_size=14,
)


async def _do(safe: Safe, path: str, step: str, given_: Any) -> None:
    vault, admin = safe.vault, safe.admin
    named = SelectVersions(versions=(given_,)) if isinstance(given_, int) and given_ else SelectVersions()
    calls: dict[str, Any] = {
        "put": lambda: vault.put(admin, path, PutSecret(fields=given_)),
        "pending": lambda: vault.put(admin, path, PutSecret(fields=given_, pending=True)),
        "patch": lambda: vault.patch(admin, path, PatchSecret(fields=given_)),
        "promote": lambda: vault.promote(admin, path, PromoteSecret()),
        "cas": lambda: vault.put(admin, path, PutSecret(fields={"cas": given_}, cas=given_)),
        "delete": lambda: vault.delete(admin, path, named),
        "undelete": lambda: vault.undelete(admin, path, named),
        "destroy": lambda: vault.destroy(admin, path, named),
        "rollback": lambda: vault.rollback(admin, path, RollbackSecret(version=given_)),
    }
    await calls[step]()


def _model(model: Model, step: str, given_: Any) -> None:
    if step in {"put", "pending"}:
        model.write(given_, pending=step == "pending")
    elif step == "patch":
        model.write(merge_fields(model.readable(model.last), given_))
    elif step == "promote":
        model.promote()
    elif step == "cas":
        if given_ != model.last:
            raise ConflictError("cas")
        model.write({"cas": given_})
    elif step == "rollback":
        model.write(dict(model.readable(given_)))
    elif step == "destroy":
        model.destroy(given_)
    else:
        model.mark(given_, deleted=step == "delete")


async def _play(safe: Safe, path: str, steps: list[tuple[str, Any]]) -> None:
    model = Model()
    await safe.vault.describe(safe.admin, path, Describe(versions_max=model.versions_max), create=True)
    waiting = 0
    for step, given_ in steps:
        if step == "pending" and (waiting := waiting + 1) > 9:
            continue
        assert await _ended(_do(safe, path, step, given_)) == _ended_in_model(model, step, given_), (step, given_)
    await _compare(safe, path, model)


async def _ended(doing: Coroutine[Any, Any, None]) -> type[KeyturnError] | None:
    try:
        await doing
    except (NotFoundError, ConflictError) as error:
        return type(error)
    return None


def _ended_in_model(model: Model, step: str, given_: Any) -> type[KeyturnError] | None:
    try:
        _model(model, step, given_)
    except (NotFoundError, ConflictError) as error:
        return type(error)
    return None


async def _compare(safe: Safe, path: str, model: Model) -> None:
    info = await safe.show(path)
    assert info.current_version == model.last
    for sequence, one in enumerate(model.kept, 1):
        assert await safe.held(path, sequence=sequence) == one.fields
    shown = {one.sequence: one for one in info.versions}
    for sequence, one in enumerate(model.kept, 1):
        if one.fields is None:
            assert sequence not in shown or shown[sequence].state == "destroyed"
        else:
            assert (shown[sequence].number, shown[sequence].deleted_at is not None) == (one.number, one.deleted)
            states = {None: "pending", model.last: "current"}
            assert str(shown[sequence].state) == states.get(one.number, shown[sequence].state)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plays=st.lists(STEPS, min_size=1, max_size=3))
def test_versions_are_as_a_plain_model_has_them(tmp_path_factory: Any, plays: list[list[tuple[str, Any]]]) -> None:
    async def run() -> None:
        url = f"sqlite:///{tmp_path_factory.mktemp('plays')}/keyturn.db"
        async with opened_safe(url) as safe:
            for number, steps in enumerate(plays):
                await _play(safe, f"{STRIPE}-{number}", steps)

    asyncio.run(run())


SEGMENTS = st.text("abcXYZ019_.@+=-", min_size=1, max_size=6).filter(lambda one: one not in {".", ".."})
PATHS = st.lists(SEGMENTS, min_size=1, max_size=4).map(lambda segments: "/".join(("production", *segments)))


@given(PATHS, PATHS)
def test_two_paths_are_never_one_resource_and_every_path_has_a_name(one: str, other: str) -> None:
    """A grant on one path is not a grant on another, however both are written."""
    resources = [parse_path(path).resource.name for path in (one, other)]
    assert (resources[0] == resources[1]) == (one == other)
    for path, resource in zip((one, other), resources, strict=True):
        check_name(resource)
        assert matches("secret/production/*", resource)
        assert resource.count("/") == path.count("/") + 1


@given(FIELDS)
def test_what_is_encoded_is_decoded_to_the_same(fields: dict[str, Any]) -> None:
    check_fields(fields)
    assert decode_fields(encode_fields(fields)) == fields


@given(FIELDS, FIELDS)
def test_a_patch_leaves_no_null_it_brought_and_keeps_what_it_does_not_name(
    held: dict[str, Any], patch: dict[str, Any]
) -> None:
    merged = merge_fields(held, patch)
    for name, value in patch.items():
        assert (name in merged) == (value is not None)
    for name, value in held.items():
        if name not in patch:
            assert merged[name] == value
    assert merge_fields(merged, patch) == merged


@given(st.lists(TEXTS.filter(lambda text: "$" not in text) | st.just(Reference("production/a/b", "key")), max_size=5))
def test_references_are_found_among_any_text(given_parts: list[str | Reference]) -> None:
    written = "".join(
        f"${{secret:{one.path}#{one.field}}}" if isinstance(one, Reference) else one for one in given_parts
    )
    assert "".join("R" if isinstance(one, Reference) else one for one in parts(written)) == "".join(
        "R" if isinstance(one, Reference) else one for one in given_parts
    )
    escaped = written.replace("${secret:", "$${secret:")
    assert "".join(one for one in parts(escaped) if isinstance(one, str)) == written
