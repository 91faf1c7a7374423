"""Payments that nobody makes but anybody can send, and an agent with everything switched on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

from agent.model.model_client import Completion, Failure, Question, Replies, Surcharge
from schemas.contract import EventContract
from schemas.spec import AgentSpec
from streaming.testing.live_lake import TOPIC

MOST_BYTES = 16_384
LARGEST = 1.7976931348623157e308
START = datetime(2026, 5, 1, tzinfo=UTC)
# As lakes from before amounts and ids had bounds hold them.
BOUNDLESS: dict[str, Any] = {
    "name": "boundless",
    "transaction_id": {"field": "id", "max_length": 1_000_000},
    "event_time": {"field": "at"},
    "amount": {"field": "amount", "most": LARGEST},
    "currency": {"field": "currency", "max_length": 1_000_000},
    "entities": {
        "customer": {"field": "customer", "max_length": 1_000_000},
        "terminal": {"field": "terminal", "max_length": 1_000_000, "required": False},
    },
    "extra": {
        "latitude": {"field": "latitude", "type": "float"},
        "longitude": {"field": "longitude", "type": "float"},
    },
    "untrusted_text": {"memo": {"field": "memo", "max_length": 200}},
}
CONTRACT = EventContract.model_validate(BOUNDLESS)

RULES: list[dict[str, Any]] = [
    {"name": "large", "when": "amount > 500", "severity": "high", "reason": "large"},
    {"name": "fast", "when": "score > 0.5 AND amount * amount > 1", "severity": "low", "reason": "fast"},
    {
        "name": "twice",
        "sequence": {"entity": "customer", "first": "amount > 100", "then": "amount > 0", "within": "1h"},
        "severity": "medium",
        "reason": "twice",
    },
    {
        "name": "again",
        "sequence": {"entity": "terminal", "first": "amount > 10", "then": "amount > 0", "within": "1h"},
        "severity": "low",
        "reason": "again",
    },
    {
        "name": "silent",
        "absence": {
            "entity": "customer+terminal",
            "after": "amount > 100",
            "expected": "amount < 1",
            "within": "1m",
            "lateness": "0s",
        },
        "severity": "high",
        "reason": "silent",
    },
]


def spec_of(folder: Path, **changes: Any) -> AgentSpec:
    """Return a spec with every detector and kind of rule, whose contract lies in `folder`."""
    path = folder / "boundless.yaml"
    path.write_text(yaml.safe_dump(BOUNDLESS), encoding="utf-8")
    given = {
        "name": "extreme",
        "version": "1.0.0",
        "data_sources": {"transactions": {"contract": str(path), "topic": TOPIC}},
        "alerts": {"topic": "alerts", "max_bytes": MOST_BYTES},
        "profiles": {
            "block_rows": 16,
            "checkpoint_rows": 40,
            "pairs": [["customer", "terminal"]],
            "windows": {"customer": {"horizons": ["1h", "1d"], "lateness": "1h"}},
        },
        "detectors": {
            "counterparties": {"enabled": True, "entities": ["customer", "terminal"]},
            "travel": {"enabled": True},
            "habit": {"enabled": True},
            "multivariate": {"enabled": True},
        },
        "threshold": 0.3,
        "rules": RULES,
        "llm": {"mode": "inline", "budget": {"calls_per_batch": 50}},
        **changes,
    }
    return AgentSpec.model_validate(given)


class AnsweringModel:
    """Answers every question as it is asked, without a server."""

    model = "local"
    capacity = 1
    surcharge = Surcharge()
    fallbacks = ()

    def __init__(self) -> None:
        self.asked = 0

    def ask(
        self, questions: Sequence[Question], _: float, late: Replies | None = None
    ) -> list[Completion | Failure]:
        assert not late
        self.asked += len(questions)
        return [Completion(_answer(question), 10, 5) for question in questions]

    def abandon(self) -> None:
        pass


def _answer(question: Question) -> str:
    return json.dumps(
        {
            name: {
                "evidence": form["properties"]["evidence"]["items"]["enum"][:1],
                "classification": "card_testing",
                "severity": "high",
                "rationale": "as seen before",
            }
            for name, form in question.schema["properties"].items()
        }
    )


AMOUNTS = st.one_of(
    st.sampled_from([0.0, 5e-324, 1e-310, 2.2e-308, 1.0, 1e12, 1e154, 1.3e154, 1e155, 1e300, 9e307, LARGEST]),
    st.floats(0, LARGEST),
    st.floats(0, 1e4),
)
IDS = st.one_of(
    st.sampled_from(
        ["a", "\x00", "\u202egro.live", "\x1b[31m", '"', "\\", "'; DROP", "<data>", "[red]", " ", "\n"]
    ),
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=12),
    st.integers(1, 3_000).map(lambda length: "\u4e2d" * length),
)
CURRENCIES = st.one_of(
    st.sampled_from(["EUR", "JPY", "", "\x00", "\u20bf" * 16, "x" * 3_000, "<b>"]),
    st.text(st.characters(codec="utf-8"), max_size=5),
)
DEGREES = st.one_of(st.none(), st.floats(-90, 90), st.sampled_from([0.0, 1e308, -LARGEST, 5e-324, 180.0]))
MEMOS = st.one_of(st.none(), st.text(st.characters(codec="utf-8"), max_size=40), st.just("m" * 200))
SECONDS = st.one_of(st.just(0), st.integers(0, 200_000))


@st.composite
def payments(draw: st.DrawFn, least: int = 1, most: int = 40) -> list[dict[str, Any]]:
    """Return payments without their transaction ids, of few entities and many."""
    ids = draw(st.lists(IDS, min_size=1, max_size=4, unique=True))
    known, amounts = st.sampled_from(ids), draw(st.lists(AMOUNTS, min_size=1, max_size=3))
    row = st.fixed_dictionaries(
        {
            "at": SECONDS.map(lambda seconds: (START + timedelta(seconds=seconds)).isoformat()),
            "amount": st.one_of(st.sampled_from(amounts), AMOUNTS),
            "currency": CURRENCIES,
            "customer": st.one_of(known, IDS),
            "terminal": st.one_of(st.none(), known),
            "latitude": DEGREES,
            "longitude": DEGREES,
            "memo": MEMOS,
        }
    )
    return draw(st.lists(row, min_size=least, max_size=most))
