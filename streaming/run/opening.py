"""The composition root: takes an agent over and runs its parts together."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from agent.model.budget import SpendingBudget
from agent.model.steady_clock import SteadyClock
from agent.triage.ledger import MemoryLedger
from agent.triage.triage import POLICIES, Triage
from schemas.contract import EventContract, load_contract
from schemas.errors import ConfigurationError, DataLossError
from schemas.policy import load_policy
from schemas.spec import AgentSpec
from streaming.audit.audit_log import AuditPlaces, LakeAudit
from streaming.batch.alerts_lane import MOVED, AlertsLane, LaneChange, choose_lane, kept_lane
from streaming.batch.backfill_mark import contract_so_far, unfinished_backfill
from streaming.batch.batch_audit import BatchAudit
from streaming.batch.compose import build_engine, check_spec, keep_model, lake_schemas, rule_watch
from streaming.batch.deciders import Canary, Deciders
from streaming.batch.engine import Engine
from streaming.batch.late_answers import LateAnswers, LateSettings, LateStep
from streaming.batch.mending import mend
from streaming.batch.outbox import Outbox
from streaming.batch.pipeline import BatchStep, Pipeline
from streaming.batch.queries import LOSS, MOVE, new_query, newest_of_the_stream, stamp_of
from streaming.batch.resuming import no_records
from streaming.batch.runner import StreamSettings, starting_offsets
from streaming.batch.spending import restored_budget
from streaming.batch.store import Decision
from streaming.delta.lake import Lake, LakeTable, Tenure
from streaming.delta.ledger import LakeLedger
from streaming.delta.maintenance import Maintenance, at_low_priority
from streaming.delta.stored import open_version
from streaming.home.settings import Settings
from streaming.kafka.publish import OutboxRecord, Publisher, PublisherSettings
from streaming.kafka.source import initial_offsets, query_id_of
from streaming.kafka.topic import topic_exists
from streaming.labels.book import LabelBook
from streaming.labels.entity_labels import EntityLabels
from streaming.labels.label_topic import LabelTopic
from streaming.quarantine.lane import RequeueLane
from streaming.quarantine.requests import requeues_path
from streaming.rules.rule_file import RuleWatch
from streaming.service.health import Condition, Health
from streaming.service.worker import Worker
from streaming.versions.arithmetic import with_arithmetic
from streaming.versions.clients import Clients
from streaming.versions.registry_table import registry_path
from streaming.versions.renewal import RegistryWatch, Renewal, spec_in_force
from streaming.versions.shadow import AgentTables, Shadow
from streaming.versions.stages import Stage


@dataclass(frozen=True)
class Hooks:
    """Seams for tests: called after each step, and before a publishing transaction commits.

    `publisher` makes what publishes, where that is not to be a broker's.
    """

    reached: Callable[[BatchStep], None] = lambda _: None
    before_commit: Callable[[Sequence[OutboxRecord]], None] = lambda _: None
    late_reached: Callable[[LateStep], None] = lambda _: None
    publisher: Callable[..., Publisher] | None = None


@dataclass(frozen=True)
class Agent:
    """A started pipeline, what its query has to read, what people ask for beside it, and late answers.

    `late` is None where none are sought.
    """

    pipeline: Pipeline
    stream: StreamSettings
    requested: RequeueLane
    late: LateAnswers | None


@contextmanager
def open_agent(
    settings: Settings,
    spec: AgentSpec,
    bootstrap: str,
    clients: Clients,
    hooks: Hooks = Hooks(),
    health: Health | None = None,
    tenure: Tenure | None = None,
    *,
    move_alerts: bool = False,
) -> Iterator[Agent]:
    """Take an agent over: claim its tables, fence its predecessor, repair what is open, yield it started.

    Args:
        clients: know whom its versions ask.
        hooks: seams for crash tests.
        health: what the agent's parts say they suffer from.
        tenure: what a process keeps that opens the agent again and again.
        move_alerts: the next alerts may leave on another topic than those before.

    Raises:
        ConfigurationError: spec, contract, policy, prompt or rules cannot be used.
        DataLossError: something that others rest on is gone.
        FencedError: another driver is taking over at the same moment, or has since this one's tenure.
    """
    mend(settings, spec)
    in_force = with_arithmetic(settings, spec_in_force(settings, spec), spec)
    opening = _Opening.of(settings, in_force, bootstrap, clients, hooks, health or Health(), tenure)
    opening.stream()  # what does not belong together is said before anything is repaired
    with ExitStack() as stack:
        shadow, change = opening.shadow(), opening.lane(move=move_alerts)
        pipeline, late = opening.pipeline(stack, shadow, change.lane)
        stack.callback(pipeline.close)
        pipeline.start()
        if change.moved:
            name = new_query(MOVE)
            pipeline.process(no_records, name, 0, dict, mark={MOVED: asdict(change.lane)})
        stack.callback(shadow.close)
        shadow.start()
        maintenance = opening.maintenance()
        stack.callback(maintenance.close)
        maintenance.start()
        # Only now is every decided batch closed, whose offsets a new query starts from.
        yield Agent(pipeline, opening.stream(), opening.requested(pipeline), late)


def beside(stage: Stage, engine_for: Callable[[AgentSpec], Engine]) -> Callable[[AgentSpec], Engine]:
    """Have the engines of versions in a stage keep their checkpoints in folders of their own."""

    def build(wanted: AgentSpec) -> Engine:
        engine = engine_for(wanted)
        return replace(engine, checkpoints=engine.checkpoints / f"{stage}-{wanted.digest[:12]}")

    return build


@dataclass(frozen=True)
class _Opening:
    """An agent on its way up: its tables are claimed, its parts are made one from the other."""

    settings: Settings
    spec: AgentSpec
    contract: EventContract
    rules: RuleWatch
    bootstrap: str
    clients: Clients
    hooks: Hooks
    health: Health
    lake: Lake
    ledger: LakeLedger
    budget: SpendingBudget
    clock: SteadyClock
    verdicts: EntityLabels

    @classmethod
    def of(
        cls,
        settings: Settings,
        spec: AgentSpec,
        bootstrap: str,
        clients: Clients,
        hooks: Hooks,
        health: Health,
        tenure: Tenure | None,
    ) -> _Opening:
        """Claim the tables of a spec that has been checked."""
        check_spec(spec, kept=contract_so_far(settings.lake(spec.name), spec))
        contract = load_contract(spec.data_sources.transactions.contract)
        rules = rule_watch(spec, contract, health)
        spec, folder = rules.load(), settings.lake(spec.name)
        _check_loaded(folder, spec)
        lake = Lake.open(folder, spec, lake_schemas(contract), retention=spec.replay_horizon, tenure=tenure)
        _check_closed(lake)
        clock = SteadyClock(_now)
        book = LabelBook(folder / spec.tables.labels, retention=spec.replay_horizon)
        return cls(
            settings=settings,
            spec=spec,
            contract=contract,
            rules=rules,
            bootstrap=bootstrap,
            clients=clients,
            hooks=hooks,
            health=health,
            lake=lake,
            ledger=LakeLedger(lake.ledger, spec.name, _now),
            budget=restored_budget(spec.llm.budget, lake, clock),
            clock=clock,
            verdicts=EntityLabels(book, lake.transactions.path, lake.alerts.path, contract.entity_names),
        )

    def pipeline(
        self, stack: ExitStack, shadow: Shadow, lane: AlertsLane
    ) -> tuple[Pipeline, LateAnswers | None]:
        engine, audit = self.engine(self.spec), self._audit()
        outbox = Outbox(self.spec.name, self.lake.alerts, self._publisher(lane), lane)
        late = self._late_answers(outbox, audit)
        registry = RegistryWatch(registry_path(self.settings, self.spec))
        registry.look()
        asking = None if registry.canary is None else Canary(self.engine(registry.canary), 100)
        _ask_late_with(late, Deciders(engine, asking))
        pipeline = Pipeline(
            engine=engine,
            engine_for=self.engine,
            lake=self.lake,
            outbox=outbox,
            audit=audit,
            verdicts=self.verdicts,
            labels=self._label_topic(stack),
            late=late,
            renew=self._renewal(registry, late, shadow),
            health=self.health,
            reached=self.hooks.reached,
        )
        return pipeline, late

    def engine(self, wanted: AgentSpec) -> Engine:
        client = self.clients.of(wanted)
        engine = build_engine(self.settings, wanted, self.contract, client, self.ledger, self.budget)
        keep_model(self.settings, wanted)
        return replace(engine, health=self.health)

    def shadow(self) -> Shadow:
        lake, names = self.lake, self.spec.tables
        stored = [open_version(table.path) for table in (lake.transactions, lake.batches)]
        transactions, batches = (table for table in stored if table is not None)
        return Shadow(
            lake.transactions.path.parent / names.shadow,
            AgentTables(transactions, batches, self.verdicts),
            RegistryWatch(registry_path(self.settings, self.spec)),
            beside("shadow", self._engine_apart),
            self.spec.replay_horizon,
            _now,
            self.health,
        )

    def maintenance(self) -> Worker:
        lake, sandbox = (place(self.spec.name) for place in (self.settings.lake, self.settings.sandbox))

        def tables() -> list[Path]:  # snapshots stay as they are
            return [log.parent for log in (*lake.glob("*/_delta_log"), *sandbox.glob("**/_delta_log"))]

        return Worker(
            "maintenance",
            Maintenance(tables).round,
            Condition.MAINTENANCE_FAILING,
            self.health,
            begin=at_low_priority,
            fatal=(),
        )

    def stream(self) -> StreamSettings:
        return stream_settings(self.settings, self.spec, self.bootstrap, self.lake.batches)

    def requested(self, pipeline: Pipeline) -> RequeueLane:
        path = requeues_path(self.settings, self.spec)
        return RequeueLane(path, self.spec.replay_horizon, self.spec.name, self.contract, self.lake, pipeline)

    def _engine_apart(self, wanted: AgentSpec) -> Engine:
        budget = SpendingBudget(wanted.llm.budget)
        engine = build_engine(self.settings, wanted, self.contract, None, MemoryLedger(), budget)
        return replace(engine, health=self.health)

    def _renewal(self, registry: RegistryWatch, late: LateAnswers | None, shadow: Shadow) -> Renewal:
        def switched(to: Deciders) -> None:
            self.budget.limit(to.engine.spec.llm.budget)
            _ask_late_with(late, to)

        canary_for = beside("canary", self.engine)
        return Renewal(self.rules, registry, self.engine, canary_for, switched, shadow.release, self.health)

    def lane(self, *, move: bool) -> LaneChange:
        newest = self.lake.transactions.newest_metadata()
        return choose_lane(
            self.spec.alerts.topic,
            kept_lane(self.lake.batches, None if newest is None else newest["pins"]),
            self.lake.alerts.next_number("outbox_seq"),
            move=move,
            left=self._left_on,
        )

    def _left_on(self, lane: AlertsLane) -> int:
        """Return the next outbox_seq that has not left on a lane, by Kafka or, where it is gone, the lake."""
        if not topic_exists(self.bootstrap, lane.topic):
            return max(self.lake.batches.maximum("next_outbox_seq") or 0, lane.first)
        publisher = self._publisher(lane)
        try:
            publisher.open(self.lake.alerts.next_number("outbox_seq"))
            return publisher.marker
        finally:
            publisher.close()

    def _publisher(self, lane: AlertsLane) -> Publisher:
        return (self.hooks.publisher or Publisher)(
            PublisherSettings(self.bootstrap, lane.topic, self.spec.name, first=lane.first),
            before_commit=self.hooks.before_commit,
            check_ours=self.lake.alerts.check_ours,
        )

    def _audit(self) -> BatchAudit:
        audit = LakeAudit(AuditPlaces(self.settings, self.spec), self.spec.replay_horizon, _now)
        asks_late = self.spec.llm.mode == "deferred"
        return BatchAudit(audit, self.lake, self.spec.name, asks_late=asks_late)

    def _late_answers(self, outbox: Outbox, audit: BatchAudit) -> LateAnswers | None:
        if self.spec.llm.mode == "inline":
            return None
        policy = load_policy(self.spec.policy, POLICIES)
        texts = tuple(name for name in self.contract.untrusted_text if policy.allows(f"texts.{name}"))
        return LateAnswers(
            self.spec.name,
            self.lake,
            outbox,
            self.clients.abandon,
            LateSettings(self.spec.llm.patience, texts, self.spec.alerts.max_bytes),
            told=audit.asked_late,
            clock=_now,
            spent_at=self.clock,
            reached=self.hooks.late_reached,
            health=self.health,
        )

    def _label_topic(self, stack: ExitStack) -> LabelTopic | None:
        topic = self.spec.data_sources.labels.topic
        if topic is None:
            return None
        rejects = self.settings.lake(self.spec.name) / self.spec.tables.labels_quarantine
        retention, book = self.spec.replay_horizon, self.verdicts.book
        return stack.enter_context(
            LabelTopic(self.bootstrap, topic, book, rejects=rejects, retention=retention)
        )


def _ask_late_with(late: LateAnswers | None, deciders: Deciders) -> None:
    """Alerts that wait for a model go on waiting for the one before, where a version asks none."""
    asking = {each.spec.version: each.triage for each in deciders.engines if isinstance(each.triage, Triage)}
    active = asking.pop(deciders.engine.spec.version, None)
    if late is not None:
        late.ask_with(active, asking)


def stream_settings(
    settings: Settings, spec: AgentSpec, bootstrap: str, batches: LakeTable
) -> StreamSettings:
    """Decide what the query reads and from where.

    Raises:
        DataLossError: the checkpoint and the lake do not belong together.
    """
    source = spec.data_sources.transactions
    checkpoint = settings.checkpoint(spec.name)
    query = query_id_of(checkpoint)
    closed = {} if query is None else {query: batches.last_batch(stamp_of(spec.name, query))}
    newest = newest_of_the_stream(batches)
    offsets = newest.get("offsets")
    return StreamSettings(
        bootstrap=bootstrap,
        topic=source.topic,
        checkpoint=checkpoint,
        max_records=source.max_records_per_batch,
        max_bytes=source.max_bytes_per_batch,
        starting=starting_offsets(checkpoint, closed, offsets, source.starting_offsets),
        reached=json.loads(offsets or "{}").get(source.topic) or initial_offsets(checkpoint, source.topic),
        topic_id=json.loads(newest.get("topic_ids") or "{}").get(source.topic),
        superseded=newest.get("query_id", "").startswith(LOSS),
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


def _now() -> datetime:
    return datetime.now(UTC)
