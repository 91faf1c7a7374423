"""Builds what decides under a spec, once all that the spec names has been checked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pyarrow as pa

from agent.model.budget import SpendingBudget
from agent.model.llm_client import ModelClient
from agent.model.prompt_files import check_needs, is_shipped, load_prompt
from agent.triage.ledger import Ledger
from agent.triage.pseudonyms import Pseudonyms
from agent.triage.rule_classifier import RuleClassifier
from agent.triage.triage import POLICIES, RulesAlone, Triage
from schemas.alert import ALERTS
from schemas.contract import EventContract, load_contract
from schemas.errors import ConfigurationError, nearest
from schemas.loading import format_duration
from schemas.policy import Policy, load_policy
from schemas.spec import AgentSpec, ModelReference
from schemas.tables import (
    BATCHES,
    DUPLICATES,
    LATE,
    LEDGER,
    MONITORING,
    QUARANTINE,
    transactions_schema,
)
from streaming.batch.engine import Engine, rule_schema
from streaming.detection.model import SupervisedModel
from streaming.detection.model import keep as keep_artefact
from streaming.detection.model import load as load_model
from streaming.detection.scoring import Scorer
from streaming.home.pseudonym_key import pseudonym_key
from streaming.home.settings import Settings
from streaming.rules.rule_file import RuleWatch
from streaming.rules.rule_set import RuleSet
from streaming.service.health import Health


def rule_watch(spec: AgentSpec, contract: EventContract, health: Health | None = None) -> RuleWatch:
    """Return what makes a spec complete: with the rules of its file, and with its model's hash.

    `health` is told of a file that cannot be used.
    """
    model = supervised_model(spec)
    scorer = Scorer.under(spec, contract, model)
    if spec.model is not None and model is not None:
        named = spec.model.model_copy(update={"sha256": model.digest})
        spec = spec.model_copy(update={"model": named})
    return RuleWatch(spec, rule_schema(contract, scorer), contract.entity_names, health)


def build_engine(
    settings: Settings,
    spec: AgentSpec,
    contract: EventContract,
    client: ModelClient | None,
    ledger: Ledger,
    budget: SpendingBudget,
    artefacts: Path | None = None,
) -> Engine:
    """Build what decides under `spec`.

    Args:
        artefacts: where a trained model is that has gone from its path; the agent's own unless given.

    Raises:
        ConfigurationError: a rule, prompt, policy or entity that cannot be used.
    """
    kept = settings.artefacts(spec.name) if artefacts is None else artefacts
    scorer = Scorer.under(spec, contract, supervised_model(spec, kept))
    schema, arithmetic = rule_schema(contract, scorer), spec.arithmetic_in_force
    return Engine(
        spec=spec,
        contract=contract,
        rules=RuleSet.compile(spec.rules, schema, contract.entity_names, arithmetic),
        labeller=RuleClassifier(spec.rules),
        scorer=scorer,
        triage=build_triage(settings, spec, contract, client, ledger, budget),
        checkpoints=settings.profiles(spec.name),
        model=None if client is None else client.model,
    )


def build_triage(
    settings: Settings,
    spec: AgentSpec,
    contract: EventContract,
    client: ModelClient | None,
    ledger: Ledger,
    budget: SpendingBudget,
) -> Triage | RulesAlone:
    """Decide who labels: a batch pinned to a prompt whose wording has gone is finished by rules alone."""
    policy = load_policy(spec.policy, POLICIES)
    if client is None or not is_shipped(spec.llm.prompt):
        return RulesAlone({"policy_digest": policy.digest})
    prompt = load_prompt(spec.llm.prompt, contract.prompt_notes())
    pseudonyms = Pseudonyms(pseudonym_key(settings.home))
    return Triage(
        spec.llm, prompt, client, ledger=ledger, budget=budget, policy=policy, pseudonyms=pseudonyms
    )


def lake_schemas(contract: EventContract) -> dict[str, pa.Schema]:
    """Return the Arrow schema of every table, by the field names of Lake."""
    return {
        "transactions": transactions_schema(contract.arrow_schema()),
        "quarantine": QUARANTINE,
        "duplicates": DUPLICATES,
        "alerts": ALERTS,
        "monitoring": MONITORING,
        "ledger": LEDGER,
        "late": LATE,
        "batches": BATCHES,
    }


def check_spec(spec: AgentSpec, where: str | None = None, kept: EventContract | None = None) -> None:
    """Check that everything a spec names exists and fits.

    Args:
        where: the spec's file, for the error.
        kept: the contract that the lake has gone by so far; its horizon may stay as it is.

    Raises:
        ConfigurationError: contract, rules, policy, prompt or entities cannot be used.
    """
    where = where or f"spec {spec.name}"
    with _placed(where, "data_sources.transactions.contract"):
        contract = load_contract(spec.data_sources.transactions.contract)
        if kept is None or _stamps_of(contract) != _stamps_of(kept):
            _check_horizon(contract)
    with _placed(where, "llm.prompt"):
        check_needs(load_prompt(spec.llm.prompt, contract.prompt_notes()), spec.llm)
    with _placed(where, "policy"):
        policy = load_policy(spec.policy, POLICIES)
    with _placed(where):
        _check_fit(spec, contract, policy)


def _stamps_of(contract: EventContract) -> tuple[timedelta, timedelta]:
    return contract.duplicates.horizon, contract.event_time.max_ahead


def _check_horizon(contract: EventContract) -> None:
    horizon, ahead = map(format_duration, _stamps_of(contract))
    if contract.duplicates.horizon < contract.event_time.max_ahead:
        raise ConfigurationError(
            f"duplicates.horizon is {horizon}, but a record may be stamped ahead by event_time.max_ahead, "
            f"{ahead}, when it is sent and not when it is sent again: give a horizon of at least {ahead}, "
            "or a shorter max_ahead"
        )


@contextmanager
def _placed(where: str, key: str = "") -> Iterator[None]:
    try:
        yield
    except ConfigurationError as fault:
        raise fault.within(where, key) from None


def _check_fit(spec: AgentSpec, contract: EventContract, policy: Policy) -> None:
    rule_watch(spec, contract).load()
    if spec.llm.model is not None and not policy.allows_model(spec.llm.model):
        raise ConfigurationError(
            f"policy {policy.policyName!r} does not allow this model; "
            f"{nearest(spec.llm.model, policy.model_names)}",
            key="llm.model",
        )


def supervised_model(spec: AgentSpec, kept: Path | None = None) -> SupervisedModel | None:
    """Load the model that a spec puts in force, None when it names none.

    Args:
        kept: folder of artefacts by hash, looked into first.

    Raises:
        ConfigurationError: it cannot be read, or is not the one named.
    """
    if spec.model is None:
        return None
    with _placed("", "model"):
        return load_model(artefact_of(spec.model, kept), spec.model.sha256)


def keep_model(settings: Settings, spec: AgentSpec) -> None:
    """Keep a copy of the trained model of a spec that is complete, so that a replay finds it."""
    if spec.model is not None and spec.model.sha256 is not None:
        kept = settings.artefacts(spec.name)
        keep_artefact(artefact_of(spec.model, kept), spec.model.sha256, kept)


def artefact_of(model: ModelReference, kept: Path | None) -> Path:
    """Return the folder of a model: its copy where there is one, else where the spec says."""
    copy = None if kept is None or model.sha256 is None else kept / model.sha256
    return copy if copy is not None and copy.is_dir() else Path(model.path)
