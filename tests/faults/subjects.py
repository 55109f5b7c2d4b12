"""What is admitted or not, what takes that away and gives it back, and what is seen of it from outside."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from math import inf
from typing import Any

import httpx

from keyturn.kernel.clock import parse_rfc3339
from tests.faults.nodes import Node, patched, posted, service
from tests.faults.system import API, new_keyspace

Change = Callable[[httpx.AsyncClient], Awaitable[httpx.Response]]
WRITE = "orders:write"
FENCE = {"cidrs": ["10.0.0.0/8"]}
ADDRESS = "192.0.2.9"


@dataclass
class Denied:
    """From when to when something must not be admitted; epoch seconds, which here are also the database's."""

    since: float
    until: float = inf


@dataclass
class Subject:
    """A key as one caller asks about it, and how it is taken from him and given back.

    `token` is that of the caller, when it is about his rights: then only servers can be asked.
    """

    name: str
    body: dict[str, Any]
    take: Change | None = None
    give: Change | None = None
    token: str | None = None
    denied: list[Denied] = field(default_factory=list)
    taken: bool = False
    over: bool = False

    @property
    def is_denied(self) -> bool:
        """Whether it was taken, and not given back since."""
        return bool(self.denied) and self.denied[-1].until == inf


@dataclass(frozen=True)
class Seen:
    """One verification: which node was asked when, and what it said when."""

    node: str
    subject: Subject
    sent: float
    received: float
    code: str


@dataclass
class Watch:
    """What the checkers saw, and what the changers were told."""

    subjects: list[Subject]
    seen: list[Seen] = field(default_factory=list)
    taken: dict[str, int] = field(default_factory=dict)
    """How often something of each name was taken, and known to be."""
    not_effective: int = 0
    laggards: set[str] = field(default_factory=set)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def violations(self) -> list[str]:
        """Describe every admission that came too late."""
        return [
            f"{one.node} admitted {one.subject.name} {one.sent - denied.since:.3f} s after it was over"
            for one in self.seen
            if one.code == "VALID"
            for denied in one.subject.denied
            if one.sent > denied.since and one.received < denied.until
        ]


# --- asking ----------------------------------------------------------------------------------------------------------


async def check(name: str, node: Node, token: str, watch: Watch, seed: int) -> None:
    """Ask one node for a verdict after another, whatever its state."""
    chance = random.Random(seed)
    asked = [one for one in watch.subjects if name.startswith("server") or one.token is None]
    while not watch.over.is_set():
        # A new connection now and then: a server may have several workers.
        async with httpx.AsyncClient(base_url=node.url, timeout=120) as client:
            for _ in range(40):
                subject = chance.choice(asked)
                headers = {"Authorization": f"Bearer {subject.token or token}"}
                sent = time.time()
                try:
                    answer = await client.post(f"{API}/verify", json=subject.body, headers=headers)
                except httpx.TransportError:
                    await asyncio.sleep(0.1)
                    break
                watch.seen.append(Seen(name, subject, sent, time.time(), code_of(answer)))
                await asyncio.sleep(0.025)
                if watch.over.is_set():
                    return


def code_of(answer: httpx.Response) -> str:
    """Return the code of a verdict, or of the refusal of whoever asked."""
    if answer.status_code in {401, 403}:
        return f"HTTP_{answer.status_code}"
    code = str(answer.json()["code"])
    assert answer.status_code == (503 if code == "UNAVAILABLE" else 200), answer.text
    return code


# --- changing --------------------------------------------------------------------------------------------------------


async def change(clients: list[httpx.AsyncClient], subjects: list[Subject], watch: Watch, seed: int) -> None:
    """Take and give back one subject after another through any server, and note when each must be over.

    Whatever the outcome of a request that got no answer, nothing is expected of it, and it is sent again.
    """
    chance = random.Random(seed)
    while not watch.over.is_set():
        subject = chance.choice([one for one in subjects if not one.over])
        client = chance.choice(clients)
        if subject.taken:
            await give(client, subject)
        else:
            await take(client, subject, watch)
        await asyncio.sleep(0.05)


async def take(client: httpx.AsyncClient, subject: Subject, watch: Watch) -> bool:
    """Take something, and note from when on it is over; tell whether it is known to be taken everywhere."""
    assert subject.take is not None
    answer = await _sent(client, subject.take)
    if answer is None:
        return False
    subject.taken, subject.over = True, subject.give is None
    by = parse_rfc3339(answer["effective_by"])
    subject.denied.append(Denied(min(time.time(), by) if answer["effective"] else by))
    watch.taken[subject.name] = watch.taken.get(subject.name, 0) + 1
    watch.not_effective += not answer["effective"]
    assert answer["effective"] is (not answer["laggards"]), answer
    watch.laggards.update(answer["laggards"])
    return bool(answer["effective"])


async def give(client: httpx.AsyncClient, subject: Subject) -> None:
    """Give something back; from before that on, it may be admitted again."""
    assert subject.give is not None
    if subject.is_denied:
        subject.denied[-1].until = time.time()
    subject.taken = await _sent(client, subject.give) is None


async def _sent(client: httpx.AsyncClient, act: Change) -> dict[str, Any] | None:
    try:
        answer = await act(client)
    except httpx.TransportError:
        return None
    assert answer.status_code in {200, 201, 409, 503}, answer.text
    found: dict[str, Any] = answer.json()
    return found if answer.is_success else None


# --- subjects --------------------------------------------------------------------------------------------------------


def make_subjects(client: httpx.Client, *, stale_after_seconds: int) -> list[Subject]:
    """Make keyspaces, plans and keys, and return one subject for each way to take and to give."""
    for keyspace in ("orders", "defaults"):
        new_keyspace(client, keyspace, stale_after_seconds=stale_after_seconds)
    posted(client, "/plans", name="writer", scopes=[WRITE])
    posted(client, "/plans", name="reader", scopes=["orders:read"])
    posted(client, "/plans", name="fenced", scopes=[WRITE], restrictions=FENCE)
    return [
        *(_kept(client) for _ in range(2)),
        *(_disabled(client) for _ in range(4)),
        *(_revoked(client) for _ in range(12)),
        _moved(client),
        _owner_moved(client),
        _plan_updated(client, "scoped", {"scopes": []}, {"scopes": [WRITE]}),
        _plan_updated(client, "walled", {"restrictions": FENCE}, {"restrictions": None}),
        _plan_retired(client),
        _default_moved(client),
        _caller_granted(client),
        _caller_disabled(client),
    ]


def _key(client: httpx.Client, **more: Any) -> tuple[str, dict[str, Any]]:
    """Issue a key; return its path, and how it is asked about."""
    given = {"keyspace": "orders", "owner": "alice", "purpose": "faults"} | more
    made = posted(client, "/keys", **given)
    return f"{API}/keys/{made['id']}", {"key": made["key"]}


def _writing(body: dict[str, Any]) -> dict[str, Any]:
    return body | {"scopes": WRITE, "ip": ADDRESS}


def _posting(path: str, **body: Any) -> Change:
    return lambda client: client.post(path, json=body)


def _patching(path: str, **body: Any) -> Change:
    return lambda client: client.patch(path, json=body)


def _kept(client: httpx.Client) -> Subject:
    return Subject("kept", _key(client)[1])


def _disabled(client: httpx.Client) -> Subject:
    path, body = _key(client)
    return Subject("disabled", body, _posting(f"{path}/disable"), _posting(f"{path}/enable"))


def _revoked(client: httpx.Client) -> Subject:
    path, body = _key(client)
    return Subject("revoked", body, _posting(f"{path}/revoke"))


def _moved(client: httpx.Client) -> Subject:
    path, body = _key(client, plan="writer")
    return Subject("key moved", _writing(body), _patching(path, plan="reader"), _patching(path, plan="writer"))


def _owner_moved(client: httpx.Client) -> Subject:
    patched(client, "/owners/bob", plan="writer")
    body = _key(client, owner="bob")[1]
    path = f"{API}/owners/bob"
    return Subject("owner moved", _writing(body), _patching(path, plan="fenced"), _patching(path, plan="writer"))


def _plan_updated(client: httpx.Client, plan: str, taken: dict[str, Any], given: dict[str, Any]) -> Subject:
    posted(client, "/plans", name=plan, **({"scopes": [WRITE]} | given))
    body = _key(client, plan=plan)[1]
    path = f"{API}/plans/{plan}"
    return Subject(f"plan {plan}", _writing(body), _patching(path, **taken), _patching(path, **given))


def _plan_retired(client: httpx.Client) -> Subject:
    """A plan that is retired is retired for good: the key is given another each time."""
    path, body = _key(client, plan="reader")
    number = 0

    async def retire(by: httpx.AsyncClient) -> httpx.Response:
        return await by.post(f"{API}/plans/brief-{number}/retire", json={"move_to": "reader"})

    async def renew(by: httpx.AsyncClient) -> httpx.Response:
        nonlocal number
        number += 1
        made = await by.post(f"{API}/plans", json={"name": f"brief-{number}", "scopes": [WRITE]})
        return await by.patch(path, json={"plan": f"brief-{number}"}) if made.is_success else made

    return Subject("plan retired", _writing(body), retire, renew, taken=True)


def _default_moved(client: httpx.Client) -> Subject:
    patched(client, "/keyspaces/defaults", default_plan="writer")
    body = _key(client, keyspace="defaults")[1]
    path = f"{API}/keyspaces/defaults"
    take, give = _patching(path, default_plan="reader"), _patching(path, default_plan="writer")
    return Subject("default plan", _writing(body), take, give)


def _caller_granted(client: httpx.Client) -> Subject:
    right = ("key.verify", "key/orders/*")
    principal, token, grants = service(client, "granted", right)

    async def revoke(by: httpx.AsyncClient) -> httpx.Response:
        # A grant whose answer was lost is there all the same.
        found = await by.get(f"{API}/grants", params={"principal": principal, "state": "active"})
        if not found.is_success:
            return found
        for grant in [one["id"] for one in found.json()["items"]] or grants:
            answer = await by.post(f"{API}/grants/{grant}/revoke", json={})
            if not answer.is_success:
                break
        return answer

    body = {"principal": principal, "actions": [right[0]], "resource": right[1]}
    return Subject("caller granted", _key(client)[1], revoke, _posting(f"{API}/grants", **body), token)


def _caller_disabled(client: httpx.Client) -> Subject:
    principal, token, _ = service(client, "disabled", ("key.verify", "key/orders/*"))
    path = f"{API}/principals/{principal}"
    return Subject("caller disabled", _key(client)[1], _posting(f"{path}/disable"), _posting(f"{path}/enable"), token)
