"""What a snapshot of profiles holds of one entity."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from streaming.profiles.entity_half import ProfileSnapshot


@dataclass(frozen=True)
class OneProfile:
    """Decayed counts and mean amounts, one per horizon; times in microseconds since 1970."""

    counts: list[float]
    usual_amounts: list[float]
    first_time: int
    last_time: int
    total: int


def profile_of(snapshot: ProfileSnapshot, entity: str) -> OneProfile | None:
    """Return the profile of one entity, None if it is unknown."""
    data, offsets = snapshot.ids
    ids = [data[start:end].tobytes().decode() for start, end in pairwise(offsets)]
    if entity not in ids:
        return None
    slot = ids.index(entity)
    counts, amounts, *_ = snapshot.state.moments[slot].T
    last, first, total = snapshot.state.clocks[slot].tolist()
    return OneProfile(counts.tolist(), (amounts / counts).tolist(), first, last, total)
