from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import ConfigurationError
from streaming.arrays.compilation import Flags, Floats, Ints
from streaming.labels.judged_rows import JudgedRows, card_precision_at_k
from streaming.learning import protocol
from streaming.learning.protocol import Figures, figures, mean_figures

PROPERTY = settings(deadline=None, derandomize=True, max_examples=150)
WEEK = 17_716


def judged(scores: list[float], labels: list[int], days: list[int], entities: list[str]) -> JudgedRows:
    return JudgedRows(
        np.array(scores, dtype=np.float64), np.array(labels, dtype=bool), np.array(days), np.array(entities)
    )


def random_rows(count: int = 4_000, *, seed: int = 0, fraud_share: float = 0.05) -> JudgedRows:
    random = np.random.default_rng(seed)
    labels = random.random(count) < fraud_share
    return JudgedRows(
        scores=random.random(count) + 0.3 * labels,
        labels=labels,
        days=np.sort(random.integers(WEEK, WEEK + 7, count)),
        entities=random.integers(0, 500, count),
        scenarios=np.where(labels, random.integers(1, 4, count), 0),
    )


def rows_by_the_book(
    labels: Flags, days: Ints, entities: Ints, start: int, delay: int, train: int
) -> list[bool]:
    """The book's own loop: a growing set of known customers, day by day."""
    rows = list(zip(entities.tolist(), days.tolist(), labels.tolist(), strict=True))
    first = start - delay - train
    known = {entity for entity, day, fraud in rows if fraud and first <= day < first + train}
    kept = [False] * len(rows)
    for offset in range(7):
        known |= {entity for entity, day, fraud in rows if fraud and day == start + offset - delay - 1}
        for place, (entity, day, _) in enumerate(rows):
            kept[place] |= day == start + offset and entity not in known
    return kept


def card_precision_by_the_book(rows: JudgedRows, k: int) -> float:
    """The book's own loop: best score and worst label of each card and day, without cards already found."""
    found: set[object] = set()
    shares = []
    for day in sorted(set(rows.days.tolist())):
        cards: dict[object, tuple[float, bool]] = {}
        for place in np.flatnonzero(rows.days == day):
            card = rows.entities[place].item()
            if card not in found:
                score, fraud = cards.get(card, (-np.inf, False))
                cards[card] = (max(score, float(rows.scores[place])), fraud or bool(rows.labels[place]))
        top = sorted(cards, key=lambda card: cards[card][0], reverse=True)[:k]
        hits = {card for card in top if cards[card][1]}
        found |= hits
        shares.append(len(hits) / k)
    return float(np.mean(shares))


@PROPERTY
@given(st.integers(0, 2**32 - 1), st.integers(0, 9), st.integers(1, 9))
def test_rows_are_those_of_the_books_loop(seed: int, delay: int, train: int) -> None:
    random = np.random.default_rng(seed)
    days = random.integers(WEEK - 25, WEEK + 12, 400)
    entities = random.integers(0, 60, 400)
    labels = random.random(400) < 0.1
    labels[0], days[0], entities[0] = True, WEEK, 99
    expected = rows_by_the_book(labels, days, entities, WEEK, delay, train)
    assert protocol.test_rows(labels, days, entities, WEEK, delay, train).tolist() == expected


@pytest.mark.parametrize(
    ("fraud_day", "dropped_from"),
    [
        pytest.param(WEEK - 15, None, id="before training: forgotten"),
        pytest.param(WEEK - 14, WEEK, id="first training day"),
        pytest.param(WEEK - 8, WEEK, id="last training day"),
        pytest.param(WEEK - 7, WEEK + 1, id="first day of the delay: told one day into the week"),
        pytest.param(WEEK - 2, WEEK + 6, id="told on the last day"),
        pytest.param(WEEK - 1, None, id="told after the week"),
        pytest.param(WEEK + 1, None, id="in the week itself"),
    ],
)
def test_customer_is_dropped_once_its_fraud_is_known(fraud_day: int, dropped_from: int | None) -> None:
    week = np.arange(WEEK, WEEK + 7)
    days = np.concatenate([[fraud_day], week, week])
    entities = np.array(["known", *["known"] * 7, *["other"] * 7])
    labels = np.zeros(15, dtype=bool)
    labels[[0, 8]] = True
    kept = protocol.test_rows(labels, days, entities, WEEK)
    expected = [day for day in week.tolist() if dropped_from is None or day < dropped_from]
    assert days[1:8][kept[1:8]].tolist() == expected
    assert kept[8:].all()


def test_entities_may_be_text_objects_or_integers() -> None:
    random = np.random.default_rng(3)
    days, codes = random.integers(WEEK - 14, WEEK + 7, 2_000), random.integers(0, 300, 2_000)
    labels = random.random(2_000) < 0.03
    by_code = protocol.test_rows(labels, days, codes, WEEK)
    assert 0 < by_code.sum() < (days >= WEEK).sum()
    for entities in (codes.astype(str), codes.astype(str).astype(object)):
        assert protocol.test_rows(labels, days, entities, WEEK).tolist() == by_code.tolist()


@pytest.mark.parametrize(
    ("labels", "days", "problem"),
    [
        ([1, 0], [WEEK - 1, WEEK + 7], "2018-07-04: no rows"),
        ([1, 0], [WEEK - 1, WEEK], "2018-07-04: no fraud among 1 row"),
        ([1], [WEEK, WEEK], "columns differ in length: labels 1, days 2"),
    ],
)
def test_week_that_cannot_be_judged_is_refused(labels: list[int], days: list[int], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        protocol.test_rows(np.array(labels, dtype=bool), np.array(days), np.array(["a", "b"]), WEEK)


@PROPERTY
@given(st.integers(0, 2**32 - 1), st.integers(1, 12))
def test_card_precision_is_that_of_the_books_loop(seed: int, k: int) -> None:
    random = np.random.default_rng(seed)
    labels = random.random(200) < 0.2
    labels[0] = True
    rows = JudgedRows(
        random.permutation(200) / 200,
        labels,
        random.integers(WEEK, WEEK + 4, 200),
        random.integers(0, 25, 200),
    )
    expected = card_precision_by_the_book(rows, k)
    assert card_precision_at_k(rows, k) == pytest.approx(expected, abs=1e-12)


def test_found_card_makes_room_on_later_days() -> None:
    rows = judged([0.9, 0.1, 0.9, 0.1], [1, 0, 1, 1], [1, 1, 2, 2], ["a", "b", "a", "b"])
    assert card_precision_at_k(rows, 1) == 1.0


def test_between_equal_scores_the_first_row_counts_whatever_the_cards_are_called() -> None:
    for names in (["a", "b"], ["b", "a"]):
        assert card_precision_at_k(judged([1, 1], [1, 0], [1, 1], names), 1) == 1.0
        assert card_precision_at_k(judged([1, 1], [0, 1], [1, 1], names), 1) == 0.0


def test_equal_scores_keep_their_order_on_long_days() -> None:
    rows = dataclasses.replace(random_rows(), entities=np.arange(4_000))
    tied = rows.scored(np.round(rows.scores, 1))
    expected = card_precision_by_the_book(tied, 30)
    assert card_precision_at_k(tied, 30) == pytest.approx(expected, abs=1e-12)


def test_a_missed_card_share_is_out_of_k_even_on_a_short_day() -> None:
    assert card_precision_at_k(judged([1], [1], [1], ["a"])) == 0.01


def test_figures_of_a_small_week_by_hand() -> None:
    rows = judged([0.9, 0.8, 0.7, 0.6], [1, 0, 1, 0], [1, 1, 1, 1], ["a", "b", "c", "d"])
    rows = dataclasses.replace(rows, scenarios=np.array([1, 0, 3, 0]))
    found = figures(rows)
    assert found.ap == pytest.approx((1 + 2 / 3) / 2)
    assert found == Figures(0.75, found.ap, 0.02, {1: 1.0, 3: 0.5}, frauds=2, rows=4)


def test_auc_is_the_share_of_pairs_in_order() -> None:
    rows = random_rows(600)
    ties = np.round(rows.scores, 1)
    frauds, others = ties[rows.labels][:, None], ties[~rows.labels][None, :]
    pairs = ((frauds > others) + 0.5 * (frauds == others)).mean()
    assert figures(rows.scored(ties)).auc == pytest.approx(pairs, abs=1e-12)


def test_figures_depend_on_the_order_of_scores_only() -> None:
    rows = random_rows()
    assert figures(rows.scored(np.exp(5 * rows.scores))) == figures(rows)


def test_without_scenarios_there_are_no_scenario_figures() -> None:
    assert figures(dataclasses.replace(random_rows(), scenarios=None)).scenario_auc == {}


def test_mean_figures_weigh_weeks_alike_and_add_up_counts() -> None:
    one = Figures(0.8, 0.4, 0.2, {1: 1.0, 2: 0.5}, 10, 1_000)
    other = Figures(0.6, 0.2, 0.4, {1: 0.8}, 30, 500)
    mean = mean_figures([one, other])
    assert (mean.auc, mean.ap, mean.cp100) == pytest.approx((0.7, 0.3, 0.3))
    assert mean.scenario_auc == pytest.approx({1: 0.9, 2: 0.5})
    assert (mean.frauds, mean.rows) == (40, 1_500)
    with pytest.raises(ConfigurationError, match="no test week"):
        mean_figures([])


def test_budget_takes_the_best_rows_of_each_day() -> None:
    rows = judged([0.9, 0.8, 0.1, 0.3, 0.2], [1, 0, 1, 1, 0], [1, 1, 1, 2, 2], ["a", "b", "c", "d", "e"])
    assert protocol.flag_at_budget(rows, 1).tolist() == [True, False, False, True, False]
    one = protocol.precision_recall_at_budget(rows, 1)
    assert dataclasses.astuple(one) == pytest.approx((1.0, 1.0, 2 / 3))
    three = protocol.precision_recall_at_budget(rows, 3)
    assert dataclasses.astuple(three) == pytest.approx((2.5, 3 / 5, 1.0))


@pytest.mark.parametrize("budget", [0, -1])
def test_budget_must_be_positive(budget: int) -> None:
    with pytest.raises(ConfigurationError, match="alerts_per_day: expected at least 1"):
        protocol.precision_recall_at_budget(random_rows(), budget)


@pytest.mark.parametrize("scores", [[np.nan, 1.0], [np.inf, 1.0]])
def test_scores_must_be_finite(scores: list[float]) -> None:
    with pytest.raises(ConfigurationError, match="1 of 2 scores are not finite"):
        judged(scores, [1, 0], [1, 1], ["a", "b"])


def test_columns_must_be_equally_long() -> None:
    with pytest.raises(ConfigurationError, match="scores 2, labels 1, days 2, entities 2"):
        judged([1, 2], [1], [1, 1], ["a", "b"])
    with pytest.raises(ConfigurationError, match="scenarios 3"):
        dataclasses.replace(judged([1, 2], [1, 0], [1, 1], ["a", "b"]), scenarios=np.zeros(3, dtype=np.int64))


def test_nothing_nothing_but_frauds_and_no_frauds_cannot_be_judged() -> None:
    rows = random_rows(100)
    for kept, problem in ((rows.labels, "every row"), (~rows.labels, "no fraud"), (rows.days < 0, "no rows")):
        with pytest.raises(ConfigurationError, match=problem):
            figures(rows.only(np.asarray(kept)))


def test_a_missing_entity_is_refused() -> None:
    entities = np.array(["a", None], dtype=object)
    rows = JudgedRows(np.zeros(2), np.array([True, False]), np.ones(2, dtype=np.int64), entities)
    with pytest.raises(ConfigurationError, match="entities must be all text"):
        card_precision_at_k(rows)


def test_importing_the_judges_loads_neither_scikit_learn_nor_matplotlib() -> None:
    code = (
        "import sys, streaming.learning.protocol, streaming.learning.evaluation_plots;"
        "print(sorted({'sklearn', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_only_and_scored_keep_rows_together() -> None:
    rows = random_rows(50)
    kept = np.asarray(rows.days == WEEK)
    few = rows.only(kept).scored(np.asarray(rows.scores[kept] * 2, dtype=np.float64))
    doubled: Floats = rows.scores[kept] * 2
    assert few.scores.tolist() == doubled.tolist()
    assert few.entities.tolist() == rows.entities[kept].tolist()
    assert few.scenarios is not None
    assert len(few) == kept.sum() == len(few.scenarios)
