"""Held secrets as a client that alone writes them knows them: what was acknowledged, and so must be."""

from __future__ import annotations

import copy
import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.faults.system import API, Ledger

BASE = "production/shared/base"
REFERENCE = f"${{secret:{BASE}#token}}"
SECRETS_PER_WRITER = 3
PENDING_MAX = 3

Done = tuple[str, str, tuple[int, ...]]
"""An action, a path, and the sequences of the versions that it was done to, as its leaf names them."""


@dataclass
class Version:
    """What must be so of one version."""

    sequence: int
    fields: dict[str, Any]
    number: int | None = None
    state: str = "pending"
    deleted: bool = False

    @property
    def is_readable(self) -> bool:
        """Whether it still gives its value."""
        return not self.deleted and self.state != "destroyed"


@dataclass
class Held:
    """What must be so of one secret."""

    path: str
    versions: list[Version] = field(default_factory=list)

    @property
    def last_number(self) -> int:
        """The highest number that was given."""
        return max((one.number for one in self.versions if one.number is not None), default=0)

    @property
    def current(self) -> Version | None:
        """The version that was made current last."""
        return next((one for one in self.versions if one.number == self.last_number), None)

    def of(self, sequence: int) -> Version:
        """Return a version."""
        return self.versions[sequence - 1]

    def write(self, fields: dict[str, Any], *, pending: bool = False) -> None:
        """Add a version."""
        made = Version(len(self.versions) + 1, dict(fields))
        self.versions.append(made)
        if not pending:
            self.promote(made.sequence)

    def promote(self, sequence: int) -> None:
        """Move the labels on."""
        after = {"current": "previous", "previous": "superseded"}
        number = self.last_number + 1
        for one in self.versions:
            one.state = after.get(one.state, one.state)
        made = self.of(sequence)
        made.number, made.state = number, "current"

    def shape(self) -> list[tuple[Any, ...]]:
        """Return what the metadata must tell: of a version that was destroyed before its promotion, nothing."""
        return [
            (one.sequence, one.number, one.state, one.deleted, tuple(sorted(one.fields)))
            for one in self.versions
            if one.number is not None or one.state != "destroyed"
        ]


async def shown(client: httpx.AsyncClient, path: str) -> list[tuple[Any, ...]]:
    """Return what the metadata of a secret tells, as `Held.shape` does."""
    answer = await client.get(f"{API}/secret-metadata/{path}")
    if answer.status_code == 404:
        return []
    assert answer.status_code == 200, answer.text
    found = sorted(answer.json()["versions"], key=lambda one: int(one["sequence"]))
    return [
        (
            one["sequence"],
            one["number"],
            one["state"],
            one["deleted_at"] is not None,
            tuple(sorted(one["fields"])),
        )
        for one in found
    ]


@dataclass(frozen=True)
class Attempt:
    """A request as it was sent, to be sent again exactly so."""

    action: str
    secret: Held
    body: dict[str, Any]
    name: str

    async def send(self, client: httpx.AsyncClient) -> httpx.Response:
        """Send it."""
        method = {"put": "PUT", "patch": "PATCH"}.get(self.action, "POST")
        route = "secrets" if method != "POST" else f"secret-{self.action}"
        again = {} if self.action in _TO_VERSIONS else {"Idempotency-Key": self.name}
        return await client.request(method, f"{API}/{route}/{self.secret.path}", json=self.body, headers=again)

    def apply(self, to: Held) -> None:
        """Do to what is known what the request does."""
        match self.action:
            case "put":
                to.write(self.body["fields"], pending=self.body["pending"])
            case "patch":
                assert to.current is not None
                to.write(to.current.fields | self.body["fields"])
            case "rollback":
                to.write(next(one.fields for one in to.versions if one.number == self.body["version"]))
            case "promote":
                to.promote(self.body["sequence"])
            case action:
                for sequence in self.body["sequences"]:
                    _TO_VERSIONS[action](to.of(sequence))

    def done(self) -> Done:
        """Return what its leaf must name, once it was applied."""
        action = {"patch": "put"}.get(self.action, self.action)
        sequences = self.body.get("sequences") or [self.body.get("sequence", len(self.secret.versions))]
        return f"secret.{action}", self.secret.path, tuple(sequences)


def _delete(version: Version) -> None:
    version.deleted = True


def _undelete(version: Version) -> None:
    version.deleted = False


def _destroy(version: Version) -> None:
    version.state = "destroyed"


_TO_VERSIONS: dict[str, Callable[[Version], None]] = {"delete": _delete, "undelete": _undelete, "destroy": _destroy}


class Writer:
    """Changes its own secrets, one request after another, until the server is gone or it is told to end."""

    def __init__(self, number: int) -> None:
        self.name = f"writer-{number}"
        self.secrets = [Held(f"production/{self.name}/s{n}") for n in range(SECRETS_PER_WRITER)]
        self.pending: Attempt | None = None
        self.done: list[Done] = []
        self.over = False
        self._attempts = 0
        self._chance = random.Random(number)

    async def work(self, client: httpx.AsyncClient) -> None:
        """Send one request after another; return when one finds no server, its outcome unknown."""
        while not self.over:
            self.pending = self._choose()
            try:
                answer = await self.pending.send(client)
            except httpx.TransportError:
                return
            self._learn(self.pending, answer)
            self.pending = None

    async def settle(self, client: httpx.AsyncClient) -> None:
        """Send the request of unknown outcome again, and see that it was, or now is, done exactly once."""
        attempt, self.pending = self.pending, None
        if attempt is None:
            return
        before = attempt.secret.shape()
        after = copy.deepcopy(attempt.secret)
        attempt.apply(after)
        assert await shown(client, attempt.secret.path) in (before, after.shape()), "a request was done by half"
        self._learn(attempt, await attempt.send(client))

    async def check_labels(self, client: httpx.AsyncClient) -> None:
        """See that numbers and labels are as acknowledged, and that the current versions give their values."""
        for secret in self.secrets:
            assert await shown(client, secret.path) == secret.shape()
            current = secret.current
            if current is not None and current.is_readable:
                answer = await client.get(f"{API}/secrets/{secret.path}", params={"resolve": "false"})
                assert (answer.status_code, answer.json()["fields"]) == (200, current.fields), answer.text

    async def check_values(self, client: httpx.AsyncClient) -> None:
        """See that every version gives its value, or says why not."""
        for secret in self.secrets:
            for one in secret.versions:
                params = {"sequence": str(one.sequence), "resolve": "false"}
                answer = await client.get(f"{API}/secrets/{secret.path}", params=params)
                if one.is_readable:
                    assert (answer.status_code, answer.json()["fields"]) == (200, one.fields), answer.text
                else:
                    expected = "version_destroyed" if one.state == "destroyed" else "version_deleted"
                    assert (answer.status_code, answer.json()["code"]) == (404, expected), answer.text

    def _learn(self, attempt: Attempt, answer: httpx.Response) -> None:
        assert answer.status_code == 200, f"{attempt.action}: {answer.text}"
        attempt.apply(attempt.secret)
        self.done.append(attempt.done())
        if attempt.action not in _TO_VERSIONS:
            made = attempt.secret.of(self.done[-1][2][0])
            assert (answer.json()["sequence"], answer.json()["version"]) == (made.sequence, made.number)

    def _choose(self) -> Attempt:
        self._attempts += 1
        name = f"{self.name}-attempt-{self._attempts}"
        secret = self._chance.choice(self.secrets)
        ways = self._ways(secret, name)
        action = self._chance.choice(list(ways))
        return Attempt(action, secret, ways[action], name)

    def _ways(self, secret: Held, name: str) -> dict[str, dict[str, Any]]:
        """Return what can be asked of a secret now, with a body for each."""
        fields = {"token": name} | ({"base": REFERENCE} if self._chance.random() < 0.4 else {})
        pending = [one for one in secret.versions if one.state == "pending"]
        is_pending = len(pending) < PENDING_MAX and self._chance.random() < 0.5
        ways: dict[str, dict[str, Any]] = {"put": {"fields": fields, "pending": is_pending}}
        if secret.current is not None and secret.current.is_readable:
            ways["patch"] = {"fields": {"note": f"patched-{name}"}}
        if pending:
            ways["promote"] = {"sequence": self._chance.choice(pending).sequence}
        numbered = [one for one in secret.versions if one.number is not None]
        if readable := [one for one in numbered if one.is_readable]:
            ways["rollback"] = {"version": self._chance.choice(readable).number}
            ways["delete"] = {"sequences": [self._chance.choice(readable).sequence]}
        if deleted := [one for one in numbered if one.deleted and one.state != "destroyed"]:
            ways["undelete"] = {"sequences": [self._chance.choice(deleted).sequence]}
        if kept := [one for one in secret.versions if one.state != "destroyed"]:
            ways["destroy"] = {"sequences": [self._chance.choice(kept).sequence]}
        return ways


def check_rows(ledger: Ledger, writers: Iterable[Writer]) -> None:
    """See that nothing is there by half: each version with all that belongs to it, and nothing that belongs to none."""
    secrets = [secret for writer in writers for secret in writer.secrets if secret.versions]
    kept = {(secret.path, one.sequence): one for secret in secrets for one in secret.versions}
    living = {place: one for place, one in kept.items() if one.state != "destroyed"}

    def found(what: str, table: str, condition: str = "1 = 1") -> set[tuple[str, ...]]:
        rows = ledger.rows(
            f"SELECT s.path, t.sequence{what} FROM {table} t LEFT JOIN secret s ON s.id = t.secret "
            f"WHERE (s.path IS NULL OR s.path <> '{BASE}') AND {condition}"
        )
        assert len(rows) == len(set(rows))
        return set(rows)

    def expected(of: dict[tuple[str, int], Version], *names: str) -> set[tuple[str, ...]]:
        return {(path, str(number), name) for (path, number), one in of.items() for name in names if name in one.fields}

    def places(of: dict[tuple[str, int], Version]) -> set[tuple[str, ...]]:
        return {(path, str(number)) for path, number in of}

    assert found("", "secret_version") == places(kept)
    assert found("", "secret_version", "t.sealed IS NOT NULL") == places(living)
    assert found(", t.field", "secret_fingerprint") == expected(living, "token", "note")
    assert found("", "secret_reference") == {row[:2] for row in expected(living, "base")}
    rows = ledger.rows(
        f"SELECT path, current, last_number, last_sequence FROM secret WHERE deleted_at = 0 AND path <> '{BASE}'"
    )
    assert sorted(rows) == sorted(
        (secret.path, str(secret.last_number), str(secret.last_number), str(len(secret.versions))) for secret in secrets
    )


def check_leaves(client: httpx.Client, writers: Iterable[Writer]) -> None:
    """See that there is exactly one leaf for each thing that was acknowledged, and none for anything else."""
    done = Counter(one for writer in writers for one in writer.done)
    found: Counter[Done] = Counter()
    for action in {one[0] for one in done}:
        for leaf in leaves(client, action):
            detail = leaf["detail"]
            if leaf["outcome"] == "allowed" and detail["path"] != BASE:
                found[action, detail["path"], tuple(detail.get("sequences") or [detail["sequence"]])] += 1
    assert found == done


def leaves(client: httpx.Client, action: str) -> list[dict[str, Any]]:
    """Return every leaf of an action."""
    found: list[dict[str, Any]] = []
    params: dict[str, str | int] = {"action": action, "limit": 200}
    while True:
        answer = client.get(f"{API}/audit", params=params)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        found += page["items"]
        if page["next_cursor"] is None:
            return found
        params["cursor"] = page["next_cursor"]
