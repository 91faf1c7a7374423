"""The agent spec: one YAML file that says what an agent reads, how it decides and where it writes."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from schemas.addresses import is_uri, scheme_of
from schemas.cases import CaseSettings
from schemas.cluster import SparkClusterSettings
from schemas.detection import Detectors, ProfileSettings
from schemas.document_kinds import Kind
from schemas.documents import clipped, is_path
from schemas.errors import ConfigurationError
from schemas.llm import Llm
from schemas.loading import Document, Duration, load_document
from schemas.references import ExchangeRates
from schemas.retention import Retention
from schemas.rules import Rule
from schemas.subscription import Subscription, check_pattern

FIRST_ARITHMETIC, NEWEST_ARITHMETIC = 1, 3


TopicName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")]
TableName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]


class TransactionSource(Document):
    """Where transaction events come from.

    Of a batch planned larger than `max_bytes_per_batch` (keys, values and headers), the large records are
    taken in slices of a quarter of that; it remains one batch. Spark's JVM holds each slice two times,
    and has 3 GiB, or two fifths of the memory where that is less.
    """

    LATER: ClassVar[frozenset[str]] = frozenset({"max_bytes_per_batch", "topics", "topic_pattern"})

    contract: str = Field(description="name of a shipped contract, or path of a contract file")
    topic: TopicName | None = Field(default=None, description="one of `topic`, `topics` and `topic_pattern`")
    topics: tuple[TopicName, ...] = Field(default=(), description="several topics, decided as one stream")
    topic_pattern: str | None = Field(
        default=None,
        description="a regular expression for whole names of topics; those that come later are read, too",
    )
    max_records_per_batch: int = Field(default=500_000, ge=1)
    max_bytes_per_batch: int = Field(default=512 * 1024 * 1024, ge=1024 * 1024)
    starting_offsets: Literal["earliest", "latest"] = "earliest"

    @field_validator("topic_pattern")
    @classmethod
    def _understood(cls, value: str | None) -> str | None:
        return None if value is None else check_pattern(value)

    @model_validator(mode="after")
    def _one_way_to_name_them(self) -> TransactionSource:
        given = [name for name in ("topic", "topics", "topic_pattern") if getattr(self, name)]
        if len(given) != 1:
            said = f", not {' and '.join(given)}" if given else ""
            raise ValueError(f"expected one of topic, topics and topic_pattern{said}")
        if len(set(self.topics)) < len(self.topics):
            raise ValueError("topics: one is named twice")
        return self

    @property
    def subscription(self) -> Subscription:
        """What is read."""
        names = self.topics if self.topic is None else (self.topic,)
        return Subscription(names, self.topic_pattern)


class LabelSource(Document):
    """Where labels on transactions come from, besides files; no topic is read unless one is named."""

    topic: TopicName | None = None


class DataSources(Document):
    """The streams the agent reads, and the rates at which it converts amounts."""

    LATER: ClassVar[frozenset[str]] = frozenset({"rates"})

    transactions: TransactionSource
    labels: LabelSource = LabelSource()
    rates: ExchangeRates | None = None


_SNAPSHOTS = "snapshots"
_BLOCKS_TO_LEARN = 2


class ModelReference(Document):
    """A trained model that says how the features add up to a score; `flagstream train` makes them.

    `path` is the artefact's folder, relative to the spec's; with `sha256` no other model is taken for it.
    """

    path: str
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")


class TableNames(Document):
    """Names of the Delta tables, below the lake folder."""

    LATER: ClassVar[frozenset[str]] = frozenset({"requeues", "case_events", "tokens"})

    transactions: TableName = "transactions"
    quarantine: TableName = "quarantine"
    duplicates: TableName = "duplicates"
    alerts: TableName = "alerts"
    monitoring: TableName = "monitoring"
    audit: TableName = "audit"
    ledger: TableName = "ledger"
    late: TableName = "late"
    batches: TableName = "batches"
    labels: TableName = "labels"
    labels_quarantine: TableName = "labels_quarantine"
    findings: TableName = "findings"
    findings_sandbox: TableName = "findings_sandbox"
    specs: TableName = "specs"
    shadow: TableName = "shadow"
    requeues: TableName = "requeues"
    case_events: TableName = "case_events"
    tokens: TableName = "tokens"

    @model_validator(mode="after")
    def _distinct(self) -> TableNames:
        names = [getattr(self, name) for name in type(self).model_fields]
        repeated = {name for name in names if names.count(name) > 1}
        if repeated:
            raise ValueError(f"two tables share the name {sorted(repeated)[0]!r}")
        if _SNAPSHOTS in names:
            raise ValueError(f"{_SNAPSHOTS!r} is where snapshots are kept")
        return self


class Promotion(Document):
    """What another version of the spec must show before it takes over from this one.

    A label counts once its transaction is `maturity` old, so that slow ones are not missed; on either side
    at least `least_labels` must count. Alerts per day may exceed the budget by `alerts_tolerance` of it. In
    canary it decides for `canary_percent` of the contract's primary entities.
    """

    maturity: Duration = Field(default=timedelta(days=7), ge=timedelta(0))
    least_labels: int = Field(default=50, ge=1, description="alerts with a label, on either side")
    alerts_tolerance: float = Field(
        default=0.25, ge=0, le=10, description="share of the budget, rules included"
    )
    canary_percent: float = Field(
        default=10, gt=0, le=100, description="percent of primary entities that a canary decides"
    )


class Monitoring(Document):
    """When the agent calls itself degraded.

    It does where more than `rejected_share` of the records of a batch were rejected; of batches smaller than
    a hundred records the newest are taken together. It says so, without being degraded, where one entity has
    more than `entity_share` of the newest payments, as a placeholder has that stands for nobody; at 1 never.
    """

    LATER: ClassVar[frozenset[str]] = frozenset({"entity_share"})

    rejected_share: float = Field(default=0.2, gt=0, le=1)
    entity_share: float = Field(default=0.5, gt=0, le=1)


class AlertOutput(Document):
    """Where alerts go besides the table.

    An alert that would take more than `max_bytes`, key and value together, is cut to fit and says so. Topics
    admit 1 MiB unless their `max.message.bytes` says otherwise.
    """

    LATER: ClassVar[frozenset[str]] = frozenset({"max_bytes"})

    topic: TopicName
    max_bytes: int = Field(default=900_000, ge=16_384)


class AgentSpec(Document):
    """One agent, complete. Unknown keys are errors."""

    LATER: ClassVar[frozenset[str]] = frozenset({"arithmetic", "monitoring", "kafka", "retention", "cases"})
    KIND: ClassVar[Kind | None] = "spec"

    name: str = Field(pattern=r"^[a-z][a-z0-9-]*$")
    version: str = Field(pattern=r"^\d+\.\d+\.\d+$")
    orchestrator: Literal["sequential"] = "sequential"
    data_sources: DataSources
    profiles: ProfileSettings = ProfileSettings()
    detectors: Detectors = Detectors()
    model: ModelReference | None = None
    threshold: float = Field(
        default=0.99,
        gt=0,
        lt=1,
        description="rows scoring at least this are flagged: 0.99 flags about one in a hundred",
    )
    alerts_per_day: float | None = Field(
        default=None,
        gt=0,
        description="moves the threshold so that about so many rows a day are flagged; rules alert beside it",
    )
    rules: tuple[Rule, ...] = ()
    rules_file: str | None = Field(
        default=None, description="a file of further rules, read again while the agent runs when it changes"
    )
    llm: Llm = Llm()
    compute_price: float = Field(default=0.0, ge=0, description="USD per hour of the agent's machine")
    store: str | None = Field(
        default=None,
        exclude=True,
        description="where tables and what belongs to them lie: s3://bucket/prefix, az://container/prefix, "
        "abfss://container@account.host/prefix, file:///folder or a path; not given, below the home. "
        "FLAGSTREAM_STORE goes before it. It is no part of a version: a lake may move",
    )
    execution: Literal["local", "cluster"] = Field(
        default="local",
        exclude=True,
        description="where records are read and decoded, and with `cluster.buckets` partly scored: in this "
        "process's own Spark, or on the executors of a Spark cluster. It is no part of a version: what is "
        "decided is the same to the bit",
    )
    cluster: SparkClusterSettings | None = Field(
        default=None, exclude=True, description="with `execution: cluster`: which one"
    )
    tables: TableNames = TableNames()
    alerts: AlertOutput
    monitoring: Monitoring = Monitoring()
    policy: str = "default"
    kafka: str | None = Field(
        default=None,
        description="a client.properties in the spec's folder or below: how its brokers are reached, unless "
        "FLAGSTREAM_KAFKA_CONFIG says so; the policy's kafkaSecrets say which secrets it may use",
    )
    arithmetic: int | None = Field(
        default=None,
        ge=FIRST_ARITHMETIC,
        le=NEWEST_ARITHMETIC,
        description="how scores and rules over two events are computed; not given, a lake keeps the one it "
        "began with, and new lakes and newly registered versions take the newest",
    )
    promotion: Promotion = Promotion()
    replay_horizon: Duration = Field(default=timedelta(days=30), gt=timedelta(0))
    retention: Retention = Retention()
    cases: CaseSettings = CaseSettings()

    @model_validator(mode="after")
    def _keeps_what_is_needed(self) -> AgentSpec:
        spans = [rule.pattern for rule in self.rules if rule.pattern is not None]
        self.retention.check(
            [
                ("replay_horizon", self.replay_horizon),
                ("profiles.horizons", self.profiles.horizons[-1]),
                ("detectors.risk.memories", self.detectors.risk.memories[-1]),
                ("promotion.maturity", self.promotion.maturity),
                ("llm.patience", self.llm.patience),
                *(("the `within` of a rule", each.within + each.lateness) for each in spans),
            ]
        )
        age, past = self.retention.case_events, self.cases.incidents.past
        if age is not None and age <= past:
            raise ValueError("retention.case_events must be more than cases.incidents.past: norms need them")
        return self

    @field_validator("rules")
    @classmethod
    def _unique_names(cls, value: tuple[Rule, ...]) -> tuple[Rule, ...]:
        names = [rule.name for rule in value]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"two rules share the name {repeated[0]!r}")
        return value

    @model_validator(mode="after")
    def _topics_differ(self) -> AgentSpec:
        reads, labels = self.data_sources.transactions.subscription, self.data_sources.labels.topic
        if self.alerts.topic == labels or reads.includes(self.alerts.topic):
            raise ValueError("alerts.topic must differ from the topics that are read")
        if labels is not None and reads.includes(labels):
            raise ValueError("data_sources: transactions and labels must come from different topics")
        return self

    @model_validator(mode="after")
    def _names_its_cluster(self) -> AgentSpec:
        if self.execution == "cluster" and self.cluster is None:
            raise ValueError("execution: cluster needs the master's address, see cluster.master")
        return self

    @model_validator(mode="after")
    def _can_convert(self) -> AgentSpec:
        if self.profiles.currencies == "reference" and self.data_sources.rates is None:
            raise ValueError("profiles.currencies: reference needs exchange rates, see data_sources.rates")
        return self

    @property
    def rows_to_learn(self) -> int:
        """Transactions that must be known before a score can raise an alert: two blocks, to know the pace.

        A fixed threshold waits for none.
        """
        return 0 if self.alerts_per_day is None else _BLOCKS_TO_LEARN * self.profiles.block_rows

    @property
    def arithmetic_in_force(self) -> int:
        """The arithmetic of a complete spec: those pinned before it had a number mean the first."""
        return self.arithmetic or FIRST_ARITHMETIC

    def anew(self) -> AgentSpec:
        """Return the spec as a new lake begins with it: under the newest arithmetic unless it names one."""
        return self.model_copy(update={"arithmetic": self.arithmetic or NEWEST_ARITHMETIC})


def load_spec(path: Path) -> AgentSpec:
    """Read an agent spec from a YAML file; relative paths in it start at the spec's folder.

    Raises:
        ConfigurationError: naming file, key, what was expected and the nearest right name.
    """
    spec = load_document(path, AgentSpec)
    source, model = spec.data_sources.transactions, spec.model
    if is_path(source.contract):
        source = source.model_copy(update={"contract": str(path.parent / source.contract)})
    if model is not None:
        model = model.model_copy(update={"path": _placed(path, model.path)})
    rates = spec.data_sources.rates
    if rates is not None:
        table = rates.path if is_uri(rates.path) else str((path.parent / rates.path).resolve())
        rates = rates.model_copy(update={"path": table})
    sources = spec.data_sources.model_copy(update={"transactions": source, "rates": rates})
    rules = None if spec.rules_file is None else str(path.parent / spec.rules_file)
    policy = str(path.parent / spec.policy) if is_path(spec.policy) else spec.policy
    kafka = None if spec.kafka is None else _beside(path, spec.kafka)
    store = None if spec.store is None else _placed(path, spec.store)
    named = {"rules_file": rules, "policy": policy, "kafka": kafka, "store": store}
    found = {"data_sources": sources, "model": model, **named}
    return spec.model_copy(update=found)


def _placed(spec: Path, name: str) -> str:
    """Return what may lie in a store, too: that has its place already."""
    return name if scheme_of(name) else str(spec.parent / name)


def _beside(spec: Path, name: str) -> str:
    folder = spec.parent.resolve()
    found = (folder / name).resolve()
    if not found.is_relative_to(folder):
        problem = f"expected a file in the spec's folder or below, got {clipped(name)!r}"
        raise ConfigurationError(problem, where=str(spec), key="kafka")
    return str(found)
