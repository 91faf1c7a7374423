"""`flagstream prompts eval`: a prompt and its model on labelled triage cases."""

from __future__ import annotations

from datetime import timedelta

from agent.budget import TokenBudget
from agent.ledger import MemoryLedger
from agent.prompt_evaluation import PromptFigures, TriageCases, evaluate_prompt
from agent.prompts import load_prompt
from agent.triage import POLICIES, Triage
from schemas.contract import load_contract
from schemas.policy import load_policy
from schemas.spec import AgentSpec, Budget
from streaming.compose import model_client
from streaming.settings import Settings

_SECONDS_PER_CASE = 20


def judge_prompt(settings: Settings, spec: AgentSpec, cases: TriageCases, llm: str) -> PromptFigures:
    """Have the spec's prompt and model label the cases, however long a small model takes.

    Args:
        llm: see compose.model_client.

    Raises:
        ConfigurationError: a contract, prompt, policy or endpoint that cannot be used.
    """
    contract = load_contract(spec.data_sources.transactions.contract)
    prompt, policy = load_prompt(spec.llm.prompt, contract.prompt_notes()), load_policy(spec.policy, POLICIES)
    calls = Budget(calls_per_batch=len(cases.cases))
    patience = timedelta(seconds=_SECONDS_PER_CASE * len(cases.cases))
    patient = spec.llm.model_copy(update={"deadline": patience, "budget": calls})
    budget = TokenBudget(calls.tokens_per_day)
    with model_client(settings, spec, llm) as client:
        triage = Triage(patient, prompt, client, ledger=MemoryLedger(), budget=budget, policy=policy)
        name = "rules" if client is None else f"{prompt.id}/{prompt.version}"
        return evaluate_prompt(cases, triage.classify, name, "none" if client is None else client.model)
