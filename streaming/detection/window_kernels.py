"""Compiled loops over the entries that sliding windows are made of, and the arrays that hold them.

An entry is the event time of a transaction and its amount. Those of one entity lie side by side in the order
of event time, ties in the order in which they came, so a window is a run of them between two positions, and
moving to the next row moves these positions and adds or subtracts what they pass. Amounts are added as
integers (whole units, and parts of 2^-52), so adding and subtracting cancel exactly: a sum depends on
nothing but the entries in its window.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from streaming.arrays.compilation import Codes, Floats, Ints, compiled

NEVER = int(np.iinfo(np.int64).min)
_PART_BITS = 52
_PARTS = float(2**52)
_MOST_AMOUNT = 1e15


class Spans(NamedTuple):
    """Windows (time - delay - horizon, time - delay], int64[windows] each, and how far back entries count.

    All are in microseconds. Entries at or before `keep` behind the entity's newest row count nowhere.
    """

    delays: Ints
    horizons: Ints
    keep: int


class Additions(NamedTuple):
    """Entries in the order in which they become known.

    Attributes:
        codes: int32[a], entity codes (-1 for none).
        times: int64[a], event times in microseconds.
        amounts: float64[a].
        positions: int64[a], ascending; `sequence` of the first row that knows the entry.
    """

    codes: Codes
    times: Ints
    amounts: Floats
    positions: Ints


class Entries(NamedTuple):
    """The entries of many entities in one pair of arrays, each entity with some room to grow.

    Attributes:
        times, amounts: int64[held] and float64[held].
        starts, lengths, rooms: int64[m], where an entity's entries begin, how many there are, and for how
            many there is room.
        frontiers: int64[m], newest event time of the entity's rows, NEVER before the first.
    """

    times: Ints
    amounts: Floats
    starts: Ints
    lengths: Ints
    rooms: Ints
    frontiers: Ints


@compiled
def gather(entries: Entries, slots: Ints, rooms: Ints) -> Entries:
    """Copy the entities at `slots`, none where a slot is -1, each with room for `rooms` more entries."""
    count = len(slots)
    starts, lengths, larger = np.zeros(count, np.int64), np.zeros(count, np.int64), np.zeros(count, np.int64)
    frontiers = np.full(count, NEVER)
    end = 0
    for code in range(count):
        if slots[code] >= 0:
            lengths[code] = entries.lengths[slots[code]]
            frontiers[code] = entries.frontiers[slots[code]]
        starts[code], larger[code] = end, lengths[code] + rooms[code]
        end += larger[code]
    times, amounts = np.empty(end, np.int64), np.empty(end, np.float64)
    for code in range(count):
        for step in range(lengths[code]):
            source = entries.starts[slots[code]] + step
            times[starts[code] + step] = entries.times[source]
            amounts[starts[code] + step] = entries.amounts[source]
    return Entries(times, amounts, starts, lengths, larger, frontiers)


@compiled
def scatter(touched: Entries, slots: Ints, used: int, entries: Entries) -> int:
    """Write touched entities back; those that outgrew their room move behind `used`. Returns the new `used`.

    A quarter of room is left to each that moves; `entries` must have that room behind `used`.
    """
    for code in range(len(slots)):
        slot, length = slots[code], touched.lengths[code]
        if length > entries.rooms[slot]:
            entries.starts[slot], entries.rooms[slot] = used, length + length // 4
            used += entries.rooms[slot]
        entries.lengths[slot], entries.frontiers[slot] = length, touched.frontiers[code]
        for step in range(length):
            entries.times[entries.starts[slot] + step] = touched.times[touched.starts[code] + step]
            entries.amounts[entries.starts[slot] + step] = touched.amounts[touched.starts[code] + step]
    return used


@compiled
def slide(  # noqa: PLR0912, PLR0915 -- one flat loop: handed arrays, its parts would count references
    first_sequence: int,
    codes: Codes,
    times: Ints,
    additions: Additions,
    spans: Spans,
    entries: Entries,
    forgotten: Ints,
    counts: Ints,
    sums: Floats,
) -> None:
    """Fill `counts`, int64[n, windows], and `sums`, float64[n, windows], moving `entries` past each row.

    What lies at or before `forgotten`, int64[n], in microseconds, counts nowhere from that row on.
    A row meets the additions whose position is its `sequence` or lower; what is left joins after the last
    row. An amount counts to the nearest 2^-52, at most 1e15 in size; one that is no number counts as 0.
    """
    added_codes, added_times, added_amounts, positions = additions
    held, amounts, starts, lengths, _, frontiers = entries
    width = len(spans.horizons)
    lows, highs = np.empty((len(starts), width), np.int64), np.empty((len(starts), width), np.int64)
    wholes, parts = np.zeros((len(starts), width), np.int64), np.zeros((len(starts), width), np.int64)
    for code in range(len(starts)):
        lows[code, :], highs[code, :] = starts[code], starts[code]
    following = 0
    for row in range(len(codes) + 1):
        while following < len(added_codes):
            if row < len(codes) and positions[following] > first_sequence + row:
                break
            code, time, amount = added_codes[following], added_times[following], added_amounts[following]
            following += 1
            newest_row = min(row, len(codes) - 1)
            if code < 0 or (newest_row >= 0 and time <= forgotten[newest_row]):
                continue
            if frontiers[code] != NEVER and time <= frontiers[code] - spans.keep:
                continue
            amount = 0.0 if np.isnan(amount) else min(max(amount, -_MOST_AMOUNT), _MOST_AMOUNT)
            place = starts[code] + lengths[code]
            while place > starts[code] and held[place - 1] > time:
                held[place], amounts[place] = held[place - 1], amounts[place - 1]
                place -= 1
            held[place], amounts[place] = time, amount
            lengths[code] += 1
            whole = np.int64(np.floor(amount))
            part = np.int64(np.rint((amount - np.floor(amount)) * _PARTS))
            for span in range(width):
                if place < highs[code, span]:
                    highs[code, span] += 1
                    wholes[code, span] += whole
                    parts[code, span] += part
                if place < lows[code, span]:
                    lows[code, span] += 1
                    wholes[code, span] -= whole
                    parts[code, span] -= part
        if row == len(codes):
            break
        code, time = codes[row], times[row]
        if code < 0:
            counts[row, :], sums[row, :] = 0, 0.0
            continue
        frontiers[code] = max(frontiers[code], time)
        outdated = max(frontiers[code] - spans.keep, forgotten[row])
        end = starts[code] + lengths[code]
        for span in range(width):
            newest = max(time - spans.delays[span], outdated)
            oldest = max(time - spans.delays[span] - spans.horizons[span], outdated)
            for edge in range(2):
                place = highs[code, span] if edge == 0 else lows[code, span]
                bound, sign = (newest, 1) if edge == 0 else (oldest, -1)
                while place < end and held[place] <= bound:
                    floor = np.floor(amounts[place])
                    wholes[code, span] += sign * np.int64(floor)
                    parts[code, span] += sign * np.int64(np.rint((amounts[place] - floor) * _PARTS))
                    carried = parts[code, span] >> _PART_BITS
                    wholes[code, span] += carried
                    parts[code, span] -= carried << _PART_BITS
                    place += 1
                while place > starts[code] and held[place - 1] > bound:
                    place -= 1
                    floor = np.floor(amounts[place])
                    wholes[code, span] -= sign * np.int64(floor)
                    parts[code, span] -= sign * np.int64(np.rint((amounts[place] - floor) * _PARTS))
                    carried = parts[code, span] >> _PART_BITS
                    wholes[code, span] += carried
                    parts[code, span] -= carried << _PART_BITS
                if edge == 0:
                    highs[code, span] = place
                else:
                    lows[code, span] = place
            carried = parts[code, span] >> _PART_BITS
            wholes[code, span] += carried
            parts[code, span] -= carried << _PART_BITS
            counts[row, span] = highs[code, span] - lows[code, span]
            sums[row, span] = np.float64(wholes[code, span]) + np.float64(parts[code, span]) / _PARTS
        while lengths[code] > 0 and held[starts[code]] <= outdated:
            starts[code] += 1
            lengths[code] -= 1
