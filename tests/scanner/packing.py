"""Packs samples as they are met: archives, images, encodings; and reads back everything that a document holds."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
import zipfile
from typing import TYPE_CHECKING

from keyturn.scanner.contents.budget import Budget
from keyturn.scanner.contents.opening import open_document
from keyturn.scanner.decoding.layers import decoded
from keyturn.scanner.model import Document, Notice
from keyturn.scanner.ruleset.samples import expand

if TYPE_CHECKING:
    from collections.abc import Mapping

KEY = expand("sk_" + "live_{{base62:24}}", "a planted key").encode()
LINE = b'api_key = "' + KEY + b'"\n'
BUDGET = Budget()


def tarred(members: Mapping[str, bytes], mode: str = "w", how: int = tarfile.GNU_FORMAT) -> bytes:
    """Return a tar archive; `mode` as tarfile has it, with its compression."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode, format=how) as archive:  # type: ignore[call-overload]
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def zipped(members: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return a zip archive."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


def saved_image(layers: list[bytes], config: Mapping[str, object]) -> bytes:
    """Return an image as docker save wrote it for years: a folder for each layer, and a manifest."""
    names = [f"{hashlib.sha256(layer).hexdigest()}/layer.tar" for layer in layers]
    body = json.dumps({**config, "rootfs": {"type": "layers", "diff_ids": names}}).encode()
    told = hashlib.sha256(body).hexdigest() + ".json"
    manifest = json.dumps([{"Config": told, "RepoTags": ["a:b"], "Layers": names}]).encode()
    return tarred({told: body, **dict(zip(names, layers, strict=True)), "manifest.json": manifest})


def oci_image(layers: list[bytes], config: Mapping[str, object]) -> bytes:
    """Return an image in the OCI layout: everything is a blob under its digest."""
    blobs: dict[str, bytes] = {}

    def add(body: bytes) -> dict[str, object]:
        digest = hashlib.sha256(body).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = body
        return {"digest": f"sha256:{digest}", "size": len(body)}

    described = [add(layer) for layer in layers]
    told = {**config, "rootfs": {"type": "layers", "diff_ids": [one["digest"] for one in described]}}
    manifest = add(json.dumps({"config": add(json.dumps(told).encode()), "layers": described}).encode())
    index = json.dumps({"schemaVersion": 2, "manifests": [manifest]}).encode()
    return tarred({**blobs, "index.json": index, "oci-layout": b'{"imageLayoutVersion":"1.0.0"}'})


def opened(data: bytes, path: str = "sample", budget: Budget = BUDGET) -> tuple[list[Document], list[Notice]]:
    """Return what a document holds, and what is told of the rest."""
    documents: list[Document] = []
    notices: list[Notice] = []
    for found in open_document(Document(data, path), budget):
        if isinstance(found, Notice):
            notices.append(found)
        else:
            documents.append(found)
    return documents, notices


def shows(document: Document, key: bytes = KEY) -> bool:
    """Whether a text, or what it hides to a depth of three, has the key as a word of its own."""
    word = re.compile(rb"\b" + re.escape(key) + rb"\b")
    texts = [bytes(document.data)]
    for _ in range(4):
        if any(word.search(text) for text in texts):
            return True
        texts = [layer.data for text in texts for layer in decoded(text, BUDGET)]
    return False


def showing(data: bytes, path: str = "sample", key: bytes = KEY) -> list[Document]:
    """Return the documents in which the key can be seen."""
    return [document for document in opened(data, path)[0] if shows(document, key)]
