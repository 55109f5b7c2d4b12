"""Signatures and secrets of Standard Webhooks 1.0, symmetric form.

secret    whsec_<base64 of 32 bytes>
signed    <webhook-id>.<webhook-timestamp>.<body>
header    webhook-signature: v1,<base64 of HMAC-SHA256>[ v1,…]
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence
from typing import Final

from keyturn.kernel.secret import Secret

SECRET_PREFIX: Final = "whsec_"  # noqa: S105 -- how a secret begins


def encode_secret(secret: bytes) -> Secret:
    """Write a secret as a receiver is given it."""
    return Secret(SECRET_PREFIX + base64.b64encode(secret).decode())


def sign(secret: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """Return one signature."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode()


def headers(secrets: Sequence[bytes], message_id: str, timestamp: int, body: bytes) -> list[tuple[str, str]]:
    """Return the three headers of a message, signed with every secret, the newest first."""
    return [
        ("webhook-id", message_id),
        ("webhook-timestamp", str(timestamp)),
        ("webhook-signature", " ".join(sign(secret, message_id, timestamp, body) for secret in secrets)),
    ]
