"""The lines of an audit export, format 1: JSONL, one object a line.

    {"keyturn_audit_export":1,"workspace":"wsp_…","origin":"keyturn/wsp_…","verifier_key":"…","from":0,"to":1042}
    {"index":0,"seq":7,"id":"evt_…","hash":"<64 hex>","body":"<the exact text of the leaf>"}
    {"index":1,"seq":9,"id":"evt_…","hash":"<64 hex>","body":null}         erased; the hash stays
    {"checkpoint":"<signed note>"}                                         after the last leaf it covers
    {"checkpoint":"<signed note>","frontier":"<base64>"}                   here verification can begin anew
    {"end":true}                                                           without it the file was cut off

An export from leaf `from` > 0 on carries the `frontier` of the tree before it in its header.  Leaves of the log that
are not in a signed tree yet are not exported, except records of erasure: `{"pending":true,"id":…,"body":…}`.
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
from typing import Final

import msgspec
from msgspec import UNSET, UnsetType

from keyturn.kernel.merkle import Frontier

FORMAT: Final = 1


class Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Any line; which fields are present tells what it is."""

    keyturn_audit_export: int | None = None
    workspace: str | None = None
    origin: str | None = None
    verifier_key: str | None = None
    first: int | None = msgspec.field(default=None, name="from")
    to: int | None = None

    pending: bool = False
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
    end: bool = False

    def content(self) -> bytes | None:
        """Return the exact bytes of the leaf, None when they were erased; raises ValueError for bad base64."""
        if self.body_base64 is not None:
            return base64.b64decode(self.body_base64, validate=True)
        return self.body.encode() if isinstance(self.body, str) else None

    def leaf_hash(self) -> bytes | None:
        """Return the stated hash; raises ValueError when it is not one."""
        if self.hash is None:
            return None
        if len(self.hash) != 64:
            raise ValueError("expected a hash of 64 hexadecimal digits")
        return bytes.fromhex(self.hash)

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


def header(workspace: str, origin: str, verifier_key: str, first: int, to: int, tree: Frontier) -> Line:
    """Return the first line of an export of leaves `first` to `to` - 1; `tree` is the tree before them."""
    return Line(
        keyturn_audit_export=FORMAT,
        workspace=workspace,
        origin=origin,
        verifier_key=verifier_key,
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


def as_pending(line: Line) -> Line:
    """Mark the record of an erasure as not in a signed tree yet."""
    return msgspec.structs.replace(line, pending=True)
