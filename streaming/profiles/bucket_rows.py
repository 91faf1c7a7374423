"""Rows, labels and profiles of one kind are shared out to buckets, and what comes back is put together."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa

from streaming.arrays.arrow_arrays import id_column, ids_of
from streaming.arrays.compilation import Floats, Ints
from streaming.arrays.entity_index import EncodedColumn, EntityIndex, Ids
from streaming.profiles.bucket import BucketStep, SentLabels, Shown, StepOutcome, Strikes, first_rows, part_of
from streaming.profiles.bucket_journal import BucketName, DecidedStep
from streaming.profiles.decayed import Profiles
from streaming.profiles.entity_half import EntityHalf, KnownLabels, ProfileSnapshot
from streaming.profiles.levels import Levels
from streaming.profiles.profile_kernels import ENTITY_PARTS, State


@dataclass(frozen=True)
class KindRows:
    """Rows of a batch as one kind of entities sees them; see Profiles.entity_half."""

    ids: pa.ChunkedArray
    times: Ints
    amounts: Floats
    logs: Floats
    first_sequence: int
    known: KnownLabels | None
    forgotten: Ints
    levels: Levels

    @property
    def numbers(self) -> tuple[Ints, Floats, Floats]:
        """Times, amounts and log-amounts."""
        return self.times, self.amounts, self.logs


@dataclass(frozen=True)
class AwayHalf:
    """The entity half of one kind, worked out in buckets.

    Attributes:
        half: of all rows, filled in as answers come.
        steps: of each bucket.
        places: of each bucket, int64[k], which rows it got.
        owners: int64[entities], bucket of each entity of the batch.
    """

    half: EntityHalf
    steps: Mapping[BucketName, BucketStep]
    places: Sequence[Ints]
    owners: Ints

    def fill_in(self, bucket: int, shown: Shown) -> None:
        """Take what a bucket shows."""
        rows, half = self.places[bucket], self.half
        for whole, part in zip(half.features, shown.features, strict=True):
            whole[rows] = part
        half.judged[rows] = shown.judged
        codes = half.rows.codes[rows[shown.strikes.rows]]
        strikes, struck = half.strikes
        strikes[codes], struck[codes] = shown.strikes.strikes, shown.strikes.struck

    def decided(self, forgotten: int) -> Iterator[tuple[BucketName, DecidedStep]]:
        """Yield each step with its outcome: what its entities have done strikingly, after `recall`.

        Args:
            forgotten: see StepOutcome.
        """
        strikes, struck = self.half.strikes
        first = first_rows(self.half.rows.codes, len(strikes))
        found = np.flatnonzero((strikes > 0.0) & (first >= 0))
        for name, step in self.steps.items():
            codes = found[self.owners[found] == name.bucket]
            rows = np.searchsorted(self.places[name.bucket], first[codes])
            outcome = StepOutcome(step.number, Strikes(rows, strikes[codes], struck[codes]), forgotten)
            yield name, DecidedStep(step, outcome)


class Sharing:
    """Which bucket an entity belongs to, by a hash that nobody outside can foresee.

    Args:
        buckets: how many.
    """

    def __init__(self, buckets: int) -> None:
        self._buckets, self._seed = buckets, secrets.randbits(64)

    def parts(self, snapshot: ProfileSnapshot) -> Iterator[ProfileSnapshot]:
        """Yield what is known of the entities of each bucket."""
        column = self._encoded(id_column(snapshot.ids).cast(pa.large_string()))
        order, bounds = self._by_bucket(self._owners(column)[column.codes])
        for start, stop in pairwise(bounds.tolist()):
            rows = order[start:stop]
            parts = {name: getattr(snapshot.state, name)[rows] for name in ENTITY_PARTS}
            ids = ids_of(id_column(snapshot.ids).take(pa.array(rows)))
            yield ProfileSnapshot(ids, snapshot.state._replace(**parts))

    def share_out(self, kind: int, profiles: Profiles, rows: KindRows, number: int) -> AwayHalf:
        """Return what the buckets of a kind get of a batch.

        Args:
            kind: its place among the kinds.
            profiles: keep what is known of the kind as a whole.
            number: of the step.
        """
        column = self._encoded(rows.ids)
        half = profiles.half_elsewhere(column, rows.numbers, rows.first_sequence, rows.known, rows.forgotten)
        owners, named = self._owners(column), np.flatnonzero(column.codes >= 0)
        order, bounds = self._by_bucket(owners[column.codes[named]])
        order = named[order]
        spans = [slice(*each) for each in pairwise(bounds.tolist())]
        places = [order[span] for span in spans]
        steps = self._steps(rows, order, spans, number) if len(rows.times) else []
        named_steps = {BucketName(kind, bucket): step for bucket, step in enumerate(steps)}
        return AwayHalf(half, named_steps, places, owners)

    def _steps(
        self, rows: KindRows, order: Ints, spans: Sequence[slice], number: int
    ) -> Iterator[BucketStep]:
        """Yield the rows of each bucket; those that name no entity belong to none."""
        ids = _ids(rows.ids.take(pa.array(order)))
        for span, labels in zip(spans, self._labels(rows.known), strict=True):
            chosen = order[span]
            yield BucketStep(
                number=number,
                first_sequence=rows.first_sequence,
                batch=len(rows.times),
                sequences=rows.first_sequence + chosen,
                ids=part_of(ids, span),
                times=rows.times[chosen],
                amounts=rows.amounts[chosen],
                logs=rows.logs[chosen],
                labels=labels,
                forgotten=rows.forgotten,
                levels=rows.levels,
            )

    def _labels(self, known: KnownLabels | None) -> Iterator[SentLabels | None]:
        """Yield for each bucket all labels, with the ids of its own entities."""
        if known is None or not len(known.times):
            yield from [None] * self._buckets
            return
        column = self._encoded(known.entities)
        owners = np.append(self._owners(column), -1)[column.codes]
        for bucket in range(self._buckets):
            named = owners == bucket
            names = _ids(known.entities.take(pa.array(np.flatnonzero(named))))
            yield SentLabels(names, named, known.times, known.blames, known.firsts, known.positions)

    def _encoded(self, column: pa.ChunkedArray | pa.Array) -> EncodedColumn:
        return EntityIndex(self._seed).encode(column)

    def _owners(self, column: EncodedColumn) -> Ints:
        return (column.hashes % np.uint64(self._buckets)).astype(np.int64)

    def _by_bucket(self, owners: Ints) -> tuple[Ints, Ints]:
        """Return rows by bucket, each bucket's in their order, and where each bucket begins and ends."""
        bounds = np.zeros(self._buckets + 1, np.int64)
        np.cumsum(np.bincount(owners, minlength=self._buckets), out=bounds[1:])
        return np.argsort(owners.astype(np.uint16), kind="stable"), bounds


def together(parts: Sequence[ProfileSnapshot], kind: State) -> ProfileSnapshot:
    """Put the entities of all buckets together, with what is known of the kind as a whole."""
    begins = np.cumsum([0, *(part.ids.offsets[-1] for part in parts)])
    offsets = [part.ids.offsets[1:] + begin for part, begin in zip(parts, begins[:-1], strict=True)]
    ids = Ids(np.concatenate([part.ids.data for part in parts]), np.concatenate([begins[:1], *offsets]))
    arrays = {name: np.concatenate([getattr(part.state, name) for part in parts]) for name in ENTITY_PARTS}
    return ProfileSnapshot(ids, kind._replace(**arrays))


def _ids(column: pa.ChunkedArray) -> Ids:
    """Return ids, none of which is null; what is not text is taken as its text."""
    whole = column.cast(pa.large_string()).combine_chunks()
    return ids_of(whole.cast(pa.large_binary()))
