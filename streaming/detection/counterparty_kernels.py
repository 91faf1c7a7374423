"""Compiled loops that remember who paid whom, and the arrays they work on.

An account has two sketches: of those it paid and of those that paid it. A sketch is a row of cells; a
counterparty falls into one of them, which holds its number and when the two last met, and the newest
counterparty of a cell takes it over. One 64-bit cell packs 26 bits of number and 38 bits of seconds.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from streaming.arrays.compilation import Codes, Floats, Hashes, Ints, compiled
from streaming.profiles.profile_kernels import Blocks

PAID, PAID_BY = 0, 1
ROLES = 2
NO_RELATION, NEW, KNOWN, RETURNED = -1, 0, 1, 2
_RELATIONS = 3
ADDED, SECONDS = _RELATIONS, _RELATIONS + ROLES
CENSUS_WIDTH = _RELATIONS + 2 * ROLES
_LAST, _FIRST, _TOTAL = 0, 1, 2
CLOCKS = 3

_EMPTY = np.uint64(0)
_TIME_BITS = np.uint64(38)
_TIME_MASK = np.uint64((1 << 38) - 1)
_NUMBER_MASK = np.uint64((1 << 26) - 1)
_LATEST = (1 << 38) - 1
_MICROSECONDS = 1_000_000
# Seconds from the year 1, so that times before 1970 have their order too.
_YEAR_1 = -62_135_596_800
_MIX_1 = np.uint64(0xFF51AFD7ED558CCD)
_MIX_2 = np.uint64(0xC4CEB9FE1A85EC53)
_HALF = np.uint64(33)


class CounterpartyMemory(NamedTuple):
    """Mutable arrays; the second axis says in which role: PAID or PAID_BY.

    Attributes:
        cells: uint64[m, 2, cells], see the module; 0 is empty.
        sums: float64[m, 2, horizons], sum over the cells of exp(-age / horizon) as of the last transfer.
        clocks: int64[m, 2, 3], last and first event time in microseconds, number of transfers.
        census: float64[7], statistics of all accounts as of the last block boundary: transfers by relation,
            then per role the counterparties added and the seconds it took.
        pending: float64[7], what the rows since then will add to them.
    """

    cells: Hashes
    sums: Floats
    clocks: Ints
    census: Floats
    pending: Floats


class Transfers(NamedTuple):
    """One batch: int32[n] codes of both accounts (-1 for none), int64[n] times (us); int64[codes] numbers."""

    payers: Codes
    payees: Codes
    times: Ints
    numbers: Ints


class AccountState(NamedTuple):
    """What is known of each row's accounts just before it.

    Attributes:
        counts: float64[2, n, horizons], estimated decayed number of different counterparties: of the payer
            those it paid, of the payee those that paid it.
        exposures: float64[2, n], seconds since the account was first seen in that role; -1 at first, NaN
            where the row does not name both accounts.
        relations: int64[n], NEW, KNOWN, RETURNED, or NO_RELATION while one account never met anyone.
        nats: float64[n], -ln of the share of that relation; 0 in a cold start.
        census: float64[blocks, 7], see CounterpartyMemory.
    """

    counts: Floats
    exposures: Floats
    relations: Ints
    nats: Floats
    census: Floats


@compiled
def place_new(transfers: Transfers, slots: Ints, first: int) -> Ints:
    """Number the unknown accounts from `first` on, in order of appearance whatever the batch.

    Fills `transfers.numbers` with the slots of known accounts and the numbers of new ones; returns the codes
    of the new ones in that order.
    """
    payers, payees, _, numbers = transfers
    new = np.empty(len(slots), dtype=np.int64)
    count = 0
    numbers[:] = slots
    for row in range(len(payers)):
        for role in range(ROLES):
            code = payers[row] if role == PAID else payees[row]
            if code >= 0 and numbers[code] < 0:
                numbers[code] = first + count
                new[count] = code
                count += 1
    return new[:count]


@compiled
def gather(memory: CounterpartyMemory, slots: Ints) -> CounterpartyMemory:
    """Return a memory of copies of the accounts at `slots`, blank where a slot is -1."""
    cells = np.zeros((len(slots), ROLES, memory.cells.shape[2]), dtype=np.uint64)
    sums = np.zeros((len(slots), ROLES, memory.sums.shape[2]), dtype=np.float64)
    clocks = np.zeros((len(slots), ROLES, CLOCKS), dtype=np.int64)
    for code in range(len(slots)):
        if slots[code] >= 0:
            cells[code] = memory.cells[slots[code]]
            sums[code] = memory.sums[slots[code]]
            clocks[code] = memory.clocks[slots[code]]
    return CounterpartyMemory(cells, sums, clocks, memory.census.copy(), memory.pending.copy())


@compiled
def scatter(touched: CounterpartyMemory, slots: Ints, memory: CounterpartyMemory) -> None:
    """Write touched accounts back to their slots."""
    for code in range(len(slots)):
        memory.cells[slots[code]] = touched.cells[code]
        memory.sums[slots[code]] = touched.sums[code]
        memory.clocks[slots[code]] = touched.clocks[code]


@compiled
def _second(time: int) -> int:
    return min(max(time // _MICROSECONDS - _YEAR_1, 1), _LATEST)


@compiled
def _place(number: int, cells: int) -> np.int64:
    # The finalizer of MurmurHash3 (public domain): numbers in a row must not fill the cells evenly.
    value = np.uint64(number)
    value = (value ^ (value >> _HALF)) * _MIX_1
    value = (value ^ (value >> _HALF)) * _MIX_2
    return np.int64((value ^ (value >> _HALF)) % np.uint64(cells))


@compiled
def _pack(number: int, second: int) -> np.uint64:
    return ((np.uint64(number) & _NUMBER_MASK) << _TIME_BITS) | np.uint64(second)


@compiled
def _holds(cell: np.uint64, number: int) -> bool:
    return bool(cell != _EMPTY and cell >> _TIME_BITS == np.uint64(number) & _NUMBER_MASK)


@compiled
def _second_of(cell: np.uint64) -> np.int64:
    return np.int64(cell & _TIME_MASK)


@compiled
def _weight(cell: np.uint64, now: int, horizon: float) -> float:
    if cell == _EMPTY:
        return 0.0
    return math.exp(-np.float64(now - _second_of(cell)) / horizon)


@compiled
def _distinct(occupied: float, cells: int) -> float:
    return -cells * math.log1p(-min(max(occupied, 0.0), cells - 0.5) / cells)


@compiled
def meet(  # noqa: PLR0912, PLR0915 -- one flat loop, as in profile_kernels.fold
    blocks: Blocks, transfers: Transfers, memory: CounterpartyMemory, found: AccountState, horizons: Floats
) -> None:
    """Fill in `found` row by row, moving `memory` past each row; horizons are in seconds.

    The number of different counterparties is estimated from the occupied cells by linear counting, -m ln(1 -
    u/m) (Whang, Vander-Zanden, Taylor, A Linear-Time Probabilistic Counting Algorithm, 1990, section 3), u
    being their sum weighed by age. An account paid before is KNOWN, one that only paid the payer before is
    RETURNED to; of both sketches that could tell, either will do.
    """
    payers, payees, times, numbers = transfers
    cells, sums, clocks, census, pending = memory
    counts, exposures, relations, nats, censuses = found
    width, longest = cells.shape[2], len(horizons) - 1
    first_block = blocks.first_sequence // blocks.rows
    censuses[0] = census
    for row in range(len(payers)):
        sequence = blocks.first_sequence + row
        if sequence % blocks.rows == 0:
            for place in range(CENSUS_WIDTH):
                census[place] = census[place] * blocks.decay + pending[place]
                censuses[sequence // blocks.rows - first_block, place] = census[place]
                pending[place] = 0.0
        payer, payee, time = payers[row], payees[row], times[row]
        relations[row], nats[row] = NO_RELATION, 0.0
        if payer < 0 or payee < 0:
            counts[:, row, :], exposures[:, row] = 0.0, np.nan
            continue
        payer_place, payee_place = _place(numbers[payer], width), _place(numbers[payee], width)
        met = clocks[payer, PAID, _TOTAL] + clocks[payer, PAID_BY, _TOTAL] > 0
        if met and clocks[payee, PAID, _TOTAL] + clocks[payee, PAID_BY, _TOTAL] > 0:
            relation = NEW
            if _holds(cells[payer, PAID, payee_place], numbers[payee]) or _holds(
                cells[payee, PAID_BY, payer_place], numbers[payer]
            ):
                relation = KNOWN
            elif _holds(cells[payee, PAID, payer_place], numbers[payer]) or _holds(
                cells[payer, PAID_BY, payee_place], numbers[payee]
            ):
                relation = RETURNED
            compared = census[NEW] + census[KNOWN] + census[RETURNED]
            if compared > 0.0:
                nats[row] = math.log((compared + _RELATIONS) / (census[relation] + 1.0))
            relations[row] = relation
            pending[relation] += 1.0
        for role in range(ROLES):
            own, other = (payer, payee) if role == PAID else (payee, payer)
            spot = payee_place if role == PAID else payer_place
            first = clocks[own, role, _TOTAL] == 0
            if first:
                clocks[own, role, _LAST], clocks[own, role, _FIRST] = time, time
            before = clocks[own, role, _LAST]
            late = time < before
            latest = before if late else time
            exposures[role, row] = -1.0
            if not first:
                exposures[role, row] = (np.float64(latest) - clocks[own, role, _FIRST]) / _MICROSECONDS
                clocks[own, role, _FIRST] = min(clocks[own, role, _FIRST], time)
            clocks[own, role, _LAST] = latest
            clocks[own, role, _TOTAL] += 1
            now, old, second = _second(latest), cells[own, role, spot], _second(time)
            elapsed = np.float64(now - _second(before))
            same = _holds(old, numbers[other])
            fresh = old
            if old == _EMPTY or second >= _second_of(old):
                fresh = _pack(numbers[other], second)
            cells[own, role, spot] = fresh
            for horizon in range(longest + 1):
                occupied = sums[own, role, horizon] * math.exp(-elapsed / horizons[horizon])
                counts[role, row, horizon] = _distinct(occupied, width)
                gone, come = _weight(old, now, horizons[horizon]), _weight(fresh, now, horizons[horizon])
                sums[own, role, horizon] = max(occupied - gone, 0.0) + come
                if horizon == longest and not first and not late:
                    pending[ADDED + role] += come - (gone if same else 0.0)
                    pending[SECONDS + role] += elapsed
