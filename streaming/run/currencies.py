"""Tells at start that a stream holds several currencies whose amounts are compared as they stand."""

from __future__ import annotations

from streaming.delta.lake_reader import HasLake, LakeReader
from streaming.output.log import log

_MOST_NAMED = 5


def log_currencies(agent: HasLake) -> None:
    """Log which currencies are compared as they stand, if there are several, by the files' statistics."""
    if agent.spec.profiles.currencies != "mixed":
        return
    found = stored_currencies(agent)
    if len(found) > 1:
        shown = ", ".join([*found[:_MOST_NAMED], *(["…"] if len(found) > _MOST_NAMED else [])])
        log(
            "currencies_mixed",
            f"the stream holds several currencies ({shown}), and their amounts are compared as they stand; "
            "profiles.currencies: scaled compares each with what is usual in its currency, reference "
            "converts them by exchange rates",
            agent=agent.spec.name,
        )


def stored_currencies(agent: HasLake) -> list[str]:
    """Return currencies of the stored transactions: two at least where there are several."""
    table = LakeReader.of(agent).table("transactions")
    return [] if table is None else sorted(table.extremes("currency"))
