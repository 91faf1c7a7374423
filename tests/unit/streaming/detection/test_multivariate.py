"""The detector that uses all features together, within the scorer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import ConfigurationError
from streaming.arrays.arrow_arrays import Saved
from streaming.arrays.compilation import Ints
from streaming.detection.feature_phrases import phrase
from streaming.detection.features import describes_behaviour
from streaming.detection.multivariate import EVENT
from streaming.detection.scoring import Scorer
from tests.unit.scoring_samples import SECOND, START, agent_spec, bits, load, run, save, stream, table

ENTITIES = ("customer",)
ROWS = 600
STREAM = stream(ROWS)
HOUR, DAY = 3600, 86_400
MIDNIGHT = START // SECOND // DAY * DAY
SETTLED = 6000


def scorer(*, enabled: bool = True, **changes: Any) -> Scorer:
    detectors = {"multivariate": {"enabled": enabled, **changes}}
    return Scorer(
        agent_spec(detectors=detectors, profiles={"block_rows": 64, "horizons": ["1h", "1d"]}), ENTITIES
    )


WHOLE_BITS = bits(run(scorer(), STREAM, []))


@given(st.lists(st.integers(0, ROWS), max_size=6))
@settings(deadline=None, derandomize=True, max_examples=15)
def test_scores_do_not_depend_on_the_cut(cuts: list[int]) -> None:
    assert bits(run(scorer(), STREAM, cuts)) == WHOLE_BITS


def saved_bytes(saved: Saved) -> dict[str, bytes]:
    return {name: part.serialize().to_pybytes() for name, part in saved.items()}


def mornings_and_afternoons(rows: int, swapped: Ints) -> pa.Table:
    """Payments of about 1,000 from 08:00 on and of about 10 from 16:00 on, but for those that are swapped."""
    random = np.random.default_rng(8)
    turns, order = np.divmod(np.arange(rows), 60)
    early = turns % 2 == 0
    seconds = turns // 2 * DAY + np.where(early, 8, 16) * HOUR + order * 60
    large = early ^ np.isin(np.arange(rows), swapped)
    amounts = np.where(large, 1000.0, 10.0) * np.exp(0.1 * random.normal(size=rows))
    return table((MIDNIGHT + seconds) * SECOND, amounts, customer=[f"c{row % 20}" for row in range(rows)])


def test_a_pairing_of_ordinary_values_is_told() -> None:
    swapped = np.arange(SETTLED + 30, SETTLED + 300, 60)
    rows = mornings_and_afternoons(SETTLED + 360, swapped)
    scoring = scorer()
    scoring.fold(rows.slice(0, SETTLED))
    scored = scoring.score(rows.slice(SETTLED))
    result = scored.step.results[-1]
    nats = result.nats[EVENT]
    assert (nats[swapped - SETTLED] > np.quantile(nats, 0.95)).all()
    for text in result.sentences(swapped - SETTLED)[EVENT]:
        assert "is as unusual as this one as a whole: " in text
        assert "UTC" in text or "usual amount" in text or "log-amount" in text or "an amount of" in text


def test_contributions_add_up_and_have_their_reason() -> None:
    scored = run(scorer(weight=2.0), STREAM, [])[0]
    column = scored.reason_names.index(EVENT)
    told = np.flatnonzero(scored.contributions[:, column] > 0.0)
    assert len(told) > 10
    found = scored.base + scored.contributions.sum(axis=1)
    assert found == pytest.approx(scored.log_odds, abs=1e-9)
    texts = {reason.name: reason.text for reason in scored.reasons(int(told[0]))}
    assert texts[EVENT].startswith("one payment in ")
    assert EVENT not in run(scorer(enabled=False), STREAM, [])[0].reason_names


def test_it_counts_only_beyond_the_others() -> None:
    for batch in run(scorer(), STREAM, []):
        others = np.maximum(np.delete(batch.evidence, batch.reason_names.index(EVENT), axis=1).sum(axis=1), 0)
        whole = np.log1p(np.exp(batch.step.results[-1].nats[EVENT] - 6.0)) - np.log1p(np.exp(-6.0))
        found = batch.evidence[:, batch.reason_names.index(EVENT)]
        assert found == pytest.approx(np.maximum(whole - others, 0.0), abs=1e-9)


def test_a_checkpoint_holds_the_forest(tmp_path: Path) -> None:
    running, resumed = scorer(), scorer()
    running.fold(STREAM.slice(0, 411))
    save(running, tmp_path)
    assert load(resumed, tmp_path) == ()
    rest = STREAM.slice(411)
    assert bits([resumed.score(rest)]) == bits([running.score(rest)])
    resumed.fold(rest)
    running.fold(rest)
    kept = [each.snapshot().detectors["multivariate"] for each in (resumed, running)]
    assert saved_bytes(kept[0]) == saved_bytes(kept[1])


def test_the_definition_hash_knows_detector_and_seed() -> None:
    hashes = {each.definition_hash for each in (scorer(enabled=False), scorer(), scorer(seed=1))}
    assert len(hashes) == 3


def test_it_reads_behaviour_and_neither_labels_nor_surprises() -> None:
    chosen = [name for name in scorer().feature_names if describes_behaviour(name)]
    assert {"hour", "weekday", "log_amount", "log_ratio.customer", "count.customer.1_hour"} <= set(chosen)
    starts = {name.partition(".")[0] for name in chosen}
    assert not starts & {"risk", "frauds", "judged", "memory", "amount_nats", "rate_nats", "evidence", "age"}


def test_entities_choose_whose_features_are_read() -> None:
    assert describes_behaviour("count.terminal.1_day", ("terminal",))
    assert not describes_behaviour("count.customer.1_day", ("terminal",))
    assert describes_behaviour("hour", ("terminal",))
    with pytest.raises(ConfigurationError, match="customer"):
        scorer(entities=["custmer"])


@pytest.mark.parametrize(
    ("feature", "value", "said"),
    [
        ("hour", 3.1667, "03:10 UTC at night"),
        ("hour", 14.5, "14:30 UTC"),
        ("weekday", 6.0, "a Sunday"),
        ("log_amount", float(np.log(250.0)), "an amount of 250.00"),
        ("count.customer.1_hour", 14.2, "14.2 payments of this customer in 1 hour"),
        ("log_ratio.customer", float(np.log(3.2)), "3.2\N{MULTIPLICATION SIGN} this customer's usual amount"),
        ("log_deviation.card", -2.5, "2.5 standard deviations below this card's mean log-amount"),
        ("counterparties.sender.7_days", 40.0, "about 40 counterparties of this sender in 7 days"),
        ("known.pair", 0.0, "the two accounts never met"),
        ("distance.card", 812.0, "812 km from where this card was before"),
        ("speed.card", 95.0, "this card on the move at 95 km/h"),
        ("returned.pair", 1.0, "money goes back"),
        ("delay.customer", 7.25, "delay.customer 7.25"),
    ],
)
def test_features_in_words(feature: str, value: float, said: str) -> None:
    assert phrase(feature, value) == said
