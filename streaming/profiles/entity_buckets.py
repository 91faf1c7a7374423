"""The entity half of all kinds, worked out in buckets that other processes hold.

The driver keeps what it takes to build each bucket anew (`bucket_journal`) and sends each batch its rows, in
orders that name the state they rest on. A process that does not hold that state says so, and is sent what it
lacks. So where a bucket lies, who dies and what is done twice changes no bit, only how long it takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Protocol, TypeVar
from weakref import WeakSet

from schemas.errors import ConfigurationError
from streaming.profiles.bucket import BucketShape, BucketStep, StepOutcome
from streaming.profiles.bucket_journal import BucketJournal, BucketName
from streaming.profiles.bucket_rows import AwayHalf, KindRows, Sharing, together
from streaming.profiles.bucket_task import BucketAnswer, BucketOrder, Rebuilding, bucket_maker
from streaming.profiles.decayed import Profiles
from streaming.profiles.entity_half import ProfileSnapshot
from streaming.profiles.profile_kernels import NEVER

# Bytes of states that are sent, or asked for, at once.
_AT_ONCE = 64 << 20
_scorers = count()
Item = TypeVar("Item")


class BucketCarrier(Protocol):
    """Has orders carried out somewhere.

    Attributes:
        run: names it, unlike any other.
    """

    run: str

    def carry(self, orders: Sequence[BucketOrder]) -> Iterable[BucketAnswer]:
        """Have each order carried out; those for one bucket go to the same process as far as possible."""


@dataclass
class BucketFacts:
    """What buckets are at work, as of the newest batch.

    Attributes:
        buckets: how many, over all kinds of entities and all versions that hold some.
        rows: of the newest batch, counted once for each kind of entities that they name, by each version
            that decides it.
        largest: rows of the bucket that had most of them.
        rebuilt: how often a bucket was built anew since the run began, the first time included.
        entities, nbytes: held by all buckets.
        most_bytes: held by the largest one.
    """

    buckets: int = 0
    rows: int = 0
    largest: int = 0
    rebuilt: int = 0
    entities: int = 0
    nbytes: int = 0
    most_bytes: int = 0


@dataclass(frozen=True)
class BucketPlace:
    """Where buckets are held.

    Attributes:
        carrier: has orders carried out.
        buckets: of each kind of entities.
        folder: of this machine's disk, for what it takes to build buckets anew.
        facts: are kept up to date.
        holders: whose buckets they are, for as long as somebody wants them.
    """

    carrier: BucketCarrier
    buckets: int
    folder: Path
    facts: BucketFacts = field(default_factory=BucketFacts)
    holders: WeakSet[EntityBuckets] = field(default_factory=WeakSet)


class EntityBuckets:
    """The buckets of a scorer's kinds.

    One thread calls everything.

    Args:
        place: where they are held.
        shape: of their profiles.
        profiles: what this process keeps of each kind: that which is no entity's.
    """

    def __init__(self, place: BucketPlace, shape: BucketShape, profiles: Mapping[str, Profiles]) -> None:
        self._place, self._shape, self._profiles = place, shape, profiles
        self._scorer, self._sharing = next(_scorers), Sharing(place.buckets)
        self._journal: BucketJournal | None = None
        self._steps, self._wanted = count(1), 0
        self._outcomes: Mapping[BucketName, StepOutcome] = {}
        self._placed: set[BucketName] = set()
        self._sizes: dict[BucketName, tuple[int, int]] = {}
        self._noted: tuple[int, list[int]] = (-1, [])  # first sequence of a batch, and rows of each bucket
        self._forgotten = NEVER

    @property
    def hold(self) -> bool:
        """Whether they hold all entities: after begin(), and until end()."""
        return self._journal is not None

    @property
    def sizes(self) -> dict[str, tuple[int, int]]:
        """Return how many profiles there are of each kind of entities, and their bytes of memory."""
        found = {}
        for number, kind in enumerate(self._profiles):
            own = [size for name, size in self._sizes.items() if name.kind == number]
            found[kind] = sum(each for each, _ in own), sum(each for _, each in own)
        return found

    def begin(self) -> None:
        """Take over the entities that this process holds."""
        self.end()
        # A number of its own: no process holds a state of an earlier time under it.
        self._wanted = next(self._steps)
        journal = BucketJournal(self._place.folder, self._wanted)
        for number, profiles in enumerate(self._profiles.values()):
            for bucket, part in enumerate(self._sharing.parts(profiles.released())):
                journal.keep(BucketName(number, bucket), part)
        self._journal = journal
        self._place.holders.add(self)

    def end(self) -> None:
        """Let go of all entities."""
        if self._journal is not None:
            self._journal.close()
        self._journal, self._outcomes, self._forgotten = None, {}, NEVER
        self._place.holders.discard(self)
        self._placed.clear()
        self._sizes.clear()

    def halves(self, rows: Mapping[str, KindRows]) -> dict[str, AwayHalf]:
        """Have the entity half of a batch worked out, leaving what is settled as it is.

        Args:
            rows: of each kind.

        Raises:
            ConfigurationError: those who hold buckets compute other bits than this process.
        """
        number = next(self._steps)
        found = {
            kind: self._sharing.share_out(place, profiles, rows[kind], number)
            for place, (kind, profiles) in enumerate(self._profiles.items())
        }
        steps = {name: step for each in found.values() for name, step in each.steps.items()}
        kinds = list(found.values())
        for answer in self._carried({name: self._order(name, step) for name, step in steps.items()}):
            assert answer.shown is not None
            kinds[answer.name.kind].fill_in(answer.name.bucket, answer.shown)
        self._note(min((each.first_sequence for each in rows.values()), default=0), steps)
        return found

    def commit(self, halves: Mapping[str, AwayHalf]) -> None:
        """Make the state that a batch leads to what is settled."""
        decided = {name: each for half in halves.values() for name, each in half.decided(self._forgotten)}
        if decided:
            self._held_by().decided(decided)
            self._outcomes = {name: each.outcome for name, each in decided.items()}
            self._wanted = next(iter(self._outcomes.values())).number
            self._forgotten = NEVER

    def forget(self, until: int) -> None:
        """Have entities let go that were not seen after `until`, with the next batch; see Profiles.forget."""
        self._forgotten = until

    def snapshots(self) -> dict[str, ProfileSnapshot]:
        """Return all that is known, as this process would hold it; buckets are built anew from it later."""
        names = [
            BucketName(kind, bucket)
            for kind in range(len(self._profiles))
            for bucket in range(self._place.buckets)
        ]
        states: dict[BucketName, ProfileSnapshot] = {}
        for answer in self._carried({name: self._order(name, with_state=True) for name in names}):
            assert answer.state is not None
            states[answer.name] = answer.state
        self._begin_anew(states)
        found = {}
        for number, (kind, profiles) in enumerate(self._profiles.items()):
            parts = [states[name] for name in names if name.kind == number]
            found[kind] = together(parts, profiles.snapshot().state)
        return found

    def _begin_anew(self, states: Mapping[BucketName, ProfileSnapshot]) -> None:
        """Keep states in place of earlier ones and of all that was decided since."""
        journal = BucketJournal(self._place.folder, self._wanted)
        for name, state in states.items():
            journal.keep(name, state)
        self._held_by().close()
        self._journal = journal

    def _held_by(self) -> BucketJournal:
        assert self._journal is not None, "begin() comes first"
        return self._journal

    def _carried(self, orders: Mapping[BucketName, BucketOrder]) -> Iterator[BucketAnswer]:
        """Have orders carried out where the state they rest on is held, then wherever it can be built."""
        missing = [name for name in orders if name not in self._placed]
        placed = [name for name in orders if name in self._placed]
        for some in in_portions(placed, lambda name: self._sizes[name][1] if orders[name].with_state else 0):
            for answer in self._answers([orders[name] for name in some]):
                if answer.held:
                    yield answer
                else:
                    missing.append(answer.name)
        for some in in_portions(missing, self._held_by().nbytes):
            yield from self._rebuilt([orders[name] for name in some])

    def _rebuilt(self, orders: Sequence[BucketOrder]) -> Iterator[BucketAnswer]:
        journal = self._held_by()
        for answer in self._answers(
            [
                each._replace(
                    rebuilding=Rebuilding(journal.settled, journal.state(each.name), journal.since(each.name))
                )
                for each in orders
            ]
        ):
            assert answer.held, "what is sent whole is held"
            self._placed.add(answer.name)
            self._place.facts.rebuilt += 1
            yield answer

    def _order(
        self, name: BucketName, step: BucketStep | None = None, *, with_state: bool = False
    ) -> BucketOrder:
        holders = frozenset(each._scorer for each in self._place.holders)
        owner = (self._place.carrier.run, holders, self._scorer, name, self._shape)
        return BucketOrder(*owner, self._wanted, self._outcomes.get(name), step, with_state=with_state)

    def _answers(self, orders: Sequence[BucketOrder]) -> Iterator[BucketAnswer]:
        for answer in self._place.carrier.carry(orders) if orders else ():
            ours = bucket_maker()
            if answer.made_by != ours:
                raise ConfigurationError(
                    f"executors compute with {answer.made_by}, and this driver with {ours}: install the same "
                    "on machines of one class of processors, or leave cluster.buckets out",
                    where="cluster",
                )
            if answer.held:
                self._sizes[answer.name] = answer.entities, answer.nbytes
            yield answer

    def _note(self, first: int, steps: Mapping[BucketName, BucketStep]) -> None:
        """Keep the facts of a batch, which other versions may have worked out as well."""
        self._noted = first, [len(step.times) for step in steps.values()]
        holders, facts = list(self._place.holders), self._place.facts
        rows = [count for each in holders if each._noted[0] == first for count in each._noted[1]]
        sizes = [size for each in holders for size in each._sizes.values()]
        facts.buckets, facts.rows, facts.largest = len(sizes), sum(rows), max(rows, default=0)
        facts.entities = sum(each for each, _ in sizes)
        facts.nbytes = sum(each for _, each in sizes)
        facts.most_bytes = max((each for _, each in sizes), default=0)


def in_portions(items: Sequence[Item], size: Callable[[Item], int]) -> Iterator[list[Item]]:
    """Yield items in lists of at most 64 MiB, or of one item."""
    portion: list[Item] = []
    held = 0
    for item in items:
        if portion and held + size(item) > _AT_ONCE:
            yield portion
            portion, held = [], 0
        portion.append(item)
        held += size(item)
    if portion:
        yield portion
