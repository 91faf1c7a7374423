"""Amounts of several currencies compared as they stand: what is usual is in none of them then."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming.detection.scored import ScoredBatch
from streaming.detection.scoring import Scorer
from tests.unit.scoring_samples import agent_spec, bits, load, run, save, stream

ROWS = 240
FEW = settings(max_examples=15)
ALONE = 100  # rows before the second currency comes


def scorer(arithmetic: int = 3, *, refunds: bool = False, **profiles: Any) -> Scorer:
    spec = agent_spec(arithmetic=arithmetic, profiles={"block_rows": 16, **profiles})
    return Scorer(spec, ("customer", "terminal"), refunds=refunds)


def paid_in(rows: pa.Table, currencies: list[str | None]) -> pa.Table:
    place = rows.schema.get_field_index("currency")
    return rows.set_column(place, "currency", pa.array(currencies, pa.string()))


CODES = np.random.default_rng(4).choice(["EUR", "JPY", "USD"], ROWS - ALONE).tolist()
STREAM = paid_in(stream(ROWS), ["EUR"] * ALONE + ["JPY"] + CODES[1:])
DIRECTED = STREAM.append_column("direction", pa.array(["payment", "refund"] * (ROWS // 2)))


def texts(batches: list[ScoredBatch]) -> list[list[str]]:
    """The sentences about amounts, row by row."""
    return [
        [each.text for each in reasons if each.name.startswith("amount.")]
        for batch in batches
        for reasons in batch.reasons_of(np.arange(len(batch)))
    ]


@given(st.lists(st.integers(0, ROWS), max_size=6), st.booleans())
@FEW
def test_sentences_do_not_depend_on_how_a_stream_was_cut(cuts: list[int], refunds: bool) -> None:
    whole, other = scorer(refunds=refunds), scorer(refunds=refunds)
    assert texts(run(other, DIRECTED, cuts)) == texts(run(whole, DIRECTED, []))


def test_no_score_of_the_third_arithmetic_is_another_than_of_the_second() -> None:
    assert bits(run(scorer(3), STREAM, [90, 130])) == bits(run(scorer(2), STREAM, [90, 130]))


def test_what_is_usual_has_no_currency_once_there_are_several() -> None:
    said = texts(run(scorer(), STREAM, [70, 150]))
    codes = STREAM["currency"].to_pylist()
    assert said[:ALONE] == texts(run(scorer(2), STREAM.slice(0, ALONE), []))
    alone, mixed = [*chain.from_iterable(said[:ALONE])], said[ALONE:]
    assert any("usual" in each and each.count("EUR") == 2 for each in alone)
    assert all("whatever" not in each for each in alone)
    for code, sentences in zip(codes[ALONE:], mixed, strict=True):
        for each in sentences:
            assert each.count(code) == 1
            assert not any(other in each for other in {"EUR", "JPY", "USD"} - {code})
            assert "whatever the" in each
    assert any("usual" in each for sentences in mixed for each in sentences)


@pytest.mark.parametrize("codes", [["EUR", None], [None, "EUR"], ["EUR", "eur"]])
def test_an_amount_without_a_currency_is_in_another_one(codes: list[str | None]) -> None:
    said = texts(run(scorer(), paid_in(stream(ROWS), codes * (ROWS // 2)), []))
    assert any("usual" in each for each in said[-1] + said[-2])
    assert all("whatever" in each for sentences in said[1:] for each in sentences)


def test_of_a_stream_without_currencies_nothing_is_said() -> None:
    rows = paid_in(stream(ROWS), [None] * ROWS)
    said = texts(run(scorer(), rows, []))
    assert said == texts(run(scorer(2), rows, []))


def test_a_checkpoint_knows_what_has_been_met(tmp_path: Path) -> None:
    for done in (50, 150):
        whole, first, second = scorer(), scorer(), scorer()
        expected = texts(run(whole, STREAM, [done])[1:])
        first.fold(STREAM.slice(0, done))
        save(first, tmp_path / str(done))
        assert load(second, tmp_path / str(done)) == ()
        assert texts([second.score(STREAM.slice(done))]) == expected


TIMES = "\N{MULTIPLICATION SIGN}"
# Written by the code before the third arithmetic.
SAID = [
    f"37.57 EUR is 1.9{TIMES} the 19.27 EUR usual for a new customer",
    "5.48 JPY is more than most payments, which by itself says little",
    "32.37 JPY is more than most payments, which by itself says little",
    f"10.64 JPY is 0.5{TIMES} this terminal's usual 20.03 JPY (14 payments in 30 days)",
    f"17.89 EUR is 0.9{TIMES} this customer's usual 19.58 EUR (4 payments in 30 days)",
    f"26.97 JPY is 1.3{TIMES} this terminal's usual 20.34 JPY (16 payments in 30 days)",
]


@pytest.mark.parametrize("arithmetic", [1, 2])
def test_lakes_of_before_say_what_they_have_always_said(arithmetic: int) -> None:
    """These sentences stand in lakes, and are compared letter by letter when they are replayed."""
    rows = paid_in(stream(ROWS), (["EUR", "JPY"] * ROWS)[:ROWS])
    said = [*chain.from_iterable(texts(run(scorer(arithmetic), rows, [])))]
    assert [each for each in said if each in SAID] == SAID
