"""Entities in buckets of other processes show what they show here, to the bit, whoever dies or comes late."""

from __future__ import annotations

import gc
import pickle
import random
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.errors import ConfigurationError
from streaming.arrays.cores import Cores
from streaming.detection.scoring import Scorer
from streaming.profiles import bucket_task
from streaming.profiles.bucket_task import BucketAnswer, BucketOrder, HeldBuckets, bucket_maker
from streaming.profiles.decayed import Profiles
from streaming.profiles.entity_buckets import BucketPlace, in_portions
from streaming.profiles.entity_half import ProfileSnapshot
from streaming.profiles.entity_kernels import fold_entities, judge, recall
from streaming.profiles.profile_kernels import KIND_PARTS, NEVER, gather, scatter
from tests.unit.busy_streams import ENTITIES, busy_labels, busy_rows, busy_spec, scored_bits
from tests.unit.scoring_samples import SECOND, START, agent_spec, bits, table

ROWS, IDLE_US = 300, 8 * 86_400 * 10**6
CUTS = (7, 40, 41, 150, 220)
CORES = Cores(1)
STREAM = busy_rows(ROWS, 3)
LABELS = busy_labels(STREAM, 3)


class Faults(NamedTuple):
    """How often, of ten orders, what happens."""

    moves: int = 0
    dies: int = 0
    twice: int = 0
    late: int = 0


class Processes:
    """Processes that hold buckets; orders go to the one that had the bucket before, unless a fault comes."""

    def __init__(self, seed: int = 0, count: int = 3, faults: Faults = Faults()) -> None:  # noqa: B008 -- without state
        self.run, self._random, self._faults = f"run {seed}", random.Random(seed), faults
        self.there = [HeldBuckets() for _ in range(count)]
        self._homes: dict[tuple[int, int], int] = {}
        self._seen: list[BucketOrder] = []
        self.whole = self.refused = 0

    def carry(self, orders: Sequence[BucketOrder]) -> Iterator[BucketAnswer]:
        for order in orders:
            sent: BucketOrder = pickle.loads(pickle.dumps(order))
            answer = self._process(order).carry_out(sent)
            self._seen.append(sent)
            self.whole += order.rebuilding is not None
            self.refused += not answer.held
            yield pickle.loads(pickle.dumps(answer))
        for each in self.there:
            each.let_go(orders)

    def _process(self, order: BucketOrder) -> HeldBuckets:
        moves, dies, twice, late = (self._random.random() * 10 < each for each in self._faults)
        if moves or order.name not in self._homes:
            self._homes[order.name] = self._somewhere()
        if dies:
            self.there[self._somewhere()] = HeldBuckets()
        found = self.there[self._homes[order.name]]
        if late and self._seen:
            found.carry_out(self._random.choice(self._seen))
        if twice:
            self.there[self._somewhere()].carry_out(order)
        return found

    def _somewhere(self) -> int:
        return self._random.randrange(len(self.there))


def here(arithmetic: int = 3) -> Scorer:
    return Scorer(busy_spec(arithmetic), ENTITIES, refunds=True, cores=CORES)


def away(carrier: Processes, buckets: int, folder: Path) -> Scorer:
    found = here()
    found.hold_in(BucketPlace(carrier, buckets, folder))
    return found


def entities_of(part: ProfileSnapshot, until: int) -> dict[bytes, list[bytes]]:
    """What is known of each, but for what counts as never seen: when that is given back differs."""
    state, found = part.state, {}
    for place, (start, stop) in enumerate(pairwise(part.ids.offsets.tolist())):
        known = []
        if state.clocks[place, 0] > until:
            known += [state.moments[place].tobytes(), state.clocks[place].tobytes()]
        if state.struck[place] > until:
            known += [state.strikes[place].tobytes(), state.struck[place].tobytes()]
        if state.judged_at[place] > until:
            known += [getattr(state, name)[place].tobytes() for name in ("frauds", "judged", "judged_at")]
        if known:
            found[part.ids.data[start:stop].tobytes()] = known
    return found


def state_of(scorer: Scorer) -> dict[str, Any]:
    held, found = scorer.snapshot(), dict[str, Any]()
    now = held.detectors["clock"]["now"]["time"][0].as_py()
    for kind, part in held.profiles.items():
        found[kind] = entities_of(part, now if now == NEVER else now - IDLE_US)
        found[f"all of {kind}"] = [getattr(part.state, name).tobytes() for name in KIND_PARTS]
    found["tails"] = [part.tobytes() for tails in held.tails.values() for part in tails]
    found["rest"] = [part.tobytes() for part in (*held.histogram, *held.pace)]
    return found


@cache
def shown_here() -> tuple[tuple[bytes, ...], dict[str, Any]]:
    scorer = here()
    return scored_bits(scorer, STREAM, LABELS, CUTS), state_of(scorer)


def batch(start: int, stop: int) -> tuple[pa.Table, pa.Table]:
    positions = LABELS["position"].to_numpy()
    return STREAM.slice(start, stop - start), LABELS.filter(
        pa.array((positions >= start) & (positions < stop))
    )


@pytest.mark.long
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(0, 2**32),
    st.integers(1, 7),
    st.sampled_from(
        [Faults(), Faults(moves=3), Faults(dies=1), Faults(twice=5), Faults(late=5), Faults(2, 1, 2, 2)]
    ),
    st.lists(st.integers(1, ROWS - 1), max_size=6),
)
def test_whatever_happens_to_buckets_the_bits_are_the_same(
    tmp_path: Path, seed: int, buckets: int, faults: Faults, cuts: list[int]
) -> None:
    scorer = away(Processes(seed, faults=faults), buckets, tmp_path)
    found, state = shown_here()
    assert scored_bits(scorer, STREAM, LABELS, cuts) == found
    assert state_of(scorer) == state


def test_buckets_stay_where_they_are_and_are_sent_whole_once(tmp_path: Path) -> None:
    processes = Processes()
    scorer = away(processes, 4, tmp_path)
    scored_bits(scorer, STREAM, LABELS, CUTS)
    assert (processes.whole, processes.refused) == (4 * 6, 0), "four for each of six kinds"
    told = {kind: len(part.ids.offsets) - 1 for kind, part in scorer.snapshot().profiles.items()}
    assert {kind: count for kind, (count, _) in scorer.profile_sizes.items()} == told
    assert processes.whole == 4 * 6, "what they hold is at hand for that"


@pytest.mark.parametrize("buckets", [None, 1, 5])
def test_a_checkpoint_of_buckets_is_gone_on_from_anywhere(tmp_path: Path, buckets: int | None) -> None:
    """Begun here, gone on with in buckets, and from their checkpoint here or in as many others."""
    whole, at = here(), (100, 200)
    expected = bits([_scored(whole, *span) for span in pairwise((0, *at, ROWS))])
    first = here()
    found = [_scored(first, 0, at[0])]
    second = away(Processes(1, faults=Faults(moves=5)), 3, tmp_path)
    second.restore(first.snapshot())
    found.append(_scored(second, *at))
    third = here() if buckets is None else away(Processes(2), buckets, tmp_path)
    third.restore(second.snapshot())
    found += [_scored(third, at[1], ROWS)]
    assert bits(found) == expected
    assert state_of(third) == state_of(whole)
    assert _scored(second, at[1], ROWS).score.tobytes() == found[-1].score.tobytes(), "it goes on, too"


def _scored(scorer: Scorer, start: int, stop: int) -> Any:
    found = scorer.score(*batch(start, stop))
    scorer.commit(found)
    return found


def test_a_batch_scored_again_counts_once_whichever_is_committed(tmp_path: Path) -> None:
    processes = Processes()
    scorer, expected = away(processes, 2, tmp_path), here()
    for committed in (0, 1):
        start, stop = 100 * committed, 100 * committed + 100
        tried = [scorer.score(*batch(start, stop)) for _ in range(2)]
        other = scorer.score(*batch(start, stop - 50))
        scorer.commit(tried[committed])
        assert tried[committed].score.tobytes() == _scored(expected, start, stop).score.tobytes()
        assert len(other) == 50
    assert _scored(scorer, 200, ROWS).score.tobytes() == _scored(expected, 200, ROWS).score.tobytes()
    assert state_of(scorer) == state_of(expected)


def test_what_is_restored_is_not_mixed_with_what_processes_still_hold(tmp_path: Path) -> None:
    processes, expected = Processes(faults=Faults(moves=4)), here()
    scorer = away(processes, 3, tmp_path)
    began = scorer.snapshot()
    for _ in range(3):
        scorer.restore(began)
        _scored(scorer, 0, 50)
        _scored(scorer, 50, 100)
    scored = [_scored(expected, *span) for span in ((0, 50), (50, 100), (100, ROWS))]
    assert _scored(scorer, 100, ROWS).score.tobytes() == scored[-1].score.tobytes()
    assert state_of(scorer) == state_of(expected)


def test_rows_that_need_no_score_move_buckets_as_well(tmp_path: Path) -> None:
    processes, expected = Processes(), here()
    scorer = away(processes, 3, tmp_path)
    scorer.fold(*batch(0, 100))
    assert processes.whole == 0, "nothing was handed over for it"
    expected.fold(*batch(0, 100))
    assert _scored(scorer, 100, 200).score.tobytes() == _scored(expected, 100, 200).score.tobytes()
    scorer.fold(*batch(200, ROWS))
    expected.fold(*batch(200, ROWS))
    assert state_of(scorer) == state_of(expected)


def test_idle_entities_leave_buckets_and_no_score_changes(tmp_path: Path) -> None:
    """A month without a payment, then those of other entities; executors come and go meanwhile."""
    spec = agent_spec(
        arithmetic=3, profiles={"block_rows": 16, "horizons": ["1h", "7d"], "idle_horizon": "8d"}
    )
    month, rows = 30 * 86_400 * SECOND, 192
    times = START + np.arange(rows) * 60 * SECOND + (np.arange(rows) >= rows // 2) * month
    names = [f"{'ab'[place >= rows // 2]}{place % 32}" for place in range(rows)]
    stream = table(times, np.linspace(1.0, 90.0, rows), customer=names)
    scorers = [Scorer(spec, ("customer",), cores=CORES) for _ in range(2)]
    scorers[1].hold_in(BucketPlace(Processes(faults=Faults(moves=3, dies=1)), 4, tmp_path))
    most = 0
    for start in range(0, rows, 32):
        expected, found = (_committed(each, stream.slice(start, 32)) for each in scorers)
        assert found.score.tobytes() == expected.score.tobytes()
        most = max(most, scorers[1].profile_sizes["customer"][0])
    left = [each.profile_sizes["customer"][0] for each in scorers]
    assert (left[0], most) == (left[1], 64)
    assert left[1] < 40


def _committed(scorer: Scorer, rows: pa.Table) -> Any:
    found = scorer.score(rows)
    scorer.commit(found)
    return found


def test_a_batch_without_rows_changes_nothing(tmp_path: Path) -> None:
    scorer, expected = away(Processes(), 3, tmp_path), here()
    for each in (scorer, expected):
        _scored(each, 0, 100)
        _scored(each, 100, 100)
        _scored(each, 100, 200)
    assert state_of(scorer) == state_of(expected)


def test_processes_let_go_of_buckets_that_others_hold(tmp_path: Path) -> None:
    processes = Processes(faults=Faults(moves=10), count=2)
    scorer = away(processes, 1, tmp_path)
    for start in range(0, ROWS, 10):
        _scored(scorer, start, start + 10)
    assert all(len(each) <= 6 for each in processes.there), "six kinds"
    other = away(processes, 1, tmp_path)
    processes.run = "another"
    _scored(other, 0, 10)
    assert sum(map(len, processes.there)) <= 2 * 6


def test_buckets_of_a_version_that_decides_no_more_are_let_go_and_counted_until_then(tmp_path: Path) -> None:
    """As of a canary: the run goes on, and its profiles would stay in executors until the end of it."""
    processes = Processes()
    place = BucketPlace(processes, 2, tmp_path)
    active, canary = here(), here()
    for each in (active, canary):
        each.hold_in(place)
    for start in (0, 50):  # what a batch brings is settled with the next one
        _scored(active, start, start + 50)
        _scored(canary, start, start + 50)
    assert 2 * 50 < place.facts.rows <= 2 * 150
    assert (sum(map(len, processes.there)), place.facts.buckets) == (4 * 6, 4 * 6)
    assert place.facts.entities == 2 * sum(count for count, _ in active.profile_sizes.values()) > 40
    rows = place.facts.rows
    _scored(active, 100, 150)
    assert place.facts.rows <= rows // 2 + 50, "a version that is kept, and decides no more, has no rows"
    del canary, each
    gc.collect()
    _scored(active, 150, 200)
    assert (sum(map(len, processes.there)), place.facts.buckets) == (2 * 6, 2 * 6)


def test_processes_that_compute_otherwise_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = away(Processes(), 2, tmp_path)
    monkeypatch.setattr(bucket_task, "bucket_maker", lambda: f"{bucket_maker()} of another machine")
    with pytest.raises(
        ConfigurationError, match=r"executors compute with .* of another machine, and this"
    ) as found:
        scorer.score(*batch(0, 10))
    assert found.value.where == "cluster"


def test_the_first_arithmetic_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="first arithmetic is scored by the driver alone"):
        here(arithmetic=1).hold_in(BucketPlace(Processes(), 2, tmp_path))


class Kept(Processes):
    """One process, whose orders are kept."""

    def __init__(self) -> None:
        super().__init__(count=1)
        self.kept: list[BucketOrder] = []

    def carry(self, orders: Sequence[BucketOrder]) -> Iterator[BucketAnswer]:
        self.kept += orders
        return super().carry(orders)


def test_a_state_is_believed_under_the_number_of_its_step_alone(tmp_path: Path) -> None:
    kept = Kept()
    scorer = away(kept, 1, tmp_path)
    for start in (0, 100, 200):
        _scored(scorer, start, start + 100)
    first, second, third = (each for each in kept.kept if each.name == (0, 0))
    held = HeldBuckets()
    assert not held.carry_out(second).held, "nothing is there"
    assert held.carry_out(first).held
    assert not held.carry_out(third).held, "one step behind"
    again = [held.carry_out(second) for _ in range(2)]
    assert pickle.dumps(again[0]) == pickle.dumps(again[1]), "done twice"
    assert held.carry_out(third).held
    assert not held.carry_out(second).held, "late: decided since"
    assert held.carry_out(third).held, "and nothing was spoiled"


def no_memory(*_: object) -> NoReturn:
    raise MemoryError


def test_what_an_error_leaves_half_done_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process without memory lives on, and Spark runs the task in it once more."""
    kept = Kept()
    scorer = away(kept, 1, tmp_path)
    for start in (0, 100):
        _scored(scorer, start, start + 100)
    first, second = (each for each in kept.kept if each.name == (0, 0))
    held = HeldBuckets()
    assert held.carry_out(first).held
    with monkeypatch.context() as full:
        full.setattr(Profiles, "_reserve", no_memory)
        with pytest.raises(MemoryError):
            held.carry_out(second)
    assert not held.carry_out(second).held, "it has ids without a state"


def test_nothing_is_compiled_for_buckets(tmp_path: Path) -> None:
    """A kernel that met arrays of another kind would be compiled on each executor, for seconds."""
    kernels: tuple[Any, ...] = (fold_entities, judge, recall, gather, scatter)
    shown_here()
    before = [len(each.signatures) for each in kernels]
    scored_bits(away(Processes(), 2, tmp_path), STREAM, LABELS, CUTS)
    assert [len(each.signatures) for each in kernels] == before


def test_facts_tell_the_bucket_that_has_most(tmp_path: Path) -> None:
    place = BucketPlace(Processes(), 4, tmp_path)
    scorer = here()
    scorer.hold_in(place)
    for start in (0, 100):  # what a batch brings is settled with the next one
        _scored(scorer, start, start + 100)
    facts = place.facts
    assert (facts.buckets, facts.rebuilt) == (4 * 6, 4 * 6)
    assert 100 < facts.rows <= 300
    assert 20 < facts.largest < 100
    assert facts.entities == sum(count for count, _ in scorer.profile_sizes.values()) > 40
    assert 0 < facts.most_bytes < facts.nbytes


def test_portions_hold_what_fits_or_one() -> None:
    mebibyte = 1 << 20
    sizes = [10 * mebibyte] * 7 + [100 * mebibyte, 1]
    assert [len(each) for each in in_portions(sizes, int)] == [6, 1, 1, 1]
    assert list(in_portions([], int)) == []
    assert np.sum(sizes) == sum(map(sum, in_portions(sizes, int)))
