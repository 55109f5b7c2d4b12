"""What is wrong with values on their way in: weak, shared, or lying open.

    weak     empty, a placeholder, a word or a pattern, too short, too even, a provider's test key in production
    shared   the same value under several names, in several files, or held already elsewhere
    file     tracked by git, or readable by others

Advice, not a rule: nothing here refuses anything.  Only values whose names sound like a secret's, or that look random,
are judged for strength: `PORT=80` is no weak password.
"""

from __future__ import annotations

import math
import re
import stat
import subprocess
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

CHARACTERS_MIN: Final = 16
BITS_MIN: Final = 48.0
_GIT_SECONDS: Final = 10
_SECRET_NAME: Final = re.compile(
    r"pass(word|wd|phrase|code)?|pwd|secret|token|api_?key|key|credential|auth|salt|pepper|private|signing|hmac|dsn|pin",
    re.IGNORECASE,
)
_NOT_SECRET: Final = re.compile(
    r"public|publishable|_?key_?(id|name|path|file)$|(_file|_path|_url|_uri|_host|_port|_user|_name|_id|_ttl|_enabled)$|"
    r"^(author|keyboard|monkey)",
    re.IGNORECASE,
)
_PLACEHOLDER: Final = re.compile(
    r"change[-_ ]?(me|this|it)|place[-_ ]?holder|(your|my|insert|put|add|enter)[-_ ].*|replace[-_ ]?(me|this)?.*"
    r"|todo|tbd|fixme|xxx+|\*+|\.{3,}|-+|<.*>|\{\{.*\}\}|\[.*\]|none|null|nil|undefined|empty|unset|n/?a|dummy.*|example.*"
    r"|sample.*|fake.*|test(ing|_?key|_?token|_?secret)?|secret|password|token|api[-_]?key|key|default|foo|bar|foobar|abc|asdf\w*",
    re.IGNORECASE,
)
_WORDS: Final = frozenset(
    """
    admin administrator root user guest login welcome hello letmein master passw0rd p@ssw0rd p@ssword pass qwerty
    qwertyuiop azerty iloveyou monkey dragon sunshine princess football baseball superman batman trustno1 shadow access
    flower michael jordan hunter summer winter spring autumn monday january london berlin paris company internal server
    database postgres postgresql mysql mariadb redis mongodb rabbitmq elastic kibana grafana docker jenkins
    vagrant ubuntu oracle
    production staging development local demo temp temporary keyboard computer internet security private public
    correct horse battery staple love god sex money freedom whatever starwars pokemon cheese
    """.split()  # noqa: SIM905 -- easier to read and to extend
)
_LEET: Final = str.maketrans("@4301!57$", "aaeoiists")
_TEST_KEY: Final = re.compile(r"(sk|rk|pk|whsec)_test_|^test_|[-_]test[-_]|sandbox", re.IGNORECASE)
_RUNS: Final = ("abcdefghijklmnopqrstuvwxyz", "01234567890", "qwertyuiop", "asdfghjkl", "zxcvbnm")


@dataclass(frozen=True, slots=True, order=True)
class Remark:
    """One thing to look at; never a value."""

    name: str
    kind: str
    text: str


def judge(values: Mapping[str, str], environment: str) -> list[Remark]:
    """Return what is weak or shared among the values of one file."""
    remarks = [Remark(name, "weak", text) for name, value in values.items() if (text := _weakness(name, value))]
    remarks += [
        Remark(name, "test_key", "looks like a test key, and this is production")
        for name, value in values.items()
        if environment.startswith("prod") and _TEST_KEY.search(value)
    ]
    return sorted([*remarks, *shared({"": values})])


def shared(files: Mapping[str, Mapping[str, str]]) -> list[Remark]:
    """Return values that stand under several names, within or across files ("" is a file without a name)."""
    places: dict[str, list[str]] = {}
    for file, values in files.items():
        for name, value in values.items():
            if _is_telling(name, value):
                places.setdefault(value, []).append(f"{file}:{name}" if file else name)
    return [
        Remark(place, "shared", f"the same value as {', '.join(other for other in found if other != place)}")
        for found in places.values()
        if len(found) > 1
        for place in found
    ]


def file_remarks(path: Path) -> list[Remark]:
    """Return what is wrong with how a file lies there."""
    remarks: list[Remark] = []
    mode = path.stat().st_mode
    if mode & (stat.S_IRGRP | stat.S_IROTH):
        who = "everybody" if mode & stat.S_IROTH else "its group"
        remarks.append(
            Remark(path.name, "open", f"can be read by {who} (mode {mode & 0o777:04o}); chmod 600 {path.name}")
        )
    if _is_tracked(path):
        text = "is tracked by git: what it held is in the history, so rotate the values, do not only remove the file"
        remarks.append(Remark(path.name, "tracked", text))
    return remarks


def looks_secret(name: str, value: str) -> bool:
    """Say whether a value is to be judged as a secret: by its name, or because it looks random."""
    if _NOT_SECRET.search(name):
        return False
    return _SECRET_NAME.search(name) is not None or (len(value) >= CHARACTERS_MIN and _is_random(value))


def bits(value: str) -> float:
    """Estimate how many bits a guesser has to guess: the entropy of its characters, at most that of its alphabet."""
    if not value:
        return 0.0
    counts = Counter(value)
    entropy = -sum(count / len(value) * math.log2(count / len(value)) for count in counts.values())
    return entropy * len(value)


def _weakness(name: str, value: str) -> str | None:
    if not looks_secret(name, value):
        return None
    if not value.strip():
        return "is empty"
    if _PLACEHOLDER.fullmatch(value.strip()):
        return "is a placeholder"
    if _is_wordlike(value):
        return "is a word, a pattern, or close to one"
    if len(value) < CHARACTERS_MIN:
        return f"has {len(value)} characters; expected at least {CHARACTERS_MIN}"
    if bits(value) < BITS_MIN:
        return "repeats itself: few different characters"
    return None


def _is_telling(name: str, value: str) -> bool:
    return len(value) >= 6 and looks_secret(name, value) and not _PLACEHOLDER.fullmatch(value)


def _is_random(value: str) -> bool:
    kinds = sum(bool(re.search(kind, value)) for kind in ("[a-z]", "[A-Z]", "[0-9]"))
    return " " not in value and "://" not in value and kinds >= 2 and bits(value) / len(value) > 3.2


def _is_wordlike(value: str) -> bool:
    plain = value.lower().translate(_LEET)
    stem = re.sub(r"[^a-z]", "", plain)
    if stem in _WORDS or value.lower() in _WORDS or re.sub(r"[\d\W_]+$", "", value.lower()) in _WORDS:
        return True
    parts = [part for part in re.split(r"[^a-z]+", plain) if part]
    if parts and len(value) < CHARACTERS_MIN and all(part in _WORDS for part in parts):
        return True
    lower = value.lower()
    return (
        len(set(lower)) == 1
        or any(lower in run or lower in run[::-1] for run in _RUNS)
        or (value.isdigit() and len(value) < 12)
    )


def _is_tracked(path: Path) -> bool:
    command = ["git", "-C", str(path.resolve().parent), "ls-files", "--error-unmatch", "--", path.name]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_GIT_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def summary(remarks: Iterable[Remark]) -> str:
    """Lay remarks out, one a line."""
    return "\n".join(f"{one.name}: {one.text}" for one in remarks)
