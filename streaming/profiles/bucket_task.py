"""What runs on executors for buckets: orders are carried out on what this process holds, or not at all."""

from __future__ import annotations

import gc
import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from streaming.arrays.fingerprint import machine_fingerprint
from streaming.arrays.kernel_cache import sources_digest
from streaming.arrays.kernel_folder import keep_kernels_in, kernel_folder
from streaming.profiles.bucket import Bucket, BucketShape, BucketStep, Shown, StepOutcome
from streaming.profiles.bucket_journal import BucketName, DecidedStep
from streaming.profiles.entity_half import ProfileSnapshot

_LIBRARIES = ("flagstream", "numba", "numpy", "pyarrow")
# Tasks after which everything is loaded that stays.
_SETTLING = 3
# A bucket that was not asked for in so many steps is held by another process by now.
_STEPS_KEPT = 3


class Rebuilding(NamedTuple):
    """What it takes to build a bucket anew; see bucket_journal."""

    settled: int
    state: ProfileSnapshot
    since: Sequence[DecidedStep]


class BucketOrder(NamedTuple):
    """What is to be done with a bucket.

    Attributes:
        run: names the run; what is held for another one is let go.
        scorers: that hold buckets; what is held for others, of versions that decide no more, is let go.
        scorer: whose bucket it is, with `name`.
        shape: of its profiles.
        wanted: number of the step that its state must have settled, and no other.
        outcome: of that step, None where it is no longer wanted.
        step: what is to be worked out next, None for nothing.
        rebuilding: None while it is hoped that the process holds the bucket.
        with_state: whether the state is asked for.
    """

    run: str
    scorers: frozenset[int]
    scorer: int
    name: BucketName
    shape: BucketShape
    wanted: int
    outcome: StepOutcome | None
    step: BucketStep | None
    rebuilding: Rebuilding | None = None
    with_state: bool = False


class BucketAnswer(NamedTuple):
    """What became of an order.

    Attributes:
        made_by: see bucket_maker.
        held: the state that was wanted was there; nothing was done without it.
        shown: of the step.
        state: as asked for.
        entities, nbytes: what the bucket holds, see Bucket.
    """

    name: BucketName
    made_by: str
    held: bool
    shown: Shown | None = None
    state: ProfileSnapshot | None = None
    entities: int = 0
    nbytes: int = 0


class HeldBuckets:
    """The buckets that a process holds."""

    def __init__(self) -> None:
        self._run = ""
        self._held: dict[tuple[int, BucketName], Bucket] = {}

    def __len__(self) -> int:
        """Return how many."""
        return len(self._held)

    def carry_out(self, order: BucketOrder) -> BucketAnswer:
        """Do what is ordered, where the state wanted is at hand or can be built."""
        if order.run != self._run:
            self._run = order.run
            self._held.clear()
        key = (order.scorer, order.name)
        bucket = self._held.get(key) if order.rebuilding is None else rebuilt(order.shape, order.rebuilding)
        # Held again only at the end: what an error leaves half done, such as one of memory, nobody believes.
        self._held.pop(key, None)
        answer = _carried_out(order, bucket)
        if bucket is not None:
            self._held[key] = bucket
        return answer

    def let_go(self, orders: Sequence[BucketOrder]) -> None:
        """Forget buckets that, by orders which were carried out, others hold by now, or nobody wants."""
        wanted = {order.scorer: order.wanted for order in orders}
        scorers = {each for order in orders for each in order.scorers}
        for (scorer, name), bucket in list(self._held.items()):
            if scorer not in scorers or bucket.reached < wanted.get(scorer, 0) - _STEPS_KEPT:
                del self._held[scorer, name]


_HERE = HeldBuckets()


def _carried_out(order: BucketOrder, bucket: Bucket | None) -> BucketAnswer:
    if bucket is None or not bucket.settle(order.wanted, order.outcome):
        return BucketAnswer(order.name, bucket_maker(), held=False)
    shown = None if order.step is None else bucket.advance(order.step)
    state = bucket.state() if order.with_state else None
    return BucketAnswer(order.name, bucket_maker(), True, shown, state, len(bucket), bucket.nbytes)


def rebuilt(shape: BucketShape, known: Rebuilding) -> Bucket:
    """Build a bucket from its state at one moment and the steps decided since."""
    bucket = Bucket(shape, known.state, known.settled)
    for step, outcome in known.since:
        bucket.advance(step)
        bucket.settle(outcome.number, outcome)
    return bucket


def task_of_buckets() -> Callable[[Iterable[tuple[object, Sequence[BucketOrder]]]], Iterator[BucketAnswer]]:
    """Return what a task does with orders, each list of them with what holds it to a place."""
    return partial(_carry_out_all, kernel_folder())


def _carry_out_all(
    kernels: Path | None, parts: Iterable[tuple[object, Sequence[BucketOrder]]]
) -> Iterator[BucketAnswer]:
    if kernels is not None:
        keep_kernels_in(kernels)
    for _, orders in parts:
        yield from map(_HERE.carry_out, orders)
        if orders:
            _HERE.let_go(orders)
    _settle_in()


@cache
def bucket_maker() -> str:
    """Return what makes features the same to the bit: versions, sources, and how this machine computes."""
    libraries = [f"{each} {version(each)}" for each in _LIBRARIES]
    made_of = (f"Python {platform.python_version()}", *libraries, f"sources {sources_digest(Path(__file__))}")
    return ", ".join([*made_of, f"arithmetic {machine_fingerprint()}"])


_tasks_done: list[None] = []


def _settle_in() -> None:
    """Leave what is loaded for good out of the collections that PySpark does after each task."""
    if len(_tasks_done) < _SETTLING:
        _tasks_done.append(None)
        gc.collect()
        gc.freeze()
