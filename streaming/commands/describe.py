"""`flagstream spec describe`: an agent on one page, for those who answer for it.

Data sources, permissions, prompts, where the models come from, and what holds the agent back: all of it from
the definition itself, so that the page cannot say something else than what runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.model.model_client import LOCAL_MODEL
from agent.planning.planning import Wordings
from schemas.detection import Detectors
from schemas.lake_tables import TABLES
from schemas.llm import Llm
from schemas.loading import format_duration
from schemas.policy import AllowedActions, Policy
from schemas.spec import AgentSpec
from streaming.commands.describe_page import page
from streaming.definition.agent_definition import AgentDefinition
from streaming.home.private_files import open_to_others
from streaming.kafka.grants import grants_of
from streaming.output.tables import show_table, show_text
from streaming.output.terminal import Terminal, print_json, say_line
from streaming.versions.clients import DEFAULT_MODEL, check_endpoint

Rows = list[tuple[str, str]]
_SHOWN_DIGEST = 12
_NOTHING = "nothing"


@dataclass(frozen=True)
class Description:
    """An agent on one page: section → rows of what and how."""

    title: str
    sections: Mapping[str, Rows]


def describe_spec(spec: AgentSpec, file: str, html: Path | None, *, as_json: bool) -> None:
    """Print the page, or write it as HTML.

    Args:
        spec: as it was read.
        file: what it was read from, for errors.
        html: a file to write the page to.

    Raises:
        ConfigurationError: something that the spec names cannot be used.
    """
    definition = AgentDefinition.load(spec, file)
    check_endpoint(spec, file)
    found = description(definition)
    if html is not None:
        is_new = not html.exists()
        html.write_text(page(found.title, found.sections), encoding="utf-8")
        if is_new:
            open_to_others([html])
        say_line(str(html))
    elif as_json:
        print_json({"describes": found.title, **{name: dict(rows) for name, rows in found.sections.items()}})
    else:
        console = Terminal()
        show_text(console, found.title)
        for name, rows in found.sections.items():
            console.print()
            show_table(console, (name, ""), rows)


def description(definition: AgentDefinition) -> Description:
    """Return what stands on the page of an agent."""
    spec, policy = definition.spec, definition.policy
    sections = {
        "agent": list(_agent(definition)),
        "data sources": list(_sources(definition)),
        "permissions": list(_permissions(spec, policy)),
        "prompts": list(_prompts(definition)),
        "models": list(_models(definition, policy)),
        "guardrails": list(_guardrails(spec, policy)),
        "features": list(_features(spec)),
    }
    return Description(f"{spec.name} {spec.version}", sections)


def _agent(definition: AgentDefinition) -> Iterator[tuple[str, str]]:
    spec = definition.spec
    for name, digest in definition.digests.items():
        yield name.replace("_", " "), digest[:_SHOWN_DIGEST]
    yield "alerts", f"topic {spec.alerts.topic}, and the table {spec.tables.alerts}"
    budget = (
        "" if spec.alerts_per_day is None else f", moved for alerts a day of about {spec.alerts_per_day:g}"
    )
    yield "threshold", f"{spec.threshold:g}{budget}"
    yield "rules", _listed(rule.name for rule in spec.rules)
    yield "replayable for", format_duration(spec.replay_horizon)


def _sources(definition: AgentDefinition) -> Iterator[tuple[str, str]]:
    spec, contract = definition.spec, definition.contract
    source = spec.data_sources.transactions
    reads = source.subscription
    yield "transactions", f"topic {_listed(reads.names) if reads.pattern is None else reads.pattern}"
    yield "contract", f"{Path(source.contract).name}, digest {contract.digest[:_SHOWN_DIGEST]}"
    yield "entities", _listed(contract.entity_names)
    yield "further fields", _listed(contract.extra)
    for name, table in contract.references.items():
        yield f"reference {name}", f"{table.path}: {_listed(table.columns)}"
    if spec.data_sources.rates is not None:
        yield "exchange rates", f"{spec.data_sources.rates.path}, to {spec.data_sources.rates.to}"
    labels = spec.data_sources.labels.topic
    yield "labels", "files alone" if labels is None else f"topic {labels}, and files"
    yield "writes", _listed(getattr(spec.tables, table) for table in TABLES)


def _permissions(spec: AgentSpec, policy: Policy) -> Iterator[tuple[str, str]]:
    yield "policy", policy.policyName
    for grant in grants_of(spec):
        some = f"{grant.name}*" if grant.prefixed else grant.name
        yield f"Kafka {grant.resource} {some}", f"{_listed(grant.operations)}: {grant.use}"
    yield "queries may read", _listed(policy.dataAccess.tables)
    yield "actions may read", _listed(policy.dataAccess.readOnlyPaths)
    for name in AllowedActions.model_fields:
        limits = policy.actions.limits(name)
        if limits is not None:
            set_ = limits.model_dump(exclude_none=True)
            yield f"action {name}", ", ".join(f"{key} {_plain(value)}" for key, value in set_.items())


def _prompts(definition: AgentDefinition) -> Iterator[tuple[str, str]]:
    prompt = definition.prompt
    yield f"{prompt.id} {prompt.version}", f"classifies alerts; digest {prompt.digest[:_SHOWN_DIGEST]}"
    used = Wordings.load()
    for found, use in ((used.plan, "plans agent runs"), (used.finding, "writes their findings")):
        yield f"{found.id} {found.version}", f"{use}; digest {found.digest[:_SHOWN_DIGEST]}"


def _models(definition: AgentDefinition, policy: Policy) -> Iterator[tuple[str, str]]:
    llm, trained = definition.spec.llm, definition.content.trained_model
    if llm.provider == "none":
        yield "triage", "no model is asked: rules classify"
    for each in [] if llm.provider == "none" else [llm, *map(llm.as_asked, llm.fallbacks)]:
        yield from _model(each, policy)
    weights = (
        "the plain sum of evidence"
        if trained is None
        else f"trained, digest {trained.digest[:_SHOWN_DIGEST]}"
    )
    yield "scores", weights


def _model(llm: Llm, policy: Policy) -> Iterator[tuple[str, str]]:
    name = llm.model or (LOCAL_MODEL if llm.base_url is None else DEFAULT_MODEL)
    known = policy.model(name)
    if known is None:
        yield name, "not allowed by the policy: nothing is sent to it"
        return
    where = (
        known.origin or llm.base_url or ("this machine" if name == LOCAL_MODEL else "OpenAI's own address")
    )
    key = known.api_key_env or (None if name == LOCAL_MODEL else llm.api_key_env)
    yield name, f"{known.provenance}; runs in: {known.region}"
    yield f"{name} is asked at", where + ("" if key is None else f", with the key in {key}")
    price = llm.price_of(name)
    yield f"{name} costs", f"{price.input:g} USD in, {price.output:g} out, a million tokens"


def _guardrails(spec: AgentSpec, policy: Policy) -> Iterator[tuple[str, str]]:
    raw = set(policy.rawFields)
    leaving = [each for each in policy.allowedFields if each not in raw and not policy.as_token(each)]
    yield "may leave as it is", _listed([*leaving, *policy.rawFields])
    yield "may leave as a token", _listed(each for each in policy.allowedFields if policy.as_token(each))
    budget = spec.llm.budget
    yield "tokens", f"{budget.tokens_per_day:,} a day" + _limit(budget.tokens_per_minute, "a minute")
    yield "money", "not limited" if budget.usd_per_day is None else f"{budget.usd_per_day:g} USD a day"
    yield "calls", f"{budget.calls_per_batch} under one deadline"
    wait = spec.llm.patience if spec.llm.mode == "deferred" else spec.llm.deadline
    yield "without an answer", f"classified by rules; the model has {format_duration(wait)}"
    runs = policy.budgets
    yield "agent runs", f"{runs.steps} steps, {runs.tokens:,} tokens, {runs.seconds:g} s"
    promotion = spec.promotion
    yield (
        "other versions",
        (
            f"canary of {promotion.canary_percent:g} %, judged by {promotion.least_labels} labels that are "
            f"{format_duration(promotion.maturity)} old"
        ),
    )
    yield "degraded above", f"{spec.monitoring.rejected_share:.0%} rejected records"
    yield "audit log", "on" if policy.auditLogging else "off"


def _features(spec: AgentSpec) -> Iterator[tuple[str, str]]:
    """The switches of a spec, each with how it stands."""
    yield "model", spec.llm.provider if spec.llm.provider == "none" else spec.llm.mode
    for name in Detectors.model_fields:
        detector = getattr(spec.detectors, name)
        yield f"detector {name}", "on" if getattr(detector, "enabled", detector is not None) else "off"
    yield "trained model", "off" if spec.model is None else "on"
    yield "alert budget", "off" if spec.alerts_per_day is None else "on"
    yield "currencies", spec.profiles.currencies
    yield "arithmetic", str(spec.arithmetic or "newest")


def _listed(names: Iterable[object]) -> str:
    found = [str(each) for each in names]
    return ", ".join(found) or _NOTHING


def _plain(value: object) -> str:
    if isinstance(value, Mapping):
        return _listed(value)
    return _listed(value) if isinstance(value, list | tuple) else str(value)


def _limit(value: float | None, per: str) -> str:
    return "" if value is None else f", {value:,} {per}"
