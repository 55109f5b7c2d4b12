"""What the scanners are given when no input is: source-like files, a repository with a history, an image.

All of it is made of this repository's own lines, drawn at random with one seed, and keys made by the rules' samples.
"""

from __future__ import annotations

import hashlib
import io
import json
import random
import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from keyturn.scanner.ruleset.samples import expand

if TYPE_CHECKING:
    from collections.abc import Iterator

_SEED: Final = 5
_TEMPLATES: Final = (
    "sk_" + "live_{{base62:24}}",
    "gl" + "pat-{{base64url:20}}",
    "AK" + "IA{{base32:16}}",
    "xo" + "xb-{{digits:12}}-{{digits:12}}-{{base62:24}}",
)
_GIT: Final = ("git", "-c", "user.name=bench", "-c", "user.email=bench@example.test", "-c", "commit.gpgsign=false")


def key(number: int) -> str:
    """Return a key of one of four providers."""
    return expand(_TEMPLATES[number % len(_TEMPLATES)], f"scan benchmark {number}")


def texts(size: int) -> Iterator[tuple[str, bytes]]:
    """Yield paths and contents of source-like files of so many bytes in all, with a key in every twentieth."""
    drawn = random.Random(_SEED)
    lines = own_lines()
    number = 0
    while size > 0:
        text = "".join(drawn.choices(lines, k=min(4000, int(drawn.lognormvariate(5, 1.2)) + 1)))
        if number % 20 == 0:
            text += f'TOKEN = "{key(number)}"\n'
        yield f"part{number % 40}/module{number}.py", text.encode()
        number += 1
        size -= len(text)


def own_lines() -> list[str]:
    """Return every line of this repository's own sources and documents."""
    paths = sorted([*Path("src").rglob("*.py"), *Path("docs").rglob("*.md")])
    return [line for path in paths for line in path.read_text("utf-8").splitlines(keepends=True)]


def make_tree(folder: Path, size: int) -> None:
    """Write such files."""
    for name, data in texts(size):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def make_history(folder: Path, commits: int) -> None:
    """Make a bare repository: each commit changes some lines of one of two hundred files, every fiftieth adds a key."""
    drawn = random.Random(_SEED)
    lines = own_lines()
    files = [drawn.choices(lines, k=drawn.randint(50, 1500)) for _ in range(200)]
    subprocess.run([*_GIT, "init", "-q", "--bare", str(folder)], check=True)
    command = [*_GIT, "--git-dir", str(folder), "fast-import", "--quiet"]
    importing = subprocess.Popen(command, stdin=subprocess.PIPE)
    assert importing.stdin is not None
    for number in range(commits):
        which = number if number < len(files) else drawn.randrange(len(files))
        at = drawn.randrange(len(files[which]))
        files[which][at : at + drawn.randint(0, 3)] = drawn.choices(lines, k=drawn.randint(1, 5))
        if number % 50 == 0:
            files[which].insert(at, f'TOKEN = "{key(number)}"\n')
        text = "".join(files[which]).encode()
        importing.stdin.write(
            b"commit refs/heads/main\ncommitter bench <bench@example.test> %d +0000\ndata 4\nstep\n"
            b"M 100644 inline part%d/module%d.py\ndata %d\n%s\n"
            % (1_600_000_000 + 60 * number, which % 20, which, len(text), text)
        )
    importing.stdin.close()
    assert importing.wait() == 0, "git fast-import failed"
    subprocess.run([*_GIT, "--git-dir", str(folder), "symbolic-ref", "HEAD", "refs/heads/main"], check=True)


def make_staged(folder: Path) -> None:
    """Make a repository with a thousand files and changes of three of them staged; one brings a key."""
    make_tree(folder, 4_000_000)
    _git(folder, "init", "-q")
    _git(folder, "add", "--all")
    _git(folder, "commit", "-q", "-m", "begin")
    changed = sorted(path for path in folder.rglob("*.py") if path.is_file())[:3]
    for number, path in enumerate(changed):
        with path.open("a", encoding="utf-8") as file:
            file.write(f"changed = {number}\n" * 20)
    with changed[0].open("a", encoding="utf-8") as file:
        file.write(f'LEAKED = "{key(1)}"\n')
    _git(folder, "add", "--all")


def make_image(path: Path, size: int) -> dict[str, str]:
    """Write an image as `docker save` does, of so many bytes; return the keys planted in it, by where they are."""
    planted = {where: key(4 * number) for number, where in enumerate(_PLACES)}
    layers = [_layer(number, size // 4, planted) for number in range(4)]
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Env": [f"PAYMENT_KEY={planted['environment']}"], "Labels": {"build": planted["label"]}},
            "history": [{"created_by": f"RUN curl -H 'X-Key: {planted['build history']}' https://example.test"}],
            "rootfs": {
                "type": "layers",
                "diff_ids": [f"sha256:{hashlib.sha256(one).hexdigest()}" for one in layers],
            },
        }
    ).encode()
    names = [f"{hashlib.sha256(layer).hexdigest()}/layer.tar" for layer in layers]
    told = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = json.dumps([{"Config": told, "RepoTags": ["bench:1"], "Layers": names}]).encode()
    with tarfile.open(path, "w") as archive:
        for name, data in (*zip(names, layers, strict=True), (told, config), ("manifest.json", manifest)):
            _add(archive, name, data)
    return planted


_PLACES: Final = ("file of a layer", "file deleted later", "binary", "environment", "label", "build history")


def _layer(number: int, size: int, planted: dict[str, str]) -> bytes:
    drawn = random.Random(number)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in texts(size // 3):
            _add(archive, f"srv/{number}/{name}", data)
        while out.tell() < size:
            _add(archive, f"usr/lib/{number}/lib{out.tell()}.so", b"\x7fELF\0" + drawn.randbytes(400_000))
        if number == 0:
            _add(archive, "srv/kept.env", f"KEY={planted['file of a layer']}\n".encode())
            _add(archive, "srv/gone.env", f"KEY={planted['file deleted later']}\n".encode())
            tail = drawn.randbytes(1000)
            _add(archive, "usr/bin/tool", b"\x7fELF\0\1\0" + tail + b"\0" + planted["binary"].encode() + b"\0" + tail)
        if number == 1:
            _add(archive, "srv/.wh.gone.env", b"")
    return out.getvalue()


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))


def _git(folder: Path, *arguments: str) -> None:
    subprocess.run([*_GIT, "-C", str(folder), *arguments], check=True)
