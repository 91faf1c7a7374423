"""A sample of earlier rows, the later ones likelier, and all chance of the online forest.

The sample is one without replacement in which a row's weight fades with every row after it: the rows with the
highest keys ln(weight) - ln(-ln(chance)) are one (Efraimidis, Spirakis, Weighted Random Sampling with a
Reservoir, 2006, as Gumbel variables). Chance is a hash of the seed and a row's `sequence` or a tree's number,
so it does not matter how rows are cut into batches.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from streaming.arrays.compilation import Floats, Ints, compiled

Inputs = npt.NDArray[np.float32]

SAMPLE = 256
RESERVOIR = 4096

_MIX_1 = np.uint64(0xFF51AFD7ED558CCD)
_MIX_2 = np.uint64(0xC4CEB9FE1A85EC53)
_STEP = np.uint64(0x9E3779B97F4A7C15)
_HALF, _TOP = np.uint64(33), np.uint64(11)
_OF_ROWS = 0


class Sample(NamedTuple):
    """Mutable arrays.

    Attributes:
        rows: float32[reservoir, features].
        keys: float64[reservoir], see the module.
        held: int64[1], rows held.
    """

    rows: Inputs
    keys: Floats
    held: Ints


def no_sample(features: int) -> Sample:
    """Return a sample of nothing."""
    return Sample(np.zeros((RESERVOIR, features), np.float32), np.zeros(RESERVOIR), np.zeros(1, np.int64))


@compiled
def _mixed(value: np.uint64) -> np.uint64:
    # The finalizer of MurmurHash3 (public domain).
    value = (value ^ (value >> _HALF)) * _MIX_1
    value = (value ^ (value >> _HALF)) * _MIX_2
    return np.uint64(value ^ (value >> _HALF))


@compiled
def _chance(seed: int, stream: int, place: int) -> float:
    # Uniform on (0, 1), a function of its arguments alone.
    value = _mixed(np.uint64(seed) + _STEP)
    value = _mixed(value + np.uint64(stream) * _STEP + _STEP)
    value = _mixed(value + np.uint64(place) * _STEP + _STEP)
    return (np.float64(value >> _TOP) + 0.5) / 9007199254740992.0


@compiled
def chances(seed: int, tree: int, count: int) -> Floats:
    """Return what the nodes of one tree, by its number, are cut by, float64[count, 2] within (0, 1)."""
    found = np.empty((count, 2), dtype=np.float64)
    for node in range(count):
        for which in range(2):
            found[node, which] = _chance(seed, 2 * tree + 2, 2 * node + which)
    return found


@compiled
def draw(sample: Sample, seed: int, tree: int) -> Floats:
    """Return what the tree grown as number `tree` is grown from: rows drawn without replacement.

    Returns:
        float64[features, rows], 256 rows or all there are.
    """
    rows, held = sample.rows, sample.held[0]
    size = min(SAMPLE, held)
    order = np.arange(held)
    drawn = np.empty((rows.shape[1], size), dtype=np.float64)
    for place in range(size):
        other = place + int(_chance(seed, 2 * tree + 1, place) * (held - place))
        order[place], order[other] = order[other], order[place]
        for feature in range(rows.shape[1]):
            drawn[feature, place] = rows[order[place], feature]
    return drawn


@compiled
def remember(sample: Sample, seed: int, slope: float, first_sequence: int, inputs: Inputs) -> None:
    """Take rows into the sample, or pass them over.

    Args:
        slope: -ln of what one row leaves of the weight of those before it.
        inputs: float32[n, features].
    """
    rows, keys, held = sample
    lowest = np.argmin(keys)
    for row in range(len(inputs)):
        place = first_sequence + row
        key = place * slope - math.log(-math.log(_chance(seed, _OF_ROWS, place)))
        if held[0] < len(keys):
            slot = held[0]
            held[0] += 1
        elif key > keys[lowest]:
            slot = lowest
        else:
            continue
        rows[slot], keys[slot] = inputs[row], key
        if held[0] == len(keys):
            lowest = np.argmin(keys)
