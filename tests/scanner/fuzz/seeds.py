"""Valid samples of everything that is opened, to be damaged; and the bounds under which that is done."""

from __future__ import annotations

import base64
import bz2
import gzip
import json
import lzma
import marshal
import tarfile
import zipfile
from importlib.util import MAGIC_NUMBER
from typing import Final

from backports import zstd

from keyturn.scanner.contents.budget import MIB, Budget
from keyturn.scanner.contents.opening import open_document
from keyturn.scanner.decoding.layers import decoded
from keyturn.scanner.model import Document, Notice
from tests.scanner.packing import LINE, oci_image, saved_image, tarred, zipped

TIGHT: Final = Budget(
    bytes=8 * MIB, growth=0, ratio_free=MIB, held=4 * MIB, piece=64 << 10, overlap=1 << 10, members=500, layers=500
)
PATHS: Final = ("a", "a.js", "a.map", "a.ipynb", "a.log", "a.pyc", "a.lzma", "blobs/sha256/" + "0" * 64)
_LAYER: Final = tarred({"app/.env": LINE, "app/.wh.x": b""})
_CONFIG: Final = {"config": {"Env": ["A=b"], "Labels": {"a": "b"}}, "history": [{"created_by": "RUN x"}]}
_MAP: Final = {"version": 3, "sources": ["a"], "sourcesContent": ["k = 1\n"], "mappings": "AAAA"}
_CELLS: Final = {"cells": [{"cell_type": "code", "source": ["import os\n", "k = 'v'\n"]}]}

SEEDS: Final = (
    LINE * 4,
    gzip.compress(LINE * 9),
    gzip.compress(LINE) + gzip.compress(LINE),
    bz2.compress(LINE),
    lzma.compress(LINE),
    lzma.compress(LINE, lzma.FORMAT_ALONE),
    zstd.compress(LINE),
    zipped({"a": LINE, "b/c": LINE * 50}),
    zipped({"a": LINE}, zipfile.ZIP_STORED),
    zipped({"a": LINE}, zipfile.ZIP_LZMA),
    zipped({"a.zip": zipped({"b.gz": gzip.compress(LINE)})}),
    tarred({"a": LINE, "n" * 150: LINE}),
    tarred({"ä" * 150: LINE}, how=tarfile.PAX_FORMAT),
    tarred({"a": LINE}, "w:gz"),
    saved_image([_LAYER, gzip.compress(_LAYER)], _CONFIG),
    oci_image([_LAYER, zstd.compress(_LAYER)], _CONFIG),
    b"!<arch>\n" + b"a/              0           0     0     100644  4         `\nabcd",
    MAGIC_NUMBER + bytes(12) + marshal.dumps(compile("a = 'some string', b'bytes', 'ä' * 3", "a", "exec")),
    b"\xca\xfe\xba\xbe\0\0\0\x3d\0\5\x01\0\x08abcdefgh\x08\0\1\5" + bytes(28),
    b"\x7fELF" + bytes(40) + LINE + bytes(20) + LINE.decode().encode("utf-16-le"),
    LINE.decode().encode("utf-16"),
    LINE.decode().encode("utf-32"),
    json.dumps(_MAP).encode(),
    json.dumps({"version": 3, "sections": [{"map": _MAP}]}).encode(),
    json.dumps(_CELLS, indent=1).encode(),
    json.dumps({**_CONFIG, "rootfs": {"diff_ids": []}}).encode(),
    b"2026-01-02T03:04:05.123456Z 00O \x1b[1mkey=" + b"a" * 60 + b"\n2026-01-02T03:04:05.123456Z 00O+bbb\n" * 3,
    b"\x1b]8;;https://example.org/aaaaaaaaaaaaaaaaaaaaaaa\x07x\x1b[0K" + b"z" * 80 + b"\n" + b"y" * 30,
    b"v: " + base64.b64encode(LINE) + b"\n" + base64.b64encode(base64.b64encode(gzip.compress(LINE))),
    b"v: " + base64.b64encode(zipped({"a": LINE})) + LINE.hex().encode(),
    b"%3Dkey%3D" + LINE + b'"\\u003d\\x3d\\nabcdefghijklmnopqrst \\u{41}" https:\\/\\/a',
)


def unfold(data: bytes, path: str) -> tuple[int, int]:
    """Open some bytes and decode what comes out; return how many bytes and notices that were.

    Raises AssertionError when an answer breaks its contract.
    """
    total = notices = 0
    for found in open_document(Document(data, path), TIGHT):
        if isinstance(found, Notice):
            notices += 1
            assert found.detail
            assert found.path.isprintable()
            continue
        total += len(found.data)
        assert 0 <= found.lead <= len(found.data) - found.tail <= len(found.data)
        assert all(member.isprintable() and len(member) < 5000 for member in found.members)
        place = 0
        for layer in decoded(found.data, TIGHT):
            assert place <= layer.start < layer.end <= len(found.data)
            place = layer.end
            list(decoded(layer.data, TIGHT))
    return total, notices
