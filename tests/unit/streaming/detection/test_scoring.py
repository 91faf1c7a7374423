from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import ConfigurationError, DataLossError
from streaming.detection.features import rule_fields
from streaming.detection.scoring import Scorer
from tests.unit.scoring_samples import SECOND, START, agent_spec, bits, run, stream, table
from tests.unit.streaming.profiles.one_profile import profile_of

ENTITIES = ("customer", "terminal")
ROWS = 300
STREAM = stream(ROWS)
PROPERTY = settings(deadline=None, derandomize=True, max_examples=25)


def scorer(**changes: Any) -> Scorer:
    return Scorer(agent_spec(**changes), ENTITIES)


def state(scoring: Scorer) -> tuple[object, ...]:
    snapshot = scoring.snapshot()
    arrays = [part for kind in snapshot.profiles.values() for part in (*kind.ids, *kind.state)]
    return snapshot.next_sequence, *(part.tobytes() for part in [*arrays, *snapshot.histogram])


WHOLE = scorer()
WHOLE_BITS = bits(run(WHOLE, STREAM, []))


@given(st.lists(st.integers(0, ROWS), max_size=8))
@PROPERTY
def test_cutting_the_sequence_into_other_batches_changes_no_bit(cuts: list[int]) -> None:
    other = scorer()
    assert bits(run(other, STREAM, cuts)) == WHOLE_BITS
    assert state(other) == state(WHOLE)


def test_cutting_changes_no_bit_where_entities_are_worked_on_in_threads() -> None:
    transactions = stream(20_000, customers=3000, terminals=500)
    whole, other = scorer(), scorer()
    assert bits(run(whole, transactions, [])) == bits(run(other, transactions, [7, 5000, 11_111, 11_112]))
    assert state(whole) == state(other)


@given(st.integers(0, ROWS), st.integers(0, ROWS))
@PROPERTY
def test_scoring_without_commit_leaves_everything_as_it_was(start: int, rows: int) -> None:
    attempted = scorer()
    attempted.fold(STREAM.slice(0, start))
    before = state(attempted)
    attempted.score(STREAM.slice(start, rows))
    assert state(attempted) == before
    assert attempted.next_sequence == start


def test_fold_leads_to_the_state_of_score_and_commit() -> None:
    folded = scorer()
    for start in range(0, ROWS, 70):
        folded.fold(STREAM.slice(start, 70))
    assert state(folded) == state(WHOLE)


EVENTS = st.lists(
    st.tuples(
        st.integers(-(2**53), 2**53) | st.integers(START, START + 10**6),
        st.floats(allow_nan=False, allow_infinity=False) | st.floats(0, 1000),
        st.sampled_from(["a", "b", "é𝛼", "e\u0301", "", "a\x00", "漢字"]) | st.text(max_size=3),
        st.none() | st.sampled_from(["t1", "t2"]),
    ),
    min_size=1,
    max_size=60,
)


@given(EVENTS, st.integers(0, 60))
@settings(deadline=None, derandomize=True, max_examples=100)
def test_any_finite_input_gives_finite_scores_that_add_up(events: list[tuple[Any, ...]], cut: int) -> None:
    times, amounts, customers, terminals = zip(*events, strict=True)
    transactions = table(times, amounts, customer=customers, terminal=terminals)
    small = {"profiles": {"block_rows": 4}}
    batches = run(scorer(**small), transactions, [min(cut, len(events))])
    assert bits(batches) == bits(run(scorer(**small), transactions, []))
    for batch in batches:
        logit = np.log(batch.score / (1 - batch.score))
        assert ((batch.score > 0) & (batch.score < 1)).all()
        assert np.isfinite(batch.contributions).all()
        assert (np.abs(batch.base + batch.contributions.sum(axis=1) - logit) <= 1e-9).all()
        named = [len(reasons) for reasons in batch.reasons_of(np.arange(len(batch)))]
        assert named == (batch.contributions != 0).sum(axis=1).tolist()


def test_late_rows_are_marked_and_do_not_turn_back_time() -> None:
    hours = [0, 5, 3, 6]
    times = [START + hour * 3600 * SECOND for hour in hours]
    one = Scorer(agent_spec(), ("customer",))
    batch = one.score(table(times, [10.0] * 4, customer=["a"] * 4))
    one.commit(batch)
    assert batch.late.tolist() == [False, False, True, False]
    profile = profile_of(one.snapshot().profiles["customer"], "a")
    assert profile is not None
    assert (profile.last_time, profile.first_time, profile.total) == (times[3], times[0], 4)
    assert profile.counts[0] == pytest.approx(sum(np.exp([hour - 6.0 for hour in hours])))


def test_unusual_payment_stands_out_with_its_reasons() -> None:
    quiet = stream(4000)
    alert = table(
        [quiet["event_time"][-1].value + SECOND], [5000.0], 4000, customer=["new one"], terminal=["t1"]
    )
    scoring = scorer()
    scoring.fold(quiet)
    batch = scoring.score(alert)
    reasons = batch.reasons(0)
    assert batch.score[0] > 0.99
    names = {reason.name for reason in reasons}
    assert "novelty.customer" in names
    assert len(names & {"amount.customer", "amount.terminal", "amount.population"}) == 1
    assert [reason.contribution for reason in reasons] == sorted(
        (part for part in batch.contributions[0].tolist() if part), reverse=True
    )
    texts = {reason.name: reason.text for reason in reasons}
    assert next(texts[name] for name in texts if name.startswith("amount")).startswith("5000.00 EUR is ")
    assert texts["novelty.customer"].startswith("first payment of this customer; 1 in ")


def test_burst_of_payments_stands_out() -> None:
    scoring = scorer()
    scoring.fold(stream(4000))
    start = START + 4000 * 70 * SECOND
    burst = table(
        [start + second * SECOND for second in range(40)],
        [20.0] * 40,
        4000,
        customer=["c1"] * 40,
        terminal=[f"t{number % 20}" for number in range(40)],
    )
    batch = scoring.score(burst)
    largest = batch.reasons(39)[0]
    assert largest.name == "rate.customer"
    assert "payments of this customer in the last 1 hour" in largest.text
    assert batch.score[39] > 0.99


def test_threshold_flags_about_its_share() -> None:
    scoring = Scorer(agent_spec(profiles={}), ENTITIES)
    batch = scoring.score(stream(60_000, customers=2000, terminals=300))
    assert 0.007 < (batch.score[20_000:] >= 0.99).mean() < 0.013


def test_weights_and_switches_shape_the_contributions() -> None:
    off = {name: {"enabled": False} for name in ("rate", "novelty", "recurrence", "risk")}
    batch = scorer(detectors={**off, "amount": {"weight": 3.0}}).score(STREAM)
    assert batch.reason_names == ("amount.customer", "amount.terminal", "amount.population")
    assert batch.contributions.shape == (ROWS, 3)
    some = scorer(detectors={**off, "amount": {"entities": ["customer"]}})
    assert some.reason_names == ("amount.customer", "amount.population")
    with pytest.raises(ConfigurationError, match="did you mean 'customer'"):
        scorer(detectors={"rate": {"entities": ["customers"]}})
    nothing = {**off, "amount": {"enabled": False}}
    silent = scorer(detectors=nothing).score(STREAM)
    assert silent.reason_names == ()
    assert silent.reasons(0) == []


@pytest.mark.parametrize("start", [1, -1, 50])
def test_rows_that_do_not_follow_are_refused(start: int) -> None:
    with pytest.raises(DataLossError, match="expected sequence 0"):
        scorer().score(table([START], [1.0], start, customer=["a"], terminal=["b"]))


def test_gap_or_repetition_within_a_batch_is_refused() -> None:
    with pytest.raises(DataLossError, match="expected sequence 3, got 4"):
        scorer().score(pa.concat_tables([STREAM.slice(0, 3), STREAM.slice(4, 3)]))
    with pytest.raises(DataLossError, match="expected sequence 2, got 1"):
        scorer().score(pa.concat_tables([STREAM.slice(0, 2), STREAM.slice(1, 3)]))


def test_batch_scored_from_another_state_is_not_committed() -> None:
    scoring = scorer()
    stale = scoring.score(STREAM.slice(0, 5))
    scoring.fold(STREAM.slice(0, 10))
    with pytest.raises(DataLossError, match="10 is next"):
        scoring.commit(stale)


def test_empty_batch_and_other_arrow_types_change_nothing() -> None:
    scoring = scorer()
    assert len(scoring.score(STREAM.slice(0, 0))) == 0
    scoring.fold(STREAM.slice(0, 0))
    other = STREAM
    for place, kind in ((4, pa.large_string()), (5, pa.dictionary(pa.int32(), pa.string()))):
        name = other.column_names[place]
        encoded = other[name].dictionary_encode() if place == 5 else other[name].cast(kind)
        other = other.set_column(place, name, encoded)
    pieces = pa.concat_tables([other.slice(0, 100), other.slice(100)])
    assert bits([scoring.score(pieces)]) == WHOLE_BITS


def test_definition_covers_what_shapes_the_state_and_nothing_else() -> None:
    base = scorer().definition_hash
    same = scorer(threshold=0.9, version="2.0.0").definition_hash
    others = [
        scorer(profiles={"block_rows": 32}).definition_hash,
        scorer(profiles={"block_rows": 16, "horizons": ["1h", "2h"]}).definition_hash,
        scorer(profiles={"block_rows": 16, "entities": ["terminal"]}).definition_hash,
        scorer(detectors={"amount": {"weight": 2}}).definition_hash,
    ]
    assert same == base
    assert len({base, *others}) == 5


def test_spec_chooses_among_the_contracts_entities() -> None:
    chosen = scorer(profiles={"entities": ["terminal"]})
    assert chosen.reason_names == (
        "amount.terminal",
        "rate.terminal",
        "novelty.terminal",
        "recurrence.terminal",
        "risk.terminal",
        "amount.population",
    )
    with pytest.raises(ConfigurationError, match="did you mean 'terminal'"):
        scorer(profiles={"entities": ["terminals"]})


def test_warm_up_leaves_the_scorer_as_it_was() -> None:
    fresh = scorer()
    fresh.warm_up()
    assert state(fresh) == state(scorer())


def labels_on(transactions: pa.Table, delay: int, blames: Any) -> pa.Table:
    """Labels on all rows, each known `delay` rows later."""
    known = transactions.select(["event_time", "customer", "terminal"])
    positions = np.arange(transactions.num_rows) + delay
    known = known.append_column("first", pa.array([True] * len(positions)))
    return known.append_column("position", pa.array(positions)).append_column("blame", pa.array(blames))


@given(st.lists(st.integers(0, ROWS), max_size=5))
@settings(deadline=None, derandomize=True, max_examples=20)
def test_labels_count_from_their_own_row_on_however_the_rows_are_cut(cuts: list[int]) -> None:
    known = labels_on(STREAM, 30, np.random.default_rng(8).integers(0, 2, ROWS).astype(float))
    whole, parts, pieces = scorer().score(STREAM, known), scorer(), []
    for start, stop in itertools.pairwise([0, *sorted(cuts), ROWS]):
        due = known.filter((pc.field("position") >= start) & (pc.field("position") < stop))
        piece = parts.score(STREAM.slice(start, stop - start), due)
        parts.commit(piece)
        pieces.append(piece)
    assert bits(pieces) == bits([whole])


def test_frauds_at_a_terminal_make_its_next_payment_suspect() -> None:
    quiet = stream(4000)
    frauds = np.array([name == "t3" for name in quiet["terminal"].to_pylist()], float)
    last = quiet["event_time"][-1].value + SECOND
    following = table([last] * 2, [20.0] * 2, 4000, customer=["c1", "c1"], terminal=["t3", "t4"])
    scoring = scorer()
    scoring.fold(quiet, labels_on(quiet, 0, frauds))
    batch = scoring.score(following)
    reasons = [{reason.name: reason for reason in each} for each in batch.reasons_of(np.arange(2))]
    assert batch.score[0] > 0.9 > batch.score[1]
    assert reasons[0]["risk.terminal"].contribution > 0 > reasons[1]["risk.terminal"].contribution
    assert "times likelier" in reasons[0]["risk.terminal"].text
    assert "times less likely" in reasons[1]["risk.terminal"].text


def test_a_labels_taken_back_leaves_what_a_genuine_one_does() -> None:
    quiet, at = stream(40), pa.array([39])
    row = quiet.take(at).select(["event_time", "customer", "terminal"])
    last = quiet["event_time"][-1].value + SECOND
    following = table([last], [20.0], 40, customer=["c1"], terminal=["t1"])

    def folded(*said: tuple[float, bool]) -> bytes:
        columns = {"blame": [blame for blame, _ in said], "first": [first for _, first in said]}
        known = pa.concat_tables([row] * len(said)).append_column("position", pa.array([40] * len(said)))
        for name, values in columns.items():
            known = known.append_column(name, pa.array(values))
        scoring = scorer()
        scoring.fold(quiet)
        scoring.fold(following, known)
        return state(scoring)

    assert folded((1.0, True), (-1.0, False)) == folded((0.0, True))
    assert folded((1.0, True)) != folded((0.0, True))


def test_a_pair_has_a_profile_of_its_own_and_its_first_payment_shows() -> None:
    paired = scorer(profiles={"pairs": [["customer", "terminal"]]})
    paired.fold(stream(3000, customers=6, terminals=3))
    last = stream(3000)["event_time"][-1].value + SECOND
    paired.fold(table([last], [20.0], 3000, customer=["c2"], terminal=["t99"]))
    ids = {"customer": ["c1", "c1", None], "terminal": ["t1", "t99", "t1"]}
    batch = paired.score(table([last] * 3, [20.0] * 3, 3001, **ids))
    new = [{reason.name for reason in each} for each in batch.reasons_of(np.arange(3))]
    pair = "novelty.customer+terminal"
    assert [pair in names for names in new] == [False, True, False]
    known = profile_of(paired.snapshot().profiles["customer+terminal"], "c1\x1ft1")
    assert known is not None
    assert known.total > 0
    assert "count.customer+terminal.1_hour" in paired.feature_names
    assert "count_customer_terminal_1_hour" in rule_fields(paired.feature_names)


@pytest.mark.parametrize(
    ("pairs", "told"),
    [([["customer", "shop"]], "no entity 'shop'"), ([["customer", "customer"]], "two different entities")],
)
def test_pairs_that_cannot_be_are_refused(pairs: list[list[str]], told: str) -> None:
    with pytest.raises((ConfigurationError, ValueError), match=told):
        scorer(profiles={"pairs": pairs})


def test_settings_of_what_is_switched_off_leave_the_definition_as_it_is() -> None:
    off = {"rate": {"enabled": False}}
    hashes = [
        scorer(detectors=changes).definition_hash
        for changes in (off, {"rate": {"enabled": False, "weight": 2.0}}, {}, {"rate": {"weight": 2.0}})
    ]
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3
    risk_off = {"enabled": False}
    shaped = [
        scorer(detectors={"risk": {**risk_off, "memories": memories}}).definition_hash
        for memories in (["1d"], ["1d", "2d"])
    ]
    assert shaped[0] != shaped[1], "profiles keep room for them all the same"
