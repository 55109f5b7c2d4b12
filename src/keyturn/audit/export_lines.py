"""The lines of an audit export, format 1: JSONL, one object a line.

    {"keyturn_audit_export":1,"workspace":"wsp_…","origin":"keyturn/wsp_…","verifier_key":"…","from":0,"to":1042}
    {"index":0,"seq":7,"id":"evt_…","hash":"<64 hex>","body":"<the exact text of the leaf>"}
    {"index":1,"seq":9,"id":"evt_…","hash":"<64 hex>","body":null}         erased; the hash stays
    {"checkpoint":"<signed note>"}                                         after the last leaf it covers
    {"checkpoint":"<signed note>","frontier":"<base64>"}                   here verification can begin anew
    {"end":true}                                                           without it the file was cut off

Where the signing key was replaced, the header has `"handovers":["<signed note>",…]`, the oldest first: each is signed
by the key before and the key after, and `verifier_key` is the last.

An export from leaf `from` > 0 on carries the `frontier` of the tree before it in its header.  When content was erased
while it ran, it goes on until the record of that, and says so: `{"end":true,"to":1050}`.
What does not fit together in the database is exported as it is, for the verifier to name:

    {"index":5,"hash":"…","missing":true}        the tree has a leaf here, the log has none
    {"id":"evt_…","seq":12,"body":"…"}           the log has a leaf here, the tree has none
    {…,"body_base64":"…"}                        the bytes are no text
    {…,"columns_differ":true}                    what lists are filtered by is not what the leaf says

Pure; needs the base install only.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final, Literal

import msgspec
from msgspec import UNSET, UnsetType

from keyturn.audit.checkpoint import origin_of
from keyturn.kernel.merkle import HASH_BYTES, Frontier

FORMAT: Final = 1


class Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Any line; which fields are present tells what it is."""

    keyturn_audit_export: int | None = None
    workspace: str | None = None
    origin: str | None = None
    verifier_key: str | None = None
    handovers: tuple[str, ...] = ()
    end: bool = False
    first: int | None = msgspec.field(default=None, name="from")
    to: int | None = None

    index: int | None = None
    seq: int | None = None
    id: str | None = None
    hash: str | None = None
    missing: bool = False
    columns_differ: bool = False
    body: str | UnsetType | None = UNSET
    body_base64: str | None = None

    checkpoint: str | None = None
    frontier: str | None = None

    def kind(self) -> Literal["header", "leaf", "checkpoint", "end"]:
        """Tell what the line is; raises ValueError when it is nothing, or two things at once."""
        is_leaf = self.hash is not None or self.body is not UNSET or self.body_base64 is not None
        if is_leaf and self.checkpoint is None and self.frontier is None and self.to is None and not self.end:
            if self.keyturn_audit_export is None and not self._names_log():
                return "leaf"
        elif not is_leaf and self.index is None and self.id is None and self.seq is None:
            if self.keyturn_audit_export is not None and self.checkpoint is None and not self.end:
                return "header"
            if (
                self.keyturn_audit_export is None
                and not self._names_log()
                and (self.checkpoint is not None) != self.end
            ):
                return "end" if self.end else "checkpoint"
        raise ValueError("expected one thing on a line")

    def _names_log(self) -> bool:
        stated = (self.workspace, self.origin, self.verifier_key, self.first)
        return bool(self.handovers) or any(one is not None for one in stated)

    def content(self) -> bytes | None:
        """Return the exact bytes of the leaf, None when they were erased; raises ValueError for bad base64."""
        if self.body_base64 is not None:
            if self.body is not UNSET:
                raise ValueError("expected one content")
            return base64.b64decode(self.body_base64, validate=True)
        return self.body.encode() if isinstance(self.body, str) else None

    def leaf_hash(self) -> bytes | None:
        """Return the stated hash; raises ValueError when it is not one."""
        if self.hash is None:
            return None
        stated = bytes.fromhex(self.hash)
        if len(stated) != HASH_BYTES or len(self.hash) != 2 * HASH_BYTES:
            raise ValueError("expected a hash of 64 hexadecimal digits")
        return stated

    def tree(self) -> Frontier | None:
        """Return the frontier the line carries; raises ValueError when it is not one."""
        if self.frontier is None:
            return None
        try:
            return Frontier.from_bytes(base64.b64decode(self.frontier, validate=True))
        except binascii.Error as error:
            raise ValueError("expected base64") from error


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Line)


def encode(line: Line) -> bytes:
    """Write one line, with its newline."""
    return _encoder.encode(line) + b"\n"


def decode(text: str | bytes) -> Line:
    """Read one line; raises ValueError when it is not a line of an export."""
    try:
        return _decoder.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ValueError("not a line of an audit export") from error


def header(
    workspace: str, verifier_key: str, first: int, to: int, tree: Frontier, handovers: tuple[str, ...] = ()
) -> Line:
    """Return the first line of an export of leaves `first` to `to` - 1; `tree` is the tree before them."""
    return Line(
        keyturn_audit_export=FORMAT,
        workspace=workspace,
        origin=origin_of(workspace),
        verifier_key=verifier_key,
        handovers=handovers,
        first=first,
        to=to,
        frontier=frontier_text(tree) if first else None,
    )


def leaf(
    index: int | None, stated: bytes | None, *, seq: int, leaf_id: str, content: bytes | None, columns_differ: bool
) -> Line:
    """Return the line of a stored leaf; `index` and `stated` are None when the tree has no place for it."""
    text: str | None = None
    encoded: str | None = None
    if content is not None:
        try:
            text = content.decode()
        except UnicodeDecodeError:
            encoded = base64.b64encode(content).decode()
    return Line(
        index=index,
        seq=seq,
        id=leaf_id,
        hash=None if stated is None else stated.hex(),
        columns_differ=columns_differ,
        body=UNSET if encoded is not None else text,
        body_base64=encoded,
    )


def missing(index: int, stated: bytes) -> Line:
    """Return the line for a leaf of the tree that the log has no more."""
    return Line(index=index, hash=stated.hex(), missing=True)


def frontier_text(tree: Frontier) -> str:
    """Write a frontier as a line carries it."""
    return base64.b64encode(tree.to_bytes()).decode()
