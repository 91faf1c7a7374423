"""Polls grow once for a stream of small records, and never beyond what it has shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming.kafka.poll_size import FEW_AT_ONCE, MANY_AT_ONCE, PollSize, fetch_bytes

MANY = 200_000
batches = st.lists(st.tuples(st.integers(0, 500_000), st.integers(0, 2_000_000)))


def after(*seen: tuple[int, int], at_once: int = FEW_AT_ONCE, may_grow: bool = True) -> int:
    """The size of polls after batches of so many records of so many bytes each."""
    polls = PollSize(at_once, may_grow=may_grow)
    for records, each in seen:
        polls.learn(records, records * each)
    return polls.at_once


def test_many_small_records_make_polls_grow() -> None:
    assert after((MANY, 200)) == MANY_AT_ONCE
    assert after((MANY, 10_000)) == 838, "as many as 8 MiB hold"
    assert after((MANY, 40_000)) == FEW_AT_ONCE, "not worth a query that begins anew"
    assert after((99_999, 200)) == FEW_AT_ONCE, "too few to tell"


def test_large_records_bring_few_back_for_good() -> None:
    assert after((MANY, 200), (10, 100_000)) == FEW_AT_ONCE
    assert after((MANY, 200), (10, 100_000), (MANY, 200)) == FEW_AT_ONCE
    assert after((MANY, 200), (MANY, 2_500)) == MANY_AT_ONCE, "hardly larger"


@given(batches)
def test_after_the_jvm_has_ended_polls_stay_as_few_as_they_are(seen: list[tuple[int, int]]) -> None:
    for at_once in (FEW_AT_ONCE, 16, 1):
        assert after(*seen, at_once=at_once, may_grow=False) == at_once


@given(batches)
def test_polls_change_twice_at_most_and_hold_what_was_shown(seen: list[tuple[int, int]]) -> None:
    polls, sizes = PollSize(FEW_AT_ONCE, may_grow=True), [FEW_AT_ONCE]
    for records, each in seen:
        polls.learn(records, records * each)
        if polls.at_once != sizes[-1]:
            sizes.append(polls.at_once)
        assert polls.at_once == FEW_AT_ONCE or FEW_AT_ONCE * 4 <= polls.at_once <= MANY_AT_ONCE
    assert len(sizes) <= 3
    assert sizes[2:] in ([], [FEW_AT_ONCE])


def expecting(unread: int, *sizes: int, at_once: int = FEW_AT_ONCE, may_grow: bool = True) -> PollSize:
    """Polls of a stream before which so many records wait, some of them of these sizes."""
    polls = PollSize(at_once, may_grow=may_grow)
    polls.expect(lambda: unread, lambda: sizes)
    return polls


def test_many_small_records_that_wait_are_taken_many_at_once_from_the_start() -> None:
    assert expecting(MANY, 200, 220).at_once == MANY_AT_ONCE
    assert expecting(MANY, 200, 19_800).at_once == 838, "by the mean"
    assert expecting(MANY, 40_000).at_once == FEW_AT_ONCE
    assert expecting(MANY).at_once == FEW_AT_ONCE, "nothing came in time"
    assert expecting(99_999, 200).at_once == FEW_AT_ONCE, "too few to matter"


def test_what_was_expected_is_taken_back_by_what_comes() -> None:
    polls = expecting(MANY, 200)
    polls.learn(10, 1_000_000)
    assert polls.at_once == FEW_AT_ONCE
    polls.learn(MANY, MANY * 200)
    assert polls.at_once == FEW_AT_ONCE


@pytest.mark.parametrize("at_once", [FEW_AT_ONCE, 16, 1])
def test_after_the_jvm_has_ended_the_broker_is_not_even_asked(at_once: int) -> None:
    polls = PollSize(at_once, may_grow=False)
    polls.expect(lambda: pytest.fail("asked"), lambda: pytest.fail("asked"))
    assert polls.at_once == at_once


def test_sizes_that_nobody_knows_change_nothing() -> None:
    assert after((MANY, 0)) == FEW_AT_ONCE


@pytest.mark.parametrize("at_once", [1, FEW_AT_ONCE, MANY_AT_ONCE])
def test_a_fetch_holds_a_poll_of_small_records_and_no_more_than_kafka_takes_by_itself(at_once: int) -> None:
    assert 65_536 <= fetch_bytes(at_once) <= 1 << 20
