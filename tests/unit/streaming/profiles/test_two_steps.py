"""The entity half and the population pass agree to the bit with one loop over all rows, however spread."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming.arrays.compilation import read_only
from streaming.arrays.cores import Cores
from streaming.profiles.decayed import Profiles
from streaming.profiles.entity_half import KnownLabels, SentRows
from streaming.profiles.entity_kernels import shares_of
from streaming.profiles.levels import Levels
from streaming.profiles.profile_kernels import NEVER, Features, log_amounts
from tests.unit.streaming.profiles.one_loop import OneLoop, Shown

HORIZONS, BLOCK, DECAY = (3600.0, 86_400.0), 4, 0.75
MEMORIES = (3600.0, 86_400.0)
MINUTE = 60_000_000
STANDIN = 2.5
POOLS = [Cores(threads, rows_worth_threads=1) for threads in (1, 2, 3, 8)]
NAMES = [None, *"abcdefghijklmnopqrstuvwxyz"]

EVENTS = st.lists(
    st.tuples(
        st.sampled_from(NAMES),
        st.integers(-3000, 3000).map(lambda minutes: minutes * MINUTE) | st.integers(-(2**52), 2**52),
        st.sampled_from([0.0, -0.0, -5.0]) | st.floats(1e-3, 1e5) | st.floats(0.0, 1.7e308),
    ),
    min_size=1,
    max_size=80,
)
CUTS = st.lists(st.integers(1, 79), max_size=8)
IDLE = st.none() | st.integers(1, 3000).map(MINUTE.__mul__)


class Stream(NamedTuple):
    names: list[str | None]
    times: list[int]
    amounts: list[float]
    forgotten: list[int]

    def blocks(self, start: int, stop: int) -> slice:
        return slice(start // BLOCK, max(stop - 1, start) // BLOCK + 1)


def stream_of(events: Sequence[tuple[str | None, int, float]], idle: int | None) -> Stream:
    """Who has not been seen for `idle` before the newest time of the blocks before is forgotten."""
    names, times, amounts = map(list, zip(*events, strict=True))
    blocks = range(len(events) // BLOCK + 1)
    newest = [max(times[: block * BLOCK], default=NEVER) for block in blocks]
    forgotten = [NEVER if idle is None or each == NEVER else each - idle for each in newest]
    return Stream(names, times, amounts, forgotten)  # type: ignore[arg-type]  # zip knows no columns


def levels_of(common: bool, blocks: int) -> Levels:
    mean = np.full(blocks, STANDIN if common else np.nan)
    return Levels(mean, np.full(blocks, 1.0 if common else np.nan), winsorized=common)


def in_one_loop(stream: Stream, common: bool) -> tuple[OneLoop, list[Shown]]:
    most = (math.log(100.0) ** 2, HORIZONS[-1]) if common else (math.inf, math.inf)
    loop = OneLoop(HORIZONS, BLOCK, DECAY, stream.forgotten, STANDIN if common else None, *most)
    rows = zip(stream.names, stream.times, stream.amounts, strict=True)
    return loop, [loop.row(sequence, *row) for sequence, row in enumerate(rows)]


def in_two_steps(
    stream: Stream, common: bool, cuts: list[int], cores: Cores
) -> tuple[Profiles, list[Features]]:
    profiles, found = Profiles(HORIZONS, BLOCK, DECAY, MEMORIES, cores), []
    ends = sorted({cut for cut in cuts if cut < len(stream.names)})
    for start, stop in pairwise([0, *ends, len(stream.names)]):
        column = pa.chunked_array([pa.array(stream.names[start:stop], pa.string())])
        times = read_only(np.array(stream.times[start:stop], np.int64))
        amounts = read_only(np.array(stream.amounts[start:stop]))
        logs, blocks = log_amounts(amounts), stream.blocks(start, stop)
        forgotten = np.array(stream.forgotten[blocks])
        levels = levels_of(common, len(forgotten))
        half = profiles.entity_half(column, times, amounts, logs, start, None, forgotten, levels)
        profiles.commit(half, profiles.population_pass(half.features, logs, start, levels))
        found.append(half.features)
    return profiles, found


def bits(values: object) -> bytes:
    return np.asarray(values, np.float64).tobytes()


@given(EVENTS, CUTS, st.sampled_from(POOLS), st.booleans(), IDLE)
def test_two_steps_do_what_one_loop_does(
    events: list[tuple[str | None, int, float]], cuts: list[int], cores: Cores, common: bool, idle: int | None
) -> None:
    stream = stream_of(events, idle)
    loop, shown = in_one_loop(stream, common)
    profiles, found = in_two_steps(stream, common, cuts, cores)
    columns = Features(*(np.concatenate(parts) for parts in zip(*found, strict=True)))
    assert bits(columns.counts) == bits([row.counts for row in shown])
    assert bits(columns.amounts) == bits([row.amounts for row in shown])
    for name in ("sums", "squares", "exposures", "gaps"):
        assert bits(getattr(columns, name)) == bits([getattr(row, name[:-1]) for row in shown]), name
    assert columns.late.tolist() == [row.late for row in shown]
    state = profiles.snapshot().state
    entities = [loop.entities[name] for name in dict.fromkeys(filter(None, stream.names))]
    moments = np.reshape([each.moments for each in entities], (-1, len(HORIZONS), 4))
    assert bits(state.moments) == bits(moments)
    assert state.clocks.tolist() == [[each.last, each.first, each.total] for each in entities]
    assert (bits(state.population), bits(state.pending)) == (bits(loop.population), bits(loop.pending))


LABELS = st.lists(
    st.tuples(
        st.sampled_from(NAMES),
        st.integers(-3000, 3000),
        st.sampled_from([-0.5, 0.0, 0.4, 1.0]),
        st.booleans(),
        st.integers(0, 79),
    ),
    max_size=30,
)
BUCKETS = st.lists(st.integers(0, 4), min_size=len(NAMES), max_size=len(NAMES))
Label = tuple[str | None, int, float, bool, int]


def labels_of(labels: Sequence[Label], kept: set[str | None]) -> KnownLabels:
    """Labels by ascending position; of entities that are not kept no id is known."""
    ordered = sorted(labels, key=lambda label: label[-1])
    names = [name if name in kept else None for name, *_ in ordered]
    return KnownLabels(
        pa.chunked_array([pa.array(names, pa.string())]),
        read_only(np.array([minutes * MINUTE for _, minutes, *_ in ordered], np.int64)),
        read_only(np.array([blame for _, _, blame, *_ in ordered], np.float64)),
        read_only(np.array([first for *_, first, _ in ordered], np.bool_)),
        read_only(np.array([position for *_, position in ordered], np.int64)),
    )


@given(EVENTS, LABELS, st.integers(0, 40), BUCKETS, st.booleans())
def test_the_entity_half_may_be_done_elsewhere_for_any_of_the_entities(
    events: list[tuple[str | None, int, float]],
    labels: list[Label],
    first: int,
    buckets: list[int],
    idle: bool,
) -> None:
    """Each bucket gets the rows of its entities and all labels; in order again, it is what one half shows."""
    stream, rows = stream_of(events, 600 * MINUTE if idle else None), len(events)
    blocks = (first + rows - 1) // BLOCK - first // BLOCK + 1
    forgotten = np.resize(np.array(stream.forgotten), blocks)
    bucket = dict(zip(NAMES, buckets, strict=True))

    def half_of(kept: set[str | None]) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
        places = np.array([row for row, name in enumerate(stream.names) if name in kept], np.int64)
        amounts = read_only(np.array(stream.amounts)[places])
        half = Profiles(HORIZONS, BLOCK, DECAY, MEMORIES, POOLS[1]).entity_half(
            pa.chunked_array([pa.array([stream.names[row] for row in places], pa.string())]),
            read_only(np.array(stream.times, np.int64)[places]),
            amounts,
            log_amounts(amounts),
            first,
            labels_of(labels, kept),
            forgotten,
            levels_of(True, blocks),
            SentRows(first + places, rows),
        )
        return places, [*half.features, half.judged], half.rows.sequences

    _, whole, _ = half_of(set(NAMES))
    merged = [np.empty_like(column) for column in whole]
    for each in set(buckets):
        places, columns, sequences = half_of({name for name in NAMES if bucket[name] == each})
        assert sequences.tolist() == (first + places).tolist()
        for column, part in zip(merged, columns, strict=True):
            column[places] = part
    assert [column.tobytes() for column in merged] == [column.tobytes() for column in whole]


@given(st.lists(st.integers(-1, 50), max_size=60), st.integers(1, 9))
def test_shares_hold_each_row_once_and_all_rows_of_their_entities(codes: list[int], shares: int) -> None:
    found = shares_of(np.array(codes, np.int32), shares)
    assert [share.number for share in found] == list(range(shares))
    assert sorted(row for share in found for row in share.places) == list(range(len(codes)))
    assert all(share.places.tolist() == sorted(share.places) for share in found)
    owners = [{codes[row] for row in share.places} - {-1} for share in found]
    assert sum(map(len, owners)) == len(set(codes) - {-1})


@pytest.mark.parametrize("cores", POOLS)
def test_labels_that_no_row_of_a_share_knows_count_for_the_batches_that_follow(cores: Cores) -> None:
    """The last row of `a` comes before the labels on it, and other shares hold the rows behind."""
    names: list[str | None] = ["a", *(f"x{number}" for number in range(39))]
    labels = [("a", 0, 1.0, True, 30), ("a", 1, 1.0, True, 39)]
    profiles = Profiles(HORIZONS, BLOCK, DECAY, MEMORIES, cores)
    paid = read_only(np.ones(40))
    times = read_only(np.arange(40) * MINUTE)
    column = pa.chunked_array([pa.array(names)])
    half = profiles.entity_half(column, times, paid, log_amounts(paid), 0, labels_of(labels, set(names)))
    profiles.commit(half, profiles.population_pass(half.features, log_amounts(paid), 0))
    state = profiles.snapshot().state
    assert not half.judged[0].any()
    assert state.judged[0].tolist() == pytest.approx([1 + math.exp(-60 / each) for each in MEMORIES])
    assert state.frontier.tolist() == [MINUTE]
