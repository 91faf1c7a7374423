"""Compiled look-ups between the two kinds of events of a pattern."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from streaming.arrays.compilation import Flags, Ints, compiled

EARLIER = -1


class Events(NamedTuple):
    """Events of one kind.

    Attributes:
        codes: int64[n], their entities.
        times: int64[n], event times in microseconds.
        positions: int64[n], row numbers within the batch, EARLIER for those of earlier batches.
    """

    codes: Ints
    times: Ints
    positions: Ints


def in_time_order(events: Events) -> Events:
    """Sort by entity, then time, then position, as the look-ups need it."""
    order = np.lexsort((events.positions, events.times, events.codes))
    return Events(*(column[order] for column in events))


@compiled
def latest_before(events: Events, oldest: Ints, earlier: Events) -> Ints:
    """Return for each event the latest earlier one of its entity.

    Args:
        events: what to look for.
        oldest: int64[n], event time that the earlier one has at least.
        earlier: in time order; of those only rows before the event's own row count, and times up to its own.

    Returns:
        int64[n], place in `earlier`, -1 for none.
    """
    codes, times, positions = events
    known_codes, known_times, known_positions = earlier
    found = np.full(len(codes), -1, dtype=np.int64)
    for event in range(len(codes)):
        low, high = 0, len(known_codes)
        while low < high:
            middle = (low + high) // 2
            same = known_codes[middle] == codes[event]
            if known_codes[middle] < codes[event] or (same and known_times[middle] <= times[event]):
                low = middle + 1
            else:
                high = middle
        place = low - 1
        while place >= 0 and known_codes[place] == codes[event] and known_times[place] >= oldest[event]:
            if known_positions[place] < positions[event]:
                found[event] = place
                break
            place -= 1
    return found


@compiled
def answered(events: Events, within: int, until: Ints, answers: Events) -> Flags:
    """Tell for each event whether its entity answered it.

    Args:
        events: what to look for.
        within: microseconds from an event to its answer, both ends included.
        until: int64[n], the row by which the answer has to have come.
        answers: in time order; no event answers itself.
    """
    codes, times, positions = events
    known_codes, known_times, known_positions = answers
    found = np.zeros(len(codes), dtype=np.bool_)
    for event in range(len(codes)):
        low, high = 0, len(known_codes)
        while low < high:
            middle = (low + high) // 2
            same = known_codes[middle] == codes[event]
            if known_codes[middle] < codes[event] or (same and known_times[middle] < times[event]):
                low = middle + 1
            else:
                high = middle
        last = times[event] + within
        while low < len(known_codes) and known_codes[low] == codes[event] and known_times[low] <= last:
            if known_positions[low] < until[event] and known_positions[low] != positions[event]:
                found[event] = True
                break
            low += 1
    return found


def warm_up() -> None:
    """Compile the look-ups, or load them from the disk cache."""
    events = in_time_order(Events(*np.zeros((3, 1), np.int64)))
    latest_before(events, events.times, events)
    answered(events, 0, events.times, events)
