"""How unusual a transaction is in all features together: amount, rates, gaps and calendar, no labels.

Detectors of one feature each miss a combination of values that are ordinary one by one. The online forest
(streaming.detection.forest) sees them; of its surprise counts what it shows beyond the sum of the others, see
combination.beyond.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from streaming.arrays.arrow_arrays import Saved
from streaming.arrays.compilation import Floats, Ints
from streaming.detection.detectors import MULTIVARIATE
from streaming.detection.feature_phrases import phrase
from streaming.detection.features import describes_behaviour
from streaming.detection.forest import Forest, Outlook
from streaming.detection.forest_sample import Inputs
from streaming.detection.reasons import joint_sentence

EVENT = f"{MULTIVARIATE}.event"


@dataclass(frozen=True)
class Oddities:
    """What one batch shows, and the memory it leads to."""

    names: tuple[str, ...]
    inputs: Inputs
    outlook: Outlook
    _scaled: bool
    _currency: str

    @property
    def nats(self) -> Mapping[str, Floats]:
        """See stateful.DetectorResult."""
        return {EVENT: self.outlook.nats}

    def features(self) -> list[Floats]:
        """See stateful.DetectorResult; what is made of features is none itself."""
        return []

    def sentences(self, rows: Ints) -> Mapping[str, list[str]]:
        """See stateful.DetectorResult."""
        rarity = np.exp(self.outlook.nats[rows]).tolist()
        leaders, values = self.outlook.leaders[rows].tolist(), self.inputs[rows].tolist()
        sentences = []
        for one_in, leading, row in zip(rarity, leaders, values, strict=True):
            phrases = [
                phrase(self.names[feature], row[feature], scaled=self._scaled, currency=self._currency)
                for feature in leading
                if feature >= 0
            ]
            sentences.append(joint_sentence(one_in, phrases))
        return {EVENT: sentences}


class Multivariate:
    """The forest over the features that describe behaviour.

    Args:
        feature_names: all features there are but the evidence, in their order.
        entities: kinds of entities whose features count; empty for all.
        seed, block_rows, block_decay: see Forest.
        scaled: amounts are in units of what is usual in their currencies.
        currency: what all amounts are in, empty where that is not one.
    """

    def __init__(
        self,
        feature_names: Sequence[str],
        entities: Sequence[str],
        seed: int,
        block_rows: int,
        block_decay: float,
        *,
        scaled: bool = False,
        currency: str = "",
    ) -> None:
        self._scaled, self._currency = scaled, currency
        self.name: str = MULTIVARIATE
        self.reason_names = (EVENT,)
        chosen = [name for name in feature_names if describes_behaviour(name, entities)]
        self.feature_names = tuple(chosen)
        self._places = [feature_names.index(name) for name in chosen]
        self._forest = Forest(len(chosen), block_rows, block_decay, seed)

    def advance(self, columns: Sequence[Floats], first_sequence: int) -> Oddities:
        """Work out what a batch shows and the memory it leads to, leaving the current one as it is.

        Args:
            columns: float64[n] per feature there is.
            first_sequence: `sequence` of the first row.
        """
        inputs = np.column_stack([columns[place] for place in self._places]).astype(np.float32)
        outlook = self._forest.advance(inputs, first_sequence)
        return Oddities(self.feature_names, inputs, outlook, self._scaled, self._currency)

    def commit(self, result: Oddities) -> None:
        """See stateful.Remembering."""
        self._forest.commit(result.outlook)

    def snapshot(self) -> Saved:
        """See stateful.Remembering."""
        return self._forest.snapshot()

    def restore(self, saved: Saved) -> None:
        """See stateful.Remembering."""
        self._forest.restore(saved)
