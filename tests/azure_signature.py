"""Shared access signatures for Azure's emulator, which checks what they allow and until when."""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import replace
from datetime import datetime
from urllib.parse import urlencode

from streaming.testing.stores import AZURE_ACCOUNT, AZURE_KEY, BUCKET, RunningStore

AGENT_MAY, ANCHOR_MAY = "racwdl", "racwl"  # as the page on stores names them


def signed(store: RunningStore, expires: datetime, allowed: str = AGENT_MAY) -> RunningStore:
    """Return the same container, reached by a signature in place of the account's key.

    Args:
        store: Azure's emulator.
        expires: until when the signature holds.
        allowed: its permissions, a letter each.
    """
    version, until = "2020-12-06", f"{expires:%Y-%m-%dT%H:%M:%SZ}"
    named = (allowed, "", until, f"/blob/{AZURE_ACCOUNT}/{BUCKET}", "", "", "", version, "c", *[""] * 7)
    mac = hmac.new(base64.b64decode(AZURE_KEY), "\n".join(named).encode(), hashlib.sha256).digest()
    token = {"sv": version, "sr": "c", "sp": allowed, "se": until, "sig": base64.b64encode(mac).decode()}
    kept = {name: value for name, value in store.environment.items() if name != "AZURE_STORAGE_ACCOUNT_KEY"}
    return replace(store, environment={**kept, "AZURE_STORAGE_SAS_TOKEN": urlencode(token)})
