"""Refunds beside payments: profiles, populations and sentences of their own, each apart from the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming.detection.features import rule_fields
from streaming.detection.scoring import Scorer
from streaming.profiles.directions import alike, entity_of, holds_refunds, named_kind, of_refunds
from tests.unit.scoring_samples import SECOND, START, agent_spec, bits, load, run, save, stream, table

ENTITIES = ("customer", "terminal")
ROWS = 400
PROPERTY = settings(deadline=None, derandomize=True, max_examples=15)
RICH: dict[str, Any] = {
    "arithmetic": 2,
    "profiles": {
        "block_rows": 16,
        "pairs": [["customer", "terminal"]],
        "peers": {"customer": "terminal"},
        "windows": {"customer": {"horizons": ["1h", "1d"], "delay": "1h"}},
    },
    "detectors": {"habit": {"enabled": True}, "multivariate": {"enabled": True}},
}


def scorer(**changes: Any) -> Scorer:
    return Scorer(agent_spec(**{"arithmetic": 2, **changes}), ENTITIES, refunds=True)


def directed(rows: pa.Table, refunds: Any) -> pa.Table:
    values = [None if each is None else "refund" if each else "payment" for each in refunds]
    return rows.append_column("direction", pa.array(values, pa.string()))


REFUNDED = np.random.default_rng(5).random(ROWS) < 0.3
STREAM = directed(stream(ROWS), REFUNDED.tolist())


def labels_of(rows: pa.Table, places: list[int], position: int) -> pa.Table:
    """Frauds among the rows, known from `position` on."""
    known = rows.take(pa.array(places))
    count = len(places)
    columns = {
        "position": pa.array([position] * count, pa.int64()),
        "blame": pa.array([1.0] * count),
        "first": pa.array([True] * count),
    }
    return pa.table({**columns, **{name: known[name] for name in ("event_time", "direction", *ENTITIES)}})


@given(st.lists(st.integers(0, ROWS), max_size=6), st.sampled_from([{}, RICH, {"arithmetic": 1}]))
@PROPERTY
def test_cutting_the_sequence_into_other_batches_changes_no_bit(cuts: list[int], how: Any) -> None:
    assert bits(run(scorer(**how), STREAM, cuts)) == bits(run(scorer(**how), STREAM, []))


@given(st.booleans(), st.floats(1e-3, 1e3), st.sampled_from([{}, RICH, {"arithmetic": 1}]))
@PROPERTY
def test_what_is_paid_one_way_says_nothing_of_the_other_way(refunds: bool, factor: float, how: Any) -> None:
    """Whatever the amounts of one direction are, the other one keeps its evidence, bit for bit."""
    changed = np.where(refunds == REFUNDED, STREAM["amount"].to_numpy() * factor, STREAM["amount"].to_numpy())
    other = STREAM.set_column(STREAM.schema.get_field_index("amount"), "amount", pa.array(changed))
    left = np.flatnonzero(refunds != REFUNDED)
    one, two = (scorer(**how).score(rows) for rows in (STREAM, other))
    own = [place for place, name in enumerate(one.reason_names) if not name.startswith("multivariate")]
    assert one.evidence[left][:, own].tobytes() == two.evidence[left][:, own].tobytes()
    assert one.features()[left, :-1].tobytes() == two.features()[left, :-1].tobytes()


def test_labels_speak_for_the_direction_of_their_transaction() -> None:
    refunds = np.flatnonzero(REFUNDED[:200]).tolist()
    scoring = scorer()
    scoring.fold(STREAM.slice(0, 200))
    batch = scoring.score(STREAM.slice(200), labels_of(STREAM, refunds, 200))
    risk = batch.evidence[:, batch.reason_names.index("risk.customer")]
    of_refunds_alone = batch.evidence[:, batch.reason_names.index("risk.customer-refunds")]
    assert not risk.any()
    assert (of_refunds_alone[REFUNDED[200:]] > 0).any()
    assert not of_refunds_alone[~REFUNDED[200:]].any()


def test_rows_from_before_there_was_a_direction_are_payments() -> None:
    nulls = directed(stream(ROWS), [None] * ROWS)
    payments = directed(stream(ROWS), [False] * ROWS)
    assert bits([scorer().score(nulls)]) == bits([scorer().score(payments)])


def test_payments_alone_have_the_evidence_that_they_have_where_nobody_knows_refunds() -> None:
    plain = Scorer(agent_spec(arithmetic=2), ENTITIES)
    knowing = scorer().score(directed(stream(ROWS), [False] * ROWS))
    expected = plain.score(stream(ROWS))
    for place, name in enumerate(expected.reason_names):
        column = knowing.evidence[:, knowing.reason_names.index(name)]
        assert column.tobytes() == expected.evidence[:, place].tobytes(), name
    assert plain.columns == ()
    assert plain.definition_hash != scorer().definition_hash


def test_what_nobody_uses_leaves_the_definition_of_scores_alone() -> None:
    """Checkpoints and registered versions of older lakes go by it."""
    known = "95bacd7575bd0d21ccffb55d525156cb97d3f0ae1bed51cd458ce96db70e239b"
    assert Scorer(agent_spec(arithmetic=2), ENTITIES).definition_hash == known


def test_a_checkpoint_holds_both_directions(tmp_path: Path) -> None:
    whole, first = scorer(**RICH), scorer(**RICH)
    expected = bits(run(whole, STREAM, [150])[1:])
    first.fold(STREAM.slice(0, 150))
    save(first, tmp_path)
    second = scorer(**RICH)
    assert load(second, tmp_path) == ()
    assert bits([second.score(STREAM.slice(150))]) == expected


def test_a_refund_larger_than_usual_ones_stands_out_and_says_so() -> None:
    quiet = directed(stream(3000), (np.random.default_rng(1).random(3000) < 0.3).tolist())
    scoring = scorer()
    scoring.fold(quiet)
    moment = quiet["event_time"][-1].value + SECOND
    odd = table([moment, moment + 1], [900.0, 3.0], 3000, customer=["c1", "c2"], terminal=["t1", "t2"])
    batch = scoring.score(directed(odd, [True, True]))
    assert batch.score[0] > batch.score[1]
    (reason,) = [each for each in batch.reasons(0) if each.name.startswith("amount.")]
    assert reason.name in ("amount.customer-refunds", "amount.terminal-refunds", "amount.population")
    assert "refund" in reason.text


@pytest.mark.parametrize(
    ("customer", "said"),
    [
        ("c1", "usual refund of"),
        ("somebody new", "usual for the first refund of a customer"),
    ],
)
def test_sentences_compare_refunds_with_refunds(customer: str, said: str) -> None:
    amounts, times = [20.0] * 200, [START + number * 60 * SECOND for number in range(200)]
    one = Scorer(
        agent_spec(arithmetic=2, detectors={"novelty": {"enabled": False}}), ("customer",), refunds=True
    )
    past = table(times, amounts, customer=[f"c{number % 5}" for number in range(200)])
    one.fold(directed(past, [number % 2 == 0 for number in range(200)]))
    odd = table([times[-1] + SECOND], [2000.0], 200, customer=[customer])
    texts = {each.name: each.text for each in one.score(directed(odd, [True])).reasons(0)}
    assert said in texts.get("amount.customer-refunds", "") or "of all refunds" in texts["amount.population"]


def test_rules_read_what_is_known_of_refunds() -> None:
    fields = rule_fields(scorer().feature_names)
    assert fields["count_customer_refunds_1_hour"] == "count.customer-refunds.1_hour"
    assert fields["count_customer_1_hour"] == "count.customer.1_hour"


def test_kinds_have_names_for_people() -> None:
    kind = of_refunds("customer")
    assert (holds_refunds(kind), entity_of(kind), named_kind(kind)) == (
        True,
        "customer",
        ("customer", "refund"),
    )
    assert (holds_refunds("customer"), named_kind("customer")) == (False, ("customer", "payment"))
    assert (alike("segment", kind), alike("segment", "customer")) == ("segment-refunds", "segment")


def test_a_scorer_that_knows_refunds_is_warmed_up() -> None:
    scorer(**RICH).warm_up()
