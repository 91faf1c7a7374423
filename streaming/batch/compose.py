"""Builds what decides under a definition."""

from __future__ import annotations

from agent.model.budget import SpendingBudget
from agent.model.model_client import ModelClient
from agent.triage.ledger import Ledger, MemoryLedger
from agent.triage.pseudonyms import Pseudonyms
from agent.triage.rule_classifier import RuleClassifier
from agent.triage.triage import RulesAlone, Triage
from streaming.batch.checkpointing import CheckpointWriter
from streaming.batch.decider import Decider
from streaming.batch.engine import Engine
from streaming.batch.memory import Memory
from streaming.definition.agent_definition import AgentDefinition
from streaming.definition.content import model_files
from streaming.detection.model import keep as keep_artefact
from streaming.home.placed_agent import PlacedAgent
from streaming.home.pseudonym_key import pseudonym_key
from streaming.home.settings import Settings
from streaming.service.health import Health
from streaming.store.opening import folders_of


def build_engine(
    settings: Settings,
    definition: AgentDefinition,
    client: ModelClient | None,
    ledger: Ledger,
    budget: SpendingBudget,
    health: Health | None = None,
) -> Engine:
    """Build what decides under a definition.

    Args:
        client: the model, None for rules alone.
        health: hears when checkpoints cannot be written.

    Raises:
        ConfigurationError: a rule, prompt, policy, model or entity that cannot be used.
    """
    decider = Decider(
        definition=definition,
        rules=definition.rules,
        classifier=RuleClassifier(definition.spec.rules),
        triage=build_triage(settings, definition, client, ledger, budget),
        model=None if client is None else client.model,
    )
    memory = Memory(definition.content.blank_scorer())
    kept = folders_of(settings.profiles(definition.spec.name), settings.spool)
    return Engine(decider, memory, CheckpointWriter(kept, health))


def build_engine_on_rules(
    settings: Settings, definition: AgentDefinition, health: Health | None = None
) -> Engine:
    """Build what decides without a model; see build_engine."""
    budget = SpendingBudget(definition.spec.llm.budget)
    return build_engine(settings, definition, None, MemoryLedger(), budget, health)


def build_triage(
    settings: Settings,
    definition: AgentDefinition,
    client: ModelClient | None,
    ledger: Ledger,
    budget: SpendingBudget,
) -> Triage | RulesAlone:
    """Decide who classifies: a batch pinned to a prompt whose wording has gone is finished by rules alone."""
    policy = definition.policy
    if client is None or not definition.content.has_prompt:
        return RulesAlone({"policy_digest": policy.digest})
    pseudonyms = Pseudonyms(pseudonym_key(settings))
    llm, prompt = definition.spec.llm, definition.prompt
    return Triage(llm, prompt, client, ledger=ledger, budget=budget, policy=policy, pseudonyms=pseudonyms)


def keep_model(agent: PlacedAgent) -> None:
    """Keep a copy of the trained model of a spec that is complete, so that a replay finds it."""
    if agent.spec.model is not None and agent.spec.model.sha256 is not None:
        kept = folders_of(agent.settings.artefacts(agent.name), agent.settings.spool)
        with model_files(agent.spec.model, kept) as folder:
            keep_artefact(folder, agent.spec.model.sha256, kept)
