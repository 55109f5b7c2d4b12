"""A git repository that is read and not trusted.

Nothing that a repository says of itself may run a program, reach the network or hide an object from the scan.
Its `config` is therefore never read by git: git works on a private directory of ours, which links to the objects, refs
and index of the repository and has a `config` of our own; of the repository's one, we read the two lines that say how
objects and refs are stored.  Hooks, filters, text conversions, file system monitors, pagers, includes and promisor
remotes are all named in `config`, and are gone with it.  Grafts and replacements, which stand outside of it, are
turned off by the environment, and so are the commit graph, fetching and every transport.
"""

from __future__ import annotations

import os
import re
import stat
import subprocess
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import count

import msgspec

from keyturn.errors import ConfigError, InputError, KeyturnError

_OF_ALL_WORKTREES = frozenset(
    {"objects", "refs", "packed-refs", "reftable", "logs", "info", "shallow", "worktrees", "modules"}
)
_OF_A_WORKTREE = frozenset({"index"})
_EXTENSIONS = frozenset({"objectformat", "refstorage", "compatobjectformat", "noop"})
_FORMAT = re.compile(r"^\s*([A-Za-z]+)\s*=\s*\"?([A-Za-z0-9]+)\"?\s*(?:[#;].*)?$")
_SECTION = re.compile(r"^\s*\[\s*([A-Za-z]+)\s*\]")
_QUARANTINE = ("GIT_QUARANTINE_PATH", "GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES")

_CONFIG = """\
[core]
\trepositoryformatversion = {version}
\tbare = {bare}
\tfsmonitor = false
\thooksPath = /dev/null
\tattributesFile = /dev/null
\texcludesFile = {excludes}
\tcommitGraph = false
\tquotePath = false
\tpager = cat
\tautocrlf = false
\tdeltaBaseCacheLimit = 256m
\tbigFileThreshold = 64m
[gc]
\tauto = 0
[maintenance]
\tauto = false
[protocol]
\tallow = never
[submodule]
\trecurse = false
[extensions]
"""


class GitError(KeyturnError):
    """Git ended with an error; `internal` is what it said."""

    code = "git_failed"


class Repository(msgspec.Struct, frozen=True, eq=False, weakref=True):
    """Where a repository is; made by `open_repository`, to be used in any process.

    `folder` is the work tree, empty for a bare repository.  `shadow` is the directory that git is given: it lasts until
    `close`, or until the process that made it ends.
    """

    git: str
    directory: str
    common: str
    folder: str
    shadow: str
    environment: Mapping[str, str]
    _finalizer: list[weakref.finalize[[str, int], Repository]] = []

    @property
    def sha256(self) -> bool:
        """Whether its objects are named by SHA-256."""
        return "objectformat = sha256" in self._config()

    @property
    def zero(self) -> str:
        """The object name that names nothing."""
        return "0" * (64 if self.sha256 else 40)

    @property
    def empty_tree(self) -> str:
        """The name of a tree without entries."""
        if self.sha256:
            return "6ef19b41225c5369f1c104d45d8d85efa9b057b53b14b4b9b939dd74decc5321"
        return "4b825dc642cb6eb9a060e54bf8d69288fbee4904"

    @property
    def shallow(self) -> bool:
        """Whether its history was cut off when it was cloned."""
        return os.path.exists(os.path.join(self.common, "shallow"))

    @property
    def partial(self) -> bool:
        """Whether it was cloned without some of its objects."""
        return any("partialclone" in line.lower() for line in _lines(os.path.join(self.common, "config")))

    def command(self, *arguments: str) -> list[str]:
        """Return the command line of git for some arguments."""
        return [self.git, "--no-pager", *arguments]

    def run(self, *arguments: str, given: bytes = b"", in_folder: bool = False) -> bytes:
        """Run git to its end and return what it printed; raises `GitError`."""
        ended = self.attempt(*arguments, given=given, in_folder=in_folder)
        if ended.returncode:
            raise failure(arguments[0], ended.returncode, ended.stderr)
        return ended.stdout

    def attempt(
        self, *arguments: str, given: bytes = b"", in_folder: bool = False
    ) -> subprocess.CompletedProcess[bytes]:
        """Run git to its end, whatever that is."""
        return subprocess.run(  # noqa: PLW1510 -- who calls looks at how it ended
            self.command(*arguments),
            input=given,
            capture_output=True,
            env=self._environment_in(in_folder=in_folder),
            cwd=self.folder if in_folder else self.shadow,
        )

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start git with pipes on its standard input and output."""
        return subprocess.Popen(
            self.command(*arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=dict(self.environment),
            cwd=self.shadow,
            bufsize=1 << 20,
        )

    def close(self) -> None:
        """Remove the private directory."""
        for finalizer in self._finalizer:
            finalizer()

    def _environment_in(self, *, in_folder: bool) -> dict[str, str]:
        return {**self.environment, "GIT_WORK_TREE": self.folder} if in_folder else dict(self.environment)

    def _config(self) -> str:
        with open(os.path.join(self.shadow, "config"), encoding="utf-8") as file:
            return file.read()


def failure(command: str, code: int, said: bytes) -> GitError:
    """Return the error that says git failed."""
    return GitError(
        f"git {command} failed with exit code {code}",
        hint="`git fsck` says what is wrong with the repository",
        internal=said.decode("utf-8", "backslashreplace")[:2000],
    )


def open_repository(path: str, environment: Mapping[str, str] | None = None) -> Repository:
    """Find the repository that a folder belongs to, as git does; raises `InputError` when there is none.

    `environment` is that of the process.  What git tells a hook there is kept: the index to look at, and the quarantine
    that holds pushed objects before they are accepted.
    """
    given = environment or {}
    git = _find_git(given.get("PATH", os.defpath))
    directory, folder = _discover(path, given)
    common = _common_directory(directory)
    head = _head(os.path.join(directory, "HEAD"))
    for needed, there in (("HEAD", head), ("objects", os.path.isdir(os.path.join(common, "objects")))):
        if not there:
            raise InputError(f"{path} is not a git repository that can be read: it has no {needed}")
    shadow = _private_directory(given.get("TMPDIR") or "/tmp")  # noqa: S108 -- made so that it is ours alone
    repository = Repository(
        git=git,
        directory=directory,
        common=common,
        folder=folder,
        shadow=shadow,
        environment=_environment(shadow, git, directory, given, ours=_is_where_we_are(path)),
    )
    repository._finalizer.append(weakref.finalize(repository, _remove, shadow, os.getpid()))  # noqa: SLF001
    with open(os.path.join(shadow, "HEAD"), "wb") as file:
        file.write(head)
    _fill(shadow, directory, common, bare=not folder, excludes=_excludes(given))
    return repository


def _private_directory(folder: str) -> str:
    """Make a directory that nobody else may enter; one that is there already is not taken, whoever made it."""
    for attempt in count():
        path = os.path.join(os.path.abspath(folder), f"keyturn-git-{os.getpid()}-{attempt}")
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            continue
        except OSError as failed:
            raise ConfigError(
                f"no directory can be made in {folder}: {(failed.strerror or '').lower()}",
                hint="name another place for temporary files by TMPDIR",
            ) from failed
        return path
    raise AssertionError  # the numbers do not end


def refuse_what_waits(repository: Repository) -> None:
    """Raise `InputError` when there is a FIFO or the like where git would open a file, and wait for ever."""
    folders = [repository.common, repository.directory]
    while folders:
        folder = folders.pop()
        with suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if folder not in {repository.common, repository.directory} or entry.name in {"refs", "objects"}:
                        folders.append(entry.path)
                elif not entry.is_file() and not entry.is_symlink():
                    raise InputError(f"{entry.path!a} is not a regular file, and git would wait for it")


def _remove(shadow: str, process: int) -> None:
    """Remove the private directory, in the process that made it; what its links lead to stays."""
    if os.getpid() != process:
        return
    with suppress(OSError):
        for name in os.listdir(shadow):
            os.unlink(os.path.join(shadow, name))
        os.rmdir(shadow)


def _find_git(path: str) -> str:
    """Look only in absolute folders: one that is relative may be in what is scanned."""
    for folder in path.split(os.pathsep):
        found = os.path.join(folder, "git")
        if os.path.isabs(folder) and os.path.isfile(found) and os.access(found, os.X_OK):
            return found
    raise ConfigError("git was not found", hint="install git, or scan the folder without its history")


def _discover(path: str, given: Mapping[str, str]) -> tuple[str, str]:
    """Return the git directory and the work tree, which is empty for a bare repository."""
    here = os.path.realpath(path)
    if not os.path.isdir(here):
        raise InputError(f"{path} is not a folder")
    named = given.get("GIT_DIR")
    if named and _is_where_we_are(path) and _looks_like_one(named) and os.path.realpath(named) != here:
        return os.path.realpath(named), os.path.realpath(given.get("GIT_WORK_TREE") or path)
    while True:
        inside = os.path.join(here, ".git")
        if os.path.isdir(inside):
            return os.path.realpath(inside), here
        if os.path.isfile(inside):
            return _follow(inside), here
        if _looks_like_one(here):
            return here, "" if os.path.basename(here) != ".git" else os.path.dirname(here)
        parent = os.path.dirname(here)
        if parent == here:
            break
        here = parent
    raise InputError(
        f"{path} is not in a git repository", hint="name a clone or a bare repository, or scan it as a folder"
    )


def _is_where_we_are(path: str) -> bool:
    """Tell whether a folder is the one that git has started us in: what it says in the environment is about that."""
    return os.path.realpath(path) == os.path.realpath(os.curdir)


def _looks_like_one(path: str) -> bool:
    return os.path.lexists(os.path.join(path, "HEAD")) and (
        os.path.exists(os.path.join(path, "commondir")) or os.path.isdir(os.path.join(path, "objects"))
    )


def _follow(file: str) -> str:
    first = next(iter(_lines(file)), "")
    if not first.startswith("gitdir: "):
        raise InputError(f"{file} is no git directory, and names none")
    target = os.path.realpath(os.path.join(os.path.dirname(file), first[8:].rstrip("\r\n")))
    if not os.path.isdir(target):
        raise InputError(
            f"{file} names a git directory that is not there",
            hint="`git worktree repair` mends a worktree that was moved",
        )
    return target


def _common_directory(directory: str) -> str:
    pointer = os.path.join(directory, "commondir")
    if not os.path.isfile(pointer):
        return directory
    return os.path.realpath(os.path.join(directory, next(iter(_lines(pointer)), "").strip()))


def _lines(path: str) -> list[str]:
    """Return the lines of a small file; none when it cannot be read."""
    return _content(path).decode("utf-8", "surrogateescape").splitlines()


def _content(path: str) -> bytes:
    """Return what a small regular file holds; nothing of anything else, which might let us wait for ever."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError:
        return b""
    try:
        return os.read(descriptor, 1 << 20) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""
    except OSError:
        return b""
    finally:
        os.close(descriptor)


def _fill(shadow: str, directory: str, common: str, *, bare: bool, excludes: str) -> None:
    """Link to everything that is data, and write a `config` of our own."""
    for folder, names in ((common, _OF_ALL_WORKTREES), (directory, _OF_A_WORKTREE)):
        for name in os.listdir(folder):
            if name in names or (folder == directory and name.startswith("sharedindex.")):
                os.symlink(os.path.join(folder, name), os.path.join(shadow, name))
    settings = list(_storage_settings(_lines(os.path.join(common, "config"))))
    config = _CONFIG.format(version=1 if settings else 0, bare=str(bare).lower(), excludes=excludes)
    with open(os.path.join(shadow, "config"), "wb") as file:
        file.write((config + "".join(f"\t{name} = {value}\n" for name, value in settings)).encode())


def _head(path: str) -> bytes:
    """Return what HEAD says; git takes no link to it, and in old repositories it is a link itself."""
    if os.path.islink(path):
        return b"ref: " + os.fsencode(os.readlink(path)) + b"\n"
    return _content(path)


def _storage_settings(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Read how objects and refs are stored: what git itself cannot guess."""
    section = ""
    for line in lines:
        opened = _SECTION.match(line)
        if opened:
            section = opened[1].lower()
        setting = _FORMAT.match(line)
        if section == "extensions" and setting and setting[1].lower() in _EXTENSIONS:
            yield setting[1].lower(), setting[2]


def _environment(shadow: str, git: str, directory: str, given: Mapping[str, str], *, ours: bool) -> dict[str, str]:
    kept = {}
    index = given.get("GIT_INDEX_FILE")
    if index and (ours or os.path.dirname(os.path.realpath(index)) == directory):
        kept["GIT_INDEX_FILE"] = os.path.abspath(index)
    if given.get("GIT_QUARANTINE_PATH"):
        kept |= {name: _absolute(given[name]) for name in _QUARANTINE if given.get(name)}
    return {
        "PATH": os.path.dirname(git) + os.pathsep + os.defpath,
        "HOME": shadow,
        "XDG_CONFIG_HOME": shadow,
        "LC_ALL": "C",
        "GIT_DIR": shadow,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_SYSTEM": os.devnull,
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_GRAFT_FILE": os.devnull,
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_ALLOW_PROTOCOL": "",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_PAGER": "cat",
        **kept,
    }


def _absolute(paths: str) -> str:
    if '"' in paths:
        return paths
    return os.pathsep.join(os.path.abspath(path) for path in paths.split(os.pathsep) if path)


def _excludes(given: Mapping[str, str]) -> str:
    """Return the user's own list of what is ignored everywhere; the repository's is read by git itself."""
    home = given.get("XDG_CONFIG_HOME") or os.path.join(given.get("HOME", "/nonexistent"), ".config")
    path = os.path.join(home, "git", "ignore")
    return path if os.path.isfile(path) and re.fullmatch(r"[\w./+-]+", path) else os.devnull
