"""One batch as a rule over two events sees it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from streaming.arrays.columns import entity_ids, numbers
from streaming.arrays.compilation import Flags, Ints
from streaming.arrays.entity_index import EncodedColumn, EntityIndex
from streaming.rules.event_time import EventClock, state_of
from streaming.rules.pattern import CompiledPattern
from streaming.rules.pattern_kernels import EARLIER
from streaming.rules.pattern_state import PatternState


@dataclass(frozen=True)
class PatternRows:
    """A batch as one pattern sees it; all int64[n].

    Attributes:
        reached: how far event time has come as of each row.
        watermark: `reached` less lateness.
        codes: entity, -1 for none and where neither condition holds.
    """

    sequences: Ints
    times: Ints
    reached: Ints
    watermark: Ints
    codes: Ints
    starts: Ints
    ends: Ints


class Clocks:
    """Moves the clocks of patterns past a batch, those that show the same once.

    Args:
        times: int64[n], event times in microseconds.
    """

    def __init__(self, times: Ints) -> None:
        self.times = times
        self._moved: dict[bytes, tuple[Ints, EventClock]] = {}

    def advance(self, clock: EventClock) -> tuple[Ints, EventClock]:
        """Return how far event time has come as of each row, int64[n], and the clock after them."""
        key = state_of(clock).tobytes()
        if key not in self._moved:
            self._moved[key] = clock.advance(self.times)
        return self._moved[key]


def rows_seen(
    pattern: CompiledPattern,
    state: PatternState,
    rows: pa.Table,
    moments: tuple[Ints, Ints],
    starts: Flags,
    ends: Flags,
) -> tuple[PatternRows, EncodedColumn, Ints]:
    """Return a batch as one pattern sees it, its entities, and which of them are new.

    Args:
        moments: int64[n] each, event times and how far event time has come.
        starts: bool[n, patterns], where `first` or `after` holds, by CompiledPattern.number.
        ends: bool[n, patterns], where `then` or `expected` holds.
    """
    started, ended = starts[:, pattern.number], ends[:, pattern.number]
    concerned = np.flatnonzero(started | ended)
    codes = np.full(rows.num_rows, -1, np.int64)
    chosen = rows.select(list(pattern.entities)).take(pa.array(concerned))
    codes[concerned], encoded, new = _codes(state.index, entity_ids(chosen, pattern.entities))
    times, reached = moments
    known = codes >= 0
    seen = PatternRows(
        sequences=numbers(rows["sequence"], pa.int64()),
        times=times,
        reached=reached,
        watermark=reached - pattern.lateness,
        codes=codes,
        starts=np.flatnonzero(started & known),
        ends=np.flatnonzero(ended & known),
    )
    return seen, encoded, new


def _codes(index: EntityIndex, ids: pa.ChunkedArray) -> tuple[Ints, EncodedColumn, Ints]:
    """Number entities as the index does; those it lacks as it will once they are inserted."""
    encoded = index.encode(ids)
    slots = index.find(encoded)
    new = np.flatnonzero(slots < 0)
    slots[new] = len(index) + np.arange(len(new))
    codes = np.append(slots, EARLIER)[encoded.codes]
    return codes, encoded, new
