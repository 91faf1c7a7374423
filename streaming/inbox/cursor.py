"""Where a page of a list has ended: by the last alert's own values, so that no later one moves it."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from schemas.errors import ConfigurationError

Order = Literal["newest", "oldest", "score", "amount", "severity"]
# What each order goes by, the largest first; of equal ones the newest comes first.
ORDERS: Mapping[Order, str] = {
    "newest": "place",
    "oldest": "place",
    "score": "score",
    "amount": "amount",
    "severity": "severity",
}
_LARGEST = 2**63 - 1


@dataclass(frozen=True)
class Cursor:
    """The last alert of a page.

    Attributes:
        order: of the list.
        key: what that order goes by.
        place: `outbox_seq` of its first revision.
    """

    order: Order
    key: float
    place: int

    def text(self) -> str:
        """Return it as clients hand it back."""
        plain = f"{self.order} {self.key.hex()} {self.place}"
        return base64.urlsafe_b64encode(plain.encode()).decode().rstrip("=")

    @classmethod
    def parse(cls, text: str, order: Order) -> Cursor:
        """Read what a client hands back.

        Raises:
            ConfigurationError: it is none, or one of a list in another order.
        """
        try:
            padded = text + "=" * (-len(text) % 4)
            name, key, place = base64.b64decode(padded, b"-_", validate=True).decode("ascii").split(" ")
            found = cls(order, float.fromhex(key), int(place))
        except (ValueError, OverflowError, binascii.Error):
            raise ConfigurationError("no cursor of this list", where="cursor") from None
        if name != order or not math.isfinite(found.key) or not 0 <= found.place <= _LARGEST:
            raise ConfigurationError("no cursor of this list", where="cursor")
        return found
