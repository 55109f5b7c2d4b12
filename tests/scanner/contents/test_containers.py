"""A key is seen in each of the containers in which other scanners lose it."""

from __future__ import annotations

import base64
import bz2
import gzip
import json
import lzma
import marshal
import sys
import urllib.parse
from importlib.util import MAGIC_NUMBER
from pathlib import Path

import pytest
from backports import zstd

from keyturn.scanner.model import Context
from tests.scanner.packing import KEY, LINE, oci_image, opened, saved_image, showing, tarred, zipped

MINIFIED = b'!function(){var a={k:"' + KEY + b'"};' + b"b(a);" * 900 + b"}();"
TEXT = KEY.decode()


def test_bundle() -> None:
    (found,) = showing(MINIFIED, "static/js/main.0123abcd.js")
    assert Context.CLIENT_BUNDLE in found.contexts


def test_source_map() -> None:
    source = f"// client\nconst key = '{TEXT}';\n"
    body = json.dumps({"version": 3, "sources": ["src/a.ts"], "sourcesContent": [source], "mappings": "AAAA"}).encode()
    (found,) = showing(body, "static/js/main.js.map")
    assert found.members == ("src/a.ts",)
    assert Context.SOURCE_MAP in found.contexts
    assert bytes(found.data).decode() == source


def test_source_map_inside_of_a_bundle() -> None:
    body = json.dumps({"version": 3, "sources": ["a"], "sourcesContent": [f"k = '{TEXT}'"], "mappings": ""}).encode()
    bundle = b"a();\n//# sourceMappingURL=data:application/json;base64," + base64.b64encode(body)
    assert showing(bundle, "a.js")


def test_base64() -> None:
    assert showing(b"data:\n  key: " + base64.b64encode(b"key: " + KEY) + b"\n")


def test_base64_twice() -> None:
    assert showing(b"value=" + base64.b64encode(base64.b64encode(KEY)))


def test_hexadecimal() -> None:
    assert showing(b"blob = '" + LINE.hex().encode() + b"'")


def test_percent() -> None:
    assert showing(b"GET /?a%3D1%26key%3D" + KEY + b"%26b HTTP/1.1")
    assert showing(("x=" + "".join(f"%{byte:02X}" for byte in KEY)).encode())
    assert showing(urllib.parse.quote(f'{{"key":"{TEXT}"}}').encode())


def test_zip() -> None:
    (found,) = showing(zipped({"conf/app.ini": LINE}), "a.zip")
    assert found.members == ("conf/app.ini",)
    assert Context.ARCHIVE in found.contexts


def test_jar() -> None:
    assert showing(zipped({"META-INF/MANIFEST.MF": b"a: b\n", "A.class": java_class(KEY)}), "a.jar")


def test_zip_in_tgz() -> None:
    (found,) = showing(tarred({"dist/x.zip": zipped({"a/b.env": LINE})}, "w:gz"), "a.tgz")
    assert found.members == ("dist/x.zip", "a/b.env")


def test_gzipped_log() -> None:
    (found,) = showing(gzip.compress(b"one\n" + LINE), "app.log.gz")
    assert found.members == ()


def test_xz() -> None:
    assert showing(lzma.compress(LINE), "a.xz")
    assert showing(lzma.compress(LINE, lzma.FORMAT_ALONE), "a.lzma")


@pytest.mark.parametrize("pack", [bz2.compress, zstd.compress])
def test_bzip2_and_zstandard(pack: object) -> None:
    assert callable(pack)
    assert showing(pack(LINE), "a")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_wide_text(encoding: str) -> None:
    (found,) = showing(("# one\n" + LINE.decode()).encode(encoding), "a.ps1")
    assert bytes(found.data).count(b"\n") == 2


def test_compiled_python() -> None:
    code = compile(f"def f():\n    return dict(key='{TEXT}', other=['{TEXT}x'])\n", "a.py", "exec")
    (found,) = showing(MAGIC_NUMBER + bytes(12) + marshal.dumps(code), "a.pyc")
    assert Context.BINARY in found.contexts


@pytest.mark.parametrize("length", [*range(40, 92), 250, 300])
def test_the_length_before_a_string_of_compiled_python_is_not_taken_for_its_first_character(length: int) -> None:
    key = KEY + b"x" * (length - len(KEY))
    code = compile(f"a = '{key.decode()}'", "a.py", "exec")
    assert showing(MAGIC_NUMBER + bytes(12) + marshal.dumps(code), "a.pyc", key)


def test_program() -> None:
    program = Path(sys.executable).resolve().read_bytes()[:200_000]
    planted = program + b"\0\0" + KEY + b"\0\0" + program[1000:2000]
    assert program.startswith(b"\x7fELF")
    (found,) = showing(planted, "a")
    assert Context.BINARY in found.contexts


def test_wide_string_in_a_program() -> None:
    assert showing(b"MZ\x90\0\3\0\0\0" + bytes(600) + TEXT.encode("utf-16-le") + bytes(100), "a.dll")


@pytest.mark.parametrize("image", [saved_image, oci_image])
@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstd.compress])
def test_image_layer(image: object, pack: object) -> None:
    assert callable(image)
    assert callable(pack)
    (found,) = showing(image([pack(tarred({"app/.env": LINE}))], {}), "image.tar")
    assert found.members[1:] == ("app/.env",)
    assert Context.IMAGE_LAYER in found.contexts
    assert Context.DELETED not in found.contexts


@pytest.mark.parametrize("image", [saved_image, oci_image])
@pytest.mark.parametrize("whiteout", ["app/.wh..env", ".wh.app", "app/.wh..wh..opq", "app/.env"])
def test_file_that_a_later_layer_deletes(image: object, whiteout: str) -> None:
    assert callable(image)
    layers = [tarred({"app/.env": LINE, "app/x": b"y"}), tarred({"b": b"c"}), tarred({whiteout: b""})]
    (found,) = showing(image(layers, {}), "image.tar")
    assert {Context.IMAGE_LAYER, Context.DELETED} <= found.contexts


def test_image_whose_layers_have_names_of_their_own_and_whose_manifest_comes_last() -> None:
    lower, upper = tarred({"app/.env": LINE}), tarred({"app/.wh..env": b""})
    manifest = [{"Config": "c.json", "RepoTags": ["a:1"], "Layers": ["base/layer.tar", "top/layer.tar"]}]
    image = tarred(
        {
            "base/layer.tar": lower,
            "top/layer.tar": upper,
            "c.json": b"{}",
            "manifest.json": json.dumps(manifest).encode(),
        }
    )
    (found,) = showing(image, "image.tar")
    assert {Context.IMAGE_LAYER, Context.DELETED} <= found.contexts


@pytest.mark.parametrize("image", [saved_image, oci_image])
def test_environment_of_an_image(image: object) -> None:
    assert callable(image)
    (found,) = showing(image([tarred({"a": b"b"})], {"config": {"Env": ["PATH=/bin", f"KEY={TEXT}"]}}), "image.tar")
    assert found.members[-1] == "Env"
    assert Context.IMAGE_CONFIG in found.contexts
    assert f"\nKEY={TEXT}" in bytes(found.data).decode()


@pytest.mark.parametrize("image", [saved_image, oci_image])
def test_history_of_an_image(image: object) -> None:
    assert callable(image)
    history = [{"created_by": "RUN a"}, {"created_by": f'RUN |1 KEY="{TEXT}" make'}]
    (found,) = showing(image([tarred({"a": b"b"})], {"history": history}), "image.tar")
    assert found.members[-1] == "history"


def test_label_of_an_image() -> None:
    (found,) = showing(oci_image([tarred({"a": b"b"})], {"config": {"Labels": {"build.key": TEXT}}}), "image.tar")
    assert found.members[-1] == "Labels"


def test_image_in_a_compressed_archive() -> None:
    image = gzip.compress(oci_image([gzip.compress(tarred({"a": LINE}))], {"config": {"Env": [f"K={TEXT}"]}}))
    layer, environment = sorted(showing(image, "image.tar.gz"), key=lambda found: found.members[-1], reverse=True)
    assert Context.IMAGE_LAYER in layer.contexts
    assert Context.IMAGE_CONFIG in environment.contexts


def test_notebook_keeps_the_lines_of_the_file() -> None:
    source = {"cells": [{"cell_type": "code", "source": ["import os\n", f'key = "{TEXT}"\n']}], "nbformat": 4}
    body = json.dumps(source, indent=1).encode()
    (found,) = showing(body, "a.ipynb")
    text = bytes(found.data)
    assert text.split(b"\n").index(b'key = "' + KEY + b'"') == [KEY in line for line in body.split(b"\n")].index(True)


def test_office_document_and_package_of_python() -> None:
    assert showing(zipped({"word/document.xml": b"<w:t>" + KEY + b"</w:t>"}), "a.docx")
    assert showing(zipped({"a/x.py": LINE, "a-1.dist-info/RECORD": b"a/x.py,sha256=x,9\n"}), "a-1-py3-none-any.whl")


def test_archive_behind_a_program() -> None:
    assert showing(b"#!/usr/bin/env python\n" + zipped({"__main__.py": LINE}), "a.pyz")
    assert showing(b"Cr24\3\0\0\0\x10\0\0\0" + bytes(16) + zipped({"background.js": LINE}), "a.crx")


def test_package_of_debian() -> None:
    data = tarred({"./usr/bin/x": LINE}, "w:xz")
    head = f"{'data.tar.xz':<16}{'0':<12}{'0':<6}{'0':<6}{'100644':<8}{len(data):<10}`\n".encode()
    (found,) = showing(b"!<arch>\n" + head + data, "a.deb")
    assert found.members == ("data.tar.xz", "./usr/bin/x")


def java_class(constant: bytes) -> bytes:
    """Return the beginning of a class with one string."""
    pool = b"\x01" + len(constant).to_bytes(2, "big") + constant + b"\x08\x00\x01" + b"\x05" + bytes(8)
    return b"\xca\xfe\xba\xbe\0\0\0\x3d" + b"\0\x05" + pool + bytes(20)


def test_text_in_the_output_of_a_notebook_is_read_and_a_picture_is_not() -> None:
    text = KEY.decode()
    lines = [
        "{",
        ' "cells": [',
        "  {",
        '   "outputs": [{"data": {',
        f'    "application/javascript": "const api_key = \'{text}\'",',
        f'    "image/svg+xml": "<svg>{text}</svg>",',
        '    "image/png": "' + "QUJD" * 99 + '"',
        "   }}]",
        "  }",
        " ]",
        "}",
    ]
    ((document,), _) = opened("\n".join(lines).encode(), "a.ipynb")
    assert bytes(document.data).count(KEY) == 2
    assert b"QUJDQUJD" not in bytes(document.data)


@pytest.mark.parametrize("data", [b"0\x82\x05\x00\x02" * 64, bytes(4096)])
def test_a_binary_without_strings_is_a_document_too(data: bytes) -> None:
    """Its name alone may tell that it is a key store; half of those of a public test suite were passed over."""
    (found,), _ = opened(data, "keys/server.p12")
    assert (found.path, bytes(found.data)) == ("keys/server.p12", b"")
