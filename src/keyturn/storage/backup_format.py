"""The file of a backup, format 1: a zip with one JSONL file for each table, and a manifest over them.

    fact.jsonl, workspace.jsonl, ...   a row a line: a JSON list in the order of the manifest's columns, bytes as base64
    manifest.json                      format, schema revision, root keys wanted, log id and number, and of each table
                                       its columns, rows and SHA-256
    seal.json                          a MAC over the manifest's bytes, under a random key that the root key wraps;
                                       absent when the backup was made without the root key at hand

It is the same for both engines.  It never holds the root key, nor anything it opens.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import zipfile
import zlib
from typing import IO, TYPE_CHECKING, Any, Final, Self

import msgspec
from sqlalchemy import LargeBinary

from keyturn.errors import ConfigError, IntegrityError, KekError
from keyturn.kernel import envelope
from keyturn.kernel.secret import constant_time_equal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from sqlalchemy import Table

    from keyturn.storage.kek import KekProvider

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
SEAL: Final = "seal.json"
SMALL_BYTES: Final = 1_000_000
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)


class TablePart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the manifest says of one table."""

    columns: tuple[str, ...]
    rows: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a backup is of."""

    keyturn_backup: int
    created_at: str
    revision: str
    kek_ids: tuple[str, ...]
    log_id: str
    seq: int
    tables: dict[str, TablePart]


class Seal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The proof that whoever made the backup held the root key."""

    kek_id: str
    mac_key: bytes
    mac: bytes


class Writer:
    """Writes a backup into an open binary file; use as a context manager."""

    def __init__(self, file: IO[bytes]) -> None:
        """Begin an empty backup."""
        self._archive = zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1)
        self._tables: dict[str, TablePart] = {}

    def table(self, table: Table, rows: Iterator[Sequence[Any]]) -> None:
        """Write one table; the rows hold its columns in order."""
        digest = hashlib.sha256()
        count = 0
        with self._archive.open(_entry(f"{table.name}.jsonl"), "w", force_zip64=True) as part:
            for row in rows:
                line = msgspec.json.encode(tuple(row)) + b"\n"
                digest.update(line)
                part.write(line)
                count += 1
        columns = tuple(str(column.name) for column in table.columns)
        self._tables[str(table.name)] = TablePart(columns, count, digest.hexdigest())

    def finish(self, provider: KekProvider | None, **said: Any) -> Manifest:  # noqa: ANN401 -- fields of the manifest
        """Write the manifest and, with the root key at hand, the seal; the file is complete then."""
        manifest = Manifest(keyturn_backup=FORMAT, tables=self._tables, **said)
        content = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
        self._archive.writestr(_entry(MANIFEST), content)
        if provider is not None:
            mac_key = envelope.new_key()
            made = provider.wrap(mac_key)
            seal = Seal(made.kek_id, made.wrapped, _mac(mac_key, content))
            self._archive.writestr(_entry(SEAL), msgspec.json.encode(seal))
        self._archive.close()
        return manifest

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_exception: object) -> None:
        """Let go of a file that was not finished."""
        with contextlib.suppress(OSError, ValueError):
            self._archive.close()


class Reader:
    """Reads a backup; raises IntegrityError for one that was cut off, altered, or is none."""

    def __init__(self, path: Path) -> None:
        """Open the file and read its manifest; use as a context manager."""
        try:
            self._archive = zipfile.ZipFile(path)
            content = self._small(MANIFEST)
            self.manifest = msgspec.json.decode(content, type=Manifest)
            self._seal = msgspec.json.decode(self._small(SEAL), type=Seal) if self._has(SEAL) else None
        except OSError as error:
            message = f"the backup {path} cannot be read"
            raise ConfigError(message, hint="check the path and its mode", internal=type(error).__name__) from error
        except (zipfile.BadZipFile, KeyError, msgspec.MsgspecError, zlib.error, NotImplementedError) as error:
            raise _altered("it has no readable manifest") from error
        if self.manifest.keyturn_backup != FORMAT:
            message = f"the backup has format {self.manifest.keyturn_backup}; this program reads {FORMAT}"
            raise ConfigError(message, hint="restore it with the release that made it")
        self._content = content

    def check_seal(self, provider: KekProvider) -> bool:
        """Prove that the backup was made by a holder of the root key; False when it carries no proof.

        Raises KekError when another root key is wanted, IntegrityError when the proof is wrong.
        """
        missing = [wanted for wanted in self.manifest.kek_ids if wanted not in provider.ids]
        if missing:
            given = " and ".join(provider.ids)
            message = f"the backup is sealed under root key {' and '.join(missing)}, but {given} was given"
            raise KekError(message, hint=f"provide root key {missing[-1]}")
        if self._seal is None:
            return False
        if self._seal.kek_id not in provider.ids:
            given = " and ".join(provider.ids)
            message = f"the backup was made with root key {self._seal.kek_id}, but {given} was given"
            raise KekError(message, hint=f"provide root key {self._seal.kek_id}")
        mac = _mac(provider.unwrap(self._seal.kek_id, self._seal.mac_key), self._content)
        if not constant_time_equal(mac, self._seal.mac):
            raise _altered("its manifest is not the one that was sealed")
        return True

    def rows(self, table: Table) -> Iterator[dict[str, Any]]:
        """Yield the rows of a table by column key; the manifest's columns must be the table's.

        Whatever is wrong raises IntegrityError, at the latest after the last row: undo what was done with them then.
        """
        part = self.manifest.tables[table.name]
        by_name = {column.name: column for column in table.columns}
        columns = [by_name[name] for name in part.columns]
        binary = [isinstance(column.type, LargeBinary) for column in columns]
        digest = hashlib.sha256()
        count = 0
        try:
            with self._archive.open(f"{table.name}.jsonl") as lines:
                for line in lines:
                    digest.update(line)
                    values = msgspec.json.decode(line, type=list[str | float | int | bool | None])
                    if len(values) != len(columns):
                        raise _altered(f"a row of {table.name} has {len(values)} columns")
                    count += 1
                    yield {
                        column.key: _bytes(value) if is_bytes else value
                        for column, value, is_bytes in zip(columns, values, binary, strict=True)
                    }
        except (zipfile.BadZipFile, KeyError, EOFError, OSError, zlib.error, msgspec.MsgspecError) as error:
            raise _altered(f"the part {table.name} cannot be read") from error
        if count != part.rows or digest.hexdigest() != part.sha256:
            raise _altered(f"the part {table.name} is not what the manifest says")

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_exception: object) -> None:
        """Close the file."""
        self._archive.close()

    def _has(self, name: str) -> bool:
        return name in self._archive.namelist()

    def _small(self, name: str) -> bytes:
        with self._archive.open(name) as part:
            content = part.read(SMALL_BYTES + 1)
        if len(content) > SMALL_BYTES:
            raise zipfile.BadZipFile
        return content


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o600 << 16
    return entry


def _mac(key: bytes, content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=32, key=key, person=b"keyturn backup").digest()


def _bytes(value: object) -> bytes | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise _altered("a value that should be base64 is not")
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error as error:
        raise _altered("a value that should be base64 is not") from error


def _altered(what: str) -> IntegrityError:
    return IntegrityError(f"the backup was altered or cut off: {what}", hint="use another backup")
