"""Sequences and absences: what rules over two events of one entity remember, and when they hold.

Each such rule is a fold over the rows in `sequence` order, from the batch on in which it came into force.
Its watermark, as of a row, is what `event_time` shows then, less the rule's lateness. So what holds depends
on the recorded rows alone, never on how they were cut into batches nor on the machine's clock.

- A sequence holds for a row where `then` holds and an earlier row of the same entity, at most `within` before
  it in event time, had `first`; of several the latest counts. One `first` serves any number of `then`. It is
  forgotten once the watermark has left its `within` behind.
- An absence holds for a row where `after` holds when the watermark passes its event time plus `within`, and
  no other row of the same entity with `expected` and an event time in between had come, before or after it.
  A row whose time is up when it comes is not waited for; in the first arithmetic none that is older than the
  watermark is.

advance() leaves all state as it is; commit() makes what it worked out the current state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from streaming.arrays.arrow_arrays import Saved
from streaming.arrays.columns import microseconds, numbers
from streaming.arrays.compilation import Flags, Ints
from streaming.arrays.entity_index import EncodedColumn
from streaming.rules.event_time import EventClock
from streaming.rules.pattern import CompiledPattern
from streaming.rules.pattern_kernels import EARLIER, Events, answered, in_time_order, latest_before
from streaming.rules.pattern_rows import Clocks, PatternRows, rows_seen
from streaming.rules.pattern_state import PatternState, rows_with, slimmed

Describe = Callable[[Ints], pa.Table]


@dataclass(frozen=True)
class Completed:
    """The rows of a batch that complete a sequence.

    Attributes:
        positions: int64[n], row numbers within the batch, ascending.
        since: int64[n], event time of each one's first event, in microseconds.
    """

    pattern: CompiledPattern
    positions: Ints
    since: Ints


@dataclass(frozen=True)
class Missed:
    """The events that went without what was expected, in the order in which that became certain.

    Attributes:
        rows: their transactions, as `describe` gave them.
        passed_by: int64[n], `sequence` of the row whose event time made it certain.
        passed_at: int64[n], how far event time had come then, in microseconds.
    """

    pattern: CompiledPattern
    rows: pa.Table
    passed_by: Ints
    passed_at: Ints


@dataclass(frozen=True)
class _Step:
    """The state a batch leads to, and the entities it is the first to name."""

    state: PatternState
    encoded: EncodedColumn
    new: Ints


@dataclass(frozen=True)
class Recognised:
    """What the patterns in force found in one batch, and the state it leads to."""

    completed: tuple[Completed, ...]
    missed: tuple[Missed, ...]
    steps: Mapping[str, _Step] | None


class Patterns:
    """The state of all patterns in force, by the digest of their rules."""

    def __init__(self) -> None:
        self._states: dict[str, PatternState] = {}

    @property
    def digests(self) -> frozenset[str]:
        """Which patterns are remembered."""
        return frozenset(self._states)

    def advance(
        self,
        patterns: Sequence[CompiledPattern],
        rows: pa.Table,
        starts: Flags,
        ends: Flags,
        describe: Describe,
    ) -> Recognised:
        """Work out what holds in a batch. Patterns that are no longer given are forgotten, others begin.

        Args:
            patterns: those in force.
            rows: in `sequence` order, with sequence, event_time and the entities' columns.
            starts: bool[n, patterns], where `first` or `after` holds, by CompiledPattern.number.
            ends: bool[n, patterns], where `then` or `expected` holds.
            describe: gives the rows, int64[m] positions, that missed events are reported with; must have
                a column `sequence`.
        """
        if rows.num_rows == 0:
            return Recognised((), (), None)
        completed, missed, steps = [], [], {}
        clocks = Clocks(numbers(microseconds(rows["event_time"]), pa.int64()))
        for pattern in patterns:
            state = self._states.get(pattern.digest) or PatternState.blank(pattern.clock)
            reached, clock = clocks.advance(state.clock)
            seen, encoded, new = rows_seen(pattern, state, rows, (clocks.times, reached), starts, ends)
            if pattern.rule.sequence is not None:
                found, after = _complete(pattern, state, seen, clock)
                completed.append(found)
            else:
                absent, after = _miss(pattern, state, seen, clock, describe)
                missed.append(absent)
            steps[pattern.digest] = _Step(after, encoded, new)
        return Recognised(tuple(completed), tuple(missed), steps)

    def commit(self, recognised: Recognised) -> None:
        """Make the state that advance() worked out the current one; a batch without rows changes nothing."""
        if recognised.steps is None:
            return
        for step in recognised.steps.values():
            step.state.index.insert(step.encoded, step.new)
        self._states = {digest: step.state for digest, step in recognised.steps.items()}

    def open_sequences(self) -> Ints:
        """Return the `sequence` of all first events that are not done with, int64[open], in no order."""
        return np.concatenate([np.empty(0, np.int64), *(each.sequences for each in self._states.values())])

    def keep(self, digests: frozenset[str]) -> None:
        """Forget what other patterns remember."""
        self._states = {digest: state for digest, state in self._states.items() if digest in digests}

    def snapshot(self) -> Mapping[str, Saved]:
        """Return a copy of the state, by digest, that later commits leave alone."""
        return {digest: state.saved() for digest, state in self._states.items()}

    def restore(self, saved: Mapping[str, Saved]) -> None:
        """Continue from a snapshot; the snapshot itself stays as it is."""
        self._states = {digest: PatternState.restored(parts) for digest, parts in saved.items()}


def _events(codes: Ints, times: Ints, seen: PatternRows, positions: Ints) -> Events:
    """Put events of earlier batches and rows of this one together."""
    return Events(
        np.concatenate([codes, seen.codes[positions]]),
        np.concatenate([times, seen.times[positions]]),
        np.concatenate([np.full(len(codes), EARLIER), positions]),
    )


def _complete(
    pattern: CompiledPattern, state: PatternState, seen: PatternRows, clock: EventClock
) -> tuple[Completed, PatternState]:
    opened = _events(state.codes, state.times, seen, seen.starts)
    ordered = in_time_order(opened)
    ends = Events(seen.codes[seen.ends], seen.times[seen.ends], seen.ends)
    oldest = np.maximum(ends.times, seen.watermark[seen.ends]) - pattern.within
    places = latest_before(ends, oldest, ordered)
    found = places >= 0
    completed = Completed(pattern, seen.ends[found], ordered.times[places[found]])
    sequences = np.concatenate([state.sequences, seen.sequences[seen.starts]])
    remembered = opened.times >= seen.watermark[-1] - pattern.within
    nobody = np.empty(0, np.int64)
    after = PatternState(
        index=state.index,
        clock=clock,
        codes=opened.codes[remembered],
        times=opened.times[remembered],
        sequences=sequences[remembered],
        answer_codes=nobody,
        answer_times=nobody,
        earlier=state.earlier,
        kept=None,
    )
    return completed, after


def _miss(
    pattern: CompiledPattern, state: PatternState, seen: PatternRows, clock: EventClock, describe: Describe
) -> tuple[Missed, PatternState]:
    starts = seen.starts[seen.times[seen.starts] + pattern.grace >= seen.watermark[seen.starts]]
    waiting = _events(state.codes, state.times, seen, starts)
    sequences = np.concatenate([state.sequences, seen.sequences[starts]])
    answers = _events(state.answer_codes, state.answer_times, seen, seen.ends)
    # The first row, of this batch, whose watermark is beyond the time that is up.
    passed = np.searchsorted(seen.watermark, waiting.times + pattern.within, side="right")
    settled = answered(waiting, pattern.within, passed, in_time_order(answers))
    late = np.flatnonzero((waiting.positions >= 0) & (waiting.times < state.clock.now - pattern.lateness))
    settled[late] |= state.earlier.answered(_chosen(waiting, late), pattern.within, passed[late])
    fallen = np.flatnonzero(~settled & (passed < len(seen.times)))
    fallen = fallen[np.lexsort((sequences[fallen], passed[fallen]))]
    kept = _kept_with(state.kept, describe, waiting.positions[~settled & (waiting.positions >= 0)])
    rows = rows_with(kept, sequences[fallen])
    missed = Missed(pattern, rows, seen.sequences[passed[fallen]], seen.reached[passed[fallen]])
    still = ~settled & (passed == len(seen.times))
    after = _with_answers(state, pattern, answers, int(seen.watermark[-1]))
    return missed, replace(
        after,
        clock=clock,
        codes=waiting.codes[still],
        times=waiting.times[still],
        sequences=sequences[still],
        kept=slimmed(kept, sequences[still]),
    )


def _with_answers(
    state: PatternState, pattern: CompiledPattern, answers: Events, watermark: int
) -> PatternState:
    """Return a state that holds the answers from the watermark on, and earlier ones within the grace."""
    fresh, oldest = answers.times >= watermark, watermark - pattern.grace
    left = ~fresh & (answers.times >= oldest)
    earlier = state.earlier.with_more(
        answers.codes[left], answers.times[left], oldest=oldest, within=pattern.within
    )
    return replace(
        state,
        answer_codes=answers.codes[fresh],
        answer_times=answers.times[fresh],
        earlier=earlier,
    )


def _chosen(events: Events, places: Ints) -> Events:
    return Events(*(column[places] for column in events))


def _kept_with(kept: pa.Table | None, describe: Describe, positions: Ints) -> pa.Table:
    if kept is not None and not len(positions):
        return kept
    added = describe(positions)
    return added if kept is None else pa.concat_tables([kept, added], promote_options="default")
