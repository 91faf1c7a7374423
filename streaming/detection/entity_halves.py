"""Where the entity half is worked out: by this process, or in buckets that others hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import call
from typing import Any

from streaming.arrays.cores import Cores
from streaming.detection.features import EntityBatch
from streaming.profiles.bucket import BucketShape
from streaming.profiles.bucket_rows import AwayHalf, KindRows
from streaming.profiles.decayed import Profiles
from streaming.profiles.entity_buckets import BucketPlace, EntityBuckets
from streaming.profiles.entity_half import EntityHalf, ProfileSnapshot
from streaming.profiles.frame import Frame
from streaming.profiles.levels import Levels


@dataclass(frozen=True)
class FoundHalves:
    """What entities show by themselves, and what was worked out beside it.

    Attributes:
        halves: by kind of entities.
        beside: in the order asked for.
        away: how rows were shared out to buckets, None where they were not.
    """

    halves: Mapping[str, EntityHalf]
    beside: tuple[Any, ...]
    away: Mapping[str, AwayHalf] | None = None


class EntityHalves:
    """The entities of all kinds, held here or in buckets.

    Args:
        profiles: by kind; what is no entity's stays in them wherever entities are.
        cores: among which kinds are shared out.
    """

    def __init__(self, profiles: Mapping[str, Profiles], cores: Cores) -> None:
        self._profiles, self._cores = profiles, cores
        self._buckets: EntityBuckets | None = None

    @property
    def sizes(self) -> dict[str, tuple[int, int]]:
        """Return how many profiles there are of each kind of entities, and their bytes of memory."""
        if self._away is not None:
            return self._away.sizes
        return {name: (len(each), each.nbytes) for name, each in self._profiles.items()}

    def hold_in(self, place: BucketPlace, shape: BucketShape) -> None:
        """Have entities held in buckets, from the next begin_away() on."""
        self._buckets = EntityBuckets(place, shape, self._profiles)

    def begin_away(self) -> None:
        """Hand entities over to buckets, where there are any that do not hold them yet."""
        if self._buckets is not None and self._away is None:
            self._buckets.begin()

    def work_out(
        self, frame: Frame, levels: Mapping[str, Levels], beside: Sequence[Callable[[], Any]]
    ) -> FoundHalves:
        """Work out the halves of a batch, and other work beside them."""
        if self._away is not None:
            rows = {kind: _rows_of(frame, levels[kind], kind) for kind in self._profiles}
            away, *others = self._done([partial(self._away.halves, rows), *beside], len(frame))
            return FoundHalves({kind: each.half for kind, each in away.items()}, tuple(others), away)
        own = [partial(self._half, frame, levels[kind], kind) for kind in self._profiles]
        found = self._done([*own, *beside], len(frame))
        halves = dict(zip(self._profiles, found, strict=False))
        return FoundHalves(halves, tuple(found[len(own) :]))

    def commits(
        self, views: Mapping[str, EntityBatch], away: Mapping[str, AwayHalf] | None
    ) -> list[Callable[[], None]]:
        """Return what makes the state after a batch the current one, each to be done once."""
        if away is None:
            return [partial(self._profiles[kind].commit, *view.steps) for kind, view in views.items()]
        assert self._away is not None, "entities were away when the batch was worked out"
        kinds = [partial(self._profiles[kind].commit_kind, *view.steps) for kind, view in views.items()]
        return [partial(self._away.commit, away), *kinds]

    def snapshots(self) -> dict[str, ProfileSnapshot]:
        """Copy all that is known, by kind of entities."""
        if self._away is not None:
            return self._away.snapshots()
        held = sum(map(len, self._profiles.values()))
        parts = self._cores.each(Profiles.snapshot, list(self._profiles.values()), held)
        return dict(zip(self._profiles, parts, strict=True))

    def restore(self, saved: Mapping[str, ProfileSnapshot]) -> None:
        """Continue here from snapshots, which stay as they are."""
        if self._buckets is not None:
            self._buckets.end()
        restored = [partial(self._profiles[name].restore, each) for name, each in saved.items()]
        self._done(restored, sum(len(each.ids.offsets) for each in saved.values()))

    def forget(self, until: int) -> None:
        """Give back the memory of entities not seen after `until`, in microseconds."""
        if self._away is not None:
            self._away.forget(until)
            return
        for profiles in self._profiles.values():
            profiles.forget(until)

    @property
    def _away(self) -> EntityBuckets | None:
        """The buckets, as long as they hold all entities."""
        return self._buckets if self._buckets is not None and self._buckets.hold else None

    def _half(self, frame: Frame, levels: Levels, kind: str) -> EntityHalf:
        rows = _rows_of(frame, levels, kind)
        known, forgotten, first = rows.known, rows.forgotten, rows.first_sequence
        numbers = (rows.ids, *rows.numbers, first)
        return self._profiles[kind].entity_half(*numbers, known, forgotten, rows.levels)

    def _done(self, work: Sequence[Callable[[], Any]], rows: int) -> list[Any]:
        return self._cores.each(call, work, rows)


def _rows_of(frame: Frame, levels: Levels, kind: str) -> KindRows:
    rows = (frame.ids(kind), frame.times, frame.amounts, frame.log_amounts, frame.first_sequence)
    return KindRows(*rows, frame.known(kind), frame.forgotten, levels)
