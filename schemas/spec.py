"""The agent spec: one YAML file that says what an agent reads, how it decides and where it writes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from schemas.addresses import origin_of
from schemas.errors import ConfigurationError, nearest
from schemas.loading import Document, Duration, load_document

Severity = Literal["low", "medium", "high", "critical"]
SEVERITIES: tuple[Severity, ...] = ("low", "medium", "high", "critical")
FIRST_ARITHMETIC, NEWEST_ARITHMETIC = 1, 2


TopicName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")]
TableName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")


def checked_base_url(value: str) -> str:
    """Return an endpoint's address when it is one, and has no place for a key.

    Raises:
        ValueError: it is not; the message does not quote it.
    """
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("expected an address such as https://host/v1")
    origin_of(value)
    if parts.username is not None or parts.password is not None:
        raise ValueError("no user or password in the address: name the key's variable in llm.api_key_env")
    if parts.query or parts.fragment:
        raise ValueError(
            "nothing after the path, where keys are put: name the key's variable in llm.api_key_env"
        )
    return value


class TransactionSource(Document):
    """Where transaction events come from.

    Of a batch planned larger than `max_bytes_per_batch` (keys, values and headers), the large records are
    taken in slices of a quarter of that; it remains one batch. Spark's JVM holds what is in hand two times,
    and has 3 GB.
    """

    LATER: ClassVar[frozenset[str]] = frozenset({"max_bytes_per_batch"})

    contract: str = Field(description="name of a shipped contract, or path of a contract file")
    topic: TopicName
    max_records_per_batch: int = Field(default=500_000, ge=1)
    max_bytes_per_batch: int = Field(default=512 * 1024 * 1024, ge=1024 * 1024)
    starting_offsets: Literal["earliest", "latest"] = "earliest"


class LabelSource(Document):
    """Where labels on transactions come from, besides files; no topic is read unless one is named."""

    topic: TopicName | None = None


class DataSources(Document):
    """The streams the agent reads."""

    transactions: TransactionSource
    labels: LabelSource = LabelSource()


class WindowedProfile(Document):
    """Exact counts and sums of one kind of entities over sliding windows, beside the decayed ones.

    With `delay`, the windows that end so long before a transaction are counted as well, with the frauds known
    among theirs. Windows are exact for transactions late by up to `lateness`. `current` says whether a
    transaction counts in its own windows.
    """

    horizons: tuple[Duration, ...] = (timedelta(days=1), timedelta(days=7), timedelta(days=30))
    delay: Duration | None = Field(default=None, ge=timedelta(0))
    lateness: Duration = Field(default=timedelta(hours=1), ge=timedelta(0))
    current: bool = True

    @field_validator("horizons")
    @classmethod
    def _positive(cls, value: tuple[timedelta, ...]) -> tuple[timedelta, ...]:
        if not value or min(value) <= timedelta(0) or len(set(value)) < len(value):
            raise ValueError("expected at least one duration, each above 0 and none twice")
        return value


class ProfileSettings(Document):
    """What is remembered about each entity.

    `entities` empty means every entity of the contract; each of `pairs` has a profile of its own, so that the
    first payment of a customer at a terminal differs from later ones. `block_rows` is K, the number of rows
    after which population and calibration state moves forward; `checkpoint_rows` the stored rows between
    checkpoints.
    """

    entities: tuple[str, ...] = ()
    pairs: tuple[tuple[str, str], ...] = Field(
        default=(), description="pairs of entities, such as [customer, terminal]; called customer+terminal"
    )
    peers: Mapping[str, str] = Field(
        default={},
        description="entity → entity of the same transaction whose usual amount stands in while it has "
        "little history, such as customer: segment",
    )
    horizons: tuple[Duration, ...] = (
        timedelta(hours=1),
        timedelta(days=1),
        timedelta(days=7),
        timedelta(days=30),
    )
    windows: Mapping[str, WindowedProfile] = Field(
        default={}, description="entity or pair → exact windows, as features for rules and models"
    )
    idle_horizon: Duration | None = Field(
        default=timedelta(days=365),
        description="an entity without a transaction for so long is forgotten; null for never",
    )
    block_rows: int = Field(default=1024, ge=1)
    checkpoint_rows: int = Field(default=1_000_000, ge=1)

    @field_validator("peers")
    @classmethod
    def _one_level(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        for entity, group in value.items():
            if group in value:
                raise ValueError(f"{group!r}, the peers of {entity!r}, cannot have peers in turn")
        return value

    @model_validator(mode="after")
    def _idle_beyond_the_horizons(self) -> ProfileSettings:
        if self.idle_horizon is not None and self.idle_horizon < self.horizons[-1]:
            raise ValueError("expected an idle_horizon of at least the longest of the horizons")
        return self

    @property
    def pair_names(self) -> dict[str, tuple[str, str]]:
        """What each pair is called → its entities."""
        return {"+".join(pair): pair for pair in self.pairs}

    @field_validator("pairs")
    @classmethod
    def _of_two(cls, value: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
        for pair in value:
            if pair[0] == pair[1] or sum(set(pair) == set(other) for other in value) > 1:
                raise ValueError(f"expected pairs of two different entities, each once, got {list(pair)}")
        return value

    @field_validator("horizons")
    @classmethod
    def _ascending(cls, value: tuple[timedelta, ...]) -> tuple[timedelta, ...]:
        if len(value) <= 1 or list(value) != sorted(set(value)) or value[0] <= timedelta(0):
            raise ValueError("expected at least two positive durations in ascending order")
        return value


class Detector(Document):
    """One detector's switch and weight; contributions scale with the weight.

    `entities` empty means every kind of entities that has a profile.
    """

    enabled: bool = True
    entities: tuple[str, ...] = ()
    weight: float = Field(default=1.0, gt=0, le=10)


class RiskDetector(Detector):
    """Risk of an entity by the labels on its earlier transactions.

    `memories` say how long a label speaks for its entity, counted back from the newest transaction with
    one; the detector goes by the first, a trained model sees them all.
    """

    memories: tuple[Duration, ...] = (timedelta(days=2), timedelta(days=7), timedelta(days=30))

    @field_validator("memories")
    @classmethod
    def _positive(cls, value: tuple[timedelta, ...]) -> tuple[timedelta, ...]:
        if not value or min(value) <= timedelta(0) or len(set(value)) < len(value):
            raise ValueError("expected at least one duration, each above 0 and none twice")
        return value


class CounterpartyDetector(Detector):
    """Different counterparties of an account, and transfers between two accounts that have met before.

    `entities` names who pays, then who is paid; both are accounts of one kind, and the same id in either
    place is the same account. `cells` is the size of the sketch an account keeps in each role, of 8 bytes
    each.
    """

    enabled: bool = False
    cells: int = Field(default=64, ge=8, le=4096)

    @model_validator(mode="after")
    def _two_roles(self) -> CounterpartyDetector:
        two_given = len(self.entities) == len(set(self.entities)) == len(("payer", "payee"))
        if (self.enabled or self.entities) and not two_given:
            raise ValueError("expected two entities: who pays, then who is paid")
        return self


class TravelDetector(Detector):
    """Two places between which nobody travels that fast.

    `latitude` and `longitude` name columns of the contract, in degrees. A trip longer than `tolerance`
    kilometres and faster than `fastest` km/h is impossible.
    """

    enabled: bool = False
    latitude: str = "latitude"
    longitude: str = "longitude"
    fastest: float = Field(default=1000.0, gt=0, description="km/h")
    tolerance: float = Field(default=50.0, ge=0, description="kilometres")


class HabitDetector(Detector):
    """Transactions at hours of the week at which the entity is not used to be active."""

    enabled: bool = False


class MultivariateDetector(Detector):
    """How unusual a row is in all features together, beyond what the other detectors say of it.

    It reads the features that rest on no label; `entities` leaves out those of other kinds of entities.
    Its chance follows from `seed`.
    """

    enabled: bool = False
    seed: int = Field(default=0, ge=0, lt=1 << 63)


class Detectors(Document):
    """The detectors that can be switched and weighed."""

    amount: Detector = Detector()
    rate: Detector = Detector()
    novelty: Detector = Detector()
    recurrence: Detector = Detector()
    risk: RiskDetector = RiskDetector()
    counterparties: CounterpartyDetector = CounterpartyDetector()
    travel: TravelDetector = TravelDetector()
    habit: HabitDetector = HabitDetector()
    multivariate: MultivariateDetector = MultivariateDetector()


_LONGEST = timedelta(days=3660)
_SNAPSHOTS = "snapshots"


class Pattern(Document):
    """Two events of one entity, apart by at most `within` of event time.

    `entity` is one of the contract's, or two of them as `customer+terminal`. `lateness` is taken off event
    time: by so much may events come out of order.
    """

    entity: str
    within: Duration = Field(gt=timedelta(0), le=_LONGEST)
    lateness: Duration = Field(default=timedelta(minutes=1), ge=timedelta(0), le=_LONGEST)

    @property
    def entities(self) -> tuple[str, ...]:
        """The entities that both events have in common."""
        return tuple(self.entity.split("+"))


class SequencePattern(Pattern):
    """An event for which `first` holds, then one for which `then` holds: the second raises the alert."""

    first: str
    then: str


class AbsencePattern(Pattern):
    """An event for which `after` holds, and none for which `expected` does: the first is alerted."""

    after: str
    expected: str


class Rule(Document):
    """A condition over events that raises an alert whatever the score.

    One of three forms: `when`, an SQL boolean expression over the columns of one event, for example
    `amount > 10000`; or `sequence` or `absence` of two events, whose expressions are of the same kind.
    """

    LATER: ClassVar[frozenset[str]] = frozenset({"when", "sequence", "absence"})

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    when: str | None = None
    sequence: SequencePattern | None = None
    absence: AbsencePattern | None = None
    severity: Severity
    reason: str

    @model_validator(mode="after")
    def _one_form(self) -> Rule:
        forms = ("when", "sequence", "absence")
        given = [form for form in forms if getattr(self, form) is not None]
        if len(given) != 1:
            raise ValueError(f"expected one of {', '.join(forms)}; found {' and '.join(given) or 'none'}")
        return self

    @property
    def pattern(self) -> SequencePattern | AbsencePattern | None:
        """The pattern it looks for, None for a rule over single events."""
        return self.sequence or self.absence

    @property
    def conditions(self) -> dict[str, str]:
        """Where each of its expressions stands → the expression."""
        if self.sequence is not None:
            return {"sequence.first": self.sequence.first, "sequence.then": self.sequence.then}
        if self.absence is not None:
            return {"absence.after": self.absence.after, "absence.expected": self.absence.expected}
        return {"when": self.when or ""}

    @property
    def digest(self) -> str:
        """SHA-256 of all it says, hex."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


class RuleFile(Document):
    """A file of rules that is read again whenever it changes."""

    rules: tuple[Rule, ...]


class ModelReference(Document):
    """A trained model that says how the features add up to a score; `flagstream train` makes them.

    `path` is the artefact's folder, relative to the spec's; with `sha256` no other model is taken for it.
    """

    path: str
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")


class PromptReference(Document):
    """Which prompt file is used."""

    id: str = "triage"
    version: int = Field(default=2, ge=1)


class Budget(Document):
    """What the LLM may be asked for; what does not fit gets the classification by rules or waits its turn.

    `calls_per_batch` counts the calls under one deadline; where answers are late, those under way at a time.
    When short, it goes to the most expected loss,
    uncertainty and novelty first. Days and minutes are those of UTC; money is in USD, by the prices of `llm`.
    What is not given is not limited.
    """

    calls_per_batch: int = Field(default=8, ge=0)
    tokens_per_day: int = Field(default=5_000_000, ge=0)
    tokens_per_minute: int | None = Field(default=None, ge=0)
    usd_per_day: float | None = Field(default=None, ge=0)
    usd_per_minute: float | None = Field(default=None, ge=0)


class RateLimits(Document):
    """What an endpoint admits in any minute; requests wait for their turn within the deadline."""

    requests_per_minute: int | None = Field(default=None, ge=1)
    tokens_per_minute: int | None = Field(default=None, ge=1)


class TokenPrice(Document):
    """What a model takes, in USD per million tokens."""

    input: float = Field(ge=0)
    output: float = Field(ge=0)

    def usd(self, input_tokens: float, output_tokens: float) -> float:
        """Return what so many tokens cost."""
        return (input_tokens * self.input + output_tokens * self.output) / 1_000_000


class Llm(Document):
    """The model behind triage. Without `base_url` and without a key the local model is used.

    `model` may be left out: the local model is then called `local`, an endpoint is asked for its default one.
    `api_key_env` names the environment variable that holds the key; the key itself never stands in a file.
    A model that `prices` does not name, such as the local one, counts as free. A request asks about several
    groups of like alerts, as many as the model's context holds; `max_output_tokens` are for each of them.

    `deferred`: alerts leave at once with the classification by rules, and the model's answer follows as
    revision 2; an alert that waited for `patience` without one keeps its label. `inline`: alerts wait for the
    model until the deadline.
    """

    provider: Literal["openai", "none"] = "openai"
    mode: Literal["deferred", "inline"] = "deferred"
    patience: Duration = Field(default=timedelta(days=1), gt=timedelta(0))
    model: str | None = None
    base_url: str | None = None
    api_key_env: str = Field(default="OPENAI_API_KEY", description="name of an environment variable")
    prompt: PromptReference = PromptReference()
    deadline: Duration = Field(
        default=timedelta(seconds=10),
        description="inline, how long an alert may wait; late answers have none but `patience`",
    )
    max_concurrency: int | None = Field(
        default=None, ge=1, le=64, description="requests at a time; 8 unless given, 1 for the local model"
    )
    max_output_tokens: int = Field(
        default=160, ge=16, description="about each group; the local model may write what an answer takes"
    )
    context_tokens: int = Field(default=4096, ge=256, description="prompt and answer of one request together")
    groups_per_request: int | None = Field(
        default=None, ge=1, le=64, description="8 unless given, 1 for the local model, which is slow"
    )
    budget: Budget = Budget()
    rate: RateLimits = RateLimits()
    prices: dict[str, TokenPrice] = Field(
        default={}, description="model → {input, output} in USD per million tokens"
    )

    def price_of(self, model: str) -> TokenPrice:
        """Return the price of a model, zero when none is named."""
        return self.prices.get(model) or TokenPrice(input=0.0, output=0.0)

    @field_validator("api_key_env")
    @classmethod
    def _names_a_variable(cls, value: str) -> str:
        if not _VARIABLE.fullmatch(value):
            raise ValueError("expected the name of an environment variable, such as OPENAI_API_KEY")
        return value

    @field_validator("base_url")
    @classmethod
    def _holds_no_secret(cls, value: str | None) -> str | None:
        return None if value is None else checked_base_url(value)


class TableNames(Document):
    """Names of the Delta tables, below the lake folder."""

    LATER: ClassVar[frozenset[str]] = frozenset({"requeues"})

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
    a hundred records the newest are taken together.
    """

    rejected_share: float = Field(default=0.2, gt=0, le=1)


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

    LATER: ClassVar[frozenset[str]] = frozenset({"arithmetic", "monitoring"})

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
    tables: TableNames = TableNames()
    alerts: AlertOutput
    monitoring: Monitoring = Monitoring()
    policy: str = "default"
    arithmetic: int | None = Field(
        default=None,
        ge=FIRST_ARITHMETIC,
        le=NEWEST_ARITHMETIC,
        description="how scores and rules over two events are computed; not given, a lake keeps the one it "
        "began with, and new lakes and newly registered versions take the newest",
    )
    promotion: Promotion = Promotion()
    replay_horizon: Duration = Field(default=timedelta(days=30), gt=timedelta(0))

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
        sources = self.data_sources
        read = [sources.transactions.topic, sources.labels.topic]
        if self.alerts.topic in read:
            raise ValueError("alerts.topic must differ from the topics that are read")
        if read[0] == read[1]:
            raise ValueError("data_sources: transactions and labels must come from different topics")
        return self

    @property
    def arithmetic_in_force(self) -> int:
        """The arithmetic of a complete spec: those pinned before it had a number mean the first."""
        return self.arithmetic or FIRST_ARITHMETIC

    def anew(self) -> AgentSpec:
        """Return the spec as a new lake begins with it: under the newest arithmetic unless it names one."""
        return self.model_copy(update={"arithmetic": self.arithmetic or NEWEST_ARITHMETIC})

    @property
    def digest(self) -> str:
        """SHA-256 of the whole spec, hex, as pinned in every batch."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


def load_spec(path: Path) -> AgentSpec:
    """Read an agent spec from a YAML file; relative paths in it start at the spec's folder.

    Raises:
        ConfigurationError: naming file, key, what was expected and the nearest right name.
    """
    spec = load_document(path, AgentSpec)
    source, model = spec.data_sources.transactions, spec.model
    if _is_path(source.contract):
        source = source.model_copy(update={"contract": str(path.parent / source.contract)})
    if model is not None:
        model = model.model_copy(update={"path": str(path.parent / model.path)})
    sources = spec.data_sources.model_copy(update={"transactions": source})
    rules = None if spec.rules_file is None else str(path.parent / spec.rules_file)
    return spec.model_copy(update={"data_sources": sources, "model": model, "rules_file": rules})


def _is_path(name: str) -> bool:
    return name.endswith((".yaml", ".yml", ".json")) or "/" in name


def resolve_named(name: str, folder: Path, kind: str) -> Path:
    """Return the file `name` stands for: a path when it looks like one, else `folder/name.yaml`.

    Raises:
        ConfigurationError: no such name; the nearest shipped one is suggested.
    """
    if _is_path(name):
        return Path(name)
    shipped = {path.stem: path for path in folder.glob("*.yaml")}
    if name not in shipped:
        raise ConfigurationError(f"no {kind} named {name!r}; {nearest(name, shipped)}")
    return shipped[name]
