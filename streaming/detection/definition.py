"""What of a spec the scores depend on: its entities, its detectors, and a hash of all of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from schemas.detection import Detectors
from schemas.errors import ConfigurationError, nearest
from schemas.instants import MICRO
from schemas.spec import FIRST_ARITHMETIC, AgentSpec
from streaming.detection.counterparties import Counterparties
from streaming.detection.detectors import HABIT, TRAVEL
from streaming.detection.habit import Habit
from streaming.detection.local_times import LocalClocks
from streaming.detection.model import SupervisedModel
from streaming.detection.multivariate import Multivariate
from streaming.detection.stateful import StatefulDetector
from streaming.detection.travel import Travel
from streaming.detection.windows import Windows
from streaming.profiles.converted_amounts import ConvertedAmounts
from streaming.profiles.currency_scales import CurrencyScales
from streaming.profiles.directions import entity_of, holds_refunds
from streaming.profiles.levels import AmountLevel, CommonLevel, OwnLevels
from streaming.profiles.met_currencies import MetCurrencies

DETECTORS = tuple(Detectors.model_fields)
_ALGORITHM = 3
_HALF_LIFE_ROWS = 65_536
_KNOWS_SEVERAL_CURRENCIES = 3


def horizons_of(spec: AgentSpec) -> tuple[float, ...]:
    """Return the horizons of the profiles in seconds."""
    return tuple(horizon.total_seconds() for horizon in spec.profiles.horizons)


def idle_horizon(spec: AgentSpec) -> int | None:
    """Return the microseconds after which an idle entity is forgotten, None for never."""
    horizon = spec.profiles.idle_horizon
    return None if horizon is None else horizon // MICRO


def block_decay(spec: AgentSpec) -> float:
    """Return what one block of rows leaves of the statistics before it."""
    return float(0.5 ** (spec.profiles.block_rows / _HALF_LIFE_ROWS))


def amount_level(spec: AgentSpec) -> AmountLevel:
    """Build what tells the level of all amounts, by the spec's arithmetic."""
    rows = spec.profiles.block_rows
    first = spec.arithmetic_in_force == FIRST_ARITHMETIC
    return OwnLevels(rows) if first else CommonLevel(rows, block_decay(spec))


def amount_scales(spec: AgentSpec, *, refunds: bool) -> CurrencyScales | None:
    """Build what makes amounts in several currencies comparable; None where they are taken as they stand.

    Args:
        refunds: those among the transactions have scales of their own.
    """
    if spec.profiles.currencies == "mixed":
        return None
    to = reference_currency(spec)
    return ConvertedAmounts(to, refunds=refunds) if to else CurrencyScales(refunds=refunds)


def met_currencies(spec: AgentSpec) -> MetCurrencies | None:
    """Build what knows whether amounts taken as they stand are in one currency; None where nothing asks."""
    asked = spec.profiles.currencies == "mixed" and spec.arithmetic_in_force >= _KNOWS_SEVERAL_CURRENCIES
    return MetCurrencies() if asked else None


def reference_currency(spec: AgentSpec) -> str:
    """Return the currency that all amounts are compared in, empty where there is none."""
    rates = spec.data_sources.rates
    return rates.to if rates is not None and spec.profiles.currencies == "reference" else ""


def chosen_entities(spec: AgentSpec, entities: tuple[str, ...]) -> tuple[str, ...]:
    """Return the kinds of entities, pairs included, that have a profile.

    Args:
        entities: the contract's.

    Raises:
        ConfigurationError: the spec names one that is not there.
    """
    profiles = spec.profiles
    for key, names in (("entities", profiles.entities), ("pairs", sum(profiles.pairs, ()))):
        for name in names:
            if name not in entities:
                problem = f"no entity {name!r} in the contract; {nearest(name, entities)}"
                raise ConfigurationError(problem, key=f"profiles.{key}")
    chosen = (*(profiles.entities or entities), *profiles.pair_names)
    named = {f"detectors.{name}.entities": getattr(spec.detectors, name).entities for name in DETECTORS}
    for key, names in (*named.items(), ("profiles.windows", profiles.windows), *_peers(spec)):
        for name in names:
            if name not in chosen:
                raise ConfigurationError(
                    f"no entity {name!r} has a profile; {nearest(name, chosen)}", key=key
                )
    return chosen


def _peers(spec: AgentSpec) -> list[tuple[str, Sequence[str]]]:
    peers = spec.profiles.peers
    return [("profiles.peers", (entity, group)) for entity, group in peers.items()]


def stateful_detectors(spec: AgentSpec, entities: tuple[str, ...]) -> Sequence[StatefulDetector]:
    """Build the detectors with a memory of their own that are switched on.

    Windows and hours are those of payments or of refunds; places and counterparties are those of payments.

    Args:
        entities: kinds that have a profile, those of refunds included.
    """
    horizons, blocks = horizons_of(spec), (spec.profiles.block_rows, block_decay(spec))
    payments = tuple(kind for kind in entities if not holds_refunds(kind))
    windows = spec.profiles.windows
    windowed = _directed(tuple(windows), entities)
    found: list[StatefulDetector] = [Windows(kind, windows[entity_of(kind)]) for kind in windowed]
    chosen = spec.detectors.counterparties
    if chosen.enabled:
        found.append(Counterparties(chosen.entities, horizons, chosen.cells, *blocks))
    found += [Travel(kind, spec.detectors.travel, *blocks) for kind in _kinds(spec, TRAVEL, payments)]
    clocks = LocalClocks(spec.detectors.habit.zone, spec.detectors.habit.zone_column)
    found += [Habit(kind, horizons[-1], *blocks, clocks) for kind in _kinds(spec, HABIT, entities)]
    return found


def multivariate_detector(spec: AgentSpec, feature_names: Sequence[str]) -> Multivariate | None:
    """Build the detector that uses all features together, if it is switched on."""
    chosen = spec.detectors.multivariate
    if not chosen.enabled:
        return None
    return Multivariate(
        feature_names,
        chosen.entities,
        chosen.seed,
        spec.profiles.block_rows,
        block_decay(spec),
        scaled=spec.profiles.currencies == "scaled",
        currency=reference_currency(spec),
    )


def _kinds(spec: AgentSpec, detector: str, entities: tuple[str, ...]) -> tuple[str, ...]:
    chosen = getattr(spec.detectors, detector)
    payments = tuple(kind for kind in entities if not holds_refunds(kind))
    return _directed(chosen.entities or payments, entities) if chosen.enabled else ()


def _directed(named: tuple[str, ...], kinds: tuple[str, ...]) -> tuple[str, ...]:
    """Add the refunds of what is named, where they have kinds of their own."""
    return (*named, *(kind for kind in kinds if holds_refunds(kind) and entity_of(kind) in named))


def definition_hash(spec: AgentSpec, kinds: tuple[str, ...], model: SupervisedModel | None) -> str:
    """Return a hash of everything that scores depend on besides the rows; hex.

    Args:
        kinds: those with a profile; refunds are kinds of their own where they are known.

    Of what is switched off nothing counts, so that a new detector leaves older lakes as they are.
    """
    detectors, profiles = spec.detectors.model_dump(mode="json"), spec.profiles.model_dump(mode="json")
    definition = {
        "algorithm": _ALGORITHM,
        "half_life_rows": _HALF_LIFE_ROWS,
        "entities": kinds,
        "horizons": horizons_of(spec),
        "idle_horizon": idle_horizon(spec),
        "block_rows": spec.profiles.block_rows,
        "detectors": {name: each for name, each in detectors.items() if each["enabled"]},
        "memories": detectors["risk"]["memories"],
        **({"peers": profiles["peers"]} if profiles["peers"] else {}),
        **({"windows": profiles["windows"]} if profiles["windows"] else {}),
        **({"currencies": chosen} if (chosen := spec.profiles.currencies) != "mixed" else {}),
        **({"reference_currency": to} if (to := reference_currency(spec)) else {}),
        "model": None if model is None else model.digest,
        **({"arithmetic": number} if (number := spec.arithmetic_in_force) > FIRST_ARITHMETIC else {}),
    }
    return hashlib.sha256(json.dumps(definition, sort_keys=True).encode()).hexdigest()
