"""The tampering corpus: what is done to an honest log is named, exactly."""

import asyncio
import json
from collections.abc import Callable

import pytest
from sqlalchemy import delete, insert, select, update

from keyturn.audit.checkpoint import notes_in
from keyturn.audit.findings import FindingKind, Report
from keyturn.audit.sinks import checkpoint_line
from keyturn.audit.verification import verify_export
from keyturn.errors import InputError
from keyturn.kernel import merkle
from keyturn.storage.schema import (
    audit_checkpoint,
    audit_leaf,
    audit_tile,
    audit_tree,
    change_head,
    sealed_key,
)
from keyturn.wire.audit import EraseLeaves
from tests.audit.log import Log

COUNTS = (3, 4, 300, 5)
SIZE = sum(COUNTS)
K = FindingKind

FORGERY = (b'"name":"admin"', b'"name":"nobdy"')

Named = tuple[FindingKind, int | None, int | None]


def named(report: Report) -> list[Named]:
    return [(one.kind, one.first, one.last) for one in report.findings]


async def verify(log: Log, since: str | None = None) -> Report:
    return verify_export(await log.export(), await log.verifier_key(), since)


async def seqs(log: Log) -> list[int]:
    query = select(audit_leaf.c.seq).where(audit_leaf.c.workspace == log.workspace).order_by(audit_leaf.c.seq)
    return await log.database.read(lambda connection: list(connection.execute(query).scalars()))


async def id_at(log: Log, index: int) -> str:
    query = select(audit_leaf.c.id).where(audit_leaf.c.seq == (await seqs(log))[index])
    return await log.database.read(lambda connection: connection.execute(query).scalar_one())


async def rebuild(log: Log) -> None:
    """What an intruder does who knows the format: compute every tile again from the altered leaves."""
    hashes = [merkle.leaf_hash(body) for body in (await log.bodies())[:SIZE]]
    tiles = [b"".join(hashes[at : at + 256]) for at in range(0, len(hashes), 256)]
    above = b"".join(merkle.tile_root(tile) for tile in tiles if len(tile) == 256 * 32)
    frontier = merkle.Frontier()
    for one in hashes:
        frontier.append(one)
    rows = [{"workspace": log.workspace, "level": 0, "position": n, "hashes": tile} for n, tile in enumerate(tiles)]
    rows.append({"workspace": log.workspace, "level": 1, "position": 0, "hashes": above})
    await log.alter(
        delete(audit_tile),
        insert(audit_tile).values(rows),
        update(audit_tree).values(frontier=frontier.to_bytes(), size=len(hashes)),
    )


@pytest.fixture
async def honest(log: Log) -> Log:
    """A log of four checkpoints."""
    await log.grow(*COUNTS)
    return log


# --- honest ------------------------------------------------------------------------------------------------------


async def test_honest_log_verifies_from_its_bytes_alone(honest: Log) -> None:
    report = await verify(honest)

    assert (report.ok, report.size, report.leaves, report.checkpoints) == (True, SIZE, SIZE, 4)
    assert report.latest == (await honest.latest()).note


@pytest.mark.parametrize("counts", [(), (1,), (256,), (257,), (600, 1, 700)])
async def test_honest_logs_of_every_shape_verify(log: Log, counts: tuple[int, ...]) -> None:
    await log.grow(*counts)

    report = await verify(log)

    assert (report.findings, report.size) == ((), sum(counts))


async def test_leaves_that_are_not_signed_yet_are_no_finding(honest: Log) -> None:
    await honest.append(5)

    assert (await verify(honest)).ok


@pytest.mark.parametrize("place", [0, 1, 2, 3])
async def test_export_since_a_checkpoint_verifies_against_it(honest: Log, place: int) -> None:
    note = notes_in("\n".join(await honest.export()))[place]
    size = sum(COUNTS[: place + 1])

    report = verify_export(await honest.export(since=size), await honest.verifier_key(), note)

    assert (report.findings, report.first, report.size) == ((), size, SIZE)


async def test_whole_export_is_held_to_every_kept_checkpoint(honest: Log) -> None:
    notes = notes_in("\n".join(await honest.export()))

    report = verify_export(await honest.export(), await honest.verifier_key(), notes[1], witnesses=notes)

    assert report.ok


async def test_erased_content_verifies_by_hash_and_is_counted(honest: Log) -> None:
    ids = (await id_at(honest, 1), await id_at(honest, 100))
    await honest.service().erase(None, EraseLeaves(ids=ids, reason="asked for by the person"))
    await honest.builder.build_once()

    report = await verify(honest)

    assert (report.findings, report.erased) == ((), 2)


async def test_erasure_during_an_export_is_no_finding(log: Log) -> None:
    """The export goes on to the signed record, so that an honest erasure is never taken for tampering."""
    await log.grow(700, 900)
    chunks = await log.service().export(None)
    text = await anext(chunks)
    late = await id_at(log, 1500)
    await log.service().erase(None, EraseLeaves(ids=(late,), reason="asked for by the person"))
    stop = asyncio.Event()
    building = asyncio.create_task(log.builder.run(stop))
    async for chunk in chunks:
        text += chunk
    stop.set()
    await building

    report = verify_export(text.splitlines(), await log.verifier_key())

    assert (report.findings, report.erased) == ((), 1)
    assert report.size > 1600


# --- in the database ---------------------------------------------------------------------------------------------


async def test_altered_body_is_named(honest: Log) -> None:
    body = (await honest.bodies())[10].replace(*FORGERY)
    await honest.alter(update(audit_leaf).where(audit_leaf.c.seq == (await seqs(honest))[10]).values(body=body))

    report = await verify(honest)

    assert named(report) == [(K.ALTERED, 10, 10)]
    assert report.findings[0].ids == (await id_at(honest, 10),)


async def test_altered_body_with_its_hash_is_named_by_interval(honest: Log) -> None:
    body = (await honest.bodies())[4].replace(*FORGERY)
    await honest.alter(update(audit_leaf).where(audit_leaf.c.seq == (await seqs(honest))[4]).values(body=body))
    await rebuild(honest)

    report = await verify(honest)

    assert named(report) == [(K.INTERVAL, 3, 6)]
    assert report.unproven[0][0] == 3


async def test_leaf_cut_out_of_the_middle_is_named(honest: Log) -> None:
    all_seqs = await seqs(honest)
    await honest.alter(delete(audit_leaf).where(audit_leaf.c.seq.in_([all_seqs[20], all_seqs[21], all_seqs[200]])))

    assert named(await verify(honest)) == [(K.CUT, 20, 21), (K.CUT, 200, 200)]


async def test_cut_tail_is_named(honest: Log) -> None:
    await honest.alter(delete(audit_leaf).where(audit_leaf.c.seq >= (await seqs(honest))[-2]))

    assert named(await verify(honest)) == [(K.CUT, SIZE - 2, SIZE - 1)]


async def test_cut_with_rebuilt_tiles_is_named_by_interval(honest: Log) -> None:
    await honest.alter(delete(audit_leaf).where(audit_leaf.c.seq == (await seqs(honest))[20]))
    await rebuild(honest)

    report = await verify(honest)

    assert (K.INTERVAL, 7, 306) in named(report)
    assert not report.ok


async def test_swapped_leaves_are_named(honest: Log) -> None:
    one, two = (await seqs(honest))[8], (await seqs(honest))[30]
    await honest.alter(
        *(
            update(audit_leaf).where(audit_leaf.c.seq == old).values(seq=new)
            for old, new in ((one, -1), (two, one), (-1, two))
        )
    )

    assert named(await verify(honest)) == [(K.REORDERED, 8, 30), (K.REORDERED, 30, 8)]


async def test_inserted_leaf_is_named(honest: Log) -> None:
    rows = await seqs(honest)
    await honest.alter(*(update(audit_leaf).where(audit_leaf.c.seq == seq).values(seq=seq + 1) for seq in rows[:49:-1]))
    await honest.alter(
        insert(audit_leaf).values(
            seq=rows[50],
            id="evt_forged",
            workspace=honest.workspace,
            at=1.0,
            action="key.issue",
            outcome="allowed",
            actor="prn_admin",
            resource="key/orders/x",
            body=b"{}",
        ),
        update(audit_checkpoint).values(seq=audit_checkpoint.c.seq + 1),
        update(audit_tree).values(built_seq=audit_tree.c.built_seq + 1),
        update(change_head).values(seq=change_head.c.seq + 1),
    )

    report = await verify(honest)

    assert [one.kind for one in report.findings] == [K.INSERTED]
    assert report.findings[0].ids == ("evt_forged",)


async def test_dropped_checkpoint_is_named(honest: Log) -> None:
    await honest.alter(delete(audit_checkpoint).where(audit_checkpoint.c.size == 7))

    report = await verify(honest)

    assert named(report) == [(K.CHECKPOINT_MISSING, 3, 306)]
    assert report.size == SIZE


async def test_rollback_is_named_by_a_kept_checkpoint(honest: Log) -> None:
    """A log put back to an earlier, validly signed state is told by what was kept outside."""
    kept = (await honest.latest()).note
    rows = await seqs(honest)
    frontier = merkle.Frontier()
    for body in (await honest.bodies())[:307]:
        frontier.append(merkle.leaf_hash(body))
    await honest.alter(
        delete(audit_leaf).where(audit_leaf.c.seq > rows[306]),
        delete(audit_checkpoint).where(audit_checkpoint.c.size > 307),
        update(audit_tree).values(size=307, built_seq=rows[306], frontier=frontier.to_bytes()),
    )

    assert (await verify(honest)).ok
    assert named(await verify(honest, kept)) == [(K.ROLLED_BACK, 307, SIZE - 1)]
    since = verify_export(await honest.export(since=SIZE), await honest.verifier_key(), kept)
    assert named(since) == [(K.ROLLED_BACK, 307, SIZE - 1)]


async def test_history_rewritten_and_signed_again_is_a_split_view(honest: Log) -> None:
    """Even who holds the signing key cannot rewrite what an outside sink has seen."""
    kept = notes_in("\n".join(await honest.export()))
    key = await honest.verifier_key()
    body = (await honest.bodies())[4].replace(*FORGERY)
    await honest.alter(
        update(audit_leaf).where(audit_leaf.c.seq == (await seqs(honest))[4]).values(body=body),
        delete(audit_tile),
        delete(audit_tree),
        delete(audit_checkpoint),
    )
    await honest.builder._resign()  # noqa: SLF001 -- begins anew
    await honest.builder.build_once()

    assert (await verify(honest)).ok
    assert named(verify_export(await honest.export(), key, kept[1])) == [(K.SPLIT_VIEW, 0, 6)]
    assert named(verify_export(await honest.export(), key, kept[0])) == []
    assert named(verify_export(await honest.export(since=SIZE), key, kept[3])) == [(K.SPLIT_VIEW, 0, SIZE - 1)]


async def test_replaced_signing_key_is_named(honest: Log) -> None:
    """A new key signs a log of its own; the key that was handed out before tells."""
    key = await honest.verifier_key()
    await honest.alter(delete(sealed_key), delete(audit_tile), delete(audit_tree), delete(audit_checkpoint))
    await honest.builder._resign()  # noqa: SLF001 -- begins anew
    await honest.builder.build_once()

    report = verify_export(await honest.export(), key)

    assert named(report) == [(K.KEY_REPLACED, None, None), (K.SIGNATURE, None, None)]


async def test_altered_tile_is_named_and_the_content_proven(honest: Log) -> None:
    query = select(audit_tile.c.hashes).where(audit_tile.c.level == 0, audit_tile.c.position == 0)
    tile = await honest.database.read(lambda connection: connection.execute(query).scalar_one())
    forged = tile[: 5 * 32] + bytes(32) + tile[6 * 32 :]
    await honest.alter(
        update(audit_tile).where(audit_tile.c.level == 0, audit_tile.c.position == 0).values(hashes=forged)
    )

    report = await verify(honest)

    assert named(report) == [(K.HASH_ALTERED, 5, 5)]
    assert report.size == SIZE


async def test_altered_columns_are_named(honest: Log) -> None:
    """Who hides a leaf from a filtered list by its columns alone is found as well."""
    await honest.alter(update(audit_leaf).where(audit_leaf.c.seq == (await seqs(honest))[9]).values(actor="prn_x"))

    assert named(await verify(honest)) == [(K.COLUMNS_ALTERED, 9, 9)]


async def test_content_erased_without_a_record_is_named(honest: Log) -> None:
    await honest.alter(update(audit_leaf).where(audit_leaf.c.seq == (await seqs(honest))[9]).values(body=None))

    assert named(await verify(honest)) == [(K.ERASED_UNRECORDED, 9, 9)]


# --- in the exported file ----------------------------------------------------------------------------------------


def line_of(lines: list[str], index: int) -> int:
    return next(at for at, line in enumerate(lines) if json.loads(line).get("index") == index)


def alter_text(lines: list[str]) -> None:
    lines[line_of(lines, 10)] = lines[line_of(lines, 10)].replace("admin", "nobdy")


def break_line(lines: list[str]) -> None:
    lines[line_of(lines, 10)] = lines[line_of(lines, 10)][:40]


def remove_lines(lines: list[str]) -> None:
    del lines[line_of(lines, 10) : line_of(lines, 12)]


def swap_lines(lines: list[str]) -> None:
    one, two = line_of(lines, 10), line_of(lines, 20)
    lines[one], lines[two] = lines[two], lines[one]


def repeat_line(lines: list[str]) -> None:
    lines.insert(line_of(lines, 12), lines[line_of(lines, 10)])


def replace_hash_too(lines: list[str]) -> None:
    at = line_of(lines, 4)
    line = json.loads(lines[at])
    line["body"] = line["body"].replace("admin", "nobdy")
    line["hash"] = merkle.leaf_hash(line["body"].encode()).hex()
    lines[at] = json.dumps(line)


def checkpoint_at(lines: list[str], number: int) -> int:
    return [at for at, line in enumerate(lines) if "checkpoint" in json.loads(line)][number - 1]


def drop_checkpoint(lines: list[str]) -> None:
    del lines[checkpoint_at(lines, 2)]


def drop_last_checkpoint(lines: list[str]) -> None:
    del lines[checkpoint_at(lines, 4)]


def alter_checkpoint(lines: list[str]) -> None:
    at = checkpoint_at(lines, 2)
    lines[at] = lines[at].replace("\\n7\\n", "\\n8\\n")


def move_checkpoint(lines: list[str]) -> None:
    lines.insert(checkpoint_at(lines, 3), lines.pop(checkpoint_at(lines, 1)))


def truncate(lines: list[str]) -> None:
    at = line_of(lines, 200)
    del lines[at + 1 :]
    lines[at] = lines[at][:50]


def forge_leaf(lines: list[str]) -> None:
    lines.insert(line_of(lines, 10), json.dumps({"id": "evt_forged", "seq": 1, "body": "{}"}))


def append_unsigned(lines: list[str]) -> None:
    line = json.loads(lines[line_of(lines, 10)])
    lines.insert(-1, json.dumps({**line, "index": SIZE}))


def hide_in_checkpoint(lines: list[str]) -> None:
    at = checkpoint_at(lines, 4)
    lines[at] = json.dumps({**json.loads(lines[at]), "id": "evt_forged", "body": "{}"})


FILES: list[tuple[Callable[[list[str]], None], list[Named]]] = [
    (alter_text, [(K.ALTERED, 10, 10)]),
    (break_line, [(K.UNREADABLE, 10, 10)]),
    (remove_lines, [(K.CUT, 10, 11)]),
    (swap_lines, [(K.REORDERED, 10, 10), (K.REORDERED, 20, 20)]),
    (repeat_line, [(K.INSERTED, 10, 10)]),
    (replace_hash_too, [(K.INTERVAL, 3, 6)]),
    (drop_checkpoint, [(K.CHECKPOINT_MISSING, 3, 306)]),
    (drop_last_checkpoint, [(K.CHECKPOINT_MISSING, 307, SIZE - 1)]),
    (alter_checkpoint, [(K.SIGNATURE, None, None)]),
    (move_checkpoint, [(K.CHECKPOINT_MISSING, 0, 6), (K.CHECKPOINT_MISPLACED, 3, 3)]),
    (truncate, [(K.TRUNCATED, 7, SIZE - 1)]),
    (append_unsigned, [(K.INSERTED, SIZE, SIZE)]),
    (hide_in_checkpoint, [(K.CHECKPOINT_MISSING, 307, SIZE - 1), (K.UNREADABLE, None, None)]),
    (forge_leaf, [(K.INSERTED, None, None)]),
]


@pytest.mark.parametrize(("tamper", "expected"), FILES, ids=[tamper.__name__ for tamper, _ in FILES])
async def test_tampering_with_the_file_is_named(
    file_log: Log, tamper: Callable[[list[str]], None], expected: list[Named]
) -> None:
    await file_log.grow(*COUNTS)
    lines = await file_log.export()
    tamper(lines)

    assert named(verify_export(lines, await file_log.verifier_key())) == expected


async def test_damage_in_one_interval_leaves_the_others_proven(file_log: Log) -> None:
    await file_log.grow(3, 300, 300)
    lines = await file_log.export()
    replace_hash_too(lines)

    report = verify_export(lines, await file_log.verifier_key())

    assert named(report) == [(K.INTERVAL, 3, 302)]
    assert (report.unproven, report.size) == (((3, 302),), 603)


async def test_every_single_byte_changed_in_a_body_is_found(file_log: Log) -> None:
    await file_log.grow(2)
    key, lines = await file_log.verifier_key(), await file_log.export()
    at = line_of(lines, 0)
    start = lines[at].index('"body":"') + 8
    for place in range(start, len(lines[at]) - 2, 7):
        altered = [*lines]
        altered[at] = lines[at][:place] + ("x" if lines[at][place] != "x" else "y") + lines[at][place + 1 :]
        assert not verify_export(altered, key).ok


# --- what was given ----------------------------------------------------------------------------------------------


async def test_checkpoint_of_another_key_is_a_finding(file_log: Log) -> None:
    await file_log.grow(*COUNTS)
    note = (await file_log.latest()).note
    broken = note[:-20] + ("A" if note[-20] != "A" else "B") + note[-19:]

    report = verify_export(await file_log.export(), await file_log.verifier_key(), broken)

    assert [one.kind for one in report.findings] == [K.SIGNATURE]


@pytest.mark.parametrize("lines", [[], ["{}"], ["not json"], ['{"end":true}'], ['{"keyturn_audit_export":2}']])
async def test_what_is_no_export_is_an_error_not_a_finding(file_log: Log, lines: list[str]) -> None:
    key = await file_log.verifier_key()

    with pytest.raises(InputError):
        verify_export(lines, key)


async def test_text_that_is_no_checkpoint_is_an_error_not_a_finding(file_log: Log) -> None:
    await file_log.grow(*COUNTS)
    with pytest.raises(InputError):
        verify_export(await file_log.export(), await file_log.verifier_key(), "no checkpoint\n")


async def test_checkpoints_are_read_from_every_kind_of_file(file_log: Log) -> None:
    await file_log.grow(*COUNTS)
    lines = await file_log.export()
    notes = notes_in("\n".join(lines))

    assert len(notes) == 4
    assert notes_in("".join(notes)) == notes
    assert notes_in("\n".join(notes)) == notes
    assert notes_in(notes[0]) == notes[:1]
    assert notes_in("".join(f"{checkpoint_line(note)}\n" for note in notes)) == notes
