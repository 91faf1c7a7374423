"""Finds the wanted fields of whole records: in the value by a scanner of its format, and beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pyarrow as pa

from schemas.event_sources import Source
from streaming.arrays.compilation import Bytes, Flags, Ints, compiled
from streaming.events.found import FieldFinder, Found, buffers_of
from streaming.events.json_scan import scalar_kind
from streaming.events.json_strings import MISSING, STRING, Kinds
from streaming.events.utf8_kernels import is_utf8


class RecordFinder:
    """Finds fields wherever in a record they are, see found.FieldFinder.

    Args:
        sources: of the wanted fields.
        scalars: bool per field, whether its text beside the value is read as a number or boolean; None where
            columns differ about it.
        values: makes the finder of paths in the value.
        keys: makes the finder of paths in the key.
        whole_key: the path of nothing is one in the key as well, else it is the key's text.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        scalars: Sequence[bool | None],
        values: Callable[[Sequence[str]], FieldFinder],
        keys: Callable[[Sequence[str]], FieldFinder],
        *,
        whole_key: bool,
    ) -> None:
        self._sources, self._scalars = sources, scalars
        self._in_value = values(_paths(sources, "value"))
        self._key_paths = [path for path in _paths(sources, "key") if path or whole_key]
        self._in_key = keys(self._key_paths) if self._key_paths else None

    def find(self, records: pa.RecordBatch) -> tuple[Sequence[Found], Flags]:
        """See found.FieldFinder."""
        found, vouched = self._in_value.find(records)
        within = dict(zip(_paths(self._sources, "value"), found, strict=True))
        in_key: Mapping[str, Found] = {}
        if self._in_key is not None:
            keys, plain = self._in_key.find(records)
            vouched &= plain
            in_key = dict(zip(self._key_paths, keys, strict=True))
        every = []
        for source, scalar in zip(self._sources, self._scalars, strict=True):
            if source.part == "value":
                every.append(within[source.path])
            elif source.path in in_key and source.part == "key":
                every.append(in_key[source.path])
            else:
                every.append(_text_beside(records, source, scalar, vouched))
        return every, vouched


def _paths(sources: Sequence[Source], part: str) -> list[str]:
    return list(dict.fromkeys(each.path for each in sources if each.part == part))


def _text_beside(records: pa.RecordBatch, source: Source, scalar: bool | None, vouched: Flags) -> Found:
    """Return the texts of a key, header or topic; clears `vouched` where they may mean something else."""
    if scalar is None:
        vouched[:] = False
    if source.part == "header":
        data, starts, ends = _headers(records["headers"], source.path)
    else:
        values = records["key" if source.part == "key" else "topic"]
        data, offsets = buffers_of(values.cast(pa.binary()))
        starts, ends = offsets[:-1].copy(), offsets[1:].copy()
        if values.null_count:
            starts[~values.is_valid().to_numpy(zero_copy_only=False)] = -1
    kinds = np.empty(len(starts), np.int8)
    _classify(data, starts, ends, bool(scalar), kinds, vouched)
    if source.part == "key":
        present = np.flatnonzero(ends > starts)
        vouched[present[data[starts[present]] == 0]] = False  # a schema registry's serializer wrote it
    return Found(data, kinds, starts, ends)


def _headers(headers: pa.Array, name: str) -> tuple[Bytes, Ints, Ints]:
    """Return where the value of the last header of a name lies in each row, -1 where there is none."""
    starts, ends = np.full(len(headers), -1, np.int64), np.zeros(len(headers), np.int64)
    bounds = np.append(headers.offsets.to_numpy(), 0)[: len(headers) + 1].astype(np.int64)
    within = headers.values
    names, name_bounds = buffers_of(within.field("key").cast(pa.binary()))
    data, offsets = buffers_of(within.field("value"))
    absent = within.field("value").is_null().to_numpy(zero_copy_only=False)
    wanted = np.frombuffer(name.encode("utf-8", "surrogatepass"), np.uint8)
    _find_headers(bounds, names, name_bounds, wanted, offsets, absent, starts, ends)
    starts[headers.is_null().to_numpy(zero_copy_only=False)] = -1
    return data, starts, ends


@compiled
def _find_headers(
    bounds: Ints,
    names: Bytes,
    name_bounds: Ints,
    wanted: Bytes,
    offsets: Ints,
    absent: Flags,
    starts: Ints,
    ends: Ints,
) -> None:
    for row in range(len(starts)):
        for place in range(bounds[row], bounds[row + 1]):
            first = name_bounds[place]
            same = name_bounds[place + 1] - first == len(wanted)
            for at in range(len(wanted)):
                if not same or names[first + at] != wanted[at]:
                    same = False
                    break
            if same:
                starts[row] = -1 if absent[place] else offsets[place]
                ends[row] = offsets[place + 1]


@compiled
def _classify(data: Bytes, starts: Ints, ends: Ints, scalar: bool, kinds: Kinds, vouched: Flags) -> None:
    for row in range(len(starts)):
        kinds[row] = MISSING
        if starts[row] < 0:
            starts[row] = ends[row] = 0
        elif scalar:
            kinds[row] = scalar_kind(data, starts[row], ends[row])
            if kinds[row] < 0:
                vouched[row] = False
        elif is_utf8(data, starts[row], ends[row]):
            kinds[row] = STRING
        else:
            vouched[row] = False
