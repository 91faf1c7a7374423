"""Payments in several currencies, compared in one of them by exchange rates."""

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

from schemas.contract import load_contract
from schemas.errors import ConfigurationError
from schemas.spec import AgentSpec, DataSources
from streaming.detection.scored import ScoredBatch
from streaming.detection.scoring import Scorer
from streaming.profiles.converted_amounts import ConvertedAmounts
from streaming.profiles.profile_kernels import log_amounts
from tests.unit.scoring_samples import SECOND, START, agent_spec, bits, load, run, save, stream, table

ROWS = 400
RATES = {"EUR": 1.0, "JPY": 0.00625, "KWD": 3.0, "XTS": None}
REFERENCE: dict[str, Any] = {
    "arithmetic": 2,
    "profiles": {"block_rows": 16, "currencies": "reference"},
    "data_sources": {
        "transactions": {"contract": "sample", "topic": "transactions"},
        "rates": {"path": "rates.csv", "to": "EUR"},
    },
}
FEW = settings(max_examples=15)


def scorer(*, refunds: bool = False, **changes: Any) -> Scorer:
    return Scorer(agent_spec(**{**REFERENCE, **changes}), ("customer", "terminal"), refunds=refunds)


def priced(rows: pa.Table, currencies: list[str], rates: dict[str, float | None]) -> pa.Table:
    """Give payments in EUR their currencies, and what they were converted to as far as there are rates."""
    worth = rows["amount"].to_numpy()
    paid = [value / (rates[code] or 0.5) for value, code in zip(worth.tolist(), currencies, strict=True)]
    known = [value if rates[code] else None for value, code in zip(worth.tolist(), currencies, strict=True)]
    columns = {"amount": pa.array(paid), "currency": pa.array(currencies)}
    for name, values in columns.items():
        rows = rows.set_column(rows.schema.get_field_index(name), name, values)
    return rows.append_column("reference_amount", pa.array(known, pa.float64()))


CURRENCIES = np.random.default_rng(2).choice([*RATES], ROWS).tolist()
STREAM = priced(stream(ROWS), CURRENCIES, RATES)
DIRECTED = STREAM.append_column("direction", pa.array(["payment", "refund"] * (ROWS // 2)))


@given(st.lists(st.integers(0, ROWS), max_size=6), st.booleans())
@FEW
def test_cutting_the_sequence_into_other_batches_changes_no_bit(cuts: list[int], refunds: bool) -> None:
    whole, other = scorer(refunds=refunds), scorer(refunds=refunds)
    assert bits(run(other, DIRECTED, cuts)) == bits(run(whole, DIRECTED, []))


@given(st.fixed_dictionaries({each: st.floats(1e-4, 1e4) for each in ("EUR", "JPY", "KWD")}))
@FEW
def test_with_rates_the_scores_are_those_of_one_currency(rates: dict[str, float | None]) -> None:
    """Whatever the rates are, an amount counts as what it is worth."""
    currencies = np.random.default_rng(3).choice([*rates], ROWS).tolist()
    plain = scorer(profiles={"block_rows": 16}).score(stream(ROWS))
    found = scorer().score(priced(stream(ROWS), currencies, rates))
    assert found.score.tobytes() == plain.score.tobytes()


def test_without_a_rate_the_scores_hardly_differ_from_those_with_one() -> None:
    plain = scorer(profiles={"block_rows": 16}).score(stream(ROWS))
    found = scorer().score(STREAM)
    late = slice(200, None)
    assert np.corrcoef(plain.score[late], found.score[late])[0, 1] > 0.85
    assert np.isfinite(found.score).all()


def test_what_was_paid_in_the_reference_currency_before_there_were_rates_counts_as_it_is() -> None:
    with_rates = priced(stream(ROWS), ["EUR"] * ROWS, RATES)
    place = with_rates.schema.get_field_index("reference_amount")
    before = with_rates.set_column(place, "reference_amount", pa.nulls(ROWS, pa.float64()))
    assert scorer().score(before).score.tobytes() == scorer().score(with_rates).score.tobytes()


def test_a_checkpoint_holds_what_is_usual(tmp_path: Path) -> None:
    whole, first, second = scorer(), scorer(), scorer()
    expected = bits(run(whole, STREAM, [150])[1:])
    first.fold(STREAM.slice(0, 150))
    save(first, tmp_path)
    assert load(second, tmp_path) == ()
    assert bits([second.score(STREAM.slice(150))]) == expected


def scored_last(usual: str, last: tuple[float, str], rates: dict[str, float | None]) -> ScoredBatch:
    """Others pay in both currencies; one card pays 40 times in one, then once in the other."""
    sizes = {"EUR": 45.0, "JPY": 4_500.0}
    random, rows = np.random.default_rng(7), list[tuple[int, float, str, str]]()
    for number in range(41):
        card, currency = ("ours", usual) if number == 40 else (f"c{number}", [*sizes][number % 2])
        for place in range(40):
            amount = sizes[currency] * math.exp(random.normal(0.0, 0.2))
            rows.append((START + (number + place) * 3_600 * SECOND, amount, currency, card))
    rows.sort(key=lambda row: row[0])
    rows.append((rows[-1][0] + SECOND, *last, "ours"))
    times, amounts, currencies, cards = zip(*rows, strict=True)
    worth = [
        None if (rate := rates[c]) is None else a * rate for a, c in zip(amounts, currencies, strict=True)
    ]
    payments = table(times, amounts, customer=cards)
    place = payments.schema.get_field_index("currency")
    payments = payments.set_column(place, "currency", pa.array(currencies))
    payments = payments.append_column("reference_amount", pa.array(worth, pa.float64()))
    one = Scorer(agent_spec(**REFERENCE), ("customer",))
    one.fold(payments.slice(0, len(rows) - 1))
    return one.score(payments.slice(len(rows) - 1))


def amount_texts(batch: ScoredBatch) -> list[str]:
    return [each.text for each in batch.reasons(0) if each.name.startswith("amount.")]


def test_an_amount_that_is_worth_less_than_usual_is_not_unusual() -> None:
    assert scored_last("EUR", (4_500.0, "JPY"), RATES).score[0] < 0.9


def test_an_amount_that_is_worth_more_than_usual_is_unusual_and_its_rate_is_stated() -> None:
    batch = scored_last("JPY", (4_000.0, "EUR"), RATES)
    assert batch.score[0] > 0.99
    text = amount_texts(batch)[0]
    assert text.startswith("4000.00 EUR is ") and "usual 27.49 EUR (39 payments" in text and "JPY" not in text
    text = amount_texts(scored_last("EUR", (640_000.0, "JPY"), RATES))[0]
    assert text.startswith("640000.00 JPY (4000.00 EUR at 0.00625) is ") and " EUR (39 payments" in text


def test_without_a_rate_an_amount_is_judged_by_what_is_usual_in_its_currency_and_says_so() -> None:
    unrated: dict[str, float | None] = {"EUR": 1.0, "JPY": None}
    assert scored_last("EUR", (4_500.0, "JPY"), unrated).score[0] < 0.9
    batch = scored_last("EUR", (400_000.0, "JPY"), unrated)
    assert batch.score[0] > 0.99
    text = amount_texts(batch)[0]
    assert text.startswith("400000.00 JPY (about ")
    assert "EUR by what is usual in each; no rate is known) is " in text


MONEY = st.one_of(st.just(0.0), st.floats(1e-12, 1e12), st.floats(0, 1e308))


@given(
    rows=st.lists(st.tuples(st.sampled_from("ABC"), MONEY, st.one_of(st.none(), MONEY)), max_size=40),
    cut=st.integers(0, 40),
    refunds=st.booleans(),
)
@settings(max_examples=150)
def test_any_amounts_give_finite_ones_however_they_are_cut(
    rows: list[tuple[str, float, float | None]], cut: int, refunds: bool
) -> None:
    transactions = pa.table(
        {
            "currency": pa.array([row[0] for row in rows], pa.string()),
            "reference_amount": pa.array([row[2] for row in rows], pa.float64()),
            "direction": pa.array(["refund" if each % 3 == 0 else "payment" for each in range(len(rows))]),
        }
    )
    amounts = np.array([row[1] for row in rows], np.float64)
    whole, cut_scales = (ConvertedAmounts("A", refunds=refunds) for _ in range(2))
    expected, state = whole.advance(transactions, amounts, log_amounts(amounts))
    parts = []
    for part in (slice(0, cut), slice(cut, None)):
        some = transactions.slice(part.start, len(amounts[part]))
        found, cut_scales.state = cut_scales.advance(some, amounts[part], log_amounts(amounts[part]))
        parts.append(found)
    for name in ("amounts", "log_amounts", "units", "estimated"):
        joined = np.concatenate([getattr(part, name) for part in parts])
        assert joined.tobytes() == getattr(expected, name).tobytes()
    assert state.means.tobytes() == cut_scales.state.means.tobytes()
    assert np.isfinite(expected.amounts).all()
    assert (np.isfinite(expected.units) & (expected.units > 0.0)).all()
    assert np.isfinite(expected.log_amounts[expected.amounts > 0]).all()


def test_specs_without_rates_keep_their_digest_and_scores_say_what_they_are_in() -> None:
    without = DataSources.model_validate({"transactions": {"contract": "c", "topic": "t"}})
    assert "rates" not in json.loads(without.model_dump_json())
    to_usd = {**REFERENCE["data_sources"], "rates": {"path": "rates.csv", "to": "USD"}}
    hashes = {
        each.definition_hash
        for each in (scorer(), scorer(profiles={"block_rows": 16}), scorer(data_sources=to_usd))
    }
    assert len(hashes) == 3


def test_reference_needs_rates_and_converted_amounts() -> None:
    with pytest.raises(ValueError, match=r"reference needs exchange rates, see data_sources\.rates"):
        agent_spec(profiles={"currencies": "reference"})
    spec = AgentSpec.model_validate({**agent_spec(**REFERENCE).model_dump(mode="json")})
    with pytest.raises(ConfigurationError, match="reference needs converted amounts"):
        Scorer.under(spec, load_contract("simulator"))


def test_a_scorer_of_a_reference_currency_is_warmed_up() -> None:
    scorer(refunds=True, detectors={"multivariate": {"enabled": True}}).warm_up()
