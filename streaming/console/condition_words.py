"""What conditions mean and what to do about them, in the words of docs/operations.md."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_FILE = Path(__file__).with_name("conditions.json")


@dataclass(frozen=True)
class ConditionWords:
    """What docs say of a condition; what stands between backticks is typed as it stands.

    Attributes:
        meaning: what it means.
        remedy: what to do.
    """

    meaning: str
    remedy: str


def condition_words() -> Mapping[str, ConditionWords]:
    """Return the words of each condition, by its name."""
    rows: dict[str, list[str]] = json.loads(_FILE.read_text(encoding="utf-8"))
    return {name: ConditionWords(*both) for name, both in rows.items()}
