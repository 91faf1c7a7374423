"""What was pinned to a prompt whose wording has gone can still be finished and replayed, by rules."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent import SPECS
from agent.model.budget import SpendingBudget
from agent.model.llm_client import LlmClient
from agent.triage.ledger import MemoryLedger
from agent.triage.triage import RulesAlone, Triage
from schemas.errors import ConfigurationError
from schemas.llm import PromptReference
from schemas.spec import AgentSpec, load_spec
from streaming.batch.engine import Engine
from streaming.definition.agent_definition import AgentDefinition
from streaming.home.settings import Settings
from streaming.testing.scripted_llm import nobody_listening

CURRENT = load_spec(SPECS / "card-fraud.yaml")
RETIRED = CURRENT.model_copy(
    update={"llm": CURRENT.llm.model_copy(update={"prompt": PromptReference(version=1)})}
)


@pytest.mark.parametrize(("spec", "decides"), [(CURRENT, Triage), (RETIRED, RulesAlone)])
def test_an_engine_of_a_retired_prompt_asks_nobody(tmp_path: Path, spec: AgentSpec, decides: type) -> None:
    settings = Settings.load(tmp_path, {})
    definition = AgentDefinition.of(spec)
    budget = SpendingBudget(spec.llm.budget)
    with nobody_listening() as address, LlmClient(spec.llm, base_url=address) as client:
        engine = Engine.under(settings, definition, client, MemoryLedger(), budget)
    assert type(engine.decider.triage) is decides


def test_a_new_run_under_a_retired_prompt_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no version 1 of prompt 'triage', only: v2"):
        AgentDefinition.load(RETIRED)
