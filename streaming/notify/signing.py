"""Signatures of requests, as the Standard Webhooks specification has them.

A request carries `webhook-id`, `webhook-timestamp` (seconds since 1970) and `webhook-signature`: for each
live secret `v1,` and base64 of HMAC-SHA256 over `ID.TIMESTAMP.BODY`, with a blank in between. A secret is
written `whsec_` and base64 of its bytes. Source: https://www.standardwebhooks.com
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence

ID_HEADER, TIME_HEADER, SIGNATURE_HEADER = "webhook-id", "webhook-timestamp", "webhook-signature"
HEADERS = (ID_HEADER, TIME_HEADER, SIGNATURE_HEADER)
_PREFIX = "whsec_"
_SHORTEST, _LONGEST = 24, 64  # bytes, as the specification asks for


def secret_key(written: str) -> bytes:
    """Return the bytes of a secret.

    Raises:
        ValueError: it is not `whsec_` and base64 of 24 to 64 bytes; the message does not quote it.
    """
    try:
        key = base64.b64decode(written.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not written.startswith(_PREFIX) or not _SHORTEST <= len(key) <= _LONGEST:
        raise ValueError(f"expected {_PREFIX} and base64 of {_SHORTEST} to {_LONGEST} bytes")
    return key


def signed_headers(keys: Sequence[bytes], message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """Return the headers of a signed request.

    Args:
        keys: the live secrets; a receiver accepts the request if it knows one of them.
        message_id: the same for every attempt to deliver a message.
        timestamp: when this attempt is made, in seconds since 1970.
        body: exactly as it is sent.
    """
    signatures = " ".join(f"v1,{_signature(key, message_id, timestamp, body)}" for key in keys)
    return {ID_HEADER: message_id, TIME_HEADER: str(timestamp), SIGNATURE_HEADER: signatures}


def _signature(key: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    content = f"{message_id}.{timestamp}.".encode() + body
    return base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()
