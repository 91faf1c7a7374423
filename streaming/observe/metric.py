"""How metrics are declared: name, meaning and labels at one place, and never more series than were meant.

A label whose values come from outside (names of rules, reasons, models) keeps a number of its own values;
all others count as `other`, so that the sums stay right. No label holds an id.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

PREFIX = "flagstream_"
OTHER = "other"
AGENT = "agent"
MOST_VALUES = 100
_MOST_CHARACTERS = 120

MetricKind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True)
class MetricMeaning:
    """One metric, as its reference shows it.

    Attributes:
        name: as it is scraped.
        labels: besides the agent's name.
    """

    name: str
    kind: MetricKind
    meaning: str
    labels: tuple[str, ...]


class KnownValues:
    """The values that one label may have: the first so many; what comes later is `other`.

    Any thread may call.

    Args:
        most: how many.
    """

    def __init__(self, most: int = MOST_VALUES) -> None:
        self._most, self._lock = most, threading.Lock()
        self._known: set[str] = set()

    def of(self, value: object) -> str:
        """Return a value as the label has it."""
        # Half a surrogate pair, as JSON may hold one, would be the end of every scrape.
        text = str(value)[:_MOST_CHARACTERS].encode("utf-8", "replace").decode() or "none"
        if text in self._known:
            return text
        with self._lock:
            if len(self._known) < self._most:
                self._known.add(text)
        return text if text in self._known else OTHER


class MetricFamily:
    """One metric with all its series, those of one agent.

    Args:
        made: the library's metric.
        agent: the agent's name.
        labels: besides the agent's name.
        most: how many values each of them may have.
        at_once: whether what only grows is shown before it has grown.
    """

    def __init__(
        self,
        made: Counter | Gauge | Histogram,
        agent: str,
        labels: Sequence[str],
        most: int,
        *,
        at_once: bool = True,
    ) -> None:
        self._made, self._agent, self._labels, self._most = made, agent, tuple(labels), most
        self._values = [KnownValues(most) for _ in labels]
        self._shown: set[tuple[str, ...]] = set()
        if at_once and not labels and not isinstance(made, Gauge):
            made.labels(agent)  # what only grows begins at 0; of a gauge nothing is known yet

    def of(self, agent: str) -> MetricFamily:
        """Return the same metric of another agent, for a process that is about several."""
        return MetricFamily(self._made, agent, self._labels, self._most)

    def add(self, amount: float, *labels: object) -> None:
        """Add to a counter."""
        child = self._child(labels)
        assert isinstance(child, Counter), "only counters are added to"
        child.inc(amount)

    def put(self, value: float, *labels: object) -> None:
        """Say how a gauge stands now."""
        child = self._child(labels)
        assert isinstance(child, Gauge), "only gauges are set"
        child.set(value)

    def observe(self, values: Iterable[float], *labels: object) -> None:
        """Take values into a histogram."""
        child = self._child(labels)
        assert isinstance(child, Histogram), "only histograms observe"
        for value in values:
            child.observe(value)

    def replace(self, values: Mapping[tuple[str, ...], float]) -> None:
        """Say how a gauge stands, by its labels; series that are not among them are gone.

        What counts as `other` is added up.
        """
        sums: dict[tuple[str, ...], float] = {}
        for labels, value in values.items():
            known = self._known(labels)
            sums[known] = sums.get(known, 0.0) + value
        for known, value in sums.items():
            self.put(value, *known)
        for gone in self._shown - sums.keys():
            self._made.remove(self._agent, *gone)
        self._shown = set(sums)

    def _known(self, labels: Sequence[object]) -> tuple[str, ...]:
        return tuple(values.of(each) for values, each in zip(self._values, labels, strict=True))

    def _child(self, labels: Sequence[object]) -> Counter | Gauge | Histogram:
        return self._made.labels(self._agent, *self._known(labels))


class MetricBook:
    """Declares metrics and remembers what each of them means.

    Args:
        agent: the agent's name, a label of every series.
    """

    def __init__(self, agent: str) -> None:
        self.registry, self._agent = CollectorRegistry(), agent
        self.meanings: list[MetricMeaning] = []

    def counter(
        self, name: str, meaning: str, *labels: str, most: int = MOST_VALUES, at_once: bool = True
    ) -> MetricFamily:
        """Declare what only grows as long as the process lives; its name ends in `_total`.

        Without labels it is shown as 0 at once, unless it is only for some agents.
        """
        made = Counter(f"{PREFIX}{name}", meaning, (AGENT, *labels), registry=self.registry)
        declared = MetricMeaning(f"{PREFIX}{name}", "counter", meaning, labels)
        return self._declared(declared, made, most, at_once=at_once)

    def gauge(self, name: str, meaning: str, *labels: str, most: int = MOST_VALUES) -> MetricFamily:
        """Declare what goes up and down."""
        made = Gauge(f"{PREFIX}{name}", meaning, (AGENT, *labels), registry=self.registry)
        return self._declared(MetricMeaning(f"{PREFIX}{name}", "gauge", meaning, labels), made, most)

    def histogram(
        self, name: str, meaning: str, *labels: str, buckets: Sequence[float], most: int = MOST_VALUES
    ) -> MetricFamily:
        """Declare what is distributed over buckets."""
        made = Histogram(
            f"{PREFIX}{name}", meaning, (AGENT, *labels), registry=self.registry, buckets=buckets
        )
        return self._declared(MetricMeaning(f"{PREFIX}{name}", "histogram", meaning, labels), made, most)

    def _declared(
        self,
        meaning: MetricMeaning,
        made: Counter | Gauge | Histogram,
        most: int,
        *,
        at_once: bool = True,
    ) -> MetricFamily:
        self.meanings.append(meaning)
        return MetricFamily(made, self._agent, meaning.labels, most, at_once=at_once)
