"""One document through its contents, what they hide, and the rules.

    document -> views and members of it -> detections in each
                                        -> decoded layers of each, to a depth of 3 -> detections in those

A detection in a layer stands where the encoded text stands.  What several rules find is one hit: the most certain
rule's.  A hit holds the secret as bytes, because it travels between processes; see `running`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from keyturn.scanner.context import contexts_of
from keyturn.scanner.ignores import allowed_by
from keyturn.scanner.lines import Lines
from keyturn.scanner.masking import LINE_BYTES_MAX, OWN_CHECKSUM, masked, masked_line
from keyturn.scanner.model import Context, Document, Notice, Place, Problem
from keyturn.scanner.ruleset.model import HELD_WORD
from keyturn.wire.certainty import Certainty

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from keyturn.scanner.contents.budget import Budget
    from keyturn.scanner.engine.detect import Engine
    from keyturn.scanner.model import Bytes, Detection
    from keyturn.scanner.ruleset.model import Rule

LAYERS_MAX: Final = 3
"""How often what was decoded is decoded again."""
_COMMENT_REACH: Final = 4096
_ENCODED_LONGER: Final = 3
"""So many times as long is what is encoded, at most."""
_RANKS: Final = {Certainty.OWN: 0, Certainty.HELD: 1, Certainty.PROVIDER: 2, Certainty.GENERIC: 3}
_SAME_SECRET: Final = 0.5


class Hit(msgspec.Struct, frozen=True):
    """A secret that a rule found, where it stands, and the fingerprints that comments allow there."""

    rule: Rule
    certainty: Certainty
    secret: bytes
    masked: str
    place: Place
    contexts: frozenset[Context]
    line_text: str
    allowed: frozenset[str]


class _Found(msgspec.Struct, frozen=True):
    """A detection; `start` and `end` are where it stands in the document itself, of a layer the whole encoded text."""

    rule: Rule
    certainty: Certainty
    secret: bytes
    start: int
    end: int
    encodings: tuple[str, ...]

    @property
    def order(self) -> tuple[int, int, int, int, str]:
        """Sorts what is kept before what is dropped for it."""
        return _RANKS[self.certainty], len(self.encodings), not self.rule.provider, -len(self.secret), self.rule.id


def examine(
    document: Document, engine: Engine, budget: Budget, share: tuple[int, int] = (0, 1)
) -> Iterator[Hit | Notice]:
    """Yield what is found in a document and in all that it holds.

    `share` (n, of) takes every so manieth part alone, so that processes can share one big archive.
    """
    from keyturn.scanner.contents.opening import open_document

    number, of = share
    for index, opened in enumerate(open_document(document, budget)):
        if isinstance(opened, Notice):
            if number == 0:
                yield opened
        elif index % of == number:
            yield from _examine_text(opened, engine, budget)


def certainty_of(rule: Rule) -> Certainty:
    """Return how sure a finding of a rule is, before a server was asked."""
    if rule.checksum == OWN_CHECKSUM:
        return Certainty.OWN
    return Certainty.GENERIC if rule.generic else Certainty.PROVIDER


def _examine_text(document: Document, engine: Engine, budget: Budget) -> Iterator[Hit | Notice]:
    from keyturn.scanner.decoding.pictures import pictures

    data, path = document.data, "!".join((document.path, *document.members))
    passed = pictures(data)
    found = [_found(data, one) for one in engine.detect(data, path, document.commit, passed)]
    in_layers, cut = _in_layers(document, engine, budget, path, passed)
    found += in_layers
    if found:
        yield from _hits(document, found, engine.ruleset.inline_allow)
    if cut:
        yield Notice(Problem.BOUND, path, "holds more encoded text than is decoded; the rest of it was not scanned")


def _in_layers(
    document: Document, engine: Engine, budget: Budget, path: str, passed: Sequence[tuple[int, int]]
) -> tuple[list[_Found], bool]:
    """Return what is found in what is encoded, and whether a bound kept some of it from being decoded."""
    from keyturn.scanner.decoding.layers import decoded

    found: list[_Found] = []
    cut = False
    waiting: list[tuple[Bytes, tuple[int, int] | None, tuple[str, ...]]] = [(document.data, None, ())]
    while waiting:
        data, region, encodings = waiting.pop()
        for layer in decoded(data, budget, () if region else passed):
            cut |= layer.cut
            where = region or (layer.start, layer.end)
            names = (*encodings, layer.encoding)
            detected = engine.detect(layer.data, path, document.commit)
            found += [_found(layer.data, one, where, names) for one in detected if one.secret_end > one.secret_start]
            if len(names) < LAYERS_MAX:
                waiting.append((layer.data, where, names))
    return found, cut


def _found(
    data: Bytes, detection: Detection, region: tuple[int, int] | None = None, encodings: tuple[str, ...] = ()
) -> _Found:
    start, end = detection.secret_start, detection.secret_end
    secret = bytes(data[start:end])
    where = region or (start, end)
    return _Found(detection.rule, certainty_of(detection.rule), secret, *where, encodings)


def _kept(document: Document, found: list[_Found]) -> list[_Found]:
    """Return one of each secret at each place, the most certain rule's, in the order of the document."""
    last = len(document.data) - document.tail
    kept: list[_Found] = []
    for cluster in _clusters(found):
        chosen: list[_Found] = []
        for one in sorted(cluster, key=lambda each: each.order):
            if not any(_covers(other, one) for other in chosen):
                chosen.append(one)
        kept += [one for one in chosen if _is_own(one, document.lead) and (not document.tail or one.start < last)]
    return sorted(kept, key=lambda one: (one.start, one.order))


def _is_own(one: _Found, lead: int) -> bool:
    """Tell whether a find is of the document that shows it, and not of the one before.

    Where in an encoded text it stands is not known: one that goes over the border may show it here alone.
    """
    return one.start >= lead or (bool(one.encodings) and one.end > lead)


def _clusters(found: list[_Found]) -> Iterator[list[_Found]]:
    """Yield what overlaps, together."""
    cluster: list[_Found] = []
    end = 0
    for one in sorted(found, key=lambda each: (each.start, each.end)):
        if cluster and one.start >= end:
            yield cluster
            cluster = []
        end = max(end, one.end) if cluster else one.end
        cluster.append(one)
    if cluster:
        yield cluster


def _covers(kept: _Found, other: _Found) -> bool:
    """Tell whether another find, in the same cluster, says nothing that the kept one does not say."""
    if other.start >= kept.end or kept.start >= other.end:
        return False
    if kept.secret == other.secret:
        return True
    if other.rule.id == HELD_WORD.id:
        return False  # it is asked about, whatever stands around it
    if kept.encodings and kept.encodings == other.encodings and (kept.start, kept.end) == (other.start, other.end):
        # Of one layer it is not known where in it they stand.
        return other.secret in kept.secret or (other.certainty is Certainty.GENERIC and kept.secret in other.secret)
    if other.certainty is Certainty.GENERIC and kept.certainty is not Certainty.GENERIC:
        return _about_the_same(kept, other)
    if kept.encodings or other.encodings:
        return False
    inside = kept.start <= other.start and other.end <= kept.end
    return inside and len(other.secret) >= _SAME_SECRET * len(kept.secret)


def _about_the_same(kept: _Found, other: _Found) -> bool:
    """Tell whether what merely looks like a secret is the kept one, or holds it encoded."""
    if kept.encodings:
        return kept.end - kept.start <= 2 * (other.end - other.start)
    if other.encodings:
        return kept.start <= other.start and other.end <= kept.end
    return True


def _hits(document: Document, found: list[_Found], foreign_marks: tuple[str, ...]) -> Iterator[Hit]:
    data = document.data
    lines = Lines(data, document.first_line + bytes(document.before).count(b"\n"))
    contexts = document.contexts
    if Context.COMMIT_MESSAGE not in contexts:  # what it is shown as is no path, and says nothing
        contexts |= contexts_of(document.path, document.members)
    for one in _kept(document, found):
        begin, line = lines.start_of(one.start), lines.line_of(one.start)
        end_line = lines.line_of(max(one.start, one.end - 1))
        if document.lines and not any(first <= end_line and line <= last for first, last in document.lines):
            continue
        place = Place(
            path=document.path,
            line=line,
            column=one.start - begin + 1,
            end_line=end_line,
            members=document.members,
            encodings=one.encodings,
            blob=document.blob,
            commit=document.commit,
            committed_at=document.committed_at,
        )
        shown = masked(one.rule, one.secret)
        text = _line_text(data, lines, one, found)
        allowed = _allowed(data, lines, one, begin, foreign_marks)
        yield Hit(one.rule, one.certainty, one.secret, shown, place, contexts, text, allowed)


def _line_text(data: Bytes, lines: Lines, one: _Found, found: list[_Found]) -> str:
    """Return the first line of a find with all that was found on it masked, whether it is reported or not."""
    reach = LINE_BYTES_MAX // 2
    first, last = lines.near_start_of(one.start, reach), lines.end_of(one.start, one.end - one.start + reach)
    further = min(_ENCODED_LONGER * max(len(other.secret) for other in found), _COMMENT_REACH)
    begin, end = max(0, first - further), min(len(data), last + further)
    near = [other for other in found if other.start < end and other.end > begin]
    spans = [(other.start - begin, other.end - begin, masked(other.rule, other.secret)) for other in near]
    shown = (first - begin, last - begin)
    return masked_line(bytes(data[begin:end]), spans, [other.secret for other in near], shown)


def _allowed(data: Bytes, lines: Lines, one: _Found, begin: int, foreign_marks: tuple[str, ...]) -> frozenset[str]:
    begin = max(begin, one.start - _COMMENT_REACH)
    line = bytes(data[begin : lines.end_of(one.end, _COMMENT_REACH)])
    before = bytes(data[lines.near_start_of(begin - 1, _COMMENT_REACH) : begin]) if begin else b""
    return allowed_by(line, before, foreign_marks)
