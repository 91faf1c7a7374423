"""From surprises to evidence: what each detector adds to the log-odds, so that the parts add up.

A surprise of s nats counts as ln(1 + pi e^s), pi = e^-3: the log of a likelihood ratio under which a payment
is unlike the others with probability pi (a mixture, in the sense of Good, Probability and the Weighing of
Evidence, 1950, chapter 6). Everyday surprises then hardly count, however many detectors there are, and rare
ones count in full. Of several views of one amount the most surprising one counts; a view of the whole row
counts, at pi = e^-6 because it speaks of every row, with what it shows beyond the sum of its parts. An entity
whose recent payments were striking makes a striking one likelier: memory doubles the evidence at most, up to
4 nats.
"""

from __future__ import annotations

import math

import numpy as np

from streaming.arrays.compilation import Floats, Ints, compiled
from streaming.arrays.cores import ALL_CORES, Cores

_TOLL = 3.0
_TOLL_OF_THE_WHOLE = 6.0
_MOST_MEMORY = 4.0
_FAR = 40.0


@compiled
def _evidence(nats: float, toll: float) -> float:
    noticed = math.log1p(math.exp(nats - toll)) if nats < _FAR else nats - toll
    return noticed - math.log1p(math.exp(-toll))


@compiled
def strongest(views: Floats, columns: Ints, evidence: Floats) -> None:
    """Put the most surprising view of each row into its column.

    Args:
        views: nats, float64[n, v].
        columns: int64[v], where each view's evidence stands.
        evidence: float64[n, columns], 0 where this does not write.
    """
    for row in range(len(views)):
        best, highest = -1, 0.0
        for view in range(views.shape[1]):
            if views[row, view] > highest:
                best, highest = view, views[row, view]
        if best >= 0:
            evidence[row, columns[best]] = _evidence(highest, _TOLL)


@compiled
def remembered(nats: Floats, memory: Floats, column: int, evidence: Floats) -> None:
    """Put what an entity's memory adds, at most the row's own surprise, into `column`."""
    for row in range(len(nats)):
        evidence[row, column] = min(nats[row], memory[row], _MOST_MEMORY)


@compiled
def beyond(nats: Floats, others: Ints, column: int, evidence: Floats) -> None:
    """Put what a view of everything shows beyond the sum of its parts into `column`.

    Args:
        nats: surprise of the whole row, float64[n].
        others: int64[c], columns of the evidence that the row already gives of itself.
    """
    for row in range(len(nats)):
        explained = 0.0
        for other in others:
            explained += evidence[row, other]
        evidence[row, column] = max(_evidence(nats[row], _TOLL_OF_THE_WHOLE) - max(explained, 0.0), 0.0)


@compiled
def _totals(evidence: Floats, totals: Floats) -> None:
    for row in range(len(evidence)):
        for place in range(evidence.shape[1]):
            totals[row] += evidence[row, place]


def total_of(evidence: Floats, cores: Cores = ALL_CORES) -> Floats:
    """Return the sum of each row, float64[n], added up from the first column to the last."""
    totals = np.zeros(len(evidence))
    cores.over(lambda rows: _totals(evidence[rows], totals[rows]), len(totals))
    return totals
