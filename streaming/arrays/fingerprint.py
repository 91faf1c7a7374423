"""What this machine computes, to the bit: a digest of the functions that scores rest on over fixed inputs.

Additions, products, quotients and roots are the same on every processor (IEEE 754). Logarithms, exponentials
and the like are not: the C library and NumPy choose another implementation for each class of processors, and
these differ in the last bit of some results. Two machines of one fingerprint give the same scores; those
of two may give scores that differ in their last bits.

Inputs are spread over the values that kernels give each function; among them are those of which the result
is hardest to round, since implementations differ there first.
"""

from __future__ import annotations

import hashlib
import math
from functools import cache

import numpy as np

from streaming.arrays.compilation import Floats, compiled
from streaming.arrays.hard_places import HARD_PLACES

# Which functions and inputs it is about: raised with them, so that no machine seems to be another.
_VERSION = 1
_SPREAD = 16_384
_GOLDEN = 0x9E3779B97F4A7C15
_WIDTH = 16  # of the rows of sums
_INTERPRETED = 512  # inputs beside the hard ones: the interpreter takes its time
_HEX_DIGITS = 16

KERNEL_FUNCTIONS = ("exp", "log", "log1p", "atan", "arcsin", "sin", "cos", "sinh", "asinh", "sqrt")
HOST_FUNCTIONS = ("exp", "sqrt", "sum")
INTERPRETED_FUNCTIONS = ("erfc", "exp", "log", "sqrt", "pow")


@cache
def machine_fingerprint() -> str:
    """Return the digest of what this process computes: version, a dash, 16 hexadecimal digits.

    It takes some milliseconds the first time, once the kernel is compiled.
    """
    digest = hashlib.blake2b(digest_size=_HEX_DIGITS // 2)
    for values in (*kernel_values().values(), *host_values().values(), *interpreted_values().values()):
        digest.update(values.tobytes())
    return f"{_VERSION}-{digest.hexdigest()}"


def kernel_values() -> dict[str, Floats]:
    """Return what compiled code gives, by function: float64[inputs] each."""
    chances = _chances()
    found = np.empty((len(KERNEL_FUNCTIONS), len(chances)))
    _fill(chances, found)
    return dict(zip(KERNEL_FUNCTIONS, found, strict=True))


def host_values() -> dict[str, Floats]:
    """Return what NumPy gives for whole arrays, by function."""
    chances = _chances()
    nats = (chances - 0.5) * 80.0
    sums = np.append(nats[:_SPREAD].reshape(-1, _WIDTH).sum(axis=1), nats.sum())
    return dict(zip(HOST_FUNCTIONS, (np.exp(nats), np.sqrt(chances), sums), strict=True))


def interpreted_values() -> dict[str, Floats]:
    """Return what the interpreter gives for single numbers, by function."""
    chances = _chances()[_SPREAD - _INTERPRETED :].tolist()
    columns = (
        [math.erfc((each - 0.5) * 8.0) for each in chances],
        [math.exp((each - 0.5) * 80.0) for each in chances],
        [math.log(each * 4.0) for each in chances],
        [math.sqrt(each) for each in chances],
        [0.5 ** (each * 4.0) for each in chances],
    )
    return dict(zip(INTERPRETED_FUNCTIONS, map(np.array, columns), strict=True))


def _chances() -> Floats:
    """Return numbers in (0, 1): multiples of the golden ratio without their whole part, hard places last."""
    hard = sorted({place for places in HARD_PLACES.values() for place in places})
    places = np.append(np.arange(1, _SPREAD + 1), hard).astype(np.uint64)
    return ((places * np.uint64(_GOLDEN)) >> np.uint64(11)).astype(np.float64) * 2.0**-53


@compiled
def _fill(chances: Floats, found: Floats) -> None:
    """Write one row for each of KERNEL_FUNCTIONS, over the values that kernels give it."""
    for place in range(len(chances)):
        chance = chances[place]
        wide = (chance - 0.5) * 80.0
        found[0, place] = math.exp(wide)
        found[1, place] = math.log(chance * 4.0)
        found[2, place] = math.log1p(chance * 8.0 - 0.99)
        found[3, place] = math.atan(wide)
        found[4, place] = np.arcsin(chance)
        found[5, place] = np.sin(wide * 0.08)
        found[6, place] = np.cos(wide * 0.08)
        found[7, place] = math.sinh(wide)
        found[8, place] = math.asinh(wide)
        found[9, place] = np.sqrt(chance)
