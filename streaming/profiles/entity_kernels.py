"""The entity half of profiles: compiled loops over rows of some of the entities.

Rows of different entities have nothing to do with each other here, so any share of the entities may be
worked on apart, on another thread as well as on another machine. What all rows together say is the
population pass, see population_kernels.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from streaming.arrays.compilation import Codes, Floats, Ints, compiled, inlined
from streaming.profiles.profile_kernels import LEAST_WEIGHT, Blocks, Features, LabelEvents, Rows, State

_MICROSECONDS = 1e-6
_SETTLED_WEIGHT = 4.0
_MOST_TIMES_USUAL = 3.0
_MOST_AMOUNT = 1e300
_COUNT, _AMOUNT, _SUM, _SQUARES = 0, 1, 2, 3
_LAST, _FIRST, _TOTAL = 0, 1, 2
_LABEL_DECAY = 0.5 ** (1 / 65_536)
_PRIOR_FRAUDS, _PRIOR_LABELS = 0.1, 10.0
_PRIOR_WEIGHT = 2.0
_HIGHEST_USUAL = 0.5
# Neighbours stay together: what is held of them lies in the same lines of the cache.
_NEIGHBOURS = 8


class Share(NamedTuple):
    """One share of the entities of a batch, and its rows.

    Attributes:
        places: int64[m], ascending, where the rows stand in Rows.
        number: which of the shares it is.
        shares: how many there are.
    """

    places: Ints
    number: int
    shares: int


@inlined
def _share_of(code: int, shares: int) -> int:
    return code // _NEIGHBOURS % shares


@compiled
def _places_by_share(codes: Codes, shares: int) -> tuple[Ints, Ints]:
    # Rows without an entity are shared out as they come.
    bounds = np.zeros(shares + 1, dtype=np.int64)
    for row in range(len(codes)):
        bounds[1 + (_share_of(codes[row], shares) if codes[row] >= 0 else row % shares)] += 1
    for share in range(shares):
        bounds[share + 1] += bounds[share]
    following, places = bounds[:-1].copy(), np.empty(len(codes), dtype=np.int64)
    for row in range(len(codes)):
        share = _share_of(codes[row], shares) if codes[row] >= 0 else row % shares
        places[following[share]] = row
        following[share] += 1
    return places, bounds


def shares_of(codes: Codes, shares: int) -> list[Share]:
    """Share out the entities, and with them the rows.

    Args:
        codes: int32[n], of the rows' entities, -1 for none.
        shares: how many, at least 1.
    """
    if shares == 1:
        return [Share(np.arange(len(codes)), 0, 1)]
    places, bounds = _places_by_share(codes, shares)
    return [Share(places[bounds[each] : bounds[each + 1]], each, shares) for each in range(shares)]


@compiled
def _seconds_between(earlier: int, later: int) -> float:
    # As floats, since the difference of far-off times overflows int64.
    return (np.float64(later) - np.float64(earlier)) * _MICROSECONDS


@compiled
def fold_entities(  # noqa: PLR0915 -- one flat loop, see below
    places: Ints,
    blocks: Blocks,
    rows: Rows,
    state: State,
    features: Features,
    horizons: Floats,
    forgotten: Ints,
    standins: Floats,
) -> None:
    """Fill in `features` at `places`, moving the entities' `state` past each row; horizons are in seconds.

    Entities not seen after `forgotten`, int64[blocks], in microseconds, are as if never seen.

    What an entity with a settled history learns of one transaction is capped at three times its usual amount
    (winsorized, as in Huber, Robust Statistics, 1981, section 1.7), so that a burst of frauds does not become
    its habit. An amount of 0 says nothing of the usual one: its logarithm counts as the usual logarithm, or
    as that of `standins`, float64[blocks], while the entity has no history.

    One flat loop over plain arrays: split into functions that are handed arrays it takes six times as
    long, for reference counting (150 ms against 25 ms for 500,000 rows).
    """
    sequences, codes, times, raw_amounts, raw_logs = rows
    moments, clocks = state.moments, state.clocks
    counts, amounts, sums, squares, exposures, gaps, late = features
    longest = len(horizons) - 1
    first_block = blocks.first_sequence // blocks.rows
    most_log = np.log(_MOST_TIMES_USUAL)
    for place in range(len(places)):
        row = places[place]
        block = sequences[row] // blocks.rows - first_block
        code, time = codes[row], times[row]
        late[row], gaps[row] = False, np.nan
        if code < 0:
            counts[row, :], amounts[row, :] = 0.0, 0.0
            sums[row], squares[row], exposures[row] = 0.0, 0.0, np.nan
            continue
        elapsed = 0.0
        if clocks[code, _TOTAL] > 0 and clocks[code, _LAST] <= forgotten[block]:
            clocks[code, _TOTAL] = 0
            moments[code] = 0.0
        if clocks[code, _TOTAL] == 0:
            clocks[code, _LAST], clocks[code, _FIRST] = time, time
            exposures[row] = -1.0
        else:
            elapsed = _seconds_between(clocks[code, _LAST], time)
            gaps[row] = elapsed
            late[row] = time < clocks[code, _LAST]
            if not late[row]:
                clocks[code, _LAST] = time
            exposures[row] = _seconds_between(clocks[code, _FIRST], clocks[code, _LAST])
            clocks[code, _FIRST] = min(clocks[code, _FIRST], time)
        clocks[code, _TOTAL] += 1
        fading = np.exp(-abs(elapsed) / horizons[longest])
        kept = 1.0 if late[row] else fading
        history = moments[code, longest, _COUNT] * kept
        log_amount, amount = raw_logs[row], min(raw_amounts[row], _MOST_AMOUNT)
        if np.isnan(log_amount):
            amount = 0.0
            known = history > LEAST_WEIGHT
            log_amount = moments[code, longest, _SUM] * kept / history if known else standins[block]
        if history > _SETTLED_WEIGHT:
            usual = moments[code, longest, _AMOUNT] * kept / history
            if amount > _MOST_TIMES_USUAL * usual > 0.0:
                amount = _MOST_TIMES_USUAL * usual
                log_amount = min(log_amount, moments[code, longest, _SUM] * kept / history + most_log)
        for horizon in range(longest + 1):
            fading = np.exp(-abs(elapsed) / horizons[horizon])
            kept, weight = (1.0, fading) if late[row] else (fading, 1.0)
            count = moments[code, horizon, _COUNT] * kept
            paid = moments[code, horizon, _AMOUNT] * kept
            total = moments[code, horizon, _SUM] * kept
            square = moments[code, horizon, _SQUARES] * kept
            counts[row, horizon], amounts[row, horizon] = count, paid
            if horizon == longest:
                sums[row], squares[row] = total, square
            moments[code, horizon, _COUNT] = count + weight
            moments[code, horizon, _AMOUNT] = paid + weight * amount
            moments[code, horizon, _SUM] = total + weight * log_amount
            moments[code, horizon, _SQUARES] = square + weight * log_amount * log_amount


@compiled
def recall(
    places: Ints,
    blocks: Blocks,
    rows: Rows,
    nats: Floats,
    state: State,
    memory: Floats,
    most: Floats,
    forgotten: Ints,
) -> None:
    """Fill `memory`, float64[n], with what each entity's earlier striking transactions add up to, in nats.

    A transaction strikes by what its surprise, `nats`, exceeds `least`, at most `cap`; that fades with
    exp(-age / horizon). `most` holds (least, cap, horizon in seconds); see fold_entities for the rest.
    """
    sequences, codes, times, _, _ = rows
    strikes, struck = state.strikes, state.struck
    first_block = blocks.first_sequence // blocks.rows
    least, cap, horizon = most[0], most[1], most[2]
    for place in range(len(places)):
        row = places[place]
        code = codes[row]
        if code < 0:
            memory[row] = 0.0
            continue
        if struck[code] <= forgotten[sequences[row] // blocks.rows - first_block]:
            strikes[code] = 0.0
        elapsed = _seconds_between(struck[code], times[row])
        if strikes[code] == 0.0 or elapsed >= 0.0:
            if strikes[code] > 0.0:
                strikes[code] *= np.exp(-elapsed / horizon)
            struck[code] = times[row]
            elapsed = 0.0
        memory[row] = strikes[code]
        if nats[row] > least:
            strikes[code] += min(nats[row] - least, cap) * np.exp(elapsed / horizon)


@compiled
def judge(
    share: Share,
    blocks: Blocks,
    rows: Rows,
    known: LabelEvents,
    state: State,
    memories: Floats,
    found: Floats,
    forgotten: Ints,
    last_sequence: int,
) -> None:
    """Fill `found`, float64[n, 1 + 2 memories], with what earlier labels say of the entity of a share's rows.

    Its columns are the log-odds of fraud that they lend by the first memory, then the decayed numbers of
    frauds and of labels by each memory, in seconds. The share of frauds of an entity has a Beta prior that
    weighs two labels and has the mean of all entities; what counts is the posterior mean (Gelman et al.,
    Bayesian Data Analysis, 3rd ed., section 2.4). LabelEvents fade with exp(-age / memory), in seconds before
    the newest transaction with a label: so a delay that all labels share does not weaken them. Those on
    transactions up to `forgotten`, see fold_entities, are as if never given.

    Of `state`, `labels` and `frontier` are of all labels, so each share needs all of those that the rows up
    to `last_sequence` know, and copies of its own to move on.
    """
    sequences, codes, _, _, _ = rows
    frauds, judged, judged_at = state.frauds, state.judged, state.judged_at
    seen, frontier, width = state.labels, state.frontier, len(memories)
    first_block = blocks.first_sequence // blocks.rows
    following = 0
    for place in range(len(share.places) + 1):
        row = share.places[place] if place < len(share.places) else 0
        sequence = sequences[row] if place < len(share.places) else last_sequence
        while following < len(known.codes) and known.positions[following] <= sequence:
            code, time, blame = known.codes[following], known.times[following], known.blames[following]
            number = 1.0 if known.firsts[following] else 0.0
            decay = _LABEL_DECAY if known.firsts[following] else 1.0
            position = max(known.positions[following], blocks.first_sequence)
            oldest = forgotten[position // blocks.rows - first_block]
            following += 1
            seen[0] = seen[0] * decay + number
            seen[1] = max(seen[1] * decay + blame, 0.0)
            frontier[0] = max(frontier[0], time)
            if code < 0 or _share_of(code, share.shares) != share.number:
                continue
            if judged_at[code] <= oldest:
                judged[code, :], frauds[code, :] = 0.0, 0.0
            fresh = judged[code, 0] == 0.0
            elapsed = 0.0 if fresh else _seconds_between(judged_at[code], time)
            for memory in range(width):
                fading = np.exp(-abs(elapsed) / memories[memory])
                kept, weight = (fading, 1.0) if elapsed >= 0.0 else (1.0, fading)
                judged[code, memory] = judged[code, memory] * kept + weight * number
                frauds[code, memory] = max(frauds[code, memory] * kept + weight * blame, 0.0)
            if fresh or elapsed >= 0.0:
                judged_at[code] = time
        if place == len(share.places):
            break
        code = codes[row]
        oldest = forgotten[sequence // blocks.rows - first_block]
        found[row, :] = 0.0
        if code >= 0 and judged[code, 0] > 0.0 and judged_at[code] > oldest:
            age = max(_seconds_between(judged_at[code], frontier[0]), 0.0)
            for memory in range(width):
                fading = np.exp(-age / memories[memory])
                found[row, 1 + memory] = frauds[code, memory] * fading
                found[row, 1 + width + memory] = judged[code, memory] * fading
            usual = min((seen[1] + _PRIOR_FRAUDS) / (seen[0] + _PRIOR_LABELS), _HIGHEST_USUAL)
            trusted = (found[row, 1] + _PRIOR_WEIGHT * usual) / (found[row, 1 + width] + _PRIOR_WEIGHT)
            if trusted >= 1.0:  # a label was changed whose first one is forgotten: as if all were frauds
                trusted = (found[row, 1 + width] + 1.0) / (found[row, 1 + width] + _PRIOR_WEIGHT)
            found[row, 0] = np.log(trusted / (1.0 - trusted)) - np.log(usual / (1.0 - usual))
