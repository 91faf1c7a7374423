"""`flagstream prompts eval`: a prompt and its model on labelled triage cases."""

from __future__ import annotations

import secrets
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

from agent.model.budget import SpendingBudget
from agent.triage.ledger import MemoryLedger
from agent.triage.prompt_evaluation import (
    PromptFigures,
    TriageCases,
    each_alone,
    evaluate_prompt,
    load_cases,
)
from agent.triage.pseudonyms import Pseudonyms
from agent.triage.triage import RulesAlone, Triage
from schemas.llm import Budget, PromptReference
from streaming.commands.registry import note_evaluation
from streaming.definition.agent_definition import AgentDefinition
from streaming.home.placed_agent import PlacedAgent
from streaming.learning.triage_cases import generated_cases
from streaming.output.facts import show_facts
from streaming.output.terminal import progress_bar
from streaming.versions.clients import model_client

_SECONDS_PER_CASE = 20


def evaluate_cases(
    agent: PlacedAgent,
    version: int | None,
    cases: Path | None,
    llm: str,
    *,
    generated: int,
    apart: bool,
    as_json: bool,
) -> bool:
    """Have a prompt classify its cases and print its figures; return whether rules alone are no better.

    Args:
        version: another version of the spec's prompt, None for the spec's own.
        cases: a file of cases, None for the prompt's own.
        llm: see streaming.versions.clients.
        generated: simulated cases that go beside the prompt's own.
        apart: whether each case is asked about alone.

    Raises:
        ConfigurationError: spec, prompt or cases cannot be used.
    """
    prompt = PromptReference(id=agent.spec.llm.prompt.id, version=version or agent.spec.llm.prompt.version)
    chosen = agent.spec.model_copy(update={"llm": agent.spec.llm.model_copy(update={"prompt": prompt})})
    material = load_cases(prompt.id, cases)
    if cases is None and generated:
        more = (*material.cases, *generated_cases(generated))
        material = material.model_copy(update={"cases": more})
    figures = judge_prompt(agent.with_spec(chosen), material, llm, apart=apart)
    rules = evaluate_prompt(material, RulesAlone().classify, "rules", "none")
    passed = figures.accuracy >= material.labeller_accuracy
    if cases is None:  # other cases than the prompt's own vouch for nothing
        note_evaluation(agent.with_spec(chosen), figures, passed=passed)
    recorded = {"labeller_accuracy": material.labeller_accuracy, "passed": passed}
    beside = {name: value for name, value in asdict(rules.worth).items() if name != "reliability"}
    facts = asdict(figures)
    worth = facts.pop("worth")
    show_facts({**facts, **worth, **recorded, "rules": beside}, as_json=as_json)
    return passed


def judge_prompt(agent: PlacedAgent, cases: TriageCases, llm: str, *, apart: bool) -> PromptFigures:
    """Have the spec's prompt and model classify the cases, however long a small model takes.

    Args:
        llm: see streaming.versions.clients.
        apart: whether each case is asked about alone.

    Raises:
        ConfigurationError: a contract, prompt, policy or endpoint that cannot be used.
    """
    definition = AgentDefinition.of(agent.spec)
    prompt, policy = definition.prompt, definition.policy
    calls = Budget(calls_per_batch=len(cases.cases))
    patience = timedelta(seconds=_SECONDS_PER_CASE * len(cases.cases))
    patient = agent.spec.llm.model_copy(update={"deadline": patience, "budget": calls})
    with model_client(agent, llm) as client:
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
        with progress_bar() as progress:
            task = progress.add_task("asking", total=len(cases.cases) if apart else None)
            alone = each_alone(triage.classify, lambda done: progress.update(task, completed=done))
            ask = alone if apart else triage.classify
            return evaluate_prompt(cases, ask, f"{prompt.id}/{prompt.version}", client.model)
