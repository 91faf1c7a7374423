"""Drift of one agent: fed by its batches, measured now and then, kept over restarts.

What is kept decides nothing: without the file, or with one that cannot be read, a new reference begins. It
does so, too, once the scores are defined otherwise or other rules are in force, whose numbers cannot be
compared.
"""

from __future__ import annotations

import io
import json
import threading
import zipfile
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from streaming.arrays.compilation import Ints
from streaming.batch.decider import Decider
from streaming.batch.deciders import Decided
from streaming.detection.scored import ScoredBatch
from streaming.observe.drift import Drift, DriftSizes, Values, Window, stability_index
from streaming.store.whole_files import replace_file

SCORE = "score"
_SAMPLED = 1_024
_MOST_RULES = 100


@dataclass(frozen=True)
class DriftFigures:
    """What drift comes to; empty until both windows are full enough.

    Attributes:
        score: PSI of the scores.
        features: PSI by feature.
        rules: by rule, the share of events that it has alerted in the reference window, and recently.
        reference, recent: sampled events in the windows.
    """

    score: float | None
    features: dict[str, float]
    rules: dict[str, tuple[float, float]]
    reference: int
    recent: int


class DriftWatch:
    """See the module. One thread feeds it, another one measures and keeps.

    Args:
        file: where it is kept.
        sizes: of the windows.
    """

    def __init__(self, file: Path, sizes: DriftSizes = DriftSizes()) -> None:  # noqa: B008 -- frozen
        self._file, self._sizes, self._lock = file, sizes, threading.Lock()
        self._drift: Drift | None = None
        self._about: str = ""

    def add(self, decided: Decided) -> None:
        """Take in what the version in force has made of a batch."""
        decider, scored = decided.deciders[0], decided.judged[0].scored
        if len(scored) == 0:
            return
        values = _sample(scored)
        with self._lock:
            drift = self._of(decider)
            drift.add(values, _hits(decided, drift.rules), len(scored))

    def figures(self) -> DriftFigures:
        """Measure."""
        with self._lock:
            drift = self._drift
            if drift is None:
                return DriftFigures(None, {}, {}, 0, 0)
            recent, reference = drift.recent, drift.reference
            known, names, rules = drift.is_known, drift.names, drift.rules
        return _measured(names, rules, reference, recent, is_known=known)

    def keep(self) -> None:
        """Write it down, whole or not at all.

        Raises:
            OSError: the disk takes nothing.
        """
        with self._lock:
            if self._drift is None:
                return
            arrays = _arrays_of(self._drift)
            about = self._about
        self._file.parent.mkdir(parents=True, exist_ok=True)
        packed = io.BytesIO()
        np.savez_compressed(packed, allow_pickle=False, about=np.array(about), **arrays)
        replace_file(self._file, packed.getvalue())

    def _of(self, decider: Decider) -> Drift:
        """Return what the windows of a decider's scores are counted in."""
        rules = tuple(rule.name for rule in decider.rules.rules)[:_MOST_RULES]
        names = (*decider.layout.features, SCORE)
        about = json.dumps([decider.layout.definition, names, rules])
        if self._drift is None or about != self._about:
            self._drift, self._about = Drift(names, rules, self._sizes), about
            with suppress(OSError, ValueError, LookupError, zipfile.BadZipFile):
                _restore(self._drift, self._file, about)
        return self._drift


def kept_figures(file: Path, sizes: DriftSizes = DriftSizes()) -> DriftFigures | None:  # noqa: B008 -- frozen
    """Measure what an agent has kept, beside whoever feeds it; None where nothing that can be read is kept.

    Args:
        file: where it is kept.
        sizes: of the windows.
    """
    try:
        with np.load(file, allow_pickle=False) as kept:
            about = str(kept["about"])
        _, names, rules = json.loads(about)
        drift = Drift(names, rules, sizes)
        _restore(drift, file, about)
    except (OSError, ValueError, LookupError, TypeError, zipfile.BadZipFile):
        return None
    return _measured(drift.names, drift.rules, drift.reference, drift.recent, is_known=drift.is_known)


def _measured(
    names: Sequence[str], rules: Sequence[str], reference: Window, recent: Window, *, is_known: bool
) -> DriftFigures:
    if not is_known:
        return DriftFigures(None, {}, {}, reference.events, recent.events)
    found = dict(zip(names, stability_index(reference.counts, recent.counts).tolist(), strict=True))
    shares = zip(rules, _shares(reference), _shares(recent), strict=True)
    return DriftFigures(
        found.pop(SCORE), found, {rule: (then, now) for rule, then, now in shares},
        reference.events, recent.events,
    )  # fmt: skip


def _sample(scored: ScoredBatch) -> Values:
    """Return features and score of some rows, evenly spread, float32[m, features + 1].

    The score stands as its log-odds, which tell more apart near 1; their order is the same.
    """
    count = len(scored)
    rows = np.arange(min(count, _SAMPLED)) * count // min(count, _SAMPLED)
    features, score = scored.features(rows), scored.log_odds[rows].astype(np.float32)
    return np.column_stack([features, score])


def _hits(decided: Decided, rules: Sequence[str]) -> Ints:
    counts = Counter(name for row in decided.flagged[0].rows for name in row.rules)
    return np.array([counts[name] for name in rules], np.int64)


def _shares(window: Window) -> list[float]:
    return [float(each) for each in window.hits / max(window.seen, 1)]


def _arrays_of(drift: Drift) -> dict[str, Ints]:
    arrays = {"skipped": np.array([drift.skipped])}
    for name, window in drift.windows.items():
        arrays |= {
            f"{name}_counts": window.counts.copy(),
            f"{name}_hits": window.hits.copy(),
            f"{name}_events": np.array([window.events, window.seen]),
        }
    return arrays


def _restore(drift: Drift, file: Path, about: str) -> None:
    """Go on from a file that is about the same numbers."""
    with np.load(file, allow_pickle=False) as kept:
        if str(kept["about"]) != about:
            return
        found = {name: kept[name] for name in kept.files if name != "about"}
    for name, window in drift.windows.items():
        window.counts[:] = found[f"{name}_counts"]
        window.hits[:] = found[f"{name}_hits"]
        window.events, window.seen = (int(each) for each in found[f"{name}_events"])
    drift.skipped = int(found["skipped"][0])
