"""Which reasons there are under a spec, and how the surprises of a batch become their evidence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from schemas.spec import AgentSpec
from streaming.arrays.compilation import Floats, Ints
from streaming.arrays.cores import Cores
from streaming.detection.combination import beyond, remembered, strongest
from streaming.detection.detectors import AMOUNT, NOVELTY, OF_PROFILES, RATE, RECURRENCE, RISK
from streaming.detection.features import EVIDENCE, EntityBatch, reason_of
from streaming.detection.multivariate import EVENT
from streaming.detection.stateful import DetectorResult, StatefulDetector
from streaming.profiles.directions import alike, entity_of

POPULATION = "population"


class Weighing:
    """Turns what profiles and detectors found into evidence, one column per reason.

    Args:
        spec: says which detectors watch which entities, and their weights.
        entities: those with a profile.
        detectors: those with a memory of their own.
        features: those that a model in force goes by, so that what it adds has a reason.
    """

    def __init__(
        self,
        spec: AgentSpec,
        entities: tuple[str, ...],
        detectors: Sequence[StatefulDetector],
        features: Sequence[str] = (),
    ) -> None:
        self._chosen = {name: getattr(spec.detectors, name) for name in OF_PROFILES}
        self._entities, self._pairs = entities, spec.profiles.pair_names
        beside = [name for detector in detectors for name in detector.reason_names]
        learned = [reason_of(name) for name in features if name != EVIDENCE]
        joint = [EVENT] if spec.detectors.multivariate.enabled else []
        self.reason_names = tuple(dict.fromkeys((*self._of_profiles(), *beside, *joint, *learned)))
        risky = f"{RISK}."
        self._of_the_row = [
            name for name in self.reason_names if name != EVENT and not name.startswith(risky)
        ]
        self._views = self._views_of_one_thing(detectors)
        self._weights = self._weights_of(spec)

    def uses(self, detector: str, entity: str) -> bool:
        """Return whether a detector that goes by profiles watches one kind of entities."""
        chosen = self._chosen[detector]
        return chosen.enabled and (not chosen.entities or entity_of(entity) in chosen.entities)

    def evidence(
        self,
        views: Mapping[str, EntityBatch],
        population: Floats,
        results: Iterable[DetectorResult],
        cores: Cores,
    ) -> Floats:
        """Return the evidence of each reason, nats, float64[n, reasons].

        Args:
            views: by entity.
            population: nats of the amounts among all amounts, float64[n].
            results: of the detectors with a memory of their own.
            cores: among which the rows are shared out.
        """
        nats = {f"{AMOUNT}.{POPULATION}": population}
        for entity, view in views.items():
            nats |= {f"{AMOUNT}.{entity}": view.amounts, f"{RATE}.{entity}": view.others[:, 0]}
            nats[f"{NOVELTY}.{entity}"] = self._novelty(entity, views)
        for result in results:
            nats |= result.nats
        found = np.zeros((len(population), len(self.reason_names)))
        cores.over(lambda rows: self._weigh(nats, views, rows, found[rows]), len(found))
        return found

    def _weigh(
        self, nats: Mapping[str, Floats], views: Mapping[str, EntityBatch], rows: slice, found: Floats
    ) -> None:
        for names in self._views:
            strongest(np.column_stack([nats[name][rows] for name in names]), self._columns(names), found)
        for entity, view in views.items():
            self._remember(entity, view, rows, found)
        if EVENT in nats:
            beyond(nats[EVENT][rows], self._columns(self._of_the_row), self._column(EVENT), found)
        if self._weights is not None:
            found *= self._weights

    def _novelty(self, entity: str, views: Mapping[str, EntityBatch]) -> Floats:
        """Leave out pairs that are new because one of the two is."""
        found = views[entity].others[:, 1]
        for name in (alike(each, entity) for each in self._pairs.get(entity_of(entity), ())):
            if name in views:
                found = np.where(views[name].others[:, 1] > 0.0, 0.0, found)
        return found

    def _remember(self, entity: str, view: EntityBatch, rows: slice, found: Floats) -> None:
        if self.uses(RISK, entity):
            found[:, self._column(f"{RISK}.{entity}")] = view.labels[rows, 0]
        if self.uses(RECURRENCE, entity):
            column = self._column(f"{RECURRENCE}.{entity}")
            remembered(view.amounts[rows], view.memory[rows], column, found)

    def _of_profiles(self) -> list[str]:
        names = [
            f"{detector}.{entity}"
            for entity in self._entities
            for detector in OF_PROFILES
            if self.uses(detector, entity)
        ]
        amounts = self._entities and self._chosen[AMOUNT].enabled
        return [*names, f"{AMOUNT}.{POPULATION}"] if amounts else names

    def _views_of_one_thing(self, detectors: Sequence[StatefulDetector]) -> list[tuple[str, ...]]:
        """Bring together the reasons of which only the most surprising one counts."""
        groups: dict[str, list[str]] = {}
        rivals = {name: rival for detector in detectors for name, rival in detector.rivals.items()}
        surprising = {AMOUNT, RATE, NOVELTY}
        for name in self._of_profiles():
            detector = name.partition(".")[0]
            if detector in surprising:
                groups.setdefault(AMOUNT if detector == AMOUNT else name, []).append(name)
        for name in (name for detector in detectors for name in detector.reason_names):
            groups.setdefault(rivals.get(name, name), []).append(name)
        return [tuple(names) for names in groups.values()]

    def _weights_of(self, spec: AgentSpec) -> Floats | None:
        detectors = (name.partition(".")[0] for name in self.reason_names)
        chosen = (getattr(spec.detectors, name, None) for name in detectors)
        weights = np.array([1.0 if each is None else each.weight for each in chosen])
        return weights if (weights != 1.0).any() else None

    def _column(self, name: str) -> int:
        return self.reason_names.index(name)

    def _columns(self, names: Iterable[str]) -> Ints:
        return np.array([self._column(name) for name in names], np.int64)
