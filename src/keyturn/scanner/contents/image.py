"""Container images as one file, of docker save or in the OCI layout: the order of layers, and what a config says.

Layers are read from the last to the first, so that a file of an earlier one is known to be deleted or replaced when it
is met, and every layer is unpacked once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from keyturn.scanner.contents.stream import Failure, Stream
from keyturn.scanner.contents.tar import tar_members
from keyturn.scanner.model import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keyturn.scanner.contents.budget import Spending

_BEGINS: Final = re.compile(
    rb"(?:\./)?(?:blobs(?:/|\0|\Z)|(?:sha256:)?[0-9a-f]{64}[/.\0]|[^/\0]{1,80}/layer\.tar|manifest\.json|index\.json"
    rb"|oci-layout|repositories)"
)
_LAYER_NAME: Final = re.compile(r"(?:^|/)(?:blobs/sha256/[0-9a-f]{64}|[^/]+/layer\.tar|[0-9a-f]{64}\.tar(?:\.gz)?)$")
_DESCRIPTION_BYTES: Final = 8 << 20
_INDEX_DEPTH: Final = 3
_WHITEOUT: Final = ".wh."
_OPAQUE: Final = ".wh..wh..opq"


@dataclass(slots=True)
class Later:
    """What the layers above have done to the files of the ones below."""

    files: set[str] = field(default_factory=set)
    folders: set[str] = field(default_factory=set)
    opaque: set[str] = field(default_factory=set)

    def hides(self, name: str) -> bool:
        """Whether a file of a lower layer is no more in the image."""
        if name in self.files:
            return True
        if not self.folders and not self.opaque:
            return False
        parts = name.split("/")
        folders = ["/".join(parts[:count]) for count in range(len(parts))]
        return not self.opaque.isdisjoint(folders) or not self.folders.isdisjoint([*folders[1:], name])


@dataclass(slots=True)
class Layer:
    """One layer as it is read: what hides its files, and what it hides itself."""

    later: Later
    own: Later = field(default_factory=Later)

    def meet(self, name: str) -> bool:
        """Take note of a member; True when later layers hide it."""
        name = name.removeprefix("./").strip("/")
        folder, _, base = name.rpartition("/")
        if base == _OPAQUE:
            self.own.opaque.add(folder)
        elif base.startswith(_WHITEOUT):
            gone = base.removeprefix(_WHITEOUT)
            self.own.folders.add(f"{folder}/{gone}" if folder else gone)
        else:
            self.own.files.add(name)
        return self.later.hides(name)

    def close(self) -> None:
        """Count what this layer hides among what later layers do."""
        self.later.files |= self.own.files
        self.later.folders |= self.own.folders
        self.later.opaque |= self.own.opaque


@dataclass(frozen=True, slots=True)
class Part:
    """A file of the image's archive: where its bytes are."""

    name: str
    start: int
    size: int


@dataclass(frozen=True, slots=True)
class Layout:
    """The files of the archive by name, and for each image its layers in the order in which they are read.

    `failures` are why there may be more to it than that.
    """

    parts: dict[str, Part]
    images: list[list[str]]
    failures: list[Failure]

    @property
    def shared(self) -> bool:
        """Whether images have layers in common, so that deleted in one does not mean deleted in all."""
        layers = [layer for image in self.images for layer in set(image)]
        return len(layers) != len(set(layers))


def begins_like_image(head: bytes) -> bool:
    """Whether the first member of a tar archive is one that an image begins with."""
    return _BEGINS.match(head) is not None


def is_layer_name(name: str) -> bool:
    """Whether a tar archive of that name is a layer."""
    return _LAYER_NAME.search(name) is not None


def layout_of(archive: memoryview, counting: Spending) -> Layout | None:
    """Return where the parts of an image are; None when it is none, or has more members than there may be."""
    parts: dict[str, Part] = {}
    failures: list[Failure] = []
    stream = Stream.of(archive)
    for number, member in enumerate(tar_members(stream, counting)):
        if isinstance(member, Failure):
            failures.append(member)
            break
        name = member.name.decode("utf-8", "replace").removeprefix("./")
        if name in parts:  # the last of that name counts, and the others are scanned too
            parts[f"{name} ({number})"] = parts[name]
        parts[name] = Part(name, stream.position - len(member.stream.rest or b""), member.size)
    images = _saved(archive, parts) or _laid_out(archive, parts)
    missing = {name for image in images for name in image} - parts.keys()
    if missing:
        failures.append(Failure(Problem.MISSING, f"does not hold {len(missing)} of the layers that it names"))
    images = [[name for name in image if name in parts] for image in images]
    return Layout(parts, images, failures) if any(images) and not counting.hit else None


def _saved(archive: memoryview, parts: dict[str, Part]) -> list[list[str]]:
    images = []
    for image in _list(_read(archive, parts, "manifest.json")):
        layers = [one for one in _list(image.get("Layers")) if isinstance(one, str)] if isinstance(image, dict) else []
        if layers:
            images.append(layers[::-1])
    return images


def _laid_out(archive: memoryview, parts: dict[str, Part]) -> list[list[str]]:
    images: list[list[str]] = []
    waiting = [("index.json", 0)]
    seen: set[str] = set()
    while waiting:
        name, depth = waiting.pop()
        if name in seen or depth > _INDEX_DEPTH:
            continue
        seen.add(name)
        found = _read(archive, parts, name)
        if not isinstance(found, dict):
            continue
        waiting.extend((blob, depth + 1) for blob in _blobs(found.get("manifests")))
        layers = _blobs(found.get("layers"))
        if layers:
            images.append(layers[::-1])
    return images


def _list(found: object) -> list[Any]:
    return found if isinstance(found, list) else []


def _blobs(descriptors: object) -> list[str]:
    digests = [found.get("digest") for found in _list(descriptors) if isinstance(found, dict)]
    return ["blobs/" + digest.replace(":", "/", 1) for digest in digests if isinstance(digest, str)]


def _read(archive: memoryview, parts: dict[str, Part], name: str) -> object:
    import msgspec

    part = parts.get(name)
    if part is None or part.size > _DESCRIPTION_BYTES:
        return None
    try:
        return msgspec.json.decode(archive[part.start : part.start + part.size])
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None


def is_config(data: bytes) -> bool:
    """Whether some JSON is the config of an image."""
    return b'"rootfs"' in data and b'"diff_ids"' in data


def config_texts(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Give what a config says as lines: its environment, its history, its labels, and the rest."""
    import msgspec

    try:
        document = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        document = None
    if not isinstance(document, dict):
        yield "", data
        return
    configs = [found for key in ("config", "container_config") if isinstance(found := document.pop(key, None), dict)]
    yield "Env", _lines(line for config in configs for line in _list(config.pop("Env", None)))
    labels = [found for config in configs if isinstance(found := config.pop("Labels", None), dict)]
    yield "Labels", _lines(f"{key}={value}" for found in labels for key, value in found.items())
    yield "history", _lines(_history(_list(document.pop("history", None))))
    document.pop("rootfs", None)
    yield "config", _lines([*_told(configs, 0), *_told(document, 0)])


def _history(steps: list[Any]) -> Iterator[str]:
    for step in steps:
        if isinstance(step, dict):
            yield " # ".join(str(step[key]) for key in ("created_by", "comment", "author") if step.get(key))


def _told(found: object, depth: int) -> Iterator[str]:
    if isinstance(found, dict) and depth < 8:
        for key, value in found.items():
            if isinstance(value, (dict, list)):
                yield from _told(value, depth + 1)
            else:
                yield f"{key}={value}"
    elif isinstance(found, list) and depth < 8:
        if all(isinstance(part, str) for part in found):
            yield " ".join(found)
        else:
            for part in found:
                yield from _told(part, depth + 1)
    elif isinstance(found, str):
        yield found


def _lines(lines: Iterator[str] | list[str] | Any) -> bytes:  # noqa: ANN401 -- what JSON held
    return "\n".join(str(line) for line in lines).encode("utf-8", "replace")
