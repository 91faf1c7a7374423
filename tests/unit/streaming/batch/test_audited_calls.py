"""However questions come back, each is recorded once, with its own outcome, and none before it has one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agent.audit.events import ModelCall
from streaming.batch.audited_calls import AuditedCalls

KEYS = ["a", "b", "c", "d"]


@dataclass
class Asked:
    """A question as the test knows it: where it stands in the ledger, and what came of it."""

    key: str
    commit: int
    outcome: ModelCall | None = None
    is_lost: bool = False
    outcomes: list[ModelCall] = field(default_factory=list)


class Calls(RuleBasedStateMachine):
    """Requests of one or more questions under way side by side, outcomes in any order, and crashes."""

    def __init__(self) -> None:
        super().__init__()
        self.made, self.rows, self.asked = AuditedCalls(), list[dict[str, Any]](), list[Asked]()
        self.recorded, self.commit, self.number = -1, -1, 0

    @property
    def under_way(self) -> dict[str, Asked]:
        return {each.key: each for each in self.asked if each.outcome is None and not each.is_lost}

    @rule(keys=st.lists(st.sampled_from(KEYS), min_size=1, max_size=3, unique=True))
    def ask(self, keys: list[str]) -> None:
        free = [key for key in keys if key not in self.under_way]
        self.commit += bool(free)
        for key in free:
            self.asked.append(Asked(key, self.commit))
            self.rows.append({"kind": "intent", "key": key, "commit": self.commit})

    @precondition(lambda self: self.under_way)
    @rule(draw=st.data(), answered=st.booleans())
    def come_back(self, draw: st.DataObject, answered: bool) -> None:
        some = draw.draw(st.lists(st.sampled_from(sorted(self.under_way)), min_size=1, unique=True))
        calls = [self._outcome(self.under_way[key], answered) for key in some]
        self.made.add(calls)
        self._tell()

    @rule()
    def crash(self) -> None:
        """What has come back and is not told is forgotten, what is under way never comes back."""
        for each in self.asked:
            each.is_lost = each.is_lost or not each.outcomes
        self.made = AuditedCalls()

    @invariant()
    def each_is_told_once_and_rightly(self) -> None:
        for each in self.asked:
            assert len(each.outcomes) == (each.commit <= self.recorded)
            if each.outcomes and not each.is_lost:
                assert each.outcomes == [each.outcome]

    def _outcome(self, asked: Asked, answered: bool) -> ModelCall:
        self.number += 1
        asked.outcome = ModelCall(asked.key, "answered" if answered else "timeout", True, self.number, 1)
        if answered:
            self.commit += 1
            tokens = {"input_tokens": self.number, "output_tokens": 1}
            self.rows.append({"kind": "answer", "key": asked.key, "commit": self.commit, **tokens})
        return asked.outcome

    def _tell(self) -> None:
        rows = [row for row in self.rows if row["commit"] > self.recorded]
        settled = self.made.settled(rows, self.under_way.keys(), self.commit)
        for each in settled.calls:
            (asked,) = [
                one
                for one in self.asked
                if (one.key, one.commit) == (each.question["key"], each.question["commit"])
            ]
            assert asked is not self.under_way.get(asked.key), "what is under way has no outcome yet"
            asked.outcomes.append(each.call)
        self.made.forget(settled)
        self.recorded = max(self.recorded, settled.through)


TestCalls = Calls.TestCase
TestCalls.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)
