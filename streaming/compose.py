"""The composition root: builds an agent's parts from settings and a spec, and runs them together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pyarrow as pa

from agent.budget import SpendingBudget
from agent.labels import Labeller
from agent.ledger import Ledger, MemoryLedger
from agent.llm_client import LlmClient, ModelClient
from agent.local_llm import LocalLlm
from agent.prompts import check_needs, is_shipped, load_prompt
from agent.pseudonyms import Pseudonyms
from agent.triage import POLICIES, RulesAlone, Triage
from schemas.alert import ALERTS
from schemas.contract import EventContract, load_contract
from schemas.errors import ConfigurationError, DataLossError, nearest
from schemas.policy import Policy, load_policy
from schemas.spec import AgentSpec
from schemas.tables import (
    BATCHES,
    DUPLICATES,
    LATE,
    LEDGER,
    MONITORING,
    QUARANTINE,
    transactions_schema,
)
from streaming.audit.audit_log import AuditPlaces, LakeAudit
from streaming.batch.backfill_mark import QUERY, unfinished_backfill
from streaming.batch.batch_audit import BatchAudit
from streaming.batch.deciders import Canary, Deciders
from streaming.batch.engine import Engine, rule_schema
from streaming.batch.late_answers import LateAnswers, LateSettings, LateStep
from streaming.batch.outbox import Outbox
from streaming.batch.pipeline import Pipeline, Step
from streaming.batch.runner import StreamSettings, starting_offsets
from streaming.batch.store import Decision
from streaming.delta.lake import Lake, LakeTable
from streaming.delta.ledger import LakeLedger
from streaming.delta.stored import open_version
from streaming.detection.model import SupervisedModel
from streaming.detection.model import load as load_model
from streaming.detection.scoring import Scorer
from streaming.interrupts import ended_on_leaving
from streaming.kafka.publish import OutboxRecord, Publisher, PublisherSettings
from streaming.labels.book import LabelBook
from streaming.labels.label_topic import LabelTopic
from streaming.labels.verdicts import Verdicts
from streaming.pseudonym_key import pseudonym_key
from streaming.rules.rule_file import RuleWatch
from streaming.rules.rule_set import RuleSet
from streaming.settings import Settings
from streaming.versions.clients import Clients, endpoint_client
from streaming.versions.registry_table import registry_path
from streaming.versions.renewal import RegistryWatch, Renewal, spec_in_force
from streaming.versions.shadow import AgentTables, Shadow
from streaming.versions.stages import Stage

LLM_CHOICES = ("auto", "local", "none")


@dataclass(frozen=True)
class Hooks:
    """Seams for crash tests: called after each step, and before a publishing transaction commits."""

    reached: Callable[[Step], None] = lambda _: None
    before_commit: Callable[[Sequence[OutboxRecord]], None] = lambda _: None
    late_reached: Callable[[LateStep], None] = lambda _: None


@dataclass(frozen=True)
class Agent:
    """A started pipeline, what its query has to read, and late answers, None where none are sought."""

    pipeline: Pipeline
    stream: StreamSettings
    late: LateAnswers | None


@contextmanager
def model_client(settings: Settings, spec: AgentSpec, choice: str) -> Iterator[LlmClient | None]:
    """Yield the client triage asks: a configured endpoint, the local model, or none.

    Args:
        choice: `auto` (the endpoint when the spec or the environment names one, else the local model),
            `local` or `none`.

    Raises:
        ConfigurationError: `choice` is none of these.
    """
    if choice not in LLM_CHOICES:
        raise ConfigurationError(nearest(choice, LLM_CHOICES), where="--llm")
    if choice == "none" or (choice == "auto" and spec.llm.provider == "none"):
        yield None
        return
    endpoint = endpoint_client(settings, spec) if choice == "auto" else None
    if endpoint is not None:
        with endpoint as client:
            yield client
        return
    with _local_model(settings) as url, LlmClient(spec.llm, base_url=url) as client:
        yield client


@contextmanager
def open_agent(
    settings: Settings,
    spec: AgentSpec,
    bootstrap: str,
    client: LlmClient | None,
    hooks: Hooks = Hooks(),
) -> Iterator[Agent]:
    """Take an agent over: claim its tables, fence its predecessor, repair what is open, yield it started.

    Raises:
        ConfigurationError: spec, contract, policy, prompt or rules cannot be used.
        FencedError: another driver is taking over at the same moment.
    """
    spec = spec_in_force(settings, spec)
    check_spec(spec)
    contract = load_contract(spec.data_sources.transactions.contract)
    watch = rule_watch(spec, contract)
    spec = watch.load()
    _check_loaded(settings.lake(spec.name), spec)
    lake = Lake.open(settings.lake(spec.name), spec, lake_schemas(contract), retention=spec.replay_horizon)
    _check_closed(lake)
    stream_settings(settings, spec, bootstrap, lake.batches)
    audit = LakeAudit(AuditPlaces(settings, spec), spec.replay_horizon, _now)
    book = LabelBook(settings.lake(spec.name) / spec.tables.labels, retention=spec.replay_horizon)
    verdicts = Verdicts(book, lake.transactions.path, lake.alerts.path, contract.entity_names)
    ledger = LakeLedger(lake.ledger, spec.name, _now)
    budget = _budget(spec, lake)

    publisher = Publisher(
        PublisherSettings(bootstrap, spec.alerts.topic, spec.name),
        before_commit=hooks.before_commit,
        check_ours=lake.alerts.check_ours,
    )
    outbox = Outbox(spec.name, lake.alerts, publisher)
    batch_audit = BatchAudit(audit, lake, spec.name, asks_late=spec.llm.mode == "deferred")
    with ExitStack() as stack:
        clients = Clients(settings, spec, client, stack)

        def engine_for(wanted: AgentSpec) -> Engine:
            return build_engine(settings, wanted, contract, clients.of(wanted), ledger, budget)

        engine = engine_for(spec)

        def switched(to: Deciders) -> None:
            budget.limit(to.engine.spec.llm.budget)
            _ask_late_with(late, to)

        late = _late_answers(engine, lake, outbox, clients.abandon, batch_audit, hooks)
        registry = RegistryWatch(registry_path(settings, spec))
        registry.look()
        if registry.canary is not None:
            _ask_late_with(late, Deciders(engine, Canary(engine_for(registry.canary), 100)))
        shadow = _shadow(settings, spec, contract, verdicts)
        pipeline = Pipeline(
            engine=engine,
            engine_for=engine_for,
            lake=lake,
            outbox=outbox,
            audit=batch_audit,
            verdicts=verdicts,
            labels=_label_topic(stack, settings, spec, bootstrap, book),
            late=late,
            renew=Renewal(
                watch, registry, engine_for, beside("canary", engine_for), switched, shadow.release
            ),
            reached=hooks.reached,
        )
        stack.callback(pipeline.close)
        pipeline.start()
        stack.callback(shadow.close)
        shadow.start()
        # Only now is every decided batch closed, whose offsets a new query starts from.
        yield Agent(pipeline, stream_settings(settings, spec, bootstrap, lake.batches), late)


def _shadow(settings: Settings, spec: AgentSpec, contract: EventContract, verdicts: Verdicts) -> Shadow:
    lake = settings.lake(spec.name)

    def engine_for(wanted: AgentSpec) -> Engine:
        return build_engine(
            settings, wanted, contract, None, MemoryLedger(), SpendingBudget(wanted.llm.budget)
        )

    stored = [open_version(lake / name) for name in (spec.tables.transactions, spec.tables.batches)]
    transactions, batches = (table for table in stored if table is not None)
    tables = AgentTables(transactions, batches, verdicts)
    registry = RegistryWatch(registry_path(settings, spec))
    apart = beside("shadow", engine_for)
    return Shadow(lake / spec.tables.shadow, tables, registry, apart, spec.replay_horizon, _now)


def beside(stage: Stage, engine_for: Callable[[AgentSpec], Engine]) -> Callable[[AgentSpec], Engine]:
    """Have the engines of versions in a stage keep their checkpoints in folders of their own."""

    def build(wanted: AgentSpec) -> Engine:
        engine = engine_for(wanted)
        return replace(engine, checkpoints=engine.checkpoints / f"{stage}-{wanted.digest[:12]}")

    return build


def rule_watch(spec: AgentSpec, contract: EventContract) -> RuleWatch:
    """Return what knows the rules in force under a spec, those of its file included."""
    scorer = Scorer.under(spec, contract, supervised_model(spec))
    return RuleWatch(spec, rule_schema(contract, scorer), contract.entity_names)


def _ask_late_with(late: LateAnswers | None, deciders: Deciders) -> None:
    """Alerts that wait for a model go on waiting for the one before, where a version asks none."""
    asking = {each.spec.version: each.triage for each in deciders.engines if isinstance(each.triage, Triage)}
    active = asking.pop(deciders.engine.spec.version, None)
    if late is not None:
        late.ask_with(active, asking)


def _late_answers(
    engine: Engine,
    lake: Lake,
    outbox: Outbox,
    abandon: Callable[[], None],
    audit: BatchAudit,
    hooks: Hooks,
) -> LateAnswers | None:
    spec, contract = engine.spec, engine.contract
    if isinstance(engine.triage, RulesAlone) or spec.llm.mode == "inline":
        return None
    policy = load_policy(spec.policy, POLICIES)
    texts = tuple(name for name in contract.untrusted_text if policy.allows(f"texts.{name}"))
    return LateAnswers(
        spec.name,
        lake,
        outbox,
        engine.triage,
        abandon,
        LateSettings(spec.llm.patience, texts),
        told=audit.asked_late,
        clock=_now,
        reached=hooks.late_reached,
    )


def _label_topic(
    stack: ExitStack, settings: Settings, spec: AgentSpec, bootstrap: str, book: LabelBook
) -> LabelTopic | None:
    topic = spec.data_sources.labels.topic
    if topic is None:
        return None
    rejects = settings.lake(spec.name) / spec.tables.labels_quarantine
    return stack.enter_context(
        LabelTopic(bootstrap, topic, book, rejects=rejects, retention=spec.replay_horizon)
    )


def _check_loaded(lake: Path, spec: AgentSpec) -> None:
    left = unfinished_backfill(lake, spec)
    if left is not None:
        raise ConfigurationError(
            f"the backfill of {left.source} was left after {left.rows} rows: "
            "finish it with `flagstream backfill`",
            where=str(lake),
        )


def _check_closed(lake: Lake) -> None:
    """Check that at most the newest decided batch is not closed.

    Raises:
        DataLossError: `batches` does not belong to `transactions`: one of them was removed or replaced.
    """
    newest = lake.transactions.newest_metadata()
    if newest is None:
        return
    decision, closed = Decision.from_metadata(newest), lake.batches.maximum("next_sequence") or 0
    if closed not in (decision.first_sequence, decision.next_sequence):
        raise DataLossError(
            f"{lake.batches.path} closes transactions up to sequence {closed}, but the newest batch stored "
            f"holds {decision.first_sequence} to {decision.next_sequence}: restore what was removed"
        )


def build_engine(
    settings: Settings,
    spec: AgentSpec,
    contract: EventContract,
    client: LlmClient | None,
    ledger: Ledger,
    budget: SpendingBudget,
) -> Engine:
    """Build what decides under `spec`.

    Raises:
        ConfigurationError: a rule, prompt, policy or entity that cannot be used.
    """
    scorer = Scorer.under(spec, contract, supervised_model(spec))
    return Engine(
        spec=spec,
        contract=contract,
        rules=RuleSet.compile(spec.rules, rule_schema(contract, scorer), contract.entity_names),
        labeller=Labeller(spec.rules),
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


def stream_settings(
    settings: Settings, spec: AgentSpec, bootstrap: str, batches: LakeTable
) -> StreamSettings:
    """Decide what the query reads and from where.

    Raises:
        DataLossError: the checkpoint and the lake do not belong together.
    """
    source = spec.data_sources.transactions
    checkpoint = settings.checkpoint(spec.name)
    columns = ["query_id", "batch_id", "next_sequence", "closed_at", "offsets"]
    frame = pl.from_arrow(batches.read("batch_id", 0, columns=columns))
    assert isinstance(frame, pl.DataFrame)
    frame = frame.filter(~pl.col("query_id").str.starts_with(QUERY))
    closed = dict(frame.group_by("query_id").agg(pl.col("batch_id").max()).iter_rows())
    newest = None if frame.height == 0 else frame.sort("next_sequence", "closed_at")["offsets"][-1]
    return StreamSettings(
        bootstrap=bootstrap,
        topic=source.topic,
        checkpoint=checkpoint,
        max_records=source.max_records_per_batch,
        starting=starting_offsets(checkpoint, closed, newest, source.starting_offsets),
    )


def check_spec(spec: AgentSpec, where: str | None = None) -> None:
    """Check that everything a spec names exists and fits.

    Args:
        where: the spec's file, for the error.

    Raises:
        ConfigurationError: contract, rules, policy, prompt or entities cannot be used.
    """
    where = where or f"spec {spec.name}"
    with _placed(where, "data_sources.transactions.contract"):
        contract = load_contract(spec.data_sources.transactions.contract)
    with _placed(where, "llm.prompt"):
        check_needs(load_prompt(spec.llm.prompt, contract.prompt_notes()), spec.llm)
    with _placed(where, "policy"):
        policy = load_policy(spec.policy, POLICIES)
    with _placed(where):
        _check_fit(spec, contract, policy)


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


def supervised_model(spec: AgentSpec) -> SupervisedModel | None:
    """Load the model that a spec puts in force, None when it names none.

    Raises:
        ConfigurationError: it cannot be read, or is not the one named.
    """
    if spec.model is None:
        return None
    with _placed("", "model"):
        return load_model(Path(spec.model.path), spec.model.sha256)


@contextmanager
def _local_model(settings: Settings) -> Iterator[str]:
    server = LocalLlm(settings.home / "llm")
    running = server.status()
    if running is not None:
        yield running
        return
    try:
        with ended_on_leaving(server.stop):
            yield server.start()
    finally:
        server.stop()


def _budget(spec: AgentSpec, lake: Lake) -> SpendingBudget:
    """Count what was used since midnight UTC, by the batches closed since and the late answers."""
    budget = SpendingBudget(spec.llm.budget)
    today = int(_now().replace(hour=0, minute=0, second=0, microsecond=0).timestamp()) * 1_000_000
    for table, moment in ((lake.batches, "closed_at"), (lake.late, "at")):
        columns = [moment, "input_tokens", "output_tokens", "cost_usd"]
        for row in table.read(moment, today, columns=columns).to_pylist():
            budget.restore(row[moment], row["input_tokens"] + row["output_tokens"], row["cost_usd"])
    return budget


def _now() -> datetime:
    return datetime.now(UTC)
