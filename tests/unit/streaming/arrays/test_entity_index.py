from __future__ import annotations

import time

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming.arrays.entity_index import EntityIndex

IDS = st.lists(st.lists(st.text(max_size=6), max_size=30), max_size=5)
PROPERTY = settings(deadline=None, derandomize=True, max_examples=60)


def add(index: EntityIndex, ids: list[str | None]) -> list[int]:
    column = index.encode(pa.chunked_array([pa.array(ids, pa.string())]))
    slots = index.find(column)
    new = np.flatnonzero(slots < 0)
    index.insert(column, new)
    return [int(code) for code in column.codes]


def slots_of(index: EntityIndex, ids: list[str]) -> list[int]:
    column = index.encode(pa.array(ids, pa.string()))
    return [int(slot) for slot in index.find(column)[column.codes]]


@given(IDS, st.integers(0, 2**64 - 1))
@PROPERTY
def test_slots_follow_first_appearance_whatever_the_seed(batches: list[list[str]], seed: int) -> None:
    index = EntityIndex(seed)
    expected: dict[str, int] = {}
    for batch in batches:
        add(index, list(batch))
        for name in batch:
            expected.setdefault(name, len(expected))
    assert len(index) == len(expected)
    assert slots_of(index, list(expected)) == list(expected.values())
    assert slots_of(index, ["surely not among them"]) == [-1]


@given(IDS)
@PROPERTY
def test_restored_index_finds_the_same_slots(batches: list[list[str]]) -> None:
    index, other = EntityIndex(1), EntityIndex(2)
    for batch in batches:
        add(index, list(batch))
    other.restore(index.ids())
    known = sorted({name for batch in batches for name in batch})
    assert slots_of(other, known) == slots_of(index, known)


def test_equal_codes_mean_equal_ids_across_chunks_and_nulls_have_none() -> None:
    index = EntityIndex()
    column = pa.chunked_array([["a", None], [], ["b", "a"], ["é", "b"]], pa.string())
    assert index.encode(column).codes.tolist() == [0, -1, 1, 0, 2, 1]


def test_a_column_in_many_pieces_costs_little_more_than_one_in_a_piece() -> None:
    """What is decoded comes in a piece per block, and each of them once cost as much as the whole column."""
    index, pieces = EntityIndex(), 100
    whole = pa.chunked_array([pa.array([f"payment-{number}" for number in range(pieces * 1_000)])])
    parted = pa.chunked_array([whole.chunk(0).slice(each * 1_000, 1_000) for each in range(pieces)])
    index.encode(whole.slice(0, 10))
    seconds = []
    for column in (whole, parted):
        began = time.process_time()
        encoded = index.encode(column)
        seconds.append(time.process_time() - began)
        assert encoded.codes.tolist() == list(range(len(column)))
    assert seconds[1] < 10 * seconds[0] + 0.1


def test_numbers_and_dictionaries_are_taken_as_text() -> None:
    index = EntityIndex()
    add(index, ["7", "8"])
    numbers = index.encode(pa.chunked_array([pa.array([8, 7])]))
    assert index.find(numbers).tolist() == [1, 0]
    words = pa.DictionaryArray.from_arrays([1, 0], ["7", "8"])
    assert index.find(index.encode(pa.chunked_array([words]))).tolist() == [1, 0]


def test_looking_up_changes_nothing() -> None:
    index = EntityIndex()
    index.find(index.encode(pa.array(["a", "b"])))
    assert len(index) == 0


def test_ids_stay_as_they_were_while_the_index_grows() -> None:
    index = EntityIndex()
    add(index, ["first", "second"])
    data, offsets = index.ids()
    before = data.tobytes(), offsets.tolist()
    add(index, [f"later-{number}" for number in range(5000)])
    assert (data.tobytes(), offsets.tolist()) == before


def test_many_ids_with_a_long_common_start_stay_apart() -> None:
    index, ids = EntityIndex(), [f"{'same' * 20}{number}" for number in range(20_000)]
    add(index, list(ids))
    assert slots_of(index, ids[::-1]) == list(range(20_000))[::-1]
