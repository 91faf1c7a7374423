"""What one rule over two events remembers between batches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from streaming.arrays.arrow_arrays import Saved, id_column, ids_of
from streaming.arrays.columns import numbers
from streaming.arrays.compilation import Ints
from streaming.arrays.entity_index import EntityIndex
from streaming.rules.earlier_answers import EarlierAnswers
from streaming.rules.event_time import EventClock, restored_clock, state_of

_KEPT_MORE = 1024


@dataclass(frozen=True)
class PatternState:
    """The open events of one pattern; arrays and tables are never changed.

    Attributes:
        index: numbers the entities; it only grows.
        clock: how far event time has come.
        codes: int64[open], entity of each first event that is not done with, in `sequence` order.
        times: int64[open], their event times.
        sequences: int64[open].
        answer_codes: int64[answers], entities of expected events that the watermark has not passed.
        answer_times: int64[answers].
        earlier: expected events that the watermark has passed, but may yet answer a late first event.
        kept: rows of first events that are waited for, by `sequence`, and some that no longer are.
    """

    index: EntityIndex
    clock: EventClock
    codes: Ints
    times: Ints
    sequences: Ints
    answer_codes: Ints
    answer_times: Ints
    earlier: EarlierAnswers
    kept: pa.Table | None

    @classmethod
    def blank(cls, clock: EventClock) -> PatternState:
        """Return the state before any row."""
        codes, times, sequences, answer_codes, answer_times = np.empty((5, 0), np.int64)
        opened, answers = (codes, times, sequences), (answer_codes, answer_times)
        return cls(EntityIndex(), clock, *opened, *answers, EarlierAnswers(), None)

    def saved(self) -> Saved:
        """Return a copy to be written, of the entities still needed alone."""
        earlier = self.earlier.merged()
        answered = np.concatenate([self.answer_codes, earlier.codes])
        answer_times = np.concatenate([self.answer_times, earlier.times])
        used, codes = np.unique(np.concatenate([self.codes, answered]), return_inverse=True)
        opened, answers = np.split(codes.astype(np.int64), [len(self.codes)])
        parts = {
            "entities": {"id": id_column(self.index.ids()).take(pa.array(used))},
            "open": {"entity": opened, "event_time": self.times, "sequence": self.sequences},
            "answers": {"entity": answers, "event_time": answer_times},
            "newest": {"event_time": state_of(self.clock)},
        }
        saved = {name: pa.RecordBatch.from_pydict(columns) for name, columns in parts.items()}
        if self.kept is None:
            return saved
        kept = rows_with(self.kept, self.sequences)
        columns = [column.combine_chunks() for column in kept.columns]
        return {**saved, "kept": pa.RecordBatch.from_arrays(columns, schema=kept.schema)}

    @classmethod
    def restored(cls, saved: Saved) -> PatternState:
        """Return the state that saved() wrote; the next batch sets apart which answers are earlier ones."""
        index = EntityIndex()
        index.restore(ids_of(saved["entities"]["id"]))
        opened, answers = saved["open"], saved["answers"]
        return cls(
            index=index,
            clock=restored_clock(saved["newest"]["event_time"].to_numpy()),
            codes=opened["entity"].to_numpy().copy(),
            times=opened["event_time"].to_numpy().copy(),
            sequences=opened["sequence"].to_numpy().copy(),
            answer_codes=answers["entity"].to_numpy().copy(),
            answer_times=answers["event_time"].to_numpy().copy(),
            earlier=EarlierAnswers(),
            kept=pa.Table.from_batches([saved["kept"]]) if "kept" in saved else None,
        )


def rows_with(kept: pa.Table, sequences: Ints) -> pa.Table:
    """Return the rows of these `sequence` numbers, all of them there, in the order given."""
    if not len(sequences):
        return kept.slice(0, 0)
    return kept.take(pa.array(np.searchsorted(numbers(kept["sequence"], pa.int64()), sequences)))


def slimmed(kept: pa.Table, sequences: Ints) -> pa.Table:
    """Drop rows that are done with, once they are most of it: so dropping costs little a row."""
    outgrown = kept.num_rows > 2 * len(sequences) + _KEPT_MORE
    return rows_with(kept, sequences).combine_chunks() if outgrown else kept
