"""Expected events that event time has left behind, kept for first events that come late.

They lie in parts sorted by entity and time, of which neighbours of like size are merged: so a batch adds a
few numbers, and late events find theirs by bisection. Merging drops what tells nothing more: of three of
one entity that lie within one wait the middle one, as whatever wait holds it holds one of the others. So an
entity has a few at a time, however often it answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from streaming.arrays.compilation import Flags, Ints, compiled
from streaming.rules.pattern_kernels import EARLIER, Events, answered, in_time_order


class EarlierAnswers(NamedTuple):
    """Expected events of earlier batches; never changed."""

    parts: tuple[Events, ...] = ()

    def with_more(self, codes: Ints, times: Ints, *, oldest: int, within: int) -> EarlierAnswers:
        """Add events, and forget those before `oldest`, in microseconds, now or later.

        Args:
            codes: int64[n], entities.
            times: int64[n], in microseconds.
            oldest: no wait begins before it any more.
            within: how long a wait is, in microseconds.
        """
        parts = [each for each in self.parts if each.times.max() >= oldest]
        if len(codes):
            parts.append(in_time_order(_events(codes, times)))
        while len(parts) > 1 and len(parts[-2].codes) <= 2 * len(parts[-1].codes):
            merged = _merged(parts[-2:], oldest, within)
            parts = parts[:-2] + [merged] * (len(merged.codes) > 0)
        return EarlierAnswers(tuple(parts))

    def answered(self, events: Events, within: int, until: Ints) -> Flags:
        """Tell for each event whether one of them answers it; see pattern_kernels.answered."""
        found = np.zeros(len(events.codes), np.bool_)
        for part in self.parts if len(found) else ():
            found |= answered(events, within, until, part)
        return found

    @property
    def codes(self) -> Ints:
        """The entities of all of them, int64[n]."""
        return np.concatenate([np.empty(0, np.int64), *(each.codes for each in self.parts)])

    @property
    def times(self) -> Ints:
        """Their event times, int64[n]."""
        return np.concatenate([np.empty(0, np.int64), *(each.times for each in self.parts)])


def _events(codes: Ints, times: Ints) -> Events:
    return Events(codes, times, np.full(len(codes), EARLIER))


def _merged(parts: Sequence[Events], oldest: int, within: int) -> Events:
    codes, times = (np.concatenate([getattr(each, name) for each in parts]) for name in ("codes", "times"))
    alive = times >= oldest
    ordered = in_time_order(_events(codes[alive], times[alive]))
    telling = _telling(ordered.codes, ordered.times, within)
    return Events(*(column[telling] for column in ordered))


@compiled
def _telling(codes: Ints, times: Ints, within: int) -> Flags:
    kept = np.ones(len(codes), dtype=np.bool_)
    before, last = -1, -1  # places of the last two that are kept
    for place in range(len(codes)):
        if last >= 0 and codes[last] != codes[place]:
            before, last = -1, -1
        if before >= 0 and times[place] - times[before] <= within:
            kept[last] = False
        else:
            before = last
        last = place
    return kept


def warm_up() -> None:
    """Compile what merges, or load it from the disk cache."""
    _telling(np.zeros(1, np.int64), np.zeros(1, np.int64), 1)
