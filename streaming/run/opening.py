"""The composition root: takes an agent over and runs its parts together.

An agent is made of its surroundings, its definition, what it has claimed, the engines of its versions and the
end of its alerts. Each is made once, here, and every part below is made of them by one short function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from agent.model.budget import SpendingBudget
from agent.triage.triage import Triage, TriageResult
from schemas.errors import ConfigurationError
from schemas.instants import utc_now
from schemas.spec import AgentSpec
from streaming.audit.audit_log import AuditPlaces, LakeAudit
from streaming.batch.alerts_lane import MOVED, AlertsLane
from streaming.batch.backfill_mark import contract_so_far
from streaming.batch.batch_audit import BatchAudit
from streaming.batch.deciders import Canary, Deciders
from streaming.batch.lake_left import check_none_left
from streaming.batch.late_answers import LateAnswers, LateSettings
from streaming.batch.mending import mend
from streaming.batch.observer import UNOBSERVED, BatchObserver
from streaming.batch.outbox import Outbox
from streaming.batch.pipeline import Pipeline
from streaming.batch.queries import MOVE, new_query
from streaming.batch.resuming import no_records
from streaming.batch.stream_settings import StreamSettings
from streaming.definition.agent_definition import AgentDefinition
from streaming.delta.erasure_plan import check_none_under_way
from streaming.delta.lake import Tenure
from streaming.delta.lake_reader import LakeReader
from streaming.delta.log_files import LOG
from streaming.delta.maintenance import Maintenance, at_low_priority, tables_below
from streaming.delta.stored import open_version
from streaming.home.placed_agent import PlacedAgent
from streaming.kafka.schema_registry import schema_source
from streaming.labels.label_topic import LabelTopic
from streaming.output.log import log
from streaming.profiles.entity_buckets import BucketPlace
from streaming.quarantine.lane import RequeueLane
from streaming.quarantine.requests import requeues_place
from streaming.retention.enforcing import RetentionKeeper
from streaming.rules.rule_file import RuleWatch
from streaming.run.alerts_end import AlertsEnd
from streaming.run.claimed import Claimed, claim
from streaming.run.engines import Engines, saved_apart
from streaming.run.stream_start import stream_settings
from streaming.run.surroundings import Hooks, Surroundings
from streaming.service.health import Condition, Health
from streaming.service.last_read import LastRead
from streaming.service.worker import Worker
from streaming.setup.file_systems import HOME_SETTINGS, check_file_system
from streaming.store.place import Place
from streaming.versions.arithmetic import with_arithmetic
from streaming.versions.clients import Clients
from streaming.versions.registry_watch import RegistryWatch, spec_in_force
from streaming.versions.renewal import Renewal
from streaming.versions.shadow import AgentTables, Shadow


@dataclass(frozen=True)
class Agent:
    """A started pipeline, what its query has to read, what people ask for beside it, and late answers.

    `late` is None where none are sought. `registry` says which versions the next batch is decided by, and
    `budget` what is spent on models; `rules` are the spec's own, for as long as no version is active.
    """

    pipeline: Pipeline
    stream: StreamSettings
    requested: RequeueLane
    late: LateAnswers | None
    registry: RegistryWatch
    outbox: Outbox
    budget: SpendingBudget
    rules: RuleWatch

    def check_rules(self) -> None:
        """Say whether a file of rules that has changed can be used, also while no batch comes."""
        if self.registry.newest.active is None:
            self.rules.check()


@contextmanager
def open_agent(
    agent: PlacedAgent,
    bootstrap: str,
    clients: Clients,
    hooks: Hooks = Hooks(),  # noqa: B008 -- frozen and without state
    health: Health | None = None,
    tenure: Tenure | None = None,
    *,
    move_alerts: bool = False,
    observer: BatchObserver = UNOBSERVED,
    last_read: LastRead | None = None,
    buckets: BucketPlace | None = None,
) -> Iterator[Agent]:
    """Take an agent over: claim its tables, fence its predecessor, repair what is open, yield it started.

    Args:
        clients: know whom its versions ask.
        hooks: seams for crash tests.
        health: what the agent's parts say they suffer from.
        tenure: what a process keeps that opens the agent again and again.
        move_alerts: the next alerts may leave on another topic than those before.
        observer: learns of the agent's batches.
        last_read: what the process has read when it opened the agent before, and goes on by where that
            cannot be used any more.
        buckets: where entities are held, None for this process.

    Raises:
        ConfigurationError: spec, contract, policy, prompt or rules cannot be used, or the agent's lake was
            left elsewhere.
        DataLossError: something that others rest on is gone.
        MachineError: the lake lies on a file system of the network.
        FencedError: another driver is taking over at the same moment, or has since this one's tenure.
    """
    _check_disk(agent)
    check_none_left(agent)
    check_none_under_way(agent.lake)
    mend(agent)
    in_force = with_arithmetic(spec_in_force(agent), agent)
    at = (agent.settings, bootstrap, clients, hooks)
    around = Surroundings(*at, health or Health(), observer, last_read or LastRead(), buckets)
    opening = _Opening.of(around, in_force, tenure)
    opening.stream()  # what does not belong together is said before anything is repaired
    with ExitStack() as stack:
        yield opening.started(stack, move_alerts=move_alerts)


def _log_kept(agent: str, fault: ConfigurationError) -> None:
    log("definition_kept", f"{fault}; what was read before stays in force", agent=agent)


def _check_disk(agent: PlacedAgent) -> None:
    lake = agent.lake
    if lake.is_local:
        named_by = HOME_SETTINGS if agent.settings.store is None else "store of the spec or FLAGSTREAM_STORE"
        check_file_system(lake.path, named_by)


@dataclass(frozen=True)
class _Opening:
    """An agent on its way up: what it is made of is there, its parts are made one from the other."""

    around: Surroundings
    definition: AgentDefinition
    rules: RuleWatch
    claimed: Claimed
    engines: Engines
    registry: RegistryWatch

    @classmethod
    def of(cls, around: Surroundings, named: AgentSpec, tenure: Tenure | None) -> _Opening:
        """Check a spec, then claim its tables."""
        kept = contract_so_far(PlacedAgent(around.settings, named))
        definition = around.last_read.or_before(
            ("definition", named.model_dump_json()),
            lambda: AgentDefinition.load(named, kept=kept),
            partial(_log_kept, named.name),
        )
        rules = definition.rule_watch(named, around.health, around.last_read)
        definition = definition.with_rules(rules.begin())
        claimed = claim(around.settings, definition, tenure)
        registry = RegistryWatch(PlacedAgent(around.settings, named), around.health)
        engines = Engines(around, definition.contract, claimed)
        return cls(around, definition, rules, claimed, engines, registry)

    @property
    def spec(self) -> AgentSpec:
        return self.definition.spec

    @property
    def placed(self) -> PlacedAgent:
        return PlacedAgent(self.around.settings, self.spec)

    @property
    def reader(self) -> LakeReader:
        return LakeReader.of(self.placed)

    def started(self, stack: ExitStack, *, move_alerts: bool) -> Agent:
        """Start the parts in the order in which they need each other; the stack closes them."""
        end, shadow = AlertsEnd(self.around, self.spec.name, self.claimed.lake), self.shadow()
        change = end.choose(self.spec.alerts.topic, move=move_alerts)
        outbox = end.outbox(change)
        pipeline, late = self.pipeline(stack, shadow, outbox)
        stack.callback(pipeline.close)
        pipeline.start()
        if change.moved:
            # On record before the first alert leaves: whoever opens the agent next sends none of them again.
            _note_move(pipeline, change.lane)
            outbox.release()
        for part in (self.registry, shadow, self.maintenance()):
            stack.callback(part.close)
            part.start()
        # Only now is every decided batch closed, whose offsets a new query starts from.
        parts = (self.registry, outbox, self.claimed.budget, self.rules)
        return Agent(pipeline, self.stream(), self.requested(pipeline), late, *parts)

    def pipeline(
        self, stack: ExitStack, shadow: Shadow, outbox: Outbox
    ) -> tuple[Pipeline, LateAnswers | None]:
        engine, audit = self.engines.under(self.definition), self.audit()
        late = self.late_answers(outbox, audit)
        canary = self.registry.refresh().canary
        asking = None if canary is None else Canary(self.engines.of(canary), 100)
        _ask_late_with(late, Deciders(engine, asking))
        pipeline = Pipeline(
            engine=engine,
            engine_for=self.engines.of,
            lake=self.claimed.lake,
            outbox=outbox,
            audit=audit,
            entity_labels=self.claimed.entity_labels,
            labels=self.label_topic(stack),
            late=late,
            renew=self.renewal(late, shadow),
            health=self.around.health,
            observer=self.around.observer,
            schemas=schema_source(self.around.settings),
            last_read=self.around.last_read,
            reached=self.around.reached,
        )
        return pipeline, late

    def renewal(self, late: LateAnswers | None, shadow: Shadow) -> Renewal:
        def switched(to: Deciders) -> None:
            self.claimed.budget.limit(to.engine.spec.llm.budget)
            _ask_late_with(late, to)

        return Renewal(
            self.rules,
            self.registry,
            self.engines.of,
            saved_apart("canary", self.engines.of),
            switched,
            shadow.release,
        )

    def shadow(self) -> Shadow:
        lake = self.claimed.lake
        stored = [open_version(table.place) for table in (lake.transactions, lake.batches)]
        transactions, batches = (table for table in stored if table is not None)
        return Shadow(
            self.reader.place("shadow"),
            AgentTables(transactions, batches, self.claimed.entity_labels),
            self.registry,
            saved_apart("shadow", self.engines.apart),
            self.spec.replay_horizon,
            utc_now,
            self.around.health,
        )

    def maintenance(self) -> Worker:
        settings = self.around.settings
        tables = partial(_to_be_maintained, self.placed.lake, settings.sandbox(self.spec.name))
        return Worker(
            "maintenance",
            Maintenance(tables, also=RetentionKeeper(settings, self.in_force).round).round,
            Condition.MAINTENANCE_FAILING,
            self.around.health,
            begin=at_low_priority,
            fatal=(),
        )

    def in_force(self) -> AgentDefinition:
        """Return the definition of the version that was last seen active."""
        active = self.registry.newest.active
        return self.definition if active is None else self.engines.definition(active)

    def stream(self) -> StreamSettings:
        return stream_settings(self.placed, self.around.bootstrap, self.claimed.lake)

    def requested(self, pipeline: Pipeline) -> RequeueLane:
        place, spec = requeues_place(self.placed), self.spec
        contract, lake = self.definition.contract, self.claimed.lake
        schemas = schema_source(self.around.settings)
        return RequeueLane(place, spec.replay_horizon, spec.name, contract, lake, pipeline, schemas)

    def audit(self) -> BatchAudit:
        audit = LakeAudit(AuditPlaces(self.placed), self.spec.replay_horizon, utc_now)
        asks_late = self.spec.llm.mode == "deferred"
        return BatchAudit(audit, self.claimed.lake, self.spec.name, asks_late=asks_late)

    def late_answers(self, outbox: Outbox, audit: BatchAudit) -> LateAnswers | None:
        if self.spec.llm.mode == "inline":
            return None
        policy, fields = self.definition.policy, self.definition.contract.untrusted_text
        texts = tuple(name for name in fields if policy.allows(f"texts.{name}"))
        return LateAnswers(
            self.spec.name,
            self.claimed.lake,
            outbox,
            self.around.clients.abandon,
            LateSettings(self.spec.llm.patience, texts, self.spec.alerts.max_bytes),
            on_answers=self.late_recorder(audit),
            clock=utc_now,
            spent_at=self.claimed.clock,
            reached=self.around.hooks.late_reached,
            health=self.around.health,
        )

    def late_recorder(self, audit: BatchAudit) -> Callable[[Sequence[TriageResult], frozenset[str]], None]:
        def answered(results: Sequence[TriageResult], under_way: frozenset[str]) -> None:
            audit.asked_late(results, under_way)
            for each in results:
                if each.calls:
                    self.around.observer.answered(each)

        return answered

    def label_topic(self, stack: ExitStack) -> LabelTopic | None:
        topic = self.spec.data_sources.labels.topic
        if topic is None:
            return None
        rejects = self.reader.place("labels_quarantine")
        retention, book = self.spec.replay_horizon, self.claimed.entity_labels.book
        return stack.enter_context(
            LabelTopic(self.around.bootstrap, topic, book, rejects=rejects, retention=retention)
        )


def _note_move(pipeline: Pipeline, lane: AlertsLane) -> None:
    pipeline.process(no_records, new_query(MOVE), 0, dict, mark={MOVED: asdict(lane)})


def _to_be_maintained(lake: Place, sandbox: Path) -> list[Place]:
    """Return where tables lie that are to be maintained; snapshots stay as they are."""
    return [*tables_below(lake), *(Place.local(log.parent) for log in sandbox.glob(f"**/{LOG}"))]


def _ask_late_with(late: LateAnswers | None, deciders: Deciders) -> None:
    """Alerts that wait for a model go on waiting for the one before, where a version asks none."""
    asking = {each.spec.version: each.triage for each in deciders.deciders if isinstance(each.triage, Triage)}
    active = asking.pop(deciders.engine.spec.version, None)
    if late is not None:
        late.ask_with(active, asking)
