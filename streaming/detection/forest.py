"""An online forest: how lonely a row's place is among the rows before it, in all features together.

Trees are grown at block boundaries from a sample of earlier rows, a tree every 512 rows, so that the forest
follows the stream; rows are scored before they can be learned. The surprise is -ln of the share of recent
rows whose place is at least as lonely. See streaming.detection.forest_trees and docs/decisions/0008.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from streaming.arrays.arrow_arrays import Saved, matrix_column, matrix_of
from streaming.arrays.compilation import Codes, Floats, Ints
from streaming.detection.forest_rarity import RarityHistogram, no_scores, promote, rarity
from streaming.detection.forest_sample import SAMPLE, Inputs, Sample, chances, draw, no_sample, remember
from streaming.detection.forest_trees import INNER, LEADERS, TREES, Trees, grow, leading, loneliness, no_trees

_ROWS_PER_TREE = 512
_WORTH_LEADERS = 3.0
# The weight of a row in the sample halves in 8,192 rows: what is normal may move.
_FADING = math.log(2.0) / 8_192


class ForestMemory(NamedTuple):
    """All that is remembered; `built` is the number of trees grown so far, int64[1]."""

    trees: Trees
    sample: Sample
    histogram: RarityHistogram
    built: Ints


@dataclass(frozen=True)
class Outlook:
    """What one batch shows, and the memory it leads to.

    Attributes:
        raw: float64[n], nats by which a row's place is emptier than the whole; NaN before there are trees.
        nats: float64[n], -ln of the share of rows at least as lonely.
        leaders: int32[n, 3], features that add most to `raw`, of rows rarer than 1 in 20; -1 for none.
    """

    raw: Floats
    nats: Floats
    leaders: Codes
    memory: ForestMemory


class Forest:
    """The trees, the sample they are grown from and a histogram of earlier scores; 2 MB for 40 features.

    Args:
        features: number of features.
        block_rows: rows per block.
        block_decay: what one block leaves of the statistics of scores before it.
        seed: of all chance; the same seed and rows give the same bits, however the rows are cut.
    """

    def __init__(self, features: int, block_rows: int, block_decay: float, seed: int) -> None:
        self._features, self._seed = features, seed
        self._block_rows, self._block_decay = block_rows, block_decay
        self._memory = _blank(features)

    @property
    def nbytes(self) -> int:
        """Size of the memory; it never grows."""
        trees, sample, histogram, _ = self._memory
        return sum(part.nbytes for part in (*trees, *sample, *histogram))

    def advance(self, inputs: Inputs, first_sequence: int) -> Outlook:
        """Work out what a batch shows and the next memory, leaving the current one as it is.

        Args:
            inputs: float32[n, features]; NaN, and what is infinite, is not known.
            first_sequence: `sequence` of the first row.
        """
        rows = len(inputs)
        leaders = np.full((rows, LEADERS), -1, np.int32)
        outlook = Outlook(np.full(rows, np.nan), np.zeros(rows), leaders, _copy(self._memory))
        known = np.where(np.isinf(inputs), np.float32(np.nan), inputs)
        start = 0
        while start < rows:
            sequence = first_sequence + start
            end = min(rows, start + self._block_rows - sequence % self._block_rows)
            self._pass(known[start:end], sequence, outlook, slice(start, end))
            start = end
        return outlook

    def commit(self, outlook: Outlook) -> None:
        """Make the memory that advance() worked out the current one."""
        self._memory = outlook.memory

    def snapshot(self) -> Saved:
        """Return a copy of the memory that later commits leave alone."""
        trees, sample, histogram, built = _copy(self._memory)
        held = int(sample.held[0])
        rows = {"rows": matrix_column(sample.rows[:held]), "keys": pa.array(sample.keys[:held])}
        return {
            "trees": _batch({name: matrix_column(part) for name, part in trees._asdict().items()}),
            "sample": _batch(rows),
            "histogram": _batch({name: pa.array(part) for name, part in histogram._asdict().items()}),
            "built": _batch({"built": pa.array(built)}),
        }

    def restore(self, saved: Saved) -> None:
        """Continue from a snapshot; the snapshot itself stays as it is."""
        memory, held = _blank(self._features), len(saved["sample"])
        for name, part in memory.trees._asdict().items():
            part[:] = matrix_of(saved["trees"][name]).reshape(part.shape)
        for name, part in memory.histogram._asdict().items():
            part[:] = saved["histogram"][name].to_numpy()
        memory.sample.rows[:held] = matrix_of(saved["sample"]["rows"])
        memory.sample.keys[:held] = saved["sample"]["keys"].to_numpy()
        memory.sample.held[0] = held
        memory.built[:] = saved["built"]["built"].to_numpy()
        self._memory = memory

    def _pass(self, inputs: Inputs, sequence: int, outlook: Outlook, place: slice) -> None:
        """Score rows of one block, then take them into the sample."""
        trees, sample, histogram, built = outlook.memory
        if sequence % self._block_rows == 0:
            self._turn(sequence, outlook.memory)
        if built[0] > 0:
            raw, nats = outlook.raw[place], outlook.nats[place]
            loneliness(trees, inputs, raw)
            rarity(raw, histogram, nats)
            leading(trees, inputs, np.flatnonzero(nats >= _WORTH_LEADERS), outlook.leaders[place])
        remember(sample, self._seed, _FADING, sequence, inputs)

    def _turn(self, sequence: int, memory: ForestMemory) -> None:
        """Move statistics forward at a block boundary and grow the oldest trees anew."""
        trees, sample, histogram, built = memory
        promote(histogram, self._block_decay)
        due = sequence // _ROWS_PER_TREE - (sequence - self._block_rows) // _ROWS_PER_TREE
        if built[0] == 0:
            due = TREES if sample.held[0] >= SAMPLE else 0
        for _ in range(min(due, TREES)):
            number = int(built[0])
            cuts = chances(self._seed, number, INNER)
            grow(trees, number % TREES, draw(sample, self._seed, number), cuts)
            built[0] += 1


def _blank(features: int) -> ForestMemory:
    return ForestMemory(no_trees(features), no_sample(features), no_scores(), np.zeros(1, np.int64))


def _copy(memory: ForestMemory) -> ForestMemory:
    trees, sample, histogram, built = memory
    return ForestMemory(
        Trees._make(part.copy() for part in trees),
        Sample._make(part.copy() for part in sample),
        RarityHistogram._make(part.copy() for part in histogram),
        built.copy(),
    )


def _batch(columns: dict[str, pa.Array]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict(columns)
