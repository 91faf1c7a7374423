"""What a spec says of profiles and detectors."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from schemas.loading import Document, Duration
from schemas.time_fields import check_zone


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

    LATER: ClassVar[frozenset[str]] = frozenset({"currencies"})

    entities: tuple[str, ...] = ()
    currencies: Literal["mixed", "scaled", "reference"] = Field(
        default="mixed",
        description="how amounts in several currencies are compared: as they stand, each in units of what is "
        "usual in its currency, or converted by the rates that `data_sources` names",
    )
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
    """Transactions at hours of the week at which the entity is not used to be active.

    Hours are those of clocks in `zone`, UTC unless given; `zone_column` names a text column of the contract
    with the zone of each payment, such as Europe/Paris, and `zone` is that of payments without one.
    """

    LATER: ClassVar[frozenset[str]] = frozenset({"zone", "zone_column"})

    enabled: bool = False
    zone: str = "UTC"
    zone_column: str | None = None

    @field_validator("zone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        return check_zone(value)


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
