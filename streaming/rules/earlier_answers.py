"""Expected events that event time has left behind, kept for first events that come late.

They lie in parts sorted by entity and time, of which neighbours of like size are merged: so a batch adds a
few numbers, and late events find theirs by bisection. Merging keeps what can tell anything: with time divided
into spans as long as one wait, the earliest and the latest event of each entity and span. A wait that holds
any other either lasts beyond the span and holds the latest, or began before it and holds the earliest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from streaming.arrays.compilation import Flags, Ints, compiled
from streaming.rules.pattern_kernels import EARLIER, Events, answered, in_time_order


class EarlierAnswers(NamedTuple):
    """Expected events of earlier batches; never changed.

    Attributes:
        parts: the events, each part in time order.
        oldest: no wait begins before it any more, in microseconds.
        within: how long a wait is, in microseconds.
    """

    parts: tuple[Events, ...] = ()
    oldest: int = 0
    within: int = 1

    def with_more(self, codes: Ints, times: Ints, *, oldest: int, within: int) -> EarlierAnswers:
        """Add events, and forget those before `oldest`, now or later.

        Args:
            codes: int64[n], entities.
            times: int64[n], in microseconds.
        """
        parts = [each for each in self.parts if each.times.max() >= oldest]
        if len(codes):
            parts.append(in_time_order(_events(codes, times)))
        while len(parts) > 1 and len(parts[-2].codes) <= 2 * len(parts[-1].codes):
            merged = _merged(parts[-2:], oldest, within)
            parts = parts[:-2] + [merged] * (len(merged.codes) > 0)
        return EarlierAnswers(tuple(parts), oldest, within)

    def answered(self, events: Events, within: int, until: Ints) -> Flags:
        """Tell for each event whether one of them answers it; see pattern_kernels.answered."""
        found = np.zeros(len(events.codes), np.bool_)
        for part in self.parts if len(found) else ():
            found |= answered(events, within, until, part)
        return found

    def merged(self) -> Events:
        """Return all that can tell anything, in time order, the same however they were added."""
        return _merged(self.parts, self.oldest, self.within)


def _events(codes: Ints, times: Ints) -> Events:
    return Events(codes, times, np.full(len(codes), EARLIER))


def _merged(parts: Sequence[Events], oldest: int, within: int) -> Events:
    nothing = np.empty(0, np.int64)
    codes = np.concatenate([nothing, *(each.codes for each in parts)])
    times = np.concatenate([nothing, *(each.times for each in parts)])
    alive = times >= oldest
    ordered = in_time_order(_events(codes[alive], times[alive]))
    telling = _telling(ordered.codes, ordered.times, oldest, within)
    return Events(*(column[telling] for column in ordered))


@compiled
def _telling(codes: Ints, times: Ints, oldest: int, within: int) -> Flags:
    kept = np.zeros(len(codes), dtype=np.bool_)
    for place in range(len(codes)):
        span = times[place] // within
        alike_before = place > 0 and codes[place - 1] == codes[place] and times[place - 1] // within == span
        after = place + 1
        alike_after = after < len(codes) and codes[after] == codes[place] and times[after] // within == span
        # In the span where waits can begin now, no wait is left that began before it, for the earliest.
        kept[place] = not alike_after or (not alike_before and span * within >= oldest)
    return kept


def warm_up() -> None:
    """Compile what merges, or load it from the disk cache."""
    _telling(np.zeros(1, np.int64), np.zeros(1, np.int64), 0, 1)
