"""What a process is given: which secrets, and which of their fields under which names.

    Selection   folders | paths | NAME=PATH#FIELD as a variable | NAME=PATH#FIELD as a file
        collect     ->  Collected: the versions read
        Collected   ->  variables(), files()

Names of variables are the fields' names in upper case, with `_` for what is no letter or digit; two fields of one name
are an error, and so is a name by which a value would change what program is run.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from keyturn import errors
from keyturn.client.secrets import plain
from keyturn.wire.secrets import SecretValue

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from keyturn.wire.secrets import SecretInfo, SecretNews

_FOREIGN: Final = re.compile(r"[^A-Z0-9]")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LOADER: Final = re.compile(
    r"(LD|DYLD|NPM_CONFIG|CORECLR|COR)_\w+"
    r"|PATH|HOME|TMPDIR|ENV|IFS|PS4|SHELL|SHELLOPTS|BASHOPTS|BASH_ENV|CDPATH|GLOBIGNORE|PROMPT_COMMAND|LESSOPEN"
    r"|EDITOR|VISUAL|PAGER|SSH_ASKPASS|TERMINFO|LOCPATH|NLSPATH|HOSTALIASES|GLIBC_TUNABLES|GCONV_PATH|MALLOC_TRACE"
    r"|PYTHON[A-Z]\w*|PERL5\w+|PERLLIB|RUBYOPT|RUBYLIB|GEM_HOME|GEM_PATH|BUNDLE_GEMFILE"
    r"|NODE_OPTIONS|NODE_PATH|NODE_EXTRA_CA_CERTS|CLASSPATH|_?JAVA_OPTIONS|(JDK_JAVA|MAVEN|GRADLE|JAVA_TOOL)_OPT(ION)?S"
    r"|DOTNET_STARTUP_HOOKS|GIT_(SSH\w*|EXEC_PATH|ASKPASS|EDITOR|PAGER|CONFIG\w*|PROXY_COMMAND|EXTERNAL_DIFF|DIR)"
    r"|LUA_\w+|PHPRC|PHP_INI_SCAN_DIR|ERL_\w*FLAGS|ELIXIR_ERL_OPTIONS|GOFLAGS|RUSTC_WRAPPER"
    r"|NODE_TLS_REJECT_UNAUTHORIZED|SSLKEYLOGFILE|AWS_CA_BUNDLE|OPENSSL_(CONF|MODULES|ENGINES)|(SSL|REQUESTS|CURL)_C(ERT|A)_\w+|(HTTPS?|ALL|NO|FTP)_PROXY"
)
"""Variables by which a loader, an interpreter or a shell takes up code, or whom it trusts: whoever may write a secret
would decide what is run."""


class Source(Protocol):
    """Where held secrets are read; `keyturn.client.Keyturn` is one."""

    def read_secret(self, path: str, *, version: int | None = None) -> SecretValue:
        """Read a version, by default the current one."""

    def secrets(self, prefix: str = "") -> Iterator[SecretInfo]:
        """List secrets by path."""

    def secret_news(self, paths: Sequence[str], cursor: str | None = None, wait_seconds: float = 0.0) -> SecretNews:
        """Wait until one of the paths changes, at most so long."""


@dataclass(frozen=True, slots=True, order=True)
class Reference:
    """A field of a secret under a name."""

    name: str
    path: str
    field: str


@dataclass(frozen=True, slots=True)
class Selection:
    """What is asked for."""

    folders: tuple[str, ...] = ()
    """Every secret below, or the secret of exactly this path."""
    paths: tuple[str, ...] = ()
    maps: tuple[Reference, ...] = ()
    files: tuple[Reference, ...] = ()
    prefixed: bool = False
    """Whether a variable begins with the name of its secret below the folder."""

    @property
    def identity(self) -> str:
        """The same text for the same question; `prefixed` only names the answer."""
        asked = (self.folders, self.paths, _paths(self.maps), _paths(self.files))
        return msgspec.json.encode([sorted(set(part)) for part in asked]).decode()


@dataclass(frozen=True, slots=True)
class Collected:
    """What was read, by path; the values are in `variables` and `files` alone."""

    selection: Selection
    values: dict[str, SecretValue] = field(repr=False)
    named: dict[str, str]
    """The paths whose fields all become variables, and the name of each below its folder."""

    @property
    def paths(self) -> tuple[str, ...]:
        """Every path that was read."""
        return tuple(self.values)

    def says_the_same(self, other: Collected) -> bool:
        """Whether the fields are the same; a secret that is referred to may change them without a new version."""
        mine, others = ({path: value.fields for path, value in one.values.items()} for one in (self, other))
        return mine == others

    def variables(self) -> dict[str, str]:
        """Return the environment variables; raises InputError for names that collide or are refused."""
        made: dict[str, str] = {}
        origins: dict[str, str] = {}
        asked = {one.name for one in self.selection.maps}
        for name, path, of_field, text in self._fields():
            origin = f"{path}#{of_field}"
            if name in origins:
                raise errors.InputError(
                    f"{origins[name]} and {origin} would both be the variable {name}",
                    hint=f"use --prefix, or name them one by one: --map OTHER_NAME={origin}",
                )
            if name not in asked:
                _check_loader(name, origin)
            origins[name], made[name] = origin, text
        # Named by a person, for this: it takes the place of what a field's own name would give.
        return made | self.mapped()

    def mapped(self) -> dict[str, str]:
        """Return only the variables that were asked for by name."""
        return {one.name: text_of(self._field(one), f"{one.path}#{one.field}") for one in self.selection.maps}

    def files(self) -> dict[str, bytes]:
        """Return the content of each file that was asked for by name."""
        return {one.name: content_of(self._field(one)) for one in self.selection.files}

    def tree(self) -> dict[tuple[str, str], bytes]:
        """Return every field that would be a variable as a file: (name of the secret, field) and content."""
        found = {}
        for path, name in self.named.items():
            for of_field, content in self.values[path].fields.items():
                if "/" in of_field:
                    raise errors.InputError(f"{path} has a field {of_field[:64]!r}, which cannot be the name of a file")
                found[(name, of_field)] = content_of(content)
        return found

    def texts(self) -> list[bytes]:
        """Return every value that is given to the process, for masking."""
        every = [content for value in self.values.values() for content in value.fields.values()]
        return [text for content in every for text in _texts(content)]

    def _fields(self) -> Iterator[tuple[str, str, str, str]]:
        for path, below in self.named.items():
            for of_field, content in self.values[path].fields.items():
                whole = f"{below}_{of_field}" if self.selection.prefixed else of_field
                yield variable_name(whole, f"{path}#{of_field}"), path, of_field, text_of(content, f"{path}#{of_field}")

    def _field(self, one: Reference) -> Any:  # noqa: ANN401 -- JSON
        fields = self.values[one.path].fields
        if one.field not in fields:
            raise errors.NotFoundError(
                f"{one.path} has no field {one.field[:64]!r}", hint=f"it has: {', '.join(sorted(fields)) or 'none'}"
            )
        return fields[one.field]


def names_of(source: Source, selection: Selection) -> dict[str, str]:
    """Return the paths whose fields all become variables, and the name of each below its folder."""
    named: dict[str, str] = {}
    for folder in selection.folders:
        named.update(_below(source, folder.strip("/")))
    named.update({path: path.rpartition("/")[2] for path in selection.paths})
    return named


def paths_of(selection: Selection, named: Iterable[str]) -> tuple[str, ...]:
    """Return every path that is read."""
    return tuple(dict.fromkeys((*named, *_paths(selection.maps), *_paths(selection.files))))


def collect(source: Source, selection: Selection, named: dict[str, str] | None = None) -> Collected:
    """Read everything that is asked for; raises what the source raises, NotFoundError for a folder of nothing."""
    named = names_of(source, selection) if named is None else named
    return Collected(selection, {path: source.read_secret(path) for path in paths_of(selection, named)}, named)


def parse_reference(text: str) -> Reference:
    """Read `NAME=PATH#FIELD`; raises InputError."""
    name, equals, rest = text.partition("=")
    path, hash_sign, of_field = rest.partition("#")
    if not (equals and hash_sign and path and of_field):
        raise errors.InputError(
            f"{text[:120]!r} is not NAME=PATH#FIELD", hint="for example STRIPE_KEY=production/payments/stripe#key"
        )
    if _VARIABLE.fullmatch(name) is None:
        raise errors.InputError(f"{name[:64]!r} cannot be the name of a variable", hint="A-Z, a-z, 0-9 and _")
    return Reference(name, path, of_field)


def variable_name(text: str, origin: str) -> str:
    """Return the variable that a field becomes; raises InputError when nothing of its name is left."""
    name = _FOREIGN.sub("_", text.upper())
    if not name.strip("_"):
        raise errors.InputError(f"the name of {origin} cannot be a variable", hint=f"--map SOME_NAME={origin}")
    return "_" + name if name[0].isdigit() else name


def text_of(content: Any, origin: str) -> str:  # noqa: ANN401 -- JSON
    """Return a field as the text of a variable: text and bytes as they are, other JSON as JSON.

    Raises InputError for NUL, which no variable can hold.
    """
    text = content_of(content).decode("utf-8", "surrogateescape")
    if "\0" in text:
        raise errors.InputError(
            f"{origin} holds a NUL, which no variable can", hint=f"give it as a file: --file NAME={origin}"
        )
    return text


def content_of(content: Any) -> bytes:  # noqa: ANN401 -- JSON
    """Return a field as bytes: text and bytes as they are, other JSON as JSON."""
    found = plain(content)
    if isinstance(found, bytes):
        return found
    return found.encode("utf-8", "surrogatepass") if isinstance(found, str) else msgspec.json.encode(found)


def _below(source: Source, folder: str) -> dict[str, str]:
    found = [one.path for one in source.secrets(folder) if one.current_version]
    exact = {folder: folder.rpartition("/")[2]} if folder in found else {}
    below = {path: path.removeprefix(folder + "/") for path in found if path.startswith(folder + "/")}
    if not exact and not below:
        # Who may read it and not list it still gets the secret of exactly this path; else the error says what is amiss.
        source.read_secret(folder)
        return {folder: folder.rpartition("/")[2]}
    return exact | below


def _check_loader(name: str, origin: str) -> None:
    if _LOADER.fullmatch(name) is not None or name.startswith("KEYTURN_"):
        raise errors.InputError(
            f"{origin} would be the variable {name}, which changes how programs are run",
            hint=f"if that is meant, say so: --map {name}={origin}; else use --prefix or another name",
        )


def _paths(references: Iterable[Reference]) -> tuple[str, ...]:
    return tuple(one.path for one in references)


def _texts(content: Any) -> Iterator[bytes]:  # noqa: ANN401 -- JSON
    yield content_of(content)
    if isinstance(content, dict | list):
        for one in content.values() if isinstance(content, dict) else content:
            yield from _texts(one)
