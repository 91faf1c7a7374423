"""Alerts that are alike: by what raised them, in shares, and how large the amounts were."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

# What an alert is compared by, and what is shown of it.
COMPARED = (
    "alert_id", "transaction_id", "event_time", "sequence", "amount", "currency", "score", "severity",
    "classification", "reasons", "rules", "entities",
)  # fmt: skip


def most_alike(
    one: Mapping[str, Any], others: Iterable[Mapping[str, Any]], limit: int
) -> list[tuple[Mapping[str, Any], float]]:
    """Return the alerts most like one, each with its distance, the nearest first.

    The distance is half the sum of absolute differences between the shares that each reason and rule has in
    what raised the two alerts, from 0 to 1, plus the absolute difference of ln(1 + amount).

    Args:
        one: with the columns `COMPARED`.
        others: the same.
    """
    ranked = sorted(
        ((_distance(one, row), row["sequence"], row) for row in others), key=lambda each: each[:2]
    )
    return [(row, distance) for distance, _, row in ranked[:limit]]


def _distance(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    mine, theirs = _shares(one), _shares(other)
    apart = sum(abs(mine.get(name, 0.0) - theirs.get(name, 0.0)) for name in mine.keys() | theirs.keys())
    return apart / 2 + abs(math.log1p(one["amount"]) - math.log1p(other["amount"]))


def _shares(alert: Mapping[str, Any]) -> dict[str, float]:
    """What raised an alert, in shares that add up to 1: reasons by contribution, a rule like one nat."""
    weights = {each["name"]: each["contribution"] for each in alert["reasons"] if each["contribution"] > 0}
    weights |= {f"rule {name}": 1.0 for name in alert["rules"]}
    whole = math.fsum(weights.values())
    return {name: weight / whole for name, weight in weights.items()} if whole else {}
