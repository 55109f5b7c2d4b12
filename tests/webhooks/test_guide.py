"""The guide tells the truth: its list of events, and its example that verifies a message."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from keyturn.wire.webhooks import EVENT_TYPES, PING
from tests.webhooks.post import Post

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "webhooks.md"


def test_every_event_is_listed() -> None:
    section = GUIDE.read_text().partition("\n## Events\n")[2]
    listed = re.findall(r"^\| `([a-z_.]+)` \|", section, re.MULTILINE)
    assert sorted(listed) == sorted([*EVENT_TYPES, PING])


async def test_the_example_verifies_what_is_sent(post: Post) -> None:
    """What receivers copy from the guide accepts a genuine message and refuses any other."""
    found = re.search(r"<<'EOF'\n(import base64.*?)^EOF$", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None
    example: dict[str, Any] = {}
    exec(found[1], example)  # noqa: S102 -- our own document
    verify = example["verify_webhook"]
    made = await post.endpoint("hook", "keyspace.*")
    other = await post.endpoint("other", "keyspace.*")
    await post.desk.keyspace()
    await post.round()
    message = next(one for one in post.receiver.messages if "hook" in one.url)
    now = post.desk.clock.now()
    assert verify(made.secret, message.headers, message.body, now=now)
    assert not verify(other.secret, message.headers, message.body, now=now)
    assert not verify(made.secret, message.headers, message.body + b" ", now=now)
    assert not verify(made.secret, message.headers | {"webhook-id": "msg_other"}, message.body, now=now)
    assert not verify(made.secret, message.headers, message.body, now=now + 301)
