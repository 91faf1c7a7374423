"""`flagstream llm check`: what a model endpoint takes, how fast it answers, and what a day would cost."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from agent.model.budget import SpendingBudget
from agent.model.llm_client import LlmClient
from agent.triage.ledger import MemoryLedger
from agent.triage.outcomes import TriageResult
from agent.triage.prompt_evaluation import load_cases, rows_of
from agent.triage.pseudonyms import Pseudonyms
from agent.triage.triage import Triage
from schemas.errors import ConfigurationError
from schemas.llm import Budget, checked_base_url
from schemas.spec import AgentSpec
from streaming.definition.agent_definition import AgentDefinition
from streaming.home.placed_agent import PlacedAgent
from streaming.output.facts import show_facts
from streaming.output.terminal import say_error
from streaming.versions.clients import forget_endpoint, model_client

_QUESTIONS = 3
_SECONDS_PER_QUESTION = 120
_NO_ADVICE = "it answers, and not to the point: see `flagstream prompts eval`"


@dataclass(frozen=True)
class ModelCheck:
    """What three questions have shown.

    Attributes:
        answered: how many had an answer of use.
        failures: reason → how many had none for it.
        form: what binds the answer: `json_schema`, `json_object`, or `text`.
        differs: what requests do without, or get in another way than at OpenAI's own.
        trouble: what keeps it from answering and what to do about it, None where nothing does.
        input_tokens, output_tokens: per question.
        seconds: per question, asked one after the other.
        tokens_per_second: of output.
        usd_per_day: for `alerts_per_day`, each asked about by itself (the most); None without a price.
    """

    model: str
    url: str
    questions: int
    answered: int
    failures: Mapping[str, int]
    form: str
    differs: tuple[str, ...]
    trouble: str | None
    input_tokens: float
    output_tokens: float
    seconds: float
    tokens_per_second: float
    alerts_per_day: int
    usd_per_day: float | None


def with_endpoint(spec: AgentSpec, base_url: str | None, model: str | None) -> AgentSpec:
    """Return a spec that asks one endpoint and nobody after it: the one given, under its own policy.

    Raises:
        ConfigurationError: it is no address.
    """
    changes: dict[str, Any] = {"fallbacks": ()} | ({} if model is None else {"model": model})
    if base_url is not None:
        try:
            changes["base_url"] = checked_base_url(base_url)
        except ValueError as fault:
            raise ConfigurationError(str(fault), where="--base-url") from None
    return spec.model_copy(update={"llm": spec.llm.model_copy(update=changes)})


def check_model(agent: PlacedAgent, llm: str, alerts_per_day: int, *, as_json: bool) -> bool:
    """Ask, print what was found, and return whether every question had an answer of use.

    Args:
        llm: see streaming.versions.clients.

    Raises:
        ConfigurationError: nobody is to be asked, or may be.
        MachineError: the local model cannot be started.
    """
    forget_endpoint(agent)
    with model_client(agent, llm) as client:
        if client is None:
            raise ConfigurationError("nobody is to be asked (`none`): name a model", where="--llm")
        found = checked(agent.spec, client, alerts_per_day)
    show_facts(asdict(found), as_json=as_json)
    if found.answered < found.questions:
        say_error(f"flagstream: {found.model}: {found.trouble or _NO_ADVICE}")
    return found.answered == found.questions


def checked(spec: AgentSpec, client: LlmClient, alerts_per_day: int) -> ModelCheck:
    """Ask a model about three made-up alerts and say what came of it.

    Raises:
        ConfigurationError: the policy does not name the model.
    """
    definition = AgentDefinition.of(spec)
    if not definition.policy.allows_model(client.model):
        raise ConfigurationError(
            f"the policy {definition.policy.policyName} does not name {client.model!r}; "
            "add it to allowedModels",
            key="policy",
        )
    budget = Budget(calls_per_batch=_QUESTIONS)
    patience = timedelta(seconds=_SECONDS_PER_QUESTION * _QUESTIONS)
    changes = {"deadline": patience, "budget": budget, "groups_per_request": 1}
    triage = Triage(
        spec.llm.model_copy(update=changes),
        definition.prompt,
        client,
        ledger=MemoryLedger(),
        budget=SpendingBudget(budget),
        policy=definition.policy,
        pseudonyms=Pseudonyms(secrets.token_bytes()),
    )
    rows = rows_of(load_cases(definition.prompt.id))[:_QUESTIONS]
    results = [triage.classify([row]) for row in rows]  # one after the other, for the time that each takes
    return _summed(spec, client, results, alerts_per_day)


def _summed(
    spec: AgentSpec, client: LlmClient, results: list[TriageResult], alerts_per_day: int
) -> ModelCheck:
    given = [each.classifications[0].fallback_reason for each in results]
    read, written = sum(each.input_tokens for each in results), sum(each.output_tokens for each in results)
    seconds, count = sum(each.seconds for each in results), len(results)
    failures = [reason for reason in given if reason is not None]
    price = spec.llm.prices.get(client.model)
    return ModelCheck(
        model=client.model,
        url=client.url,
        questions=count,
        answered=given.count(None),
        failures={reason: failures.count(reason) for reason in failures},
        form=client.features.form,
        differs=tuple(client.features.said()),
        trouble=client.trouble or None,
        input_tokens=round(read / count, 1),
        output_tokens=round(written / count, 1),
        seconds=round(seconds / count, 3),
        tokens_per_second=round(written / seconds, 1) if seconds else 0.0,
        alerts_per_day=alerts_per_day,
        usd_per_day=None if price is None else price.usd(read, written) / count * alerts_per_day,
    )
