"""Payments in several currencies: each amount is measured by what is usual in its own."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.detection import ProfileSettings
from streaming.detection.scored import ScoredBatch
from streaming.detection.scoring import Scorer
from streaming.profiles.currency_scales import MOST_CURRENCIES, CurrencyScales
from streaming.profiles.profile_kernels import log_amounts
from tests.unit.scoring_samples import SECOND, START, agent_spec, bits, load, run, save, stream, table

ROWS = 400
SCALED = {"block_rows": 16, "currencies": "scaled"}
PROPERTY = settings(deadline=None, derandomize=True, max_examples=15)
RATES = {"EUR": 1.0, "JPY": 160.0, "KWD": 0.3}


def scorer(*, refunds: bool = False, **changes: Any) -> Scorer:
    spec = agent_spec(**{"arithmetic": 2, "profiles": SCALED, **changes})
    return Scorer(spec, ("customer", "terminal"), refunds=refunds)


def in_currencies(rows: pa.Table, currencies: list[str], rates: dict[str, float]) -> pa.Table:
    """The same payments, each in its currency at a rate that the stream does not name."""
    factors = np.array([rates[each] for each in currencies])
    amounts = pa.array(rows["amount"].to_numpy() * factors)
    place = rows.schema.get_field_index("amount")
    return rows.set_column(place, "amount", amounts).set_column(
        rows.schema.get_field_index("currency"), "currency", pa.array(currencies)
    )


CURRENCIES = np.random.default_rng(2).choice([*RATES], ROWS).tolist()
STREAM = in_currencies(stream(ROWS), CURRENCIES, RATES)
DIRECTED = STREAM.append_column("direction", pa.array(["payment", "refund"] * (ROWS // 2)))


@given(st.lists(st.integers(0, ROWS), max_size=6), st.booleans())
@PROPERTY
def test_cutting_the_sequence_into_other_batches_changes_no_bit(cuts: list[int], refunds: bool) -> None:
    whole, other = scorer(refunds=refunds), scorer(refunds=refunds)
    assert bits(run(other, DIRECTED, cuts)) == bits(run(whole, DIRECTED, []))


@given(st.fixed_dictionaries({each: st.floats(1e-4, 1e4) for each in RATES}))
@PROPERTY
def test_what_a_currency_is_worth_says_nothing(rates: dict[str, float]) -> None:
    """In whichever units a currency counts, the scores are the same."""
    expected = scorer().score(in_currencies(stream(ROWS), CURRENCIES, RATES))
    found = scorer().score(in_currencies(stream(ROWS), CURRENCIES, rates))
    assert found.evidence.sum(axis=1) == pytest.approx(expected.evidence.sum(axis=1), abs=1e-6)


def test_a_checkpoint_holds_the_scales(tmp_path: Path) -> None:
    whole, first, second = scorer(), scorer(), scorer()
    expected = bits(run(whole, STREAM, [150])[1:])
    first.fold(STREAM.slice(0, 150))
    save(first, tmp_path)
    assert load(second, tmp_path) == ()
    assert bits([second.score(STREAM.slice(150))]) == expected


def test_one_currency_s_scores_hardly_differ_from_those_of_amounts_as_they_stand() -> None:
    plain = scorer(profiles={"block_rows": 16}).score(stream(ROWS))
    scaled = scorer().score(stream(ROWS))
    late = slice(200, None)
    assert np.corrcoef(plain.score[late], scaled.score[late])[0, 1] > 0.9


def payments_of(card: str, amount: float, currency: str, first: int) -> list[tuple[Any, ...]]:
    random = np.random.default_rng(first)
    times = [START + (first + number) * 3_600 * SECOND for number in range(40)]
    return [(time, amount * math.exp(random.normal(0.0, 0.2)), currency, card) for time in times]


def scored_last(profiles: dict[str, Any], usual: str, last: tuple[float, str]) -> ScoredBatch:
    """Others pay in both currencies; one card pays 40 times in one, then once in the other."""
    rows = [
        payment
        for number in range(40)
        for payment in payments_of(f"c{number}", *((45.0, "EUR"), (4_500.0, "JPY"))[number % 2], number)
    ]
    rows += payments_of("ours", *{"EUR": (45.0, "EUR"), "JPY": (4_500.0, "JPY")}[usual], 7)
    rows.sort(key=lambda row: row[0])
    rows.append((rows[-1][0] + SECOND, *last, "ours"))
    times, amounts, currencies, cards = zip(*rows, strict=True)
    payments = table(times, amounts, customer=cards)
    place = payments.schema.get_field_index("currency")
    payments = payments.set_column(place, "currency", pa.array(currencies))
    one = Scorer(agent_spec(arithmetic=2, profiles=profiles), ("customer",))
    one.fold(payments.slice(0, len(rows) - 1))
    return one.score(payments.slice(len(rows) - 1))


def test_an_amount_that_is_usual_in_its_currency_is_not_unusual_for_who_pays_in_another() -> None:
    batch = scored_last(SCALED, "EUR", (4_500.0, "JPY"))
    assert batch.score[0] < 0.9
    mixed = scored_last({"block_rows": 16}, "EUR", (4_500.0, "JPY"))
    assert mixed.score[0] > 0.99


def test_an_amount_that_is_large_in_its_currency_is_unusual_for_who_pays_in_another() -> None:
    batch = scored_last(SCALED, "JPY", (4_000.0, "EUR"))
    assert batch.score[0] > 0.99
    texts = [each.text for each in batch.reasons(0) if each.name.startswith("amount.")]
    assert texts and all("JPY" not in text and "EUR" in text for text in texts)
    assert all("what is usual in" in text for text in texts)


def test_the_scale_is_robust_from_the_third_amount_on() -> None:
    scales = CurrencyScales()
    amounts = np.array([1e12, 45.0, 45.0, 45.0, *[45.0] * 100, 1e12, 45.0])
    rows = pa.table({"currency": pa.array(["EUR"] * len(amounts))})
    found, _ = scales.advance(rows, amounts, log_amounts(amounts))
    assert found.units[0] == pytest.approx(1e12)
    assert found.amounts[0] == pytest.approx(1.0)
    assert found.units[4:] == pytest.approx(45.0, rel=0.06)


def test_more_currencies_than_there_is_room_for_share_a_scale() -> None:
    codes = [f"X{number:03d}" for number in range(2 * MOST_CURRENCIES)] * 2
    amounts = np.ones(len(codes))
    scales = CurrencyScales()
    for start in range(0, len(codes), 100):
        rows = pa.table({"currency": pa.array(codes[start : start + 100])})
        part = amounts[start : start + 100]
        _, scales.state = scales.advance(rows, part, log_amounts(part))
    assert len(scales.state.codes) == MOST_CURRENCIES
    assert scales.state.codes[-1] == "*"
    assert scales.state.rows[:-1].tolist() == [2.0] * (MOST_CURRENCIES - 1)


@given(st.lists(st.tuples(st.sampled_from("ABC"), st.floats(0, 1e308)), max_size=60))
@settings(deadline=None, derandomize=True, max_examples=100)
def test_any_amounts_give_finite_ones(rows: list[tuple[str, float]]) -> None:
    amounts = np.array([amount for _, amount in rows], np.float64)
    transactions = pa.table({"currency": pa.array([code for code, _ in rows], pa.string())})
    found, state = CurrencyScales().advance(transactions, amounts, log_amounts(amounts))
    assert np.isfinite(found.amounts).all()
    assert np.isfinite(found.units).all()
    assert np.isfinite(found.log_amounts[amounts > 0]).all()
    assert np.isfinite(state.means).all()


def test_specs_that_do_not_scale_keep_their_digest() -> None:
    assert "currencies" not in ProfileSettings().model_dump()
    assert "currencies" not in json.loads(ProfileSettings(currencies="mixed").model_dump_json())
    assert ProfileSettings(currencies="scaled").digest != ProfileSettings().digest
    assert scorer().definition_hash != scorer(profiles={"block_rows": 16}).definition_hash


def test_a_scorer_of_several_currencies_is_warmed_up() -> None:
    scorer(refunds=True).warm_up()
