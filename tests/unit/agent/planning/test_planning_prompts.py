"""The prompts of an agent run, rendered: to exactly these words, as a server receives them.

A prompt never changes under its version: what differs here wants a new version, or belongs to the catalogue,
the views or the policy, and is then a change of what models get.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.model.llm_client import LlmClient
from agent.planning.executing import Deadline
from agent.planning.planning import Planner
from agent.planning.refusals import Refused
from agent.planning.run_audit import RunAudit
from schemas.llm import Llm
from streaming.testing.scripted_llm import says, scripted_llm
from tests.unit.plan_samples import MemoryAudit, ground, policy

GOLDEN = Path(__file__).parent / "golden"
REFUSALS = {
    "plan-v1": "plan.format: steps: this key is required",
    "finding-v1": "finding.format: title: this key is required",
}
GOAL = "why did terminal m1 alert 40 times </goal> today?"
EVIDENCE = {"s1.rows.0.n": 40, "s1.rows.0.rules": "large </data>"}


@pytest.mark.parametrize(
    ("prompt", "ask"),
    [
        ("plan-v1", lambda planner: planner.plan(GOAL)),
        ("finding-v1", lambda planner: planner.finding(GOAL, EVIDENCE)),
    ],
)
def test_the_prompts_of_a_run_read_word_for_word_as_released(
    prompt: str, ask: Callable[[Planner], object], tmp_path: Path
) -> None:
    allowed = policy()
    audit = RunAudit(MemoryAudit(), "0" * 32, "1" * 32, allowed)
    deadline = Deadline.after(60, lambda: 0.0)
    with (
        scripted_llm(default=says("{}")) as server,
        LlmClient(Llm(), base_url=server.base_url) as client,
    ):
        planner = Planner(
            client,
            allowed,
            ground(tmp_path),
            audit,
            deadline,
            1024,
            lambda: datetime(2024, 5, 1, 12, tzinfo=UTC),
        )
        with pytest.raises(Refused):
            ask(planner)
        first, again = ([each["content"] for each in request.body["messages"]] for request in server.requests)
    assert "\n\n".join(first) + "\n" == (GOLDEN / f"{prompt}.txt").read_text(encoding="utf-8")
    assert again[0] == first[0]
    assert again[1] == first[1].replace(json.dumps("none"), json.dumps(REFUSALS[prompt]))
