"""Verification of an audit log: everything is computed again from the exact bytes of its leaves.

    every leaf         SHA-256 of its bytes         is the hash stated for it?             else the leaf is named
    every checkpoint   root over the stated hashes  is it the root that was signed?        else the interval is named
    what was given     root at its size             is it the root that was signed then?   else split view, rollback
    every key          handovers both keys signed   do they lead from or to the key given?  else the key was replaced

A segment is the leaves between two checkpoints.  Once the root over its stated hashes is the signed one, the hashes
are proven, and whatever content does not fit them is named leaf by leaf.  Beyond a segment that could not be proven,
verification begins anew at the next checkpoint that carries its frontier.

Pure and streaming: memory is bounded by the longest segment.  Needs the base install only.
"""

from __future__ import annotations

import contextlib
from bisect import bisect_right, insort
from typing import TYPE_CHECKING, Final

import msgspec

from keyturn.audit import checkpoint, export_lines
from keyturn.audit.checkpoint import SignedCheckpoint
from keyturn.audit.evidence import Evidence, Seen, gaps_between
from keyturn.audit.findings import FindingKind, Report
from keyturn.audit.signers import Signers
from keyturn.errors import InputError
from keyturn.kernel.merkle import Frontier, leaf_hash
from keyturn.kernel.note import NoteError, VerifierKey, encode_verifier_key, parse_verifier_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from keyturn.audit.export_lines import Line

SEGMENT_MAX: Final = 1_000_000
_ERASE_START: Final = b'{"action":"audit.erase"'


def verify_export(
    lines: Iterable[str | bytes],
    verifier_key: str,
    since: str | None = None,
    *,
    witnesses: Sequence[str] = (),
) -> Report:
    """Verify an export against a public key and, if given, checkpoints kept from earlier.

    `since` and `witnesses` are signed notes of this log from outside of it: an earlier verification, or a sink.
    Raises InputError when the input is not an export, a key or a note at all; whatever else is wrong is a finding.
    """
    try:
        key = parse_verifier_key(verifier_key.strip())
    except NoteError as error:
        raise InputError(f"the public key cannot be read: {error.message}") from error
    numbered = enumerate(lines, start=1)
    _, first = next(((at, line) for at, line in numbered if line.strip()), (0, ""))
    header = _header(first, key)
    given = _readable([*([since] if since else []), *witnesses])
    if since and checkpoint.size_of(since) < (header.first or 0):
        message = f"the export begins at leaf {header.first}, after the checkpoint given"
        raise InputError(message, hint="export from the checkpoint on, or everything")
    verification = _Verification(key, header)
    for note in (*header.handovers, *given):
        verification.trust(note)
    for at, line in numbered:
        if line.strip():
            verification.take(at, line)
    return verification.finish()


def verify_server(
    fetch: Callable[[str, Mapping[str, object]], Iterator[str]],
    verifier_key: str | None = None,
    since: str | None = None,
    *,
    witnesses: Sequence[str] = (),
) -> Report:
    """Verify the log of a server; `fetch(path, parameters)` yields the lines it answers.

    Without a `verifier_key` the server's own is used, which proves that the log fits together, not that nobody
    replaced key and log.  With `since` only what came after it is fetched.
    """
    if verifier_key is None:
        verifier_key = str(msgspec.json.decode("".join(fetch("/audit/public-key", {})))["verifier_key"])
    latest = msgspec.json.decode("".join(fetch("/audit/checkpoint", {})))["note"]
    parameters = {"since": checkpoint.size_of(_readable([since])[0])} if since else {}
    shown = [latest] if latest else []
    return verify_export(fetch("/audit/export", parameters), verifier_key, since, witnesses=[*witnesses, *shown])


def _readable(notes: Sequence[str]) -> list[str]:
    """Return the notes without repetition; raises InputError when one is no checkpoint at all."""
    for note in notes:
        try:
            checkpoint.size_of(note)
        except NoteError as error:
            message = f"the checkpoint given cannot be read: {error.message}"
            raise InputError(message, hint="give a signed note, or the file of a sink") from error
    return list(dict.fromkeys(notes))


def _header(text: str | bytes, key: VerifierKey) -> Line:
    try:
        line = export_lines.decode(text)
    except ValueError:
        line = export_lines.Line()
    if line.keyturn_audit_export is None:
        raise InputError("this is not an audit export: it does not begin with a header line")
    if line.keyturn_audit_export != export_lines.FORMAT:
        raise InputError(f"the export has format {line.keyturn_audit_export}; this program reads {export_lines.FORMAT}")
    if line.origin != key.name:
        raise InputError(f"the export is of {line.origin!r}, the public key of {key.name!r}")
    return line


def _text_of(key: VerifierKey) -> str:
    return encode_verifier_key(key.name, key.public_key)


class _Verification:
    """The state of one pass over an export."""

    def __init__(self, key: VerifierKey, header: Line) -> None:
        self._evidence = Evidence()
        self._origin = key.name
        self._signers = self._followed(key, header)
        self._first = header.first or 0
        self._to = header.to or 0
        self._tree = self._starting_tree(header)
        self._anchored = True
        self._begun = False
        """Whether a signature has covered the starting tree yet."""
        self._closed = self._first
        """The size of the last checkpoint that was taken."""
        self._segment: list[Seen] = []
        self._in_order = True
        self._expected = self._first
        self._trusted: list[SignedCheckpoint] = []
        self._last: SignedCheckpoint | None = None
        self._highest = 0
        self._latest: str | None = None
        self._proven = self._first
        self._leaves = 0
        self._checkpoints = 0
        self._ended = False
        self._refused = 0
        """The greatest size that a checkpoint without a valid signature claims."""
        self._at = 1
        self._unreadable: list[int] = []

    def _followed(self, key: VerifierKey, header: Line) -> Signers:
        """Follow the handovers the log presents; it has to present the key that they lead to."""
        replaced = "the log presents another public key than the one it is verified with"
        try:
            signers = Signers.known_to(key, header.handovers)
        except NoteError as error:
            self._evidence.add(FindingKind.KEY_REPLACED, f"{replaced}: {error.message}")
            return Signers(key)
        if header.verifier_key is not None and header.verifier_key != _text_of(signers.newest):
            self._evidence.add(FindingKind.KEY_REPLACED, replaced)
        return signers

    def _starting_tree(self, header: Line) -> Frontier:
        if not self._first:
            return Frontier()
        try:
            tree = header.tree()
        except ValueError:
            tree = None
        if tree is None or tree.size != self._first:
            raise InputError(f"the export begins at leaf {self._first} without the tree before it")
        return tree

    def trust(self, note: str) -> None:
        """Hold the log to a checkpoint from outside; one from before the export says nothing about it."""
        try:
            given = self._signers.read(note)
        except NoteError as error:
            message = f"the checkpoint given of {checkpoint.size_of(note)} leaves was not signed by this key"
            self._evidence.add(FindingKind.SIGNATURE, f"{message}: {error.message}")
            return
        if given.size > self._to:
            message = f"the log has {self._to} leaves, a checkpoint given has {given.size}"
            self._evidence.add(FindingKind.ROLLED_BACK, message, first=self._to, last=given.size - 1)
            return
        if given.size < self._first:
            return
        insort(self._trusted, given, key=lambda one: one.size)
        if given.size == self._first:
            self._compare(given, self._tree.root())
            if given.root == self._tree.root():
                self._highest = max(self._highest, given.number)
            self._begun = True

    def take(self, at: int, text: str | bytes) -> None:
        """Take the next line."""
        self._at = at
        try:
            line = export_lines.decode(text)
            kind = line.kind()
            stated, content, anchor = line.leaf_hash(), line.content(), line.tree()
        except ValueError:
            self._unreadable.append(at)
            return
        if kind == "leaf":
            self._take_leaf(at, line, stated, content)
        elif kind == "checkpoint":
            self._take_checkpoint(at, line.checkpoint or "", anchor)
        elif kind == "end" and not self._ended:
            self._ended = True
            self._to = max(self._to, line.to or 0)
        else:
            self._unreadable.append(at)

    def finish(self) -> Report:
        """Judge what is left, and report."""
        self._judge_end()
        self._check_content(self._segment)
        self._check_lines(self._segment, self._closed, self._to if self._ended else self._closed)
        for seen in self._segment:
            if seen.place >= self._to:
                self._evidence.unsigned(seen)
        if not self._anchored or self._closed < self._to:
            self._evidence.unproven(self._proven, self._to - 1)
        findings, left_out = self._evidence.judged()
        return Report(
            origin=self._origin,
            verifier_key=_text_of(self._signers.newest),
            first=self._first,
            size=self._proven,
            leaves=self._leaves,
            checkpoints=self._checkpoints,
            erased=self._evidence.erased,
            findings=findings,
            findings_left_out=left_out,
            unproven=self._evidence.unproven_ranges,
            latest=self._latest,
        )

    def _judge_end(self) -> None:
        if not self._ended:
            # The last line of a file that was cut off is rarely whole.
            self._unreadable = [at for at in self._unreadable if at != self._at]
            self._evidence.add(
                FindingKind.TRUNCATED,
                f"the export ends after the checkpoint of {self._closed} leaves; it should hold {self._to}",
                first=self._closed,
                last=max(self._to - 1, self._closed),
            )
        elif max(self._closed, self._refused) < self._to:
            self._uncovered(self._closed, self._to - 1)
        elif self._first == self._to and not self._begun and self._first:
            self._uncovered(0, self._first - 1)

    def _uncovered(self, first: int, last: int) -> None:
        message = f"leaves {first} to {last} are covered by no checkpoint"
        self._evidence.add(FindingKind.CHECKPOINT_MISSING, message, first=first, last=last)

    def _take_leaf(self, at: int, line: Line, stated: bytes | None, content: bytes | None) -> None:
        computed = None if content is None else leaf_hash(content)
        placed = line.index is not None and stated is not None
        place = line.index if line.index is not None and placed else -1
        seen = Seen(place, line.id or "", stated or b"", computed, line.missing, at)
        if line.columns_differ:
            self._evidence.columns(seen)
        if not placed:
            self._evidence.surplus(seen)
            return
        if content is not None and computed == stated and content.startswith(_ERASE_START):
            self._evidence.note_erasures(content)
        self._leaves += 1
        if place != self._expected:
            self._in_order = False
        self._expected = place + 1
        if len(self._segment) >= SEGMENT_MAX:
            raise InputError(f"more than {SEGMENT_MAX} leaves stand between two checkpoints")
        self._segment.append(seen)

    def _take_checkpoint(self, at: int, note: str, anchor: Frontier | None) -> None:
        self._checkpoints += 1
        try:
            self._signers.follow(note)
            signed = self._signers.read(note)
        except NoteError as error:
            self._refuse(at, note, error)
            return
        if self._last is None and signed.size == self._first:
            self._begin(signed)
            return
        if signed.number <= self._highest or signed.size <= self._closed:
            self._misplaced(at, signed)
            return
        expected = self._highest + 1
        # A range that begins between two checkpoints may begin with any number.
        if signed.number > expected and (self._highest or not self._first):
            which = f"{expected}" if signed.number == expected + 1 else f"{expected} to {signed.number - 1}"
            self._evidence.add(
                FindingKind.CHECKPOINT_MISSING,
                f"checkpoint {which} is missing between {self._closed} and {signed.size} leaves",
                first=self._closed,
                last=signed.size - 1,
            )
        self._highest = signed.number
        self._close(signed, anchor)
        self._last = signed

    def _begin(self, signed: SignedCheckpoint) -> None:
        """Take the checkpoint over the tree that the export begins with."""
        self._last = signed
        self._highest = max(self._highest, signed.number)
        if signed.root == self._tree.root():
            self._begun, self._latest = True, signed.note
        else:
            self._split(signed.size)

    def _refuse(self, at: int, note: str, error: NoteError) -> None:
        which = "a checkpoint"
        with contextlib.suppress(NoteError):
            size, number = checkpoint.size_of(note), checkpoint.number_of(note)
            which = f"checkpoint {number} of {size} leaves"
            self._refused = max(self._refused, size)
            # So that it does not count as missing as well.
            self._highest = number if number == self._highest + 1 else self._highest
        self._evidence.add(FindingKind.SIGNATURE, f"{which} does not prove itself: {error.message}", line=at)

    def _misplaced(self, at: int, signed: SignedCheckpoint) -> None:
        """Handle a second checkpoint of a size or number that was passed: out of order, or a split view."""
        if self._last is not None and self._last.size == signed.size and self._last.root != signed.root:
            self._split(signed.size)
            return
        self._evidence.add(
            FindingKind.CHECKPOINT_MISPLACED,
            f"checkpoint {signed.number} of {signed.size} leaves stands after checkpoint {self._highest} "
            f"of {self._closed} leaves",
            first=signed.size,
            last=signed.size,
            line=at,
        )

    def _close(self, signed: SignedCheckpoint, anchor: Frontier | None) -> None:
        """Judge the leaves since the last checkpoint."""
        segment, whole = self._take_segment(signed.size)
        self._closed = signed.size
        self._check_content(segment)
        if self._anchored and whole and self._prove(segment, signed):
            self._latest = signed.note
            return
        if self._anchored and whole:
            self._interval(segment, signed)
        self._anchored = False
        if anchor is not None and anchor.size == signed.size and anchor.root() == signed.root:
            # The signature over its root proves the frontier: verification goes on from here.
            self._evidence.unproven(self._proven, signed.size - 1)
            self._anchored, self._begun, self._tree, self._proven = True, True, anchor, signed.size
            self._latest = signed.note
            for one in self._trusted:
                if one.size == signed.size:
                    self._compare(one, signed.root)

    def _take_segment(self, size: int) -> tuple[list[Seen], bool]:
        """Return the leaves up to `size`, each once and in order, and whether none is missing."""
        start, segment = self._closed, self._segment
        self._expected = size
        if self._in_order and len(segment) == size - start and not self._unreadable:
            self._segment = []
            return segment, True
        mine = [seen for seen in segment if seen.place < size]
        self._segment = [seen for seen in segment if seen.place >= size]
        self._in_order = not self._segment
        whole = self._check_lines(mine, start, size)
        once = {seen.place: seen for seen in reversed(mine) if seen.place >= start}
        return [once[place] for place in sorted(once)], whole

    def _prove(self, segment: list[Seen], signed: SignedCheckpoint) -> bool:
        """Tell whether the stated hashes, or else those of the content, lead to the signed root."""
        tree, passed = self._grown([seen.stated for seen in segment])
        if tree.root() != signed.root:
            tree, passed = self._grown([seen.computed or seen.stated for seen in segment])
            if tree.root() != signed.root:
                return False
            self._evidence.content_proven(segment)
        for given, root in passed:
            self._compare(given, root)
        self._tree, self._proven, self._begun = tree, signed.size, True
        return True

    def _grown(self, hashes: Iterable[bytes]) -> tuple[Frontier, list[tuple[SignedCheckpoint, bytes]]]:
        """Return the tree with the hashes added, and its root at every size somebody holds a checkpoint of."""
        tree = Frontier(self._tree.size, self._tree.hashes)
        place = bisect_right(self._trusted, tree.size, key=lambda one: one.size)
        passed: list[tuple[SignedCheckpoint, bytes]] = []
        for one in hashes:
            tree.append(one)
            while place < len(self._trusted) and self._trusted[place].size == tree.size:
                passed.append((self._trusted[place], tree.root()))
                place += 1
        return tree, passed

    def _interval(self, segment: list[Seen], signed: SignedCheckpoint) -> None:
        """Name the interval, from the last size at which the tree was still right."""
        _, passed = self._grown([seen.stated for seen in segment])
        right = max((given.size for given, root in passed if given.root == root), default=self._proven)
        first = right if self._begun else 0
        self._evidence.add(
            FindingKind.INTERVAL,
            f"leaves {first} to {signed.size - 1} are not those that checkpoint {signed.number} was signed over: "
            "content and hash together were altered, cut, inserted or reordered",
            first=first,
            last=signed.size - 1,
        )

    def _compare(self, given: SignedCheckpoint, root: bytes) -> None:
        if given.root != root:
            self._split(given.size)

    def _split(self, size: int) -> None:
        self._evidence.add(
            FindingKind.SPLIT_VIEW,
            f"two different trees of {size} leaves were signed: this log is not the one a checkpoint given is of",
            first=0,
            last=size - 1,
        )

    def _check_content(self, segment: Iterable[Seen]) -> None:
        for seen in segment:
            if seen.missing:
                self._evidence.lost(seen)
            elif seen.computed is None:
                self._evidence.erasure(seen)
            elif seen.computed != seen.stated:
                self._evidence.mismatch(seen)

    def _check_lines(self, segment: Sequence[Seen], start: int, size: int) -> bool:
        """Name lines that are missing, doubled or out of order; return whether every leaf has one."""
        evidence = self._evidence
        evidence.disorder(segment)
        counted: set[int] = set()
        for seen in segment:
            if seen.place in counted or seen.place < start:
                evidence.doubled(seen)
            counted.add(seen.place)
        gaps = gaps_between(sorted(counted), start, size)
        count = sum(last - first + 1 for first, last in gaps)
        if count == len(self._unreadable):
            # As many unreadable lines as leaves missing: those lines are these leaves.
            missing = (place for first, last in gaps for place in range(first, last + 1))
            for at, place in zip(self._unreadable, missing, strict=True):
                evidence.unreadable(at, place)
        else:
            for at in self._unreadable:
                evidence.unreadable(at, None)
            evidence.cut(gaps)
        self._unreadable = []
        return not gaps
