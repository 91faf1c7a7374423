from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.detection import CounterpartyDetector
from schemas.errors import ConfigurationError
from schemas.loading import parse_document
from streaming.arrays.arrow_arrays import Saved
from streaming.detection.counterparties import Counterparties, Encounters
from streaming.detection.counterparty_kernels import KNOWN, NEW, NO_RELATION, PAID, PAID_BY, RETURNED
from streaming.detection.scoring import Scorer
from tests.unit.scoring_samples import SECOND, START, agent_spec, frame_of, load, save, table

HORIZONS = (3600.0, 86_400.0)
ROOMY = 4096
HOUR = 3600
PAIR = ("sender", "receiver")
Transfer = tuple[str | None, str | None, int]

transfers = st.lists(
    st.tuples(st.sampled_from("abcdef"), st.sampled_from("abcdef"), st.integers(0, 200_000)),
    min_size=1,
    max_size=40,
)


def memory(cells: int = ROOMY, block_rows: int = 16) -> Counterparties:
    return Counterparties(PAIR, HORIZONS, cells, block_rows, 0.5)


def advance(counterparties: Counterparties, rows: Sequence[Transfer], at: int = 0) -> Encounters:
    names = {name: [row[role] for row in rows] for name, role in zip(PAIR, (PAID, PAID_BY), strict=True)}
    seconds = [START + second * SECOND for *_, second in rows]
    return counterparties.advance(frame_of(table(seconds, [1.0] * len(rows), at, **names)))


def snapshot_bits(saved: Saved) -> bytes:
    return b"".join(part.serialize().to_pybytes() for part in saved.values())


def naive_counts(rows: list[tuple[str, str, int]], role: int) -> list[float]:
    """Decayed counterparties over the longest horizon, straight from the definition."""
    *earlier, (*_, second) = rows
    own = rows[-1][role]
    mine = [(row[1 - role], row[2]) for row in earlier if row[role] == own]
    now = max([second, *(moment for _, moment in mine)])
    latest: dict[str, int] = {}
    for other, moment in mine:
        latest[other] = max(moment, latest.get(other, moment))
    return [sum(math.exp(-(now - moment) / span) for moment in latest.values()) for span in HORIZONS]


def naive_relation(rows: list[tuple[str, str, int]]) -> int:
    *earlier, (payer, payee, _) = rows
    active = {account for row in earlier for account in row[:2]}
    if payer not in active or payee not in active:
        return NO_RELATION
    pairs = {row[:2] for row in earlier}
    if (payer, payee) in pairs:
        return KNOWN
    return RETURNED if (payee, payer) in pairs else NEW


@given(transfers)
@settings(deadline=None, derandomize=True, max_examples=60)
def test_a_roomy_sketch_is_what_counting_by_hand_gives(rows: list[tuple[str, str, int]]) -> None:
    found = advance(memory(), rows)
    for row in range(len(rows)):
        so_far = rows[: row + 1]
        assert found.relations[row] == naive_relation(so_far)
        for role in (PAID, PAID_BY):
            # Linear counting reads n of m cells as n + n^2 / 2m and a little: below 0.1 % here.
            expected = naive_counts(so_far, role)
            assert found.fans[role].counts[row].tolist() == pytest.approx(expected, rel=2e-3, abs=1e-9)


@given(transfers, st.sets(st.integers(1, 39)))
@settings(deadline=None, derandomize=True, max_examples=40)
def test_other_batches_give_the_same_bits(rows: list[Transfer], cuts: set[int]) -> None:
    whole, parts = memory(cells=8), memory(cells=8)
    once = advance(whole, rows)
    whole.commit(once)
    nats, relations = [], []
    edges = [0, *sorted(cut for cut in cuts if cut < len(rows)), len(rows)]
    for start, end in pairwise(edges):
        found = advance(parts, rows[start:end], start)
        nats.append(np.column_stack([found.fan_nats, found.relation_nats]))
        relations.append(found.relations)
        parts.commit(found)
    assert np.vstack(nats).tobytes() == np.column_stack([once.fan_nats, once.relation_nats]).tobytes()
    assert np.concatenate(relations).tobytes() == once.relations.tobytes()
    assert snapshot_bits(parts.snapshot()) == snapshot_bits(whole.snapshot())


@given(transfers)
@settings(deadline=None, derandomize=True, max_examples=20)
def test_what_accounts_are_called_does_not_matter(rows: list[tuple[str, str, int]]) -> None:
    first = advance(memory(cells=8), rows)
    renamed = [(payer * 9, payee * 9, second) for payer, payee, second in rows]
    second = advance(memory(cells=8), renamed)
    assert first.relations.tobytes() == second.relations.tobytes()
    assert first.fan_nats.tobytes() == second.fan_nats.tobytes()


def test_advancing_without_committing_leaves_everything_as_it_was() -> None:
    counterparties = memory()
    counterparties.commit(advance(counterparties, [("a", "b", 0), ("b", "c", 60)]))
    before = snapshot_bits(counterparties.snapshot())
    advance(counterparties, [("a", "c", 120), ("d", "a", 180)], 2)
    assert snapshot_bits(counterparties.snapshot()) == before
    assert len(counterparties) == 3


def test_restored_goes_on_as_if_never_stopped() -> None:
    running, resumed = memory(), memory()
    running.commit(advance(running, [("a", "b", 0), ("b", "c", 60), ("c", "a", 90)]))
    snapshot = running.snapshot()
    resumed.restore(snapshot)
    following: list[Transfer] = [("b", "a", 120), ("a", "b", 130), ("d", "a", 140)]
    one, other = advance(running, following, 3), advance(resumed, following, 3)
    assert one.relations.tolist() == other.relations.tolist() == [RETURNED, KNOWN, NO_RELATION]
    kept = snapshot_bits(snapshot)
    running.commit(one)
    resumed.commit(other)
    assert snapshot_bits(running.snapshot()) == snapshot_bits(resumed.snapshot())
    assert snapshot_bits(snapshot) == kept


def test_rows_that_name_one_account_only_say_nothing() -> None:
    counterparties = memory()
    found = advance(counterparties, [(None, "b", 0), ("a", None, 1), (None, None, 2)])
    assert not found.fan_nats.any()
    assert found.relations.tolist() == [NO_RELATION] * 3
    counterparties.commit(found)
    assert not any(any(clocks) for clocks in counterparties.snapshot()["accounts"]["clocks"].to_pylist())


@pytest.mark.parametrize(("count", "error"), [(5, 0.1), (64, 0.11), (128, 0.14), (200, 0.25)])
def test_estimates_keep_the_stated_standard_error(count: int, error: float) -> None:
    hubs = 40
    rows: list[Transfer] = [
        (f"{hub}-{payer}", f"hub{hub}", 0) for hub in range(hubs) for payer in [*range(count), "last"]
    ]
    read = advance(memory(cells=64), rows).fans[PAID_BY].counts[count :: count + 1, -1]
    assert len(read) == hubs
    assert np.sqrt(np.mean((read / count - 1.0) ** 2)) < 1.1 * error


def test_a_late_transfer_neither_turns_back_time_nor_counts_in_full() -> None:
    found = advance(memory(), [("a", "b", 10 * HOUR), ("a", "c", 0), ("a", "d", 10 * HOUR)])
    expected = [1.0 + math.exp(-10 * HOUR / span) for span in HORIZONS]
    assert found.fans[PAID].counts[2].tolist() == pytest.approx(expected, rel=1e-3)


def scorer(**changes: Any) -> Scorer:
    detectors = {"counterparties": {"enabled": True, "entities": PAIR, **changes}}
    return Scorer(agent_spec(detectors=detectors, profiles={"block_rows": 64}), PAIR)


def payments(rows: int, seed: int = 3) -> list[tuple[str, str, int]]:
    """Shops paid by their own few regulars, each transfer some minutes after the one before."""
    random = np.random.default_rng(seed)
    shops = random.integers(0, 30, rows)
    regulars = random.integers(0, 4, rows)
    return [
        (f"p{shop}-{regular}", f"shop{shop}", 300 * row)
        for row, (shop, regular) in enumerate(zip(shops.tolist(), regulars.tolist(), strict=True))
    ]


def as_table(rows: Sequence[Transfer], first_sequence: int = 0) -> pa.Table:
    times = [START + second * SECOND for *_, second in rows]
    amounts = [20.0 + (7 * row) % 5 for row in range(len(rows))]
    senders, receivers = [row[0] for row in rows], [row[1] for row in rows]
    return table(times, amounts, first_sequence, sender=senders, receiver=receivers)


def texts(scoring: Scorer, rows: pa.Table, row: int) -> dict[str, str]:
    return {reason.name: reason.text for reason in scoring.score(rows).reasons(row)}


@pytest.fixture(name="settled")
def _settled() -> Scorer:
    scoring = scorer()
    scoring.fold(as_table(payments(3000)))
    return scoring


def test_a_planted_burst_of_new_payers_is_flagged_with_its_reason(settled: Scorer) -> None:
    begun = 300 * 3000
    burst: list[Transfer] = [
        (f"p{place}-0", "shop5", begun + 60 * place) for place in range(30) if place != 5
    ]
    rows = as_table(burst, 3000)
    scored = settled.score(rows)
    last = len(burst) - 1
    assert scored.score[last] > 0.99
    name = "counterparties.receiver"
    assert name in [reason.name for reason in scored.reasons(last)][:2]
    assert "different counterparties of this receiver in the last 1 hour" in texts(settled, rows, last)[name]


def test_each_relation_has_its_sentence(settled: Scorer) -> None:
    begun = 300 * 3000
    rows = as_table([("shop5", "p5-0", begun), ("p6-0", "shop5", begun + 1)], 3000)
    name = "counterparties.pair"
    assert "money goes back: this receiver has paid this sender before" in texts(settled, rows, 0)[name]
    assert "first transfer between this sender and this receiver" in texts(settled, rows, 1)[name]
    strangers = scorer()
    strangers.fold(as_table([(f"a{n % 30}", f"b{(n + n // 30) % 30}", n) for n in range(640)]))
    again = as_table([("a7", "b7", 640)], 640)
    assert "this sender has paid this receiver before; true of 1 in" in texts(strangers, again, 0)[name]


def test_contributions_add_up(settled: Scorer) -> None:
    scored = settled.score(as_table([("shop5", "p5-0", 900_000), *payments(200, seed=4)], 3000))
    found = scored.base + scored.contributions.sum(axis=1)
    assert found == pytest.approx(scored.log_odds, abs=1e-9)


def test_reasons_and_features_are_those_named() -> None:
    scoring = scorer()
    named = [name for name in scoring.reason_names if name.startswith("counterparties.")]
    assert named == ["counterparties.sender", "counterparties.receiver", "counterparties.pair"]
    features = scoring.score(as_table(payments(40))).features()
    assert features.shape == (40, len(scoring.feature_names))
    known = features[:, scoring.feature_names.index("known.pair")]
    assert {0.0, 1.0} & set(known[~np.isnan(known)].tolist())


def test_scores_do_not_depend_on_the_cut() -> None:
    rows = as_table(payments(500))
    whole, parts = scorer(), scorer()
    once = whole.score(rows)
    pieces = []
    for start, end in ((0, 1), (1, 130), (130, 500)):
        scored = parts.score(rows.slice(start, end - start))
        parts.commit(scored)
        pieces.append(scored.log_odds)
    assert np.concatenate(pieces).tobytes() == once.log_odds.tobytes()


def test_a_checkpoint_holds_the_counterparties(tmp_path: Path) -> None:
    rows = as_table(payments(500))
    running, resumed = scorer(), scorer()
    running.fold(rows.slice(0, 300))
    save(running, tmp_path)
    assert load(resumed, tmp_path) == ()
    rest = rows.slice(300)
    assert resumed.score(rest).log_odds.tobytes() == running.score(rest).log_odds.tobytes()
    assert resumed.score(rest).contributions.tobytes() == running.score(rest).contributions.tobytes()
    kept = [snapshot_bits(each.snapshot().detectors["counterparties"]) for each in (resumed, running)]
    assert kept[0] == kept[1]


def test_the_definition_hash_knows_the_detector() -> None:
    off = Scorer(agent_spec(profiles={"block_rows": 64}), PAIR)
    hashes = {off.definition_hash, scorer().definition_hash, scorer(cells=32).definition_hash}
    assert len(hashes) == 3


@pytest.mark.parametrize("entities", [[], ["sender"], ["sender", "sender"], ["a", "b", "c"]])
def test_it_wants_who_pays_and_who_is_paid(entities: list[str]) -> None:
    with pytest.raises(ConfigurationError, match="two entities"):
        parse_document({"enabled": True, "entities": entities}, CounterpartyDetector, where="spec")


def test_an_entity_without_a_profile_is_refused() -> None:
    detectors = {"counterparties": {"enabled": True, "entities": ["sender", "reciever"]}}
    with pytest.raises(ConfigurationError, match="receiver"):
        Scorer(agent_spec(detectors=detectors), PAIR)


def _weighed(make: Callable[..., Scorer], weight: float) -> np.ndarray[Any, Any]:
    scoring = make(weight=weight)
    scored = scoring.score(as_table(payments(500)))
    return scored.evidence[:, scoring.reason_names.index("counterparties.pair")]


def test_the_weight_scales_the_evidence() -> None:
    assert _weighed(scorer, 1.0).any()
    assert _weighed(scorer, 2.0).tolist() == (2.0 * _weighed(scorer, 1.0)).tolist()
