from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.audit.chain import (
    MOST_FAULTS,
    AuditRow,
    ChainFault,
    ChainKey,
    Head,
    Problem,
    hash_of,
    linked,
    origin,
    verify,
)
from agent.audit.events import EVENT_KINDS, AuditEvent

PROPERTY = settings(deadline=None, derandomize=True, max_examples=150)
KEY = ChainKey(b"a key of the tests, long enough")
START = origin(KEY, "tester/audit")
FIELDS = ("number", "at", "kind", "subject", "detail", "source", "position", "previous", "hash")


def chain(count: int, start: Head = START, key: ChainKey = KEY) -> list[AuditRow]:
    events = [
        AuditEvent(EVENT_KINDS[place % len(EVENT_KINDS)], "tester", {"rows": place}, "tester/q", place)
        for place in range(count)
    ]
    return linked(key, start, events, at=1_700_000_000_000_000)


def end_of(rows: list[AuditRow]) -> Head:
    return Head(rows[-1].number, rows[-1].hash)


def found(rows: list[AuditRow], *anchors: Head) -> list[ChainFault]:
    return verify(KEY, START, sorted(rows, key=lambda row: row.number), anchors)[1]


def problems(rows: list[AuditRow], *anchors: Head) -> list[tuple[int, Problem]]:
    return [(each.number, each.problem) for each in found(rows, *anchors)]


def other(value: Any) -> Any:
    return value + 1 if isinstance(value, int) else f"{value}0"


sizes = st.integers(1, 12)


@PROPERTY
@given(sizes, st.data())
def test_an_untouched_chain_is_sound_under_every_anchor_it_ever_had(count: int, data: st.DataObject) -> None:
    rows = chain(count)
    kept = data.draw(st.integers(-1, count - 1))
    anchor = START if kept < 0 else end_of(rows[: kept + 1])
    assert verify(KEY, START, rows, [anchor, end_of(rows)]) == (end_of(rows), [])


@PROPERTY
@given(sizes, st.data())
def test_any_edited_field_is_found(count: int, data: st.DataObject) -> None:
    rows = chain(count)
    place, name = data.draw(st.integers(0, count - 1)), data.draw(st.sampled_from(FIELDS))
    edited = replace(rows[place], **{name: other(getattr(rows[place], name))})
    findings = problems([*rows[:place], edited, *rows[place + 1 :]], end_of(rows))
    if name == "number":
        assert (place + 1, "moved") in findings
    else:
        assert (place, "edited") in findings
        assert len(findings) == 1 or name == "hash"


@PROPERTY
@given(sizes, st.data())
def test_any_rows_taken_away_are_found_where_they_were(count: int, data: st.DataObject) -> None:
    rows = chain(count)
    first = data.draw(st.integers(0, count - 1))
    last = data.draw(st.integers(first, count - 1))
    problem: Problem = "cut" if last == count - 1 else "missing"
    assert problems(rows[:first] + rows[last + 1 :], end_of(rows)) == [(first, problem)]


@PROPERTY
@given(st.integers(2, 12), st.data())
def test_two_rows_that_changed_places_are_found_with_where_they_belong(
    count: int, data: st.DataObject
) -> None:
    rows = chain(count)
    one, two = sorted(data.draw(st.lists(st.integers(0, count - 1), min_size=2, max_size=2, unique=True)))
    rows[one], rows[two] = replace(rows[two], number=one), replace(rows[one], number=two)
    findings = [(each.number, each.problem, each.detail) for each in found(rows)]
    assert findings == [(one, "moved", f"belongs at {two}"), (two, "moved", f"belongs at {one}")]


@PROPERTY
@given(sizes, st.data())
def test_a_row_twice_is_found(count: int, data: st.DataObject) -> None:
    rows = chain(count)
    place = data.draw(st.integers(0, count - 1))
    assert problems([*rows, rows[place]], end_of(rows)) == [(place, "doubled")]


@PROPERTY
@given(sizes, sizes, st.data())
def test_a_fork_by_one_who_holds_the_key_is_found(count: int, more: int, data: st.DataObject) -> None:
    rows = chain(count)
    split = data.draw(st.integers(0, count - 1))
    before = START if split == 0 else end_of(rows[:split])
    event = AuditEvent("action", "tester", {"step": more}, "tester/other", more)
    branch = linked(KEY, before, [event], at=1)
    assert (split, "forked") in problems([*rows, *branch], end_of(rows))


@PROPERTY
@given(st.integers(2, 12), st.data())
def test_an_end_rewritten_by_one_who_holds_the_key_is_found_by_the_anchor(
    count: int, data: st.DataObject
) -> None:
    rows = chain(count)
    split = data.draw(st.integers(1, count - 1))
    events = [AuditEvent("action", "tester", {}, "tester/other", place) for place in range(count - split)]
    rewritten = rows[:split] + linked(KEY, end_of(rows[:split]), events, at=1)
    assert problems(rewritten) == []
    assert problems(rewritten, end_of(rows)) == [(count - 1, "anchor")]


def test_a_tail_cut_off_before_the_anchor_is_found_and_one_after_it_is_not() -> None:
    rows = chain(6)
    anchor = end_of(rows[:4])
    assert problems(rows[:5], anchor) == []
    assert problems(rows[:3], anchor) == [(3, "cut")]
    assert problems([], anchor) == [(0, "cut")]
    assert problems(rows[:2], anchor, end_of(rows)) == [(2, "cut")]


def test_rows_spliced_together_from_two_chains_are_found() -> None:
    rows, others = chain(4), chain(4, origin(KEY, "other/audit"))
    assert problems(rows[:2] + others[2:]) == [(2, "unlinked")]
    assert problems(others) == [(0, "unlinked")]


def test_nobody_without_the_key_can_append_or_rewrite() -> None:
    rows = chain(3)
    forged = chain(5, key=ChainKey(b"another key, just as long"))
    assert problems(rows + forged[3:]) == [(3, "edited"), (4, "edited")]


def test_a_chain_continues_from_where_a_check_ended() -> None:
    rows = chain(7)
    head, findings = verify(KEY, START, rows[:3])
    assert verify(KEY, head, rows[3:]) == (end_of(rows), [])
    assert findings == []


def test_a_hopeless_chain_is_not_told_row_by_row() -> None:
    forged = chain(300, key=ChainKey(b"another key, just as long"))
    assert len(found(forged)) == MOST_FAULTS


def test_the_key_is_never_shown_and_told_apart_by_its_identity() -> None:
    assert "tests" not in repr(KEY)
    assert KEY.identity == ChainKey(KEY.secret).identity != ChainKey(b"other").identity


@pytest.mark.parametrize("name", FIELDS[:-1])
def test_the_hash_covers_every_field(name: str) -> None:
    row = chain(1)[0]
    changed = replace(row, **{name: other(getattr(row, name))})
    assert hash_of(KEY, changed) != row.hash


def test_the_hash_is_the_same_on_every_machine() -> None:
    assert [row.hash[:16] for row in chain(2)] == ["cb427bd05d5b1cfb", "e4cc07049a3aa365"]
