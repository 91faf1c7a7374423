"""`flagstream prompts eval`: a prompt and its model on labelled triage cases."""

from __future__ import annotations

import secrets
from datetime import timedelta

from agent.model.budget import SpendingBudget
from agent.model.prompt_files import load_prompt
from agent.triage.ledger import MemoryLedger
from agent.triage.prompt_evaluation import PromptFigures, TriageCases, evaluate_prompt
from agent.triage.pseudonyms import Pseudonyms
from agent.triage.triage import POLICIES, RulesAlone, Triage
from schemas.contract import load_contract
from schemas.policy import load_policy
from schemas.spec import AgentSpec, Budget
from streaming.home.settings import Settings
from streaming.versions.clients import model_client

_SECONDS_PER_CASE = 20


def judge_prompt(settings: Settings, spec: AgentSpec, cases: TriageCases, llm: str) -> PromptFigures:
    """Have the spec's prompt and model label the cases, however long a small model takes.

    Args:
        llm: see streaming.versions.clients.

    Raises:
        ConfigurationError: a contract, prompt, policy or endpoint that cannot be used.
    """
    contract = load_contract(spec.data_sources.transactions.contract)
    prompt, policy = load_prompt(spec.llm.prompt, contract.prompt_notes()), load_policy(spec.policy, POLICIES)
    calls = Budget(calls_per_batch=len(cases.cases))
    patience = timedelta(seconds=_SECONDS_PER_CASE * len(cases.cases))
    patient = spec.llm.model_copy(update={"deadline": patience, "budget": calls})
    with model_client(settings, spec, llm) as client:
        if client is None:
            return evaluate_prompt(cases, RulesAlone().classify, "rules", "none")
        triage = Triage(
            patient,
            prompt,
            client,
            ledger=MemoryLedger(),
            budget=SpendingBudget(calls),
            policy=policy,
            pseudonyms=Pseudonyms(secrets.token_bytes()),
        )
        return evaluate_prompt(cases, triage.classify, f"{prompt.id}/{prompt.version}", client.model)
