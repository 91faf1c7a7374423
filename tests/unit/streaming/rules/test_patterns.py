"""Sequences and absences against their definition in plain Python, however the stream is cut or restarted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.rules import Rule
from streaming.rules.pattern import CompiledPattern, memory_key
from streaming.rules.patterns import Patterns, Recognised

SECOND = 1_000_000
START = 1_600_000_000 * SECOND
BASE = {"severity": "high", "reason": "because"}
Found = tuple[int, ...]


@dataclass(frozen=True)
class Row:
    """One event: entity, event time in seconds, and whether it opens or closes a pattern."""

    entity: str | None
    time: int
    starts: bool
    ends: bool


def sequence(name: str = "s", entity: str = "customer", within: int = 10, lateness: int = 3) -> Rule:
    form = {"entity": entity, "first": "a", "then": "b", "within": f"{within}s", "lateness": f"{lateness}s"}
    return Rule.model_validate({"name": name, "sequence": form, **BASE})


def absence(name: str = "q", entity: str = "customer", within: int = 10, lateness: int = 3) -> Rule:
    form = {"entity": entity, "after": "a", "expected": "b"}
    times = {"within": f"{within}s", "lateness": f"{lateness}s"}
    return Rule.model_validate({"name": name, "absence": {**form, **times}, **BASE})


def compiled(*rules: Rule, arithmetic: int = 1) -> list[CompiledPattern]:
    return [CompiledPattern.of(number, rule, arithmetic) for number, rule in enumerate(rules)]


def table(rows: list[Row], first: int = 0) -> pa.Table:
    times = [START + row.time * SECOND for row in rows]
    return pa.table(
        {
            "sequence": pa.array(range(first, first + len(rows)), pa.int64()),
            "event_time": pa.array(times, pa.int64()).cast(pa.timestamp("us", "UTC")),
            "customer": pa.array([row.entity for row in rows], pa.string()),
            "terminal": pa.array(["t" if row.time % 2 else "u" for row in rows], pa.string()),
        }
    )


def advance(running: Patterns, patterns: list[CompiledPattern], rows: list[Row], first: int) -> Recognised:
    whole = table(rows, first)
    starts, ends = (
        np.array([[getattr(row, name)] * len(patterns) for row in rows], bool).reshape(
            len(rows), len(patterns)
        )
        for name in ("starts", "ends")
    )
    return running.advance(
        patterns, whole, starts, ends, lambda places: whole.take(pa.array(places, pa.int64()))
    )


def found_in(recognised: Recognised, first: int) -> dict[str, list[Found]]:
    """Per hit: row, seconds of its first event; per absence: row, seconds, passed by, seconds then."""
    found: dict[str, list[Found]] = {}
    for done in recognised.completed:
        seconds = (done.since - START) // SECOND
        found[done.pattern.rule.name] = list(
            zip((done.positions + first).tolist(), seconds.tolist(), strict=True)
        )
    for missed in recognised.missed:
        rows, times = missed.rows["sequence"], missed.rows["event_time"].cast(pa.int64()).to_numpy()
        columns = (rows.to_pylist(), ((times - START) // SECOND).tolist(), missed.passed_by.tolist())
        passed = ((missed.passed_at - START) // SECOND).tolist()
        found[missed.pattern.rule.name] = list(zip(*columns, passed, strict=True))
    return found


def run(
    rules: tuple[Rule, ...],
    rows: list[Row],
    cuts: list[int],
    restarts: bool = False,
    arithmetic: int = 1,
) -> dict[str, list[Found]]:
    """Process rows in batches; between them, if so wished, through a checkpoint into a new state."""
    patterns, running = compiled(*rules, arithmetic=arithmetic), Patterns()
    found: dict[str, list[Found]] = {rule.name: [] for rule in rules}
    bounds = [0, *sorted(cuts), len(rows)]
    for first, end in pairwise(bounds):
        advance(running, patterns, rows[first:end], first)  # an attempt that failed leaves all as it was
        recognised = advance(running, patterns, rows[first:end], first)
        for name, hits in found_in(recognised, first).items():
            found[name] += hits
        running.commit(recognised)
        if restarts:
            saved = running.snapshot()
            running = Patterns()
            running.restore(saved)
    return found


def entity_of(rule: Rule, row: Row) -> str | None:
    assert rule.pattern is not None
    if rule.pattern.entity == "customer" or row.entity is None:
        return row.entity
    return f"{row.entity} at {'t' if row.time % 2 else 'u'}"


def reached_by(rows: list[Row], arithmetic: int) -> list[float]:
    """How far event time has come as of each row."""
    if arithmetic == 1:
        return [max(row.time for row in rows[: place + 1]) for place in range(len(rows))]
    ahead = [-math.inf] * 64
    medians = [
        sorted([*ahead, *(row.time for row in rows[: place + 1])][-64:])[31] for place in range(len(rows))
    ]
    return [max(medians[: place + 1]) for place in range(len(rows))]


def expected(rule: Rule, rows: list[Row], arithmetic: int = 1) -> list[Found]:
    """The definition, row by row, over the whole stream at once."""
    form = rule.pattern
    assert form is not None
    within, lateness = (int(each.total_seconds()) for each in (form.within, form.lateness))
    reached = reached_by(rows, arithmetic)
    marks = [each - lateness for each in reached]
    grace = 0 if arithmetic == 1 else within
    ids = [entity_of(rule, row) for row in rows]
    found: list[Found] = []
    if rule.sequence is not None:
        for place, row in enumerate(rows):
            before = [
                other.time
                for other, who in zip(rows[:place], ids[:place], strict=True)
                if other.starts and who == ids[place] is not None
                if row.time - within <= other.time <= row.time and other.time + within >= marks[place]
            ]
            if row.ends and before:
                found.append((place, max(before)))
        return found
    for place, row in enumerate(rows):
        if not row.starts or ids[place] is None or row.time + grace < marks[place]:
            continue
        for passed in range(place, len(rows)):
            if any(
                other.ends and ids[number] == ids[place] and row.time <= other.time <= row.time + within
                for number, other in enumerate(rows[: passed + 1])
                if number != place
            ):
                break
            if marks[passed] > row.time + within:
                found.append((place, row.time, passed, int(reached[passed])))
                break
    return sorted(found, key=lambda each: (each[2], each[0]))


rows_strategy = st.lists(
    st.builds(
        Row,
        st.sampled_from(["x", "y", "", None]),
        st.integers(0, 40),
        st.booleans(),
        st.booleans(),
    ),
    max_size=40,
)
drifting = st.lists(
    st.tuples(st.sampled_from(["x", "y", None]), st.integers(-6, 5), st.booleans(), st.booleans()),
    max_size=60,
).map(lambda steps: [Row(who, place + step, a, b) for place, (who, step, a, b) in enumerate(steps)])


@settings(max_examples=300, deadline=None)
@given(
    rows=rows_strategy | drifting,
    within=st.integers(1, 15),
    lateness=st.integers(0, 8),
    entity=st.sampled_from(["customer", "customer+terminal"]),
    cuts=st.lists(st.integers(0, 60), max_size=6),
    restarts=st.booleans(),
)
def test_any_cut_and_any_restart_give_what_the_definition_says(
    rows: list[Row], within: int, lateness: int, entity: str, cuts: list[int], restarts: bool
) -> None:
    rules = tuple(make(entity=entity, within=within, lateness=lateness) for make in (sequence, absence))
    inside = [cut for cut in cuts if cut <= len(rows)]
    assert run(rules, rows, inside, restarts) == {rule.name: expected(rule, rows) for rule in rules}


long_and_late = st.lists(
    st.tuples(
        st.sampled_from(["x", "y", "z", None]),
        st.integers(-12, 3) | st.just(1_000),
        st.booleans(),
        st.booleans(),
    ),
    min_size=40,
    max_size=160,
).map(lambda steps: [Row(who, place // 3 + step, a, b) for place, (who, step, a, b) in enumerate(steps)])


@pytest.mark.long
@settings(max_examples=150, deadline=None)
@given(
    rows=long_and_late,
    within=st.integers(1, 15),
    lateness=st.integers(0, 8),
    cuts=st.lists(st.integers(0, 160), max_size=12),
    restarts=st.booleans(),
)
def test_the_second_arithmetic_is_what_its_definition_says(
    rows: list[Row], within: int, lateness: int, cuts: list[int], restarts: bool
) -> None:
    rules = tuple(make(within=within, lateness=lateness) for make in (sequence, absence))
    inside = [cut for cut in cuts if cut <= len(rows)]
    found = run(rules, rows, inside, restarts, arithmetic=2)
    assert found == {rule.name: expected(rule, rows, arithmetic=2) for rule in rules}


@settings(max_examples=50, deadline=None)
@given(rows=long_and_late, within=st.integers(1, 15), cuts=st.lists(st.integers(0, 40), max_size=12))
def test_what_is_remembered_is_the_same_for_any_cut(rows: list[Row], within: int, cuts: list[int]) -> None:
    patterns, remembered = compiled(absence(within=within), sequence(), arithmetic=2), []
    for bounds in ([0, len(rows)], [0, *sorted(cuts), len(rows)]):
        running = Patterns()
        for first, end in pairwise(bounds):
            running.commit(advance(running, patterns, rows[first:end], first))
        remembered.append(running.snapshot())
    assert remembered[0] == remembered[1]


def day_of_silences(ahead: int) -> list[Row]:
    """A payment every ten seconds for two hours; every minute one opens and is never answered.

    Every nine minutes one is dated `ahead` seconds later than it is.
    """
    rows = [other(10 * place) for place in range(720)]
    rows[::6] = [opening(f"c{place}", 60 * place) for place in range(120)]
    rows[3::54] = [other(row.time + ahead) for row in rows[3::54]]
    return rows


def test_one_event_dated_ahead_every_nine_minutes_silences_no_absence() -> None:
    rule = absence(within=300, lateness=60)
    quiet, pushed = [
        run((rule,), day_of_silences(ahead), [200, 500], arithmetic=2)["q"] for ahead in (0, 599)
    ]
    assert {row for row, *_ in pushed} == {row for row, *_ in quiet}
    assert len(quiet) > 100
    assert len(run((rule,), day_of_silences(599), [200, 500])["q"]) < len(quiet) / 10, "in the first"


def test_answers_are_kept_for_as_long_as_a_late_event_may_ask_for_them() -> None:
    """Few per entity, however many there were."""
    rules, running = compiled(absence(within=500, lateness=5), arithmetic=2), Patterns()
    for batch in range(60):
        rows = [closing(f"c{time % 5}", time) for time in range(batch * 100, batch * 100 + 100)]
        running.commit(advance(running, rules, rows, batch * 100))
    assert running.snapshot()[rules[0].digest]["answers"].num_rows < 700
    answered_late = [
        opening("c1", 5_601),
        opening("stranger", 5_601),
        *(other(t) for t in range(6_000, 6_400)),
    ]
    assert [row for row, *_ in found_in(advance(running, rules, answered_late, 6_000), 6_000)["q"]] == [6_001]


def opening(entity: str | None, time: int) -> Row:
    return Row(entity, time, starts=True, ends=False)


def closing(entity: str | None, time: int) -> Row:
    return Row(entity, time, starts=False, ends=True)


def other(time: int) -> Row:
    return Row("bystander", time, starts=False, ends=False)


@pytest.mark.parametrize(
    ("rows", "hits"),
    [
        ([opening("x", 0), closing("x", 10)], [(1, 0)]),
        ([opening("x", 0), closing("x", 11)], []),
        ([opening("x", 0), closing("y", 1)], []),
        ([opening(None, 0), closing(None, 1)], []),
        ([closing("x", 0), opening("x", 0)], []),
        ([opening("x", 0), closing("x", 0)], [(1, 0)]),
        ([opening("x", 0), opening("x", 4), closing("x", 5), closing("x", 6)], [(2, 4), (3, 4)]),
        ([opening("x", 5), closing("x", 4)], []),
        ([opening("x", 0), other(13), closing("x", 9)], [(2, 0)]),
        ([opening("x", 0), other(14), closing("x", 9)], []),
        ([Row("x", 0, starts=True, ends=True), Row("x", 1, starts=True, ends=True)], [(1, 0)]),
    ],
)
def test_what_completes_a_sequence(rows: list[Row], hits: list[Found]) -> None:
    for cut in range(len(rows) + 1):
        assert run((sequence(),), rows, [cut])["s"] == hits


@pytest.mark.parametrize(
    ("rows", "hits"),
    [
        ([opening("x", 0), other(13)], []),
        ([opening("x", 0), other(14)], [(0, 0, 1, 14)]),
        ([opening("x", 0), closing("x", 10), other(14)], []),
        ([opening("x", 0), closing("x", 11), other(14)], [(0, 0, 2, 14)]),
        ([opening("x", 0), closing("y", 1), other(14)], [(0, 0, 2, 14)]),
        ([opening(None, 0), other(14)], []),
        ([opening("x", 0), other(13), closing("x", 10), other(14)], []),
        ([opening("x", 0), other(14), closing("x", 10)], [(0, 0, 1, 14)]),
        ([closing("x", 5), opening("x", 4), other(20)], []),
        ([closing("x", 4), opening("x", 5), other(20)], [(1, 5, 2, 20)]),
        ([other(9), opening("x", 5), other(30)], []),
        ([closing("x", 5), other(8), opening("x", 5), other(30)], []),
        ([Row("x", 0, starts=True, ends=True), other(14)], [(0, 0, 1, 14)]),
        ([opening("x", 0), opening("x", 1), closing("x", 11), other(30)], [(0, 0, 3, 30)]),
    ],
)
def test_what_is_missed_and_when_it_is_certain(rows: list[Row], hits: list[Found]) -> None:
    for cut in range(len(rows) + 1):
        assert run((absence(),), rows, [cut])["q"] == hits


def test_a_rule_that_stays_keeps_its_state_and_a_changed_one_begins_anew() -> None:
    kept, changed = absence("kept"), absence("changed", within=10)
    later = absence("changed", within=12)
    running = Patterns()
    running.commit(advance(running, compiled(kept, changed), [opening("x", 0)], 0))
    running.commit(advance(running, compiled(later, kept), [opening("y", 1)], 1))
    recognised = advance(running, compiled(later, kept), [other(40)], 2)
    assert found_in(recognised, 2) == {
        "changed": [(1, 1, 2, 40)],
        "kept": [(0, 0, 2, 40), (1, 1, 2, 40)],
    }


def test_a_batch_without_rows_changes_nothing_whatever_rules_it_had() -> None:
    rules, running = compiled(absence()), Patterns()
    running.commit(advance(running, rules, [opening("x", 0)], 0))
    running.commit(advance(running, [], [], 1))
    assert running.digests == {rules[0].digest}
    assert found_in(advance(running, rules, [other(40)], 1), 1) == {"q": [(0, 0, 1, 40)]}
    running.commit(advance(running, [], [other(41)], 1))
    assert running.digests == frozenset()


def test_what_is_done_with_is_forgotten() -> None:
    rules, running = compiled(absence(), sequence()), Patterns()
    for batch in range(40):
        times = range(batch * 100, batch * 100 + 100)
        rows = [Row(f"{time % 7}", time, starts=True, ends=time % 2 == 0) for time in times]
        running.commit(advance(running, rules, rows, batch * 100))
    for parts in running.snapshot().values():
        assert parts["open"].num_rows < 20
        assert parts["answers"].num_rows < 20
        assert parts["entities"].num_rows <= 7


def described(kept: Any) -> list[int]:
    return list(kept["sequence"].to_pylist())


def test_rows_are_described_only_while_they_are_waited_for() -> None:
    rules, running = compiled(absence()), Patterns()
    asked: list[list[int]] = []

    def describe(places: Any) -> pa.Table:
        asked.append(places.tolist())
        return whole.take(pa.array(places, pa.int64()))

    rows = [opening("x", 0), closing("x", 1), opening("y", 2)]
    whole = table(rows)
    starts, ends = (np.array([[getattr(row, name)] for row in rows]) for name in ("starts", "ends"))
    running.commit(running.advance(rules, whole, starts, ends, describe))
    assert asked == [[2]]
    assert described(running.snapshot()[rules[0].digest]["kept"]) == [2]


def test_what_is_waited_for_goes_on_from_the_second_arithmetic_to_the_third() -> None:
    first, second, third = (memory_key(absence(), arithmetic) for arithmetic in (1, 2, 3))
    assert first != second == third == compiled(absence(), arithmetic=3)[0].digest
