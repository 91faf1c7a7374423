"""How many records of a batch were rejected, and why, as its rows in `batches` and `monitoring` say it."""

from __future__ import annotations

import json
from typing import Any

from streaming.batch.store import Decision


def rejected_counts(decision: Decision) -> str | None:
    """Return the rejected records by reason as JSON, None where the decision did not note the reasons."""
    return None if decision.rejected is None else json.dumps(decision.rejected, sort_keys=True)


def rejected_shares(decision: Decision) -> dict[str, Any]:
    """Return the columns of `monitoring` that tell which share of the records read was rejected."""
    read, rejected = max(decision.read, 1), decision.rejected
    shares = None if rejected is None else {name: round(count / read, 6) for name, count in rejected.items()}
    return {
        "rejected_share": round(decision.quarantined / read, 6),
        "rejected_by_reason": None if shares is None else json.dumps(shares, sort_keys=True),
    }
