"""Revisions of alerts are folded: whatever the fetches and restarts, the highest one is what is left."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import orjson
from hypothesis import given
from hypothesis import strategies as st

from streaming.consume.received import Received
from streaming.consume.revisions import NewestRevisions

SENT = st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 4)), max_size=30)


def received(sent: Sequence[tuple[str, int]]) -> list[Received]:
    documents = [{"alert_id": identifier, "revision": revision} for identifier, revision in sent]
    return [Received(each, orjson.dumps(each), 0, offset) for offset, each in enumerate(documents)]


def given_out(sent: Sequence[Received], cuts: Sequence[int], most: int = 100) -> Iterator[tuple[str, int]]:
    """What one loop gives of what is fetched in slices."""
    newest, begin = NewestRevisions(most), 0
    for end in (*cuts, len(sent)):
        fetched = sent[begin:end]
        yield from (each.key for each, kept in zip(fetched, newest.among(fetched), strict=True) if kept)
        begin = max(begin, end)


@given(SENT, st.lists(st.integers(0, 30), max_size=5).map(sorted))
def test_of_each_alert_no_revision_is_given_after_a_higher_one_and_the_highest_is(
    sent: list[tuple[str, int]], cuts: list[int]
) -> None:
    given = list(given_out(received(sent), cuts))
    for identifier in {each for each, _ in sent}:
        revisions = [revision for each, revision in given if each == identifier]
        assert revisions == sorted(revisions)
        assert revisions[-1] == max(revision for each, revision in sent if each == identifier)


@given(SENT)
def test_of_what_is_fetched_together_only_the_highest_revision_is_given(sent: list[tuple[str, int]]) -> None:
    given = list(given_out(received(sent), []))
    highest = {identifier: max(r for each, r in sent if each == identifier) for identifier, _ in sent}
    assert given == [(identifier, r) for identifier, r in sent if r == highest[identifier]]


@given(SENT, st.integers(0, 30), st.integers(0, 30), st.integers(0, 2))
def test_a_keeper_of_highest_revisions_has_what_was_published_after_any_restart(
    sent: list[tuple[str, int]], died_at: int, came_back_at: int, most: int
) -> None:
    kept: dict[str, int] = {}
    everything = received(sent)
    runs = [everything[:died_at], everything[min(came_back_at, died_at) :]]
    for run in runs:
        for identifier, revision in given_out(run, [len(run) // 2], most):
            kept[identifier] = max(revision, kept.get(identifier, 0))
    assert kept == {each: max(r for other, r in sent if other == each) for each, _ in sent}
