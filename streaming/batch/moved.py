"""Whether this machine gives the same bits as those before it; it is said, and nothing else hangs on it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import polars as pl

from streaming.arrays.fingerprint import machine_fingerprint
from streaming.batch.decision import Decision
from streaming.batch.queries import newest_batch
from streaming.delta.pins import FINGERPRINT
from streaming.delta.stored import StoredTable
from streaming.output.log import log

COMPUTED_COLUMNS = ("next_sequence", "closed_at", "batch_id", "fingerprints")


def computed_on(decision: Decision, before: Iterable[str] = ()) -> list[str]:
    """Return the fingerprints of the machines that have computed a batch which is closed here.

    The first has stored it; where another one finishes it, nobody knows how far the first has come.

    Args:
        before: those that have computed the state it rests on, and of which no batch tells.
    """
    here = machine_fingerprint()
    return [*dict.fromkeys((*before, decision.pins.get(FINGERPRINT) or here, here))]


class MachinesOnRecord:
    """Which machines batches tell of; a state may have been computed by others, as that of a shadow.

    Args:
        batches: the table.
    """

    def __init__(self, batches: StoredTable) -> None:
        self._batches, self._known = batches, set[str]()
        self._is_read = False

    def missing(self, states: Iterable[Sequence[str]]) -> list[str]:
        """Return the machines that have computed states and of which no batch tells, each of them once.

        Args:
            states: the fingerprints of each.
        """
        others = {each for machines in states for each in machines} - {machine_fingerprint(), *self._known}
        if others and not self._is_read:
            self._is_read = True
            rows = self._batches.read("next_sequence", 0, columns=["fingerprints"])
            self._known.update(each for found in rows["fingerprints"].to_pylist() for each in found or ())
        missing = sorted(others - self._known)
        self._known.update(missing)
        return missing


def log_if_moved(agent: str, batches: StoredTable, unfinished: Decision | None) -> None:
    """Say where this machine is of another fingerprint than the one that computed the newest batch.

    Args:
        batches: the table.
        unfinished: a batch that a crash has left open, which is finished here.
    """
    batch, before = _newest(batches) if unfinished is None else _begun(unfinished)
    here = machine_fingerprint()
    if before in (None, here):
        return
    done = "the newest, was computed" if unfinished is None else "which is finished here, was begun"
    log(
        "machine_changed",
        f"batch {batch}, {done} on a machine of fingerprint {before}, and this one's is {here}: from here on "
        "scores may differ in their last bits from what that one would have given. `flagstream replay` "
        "compares such batches within a tolerance and says so; one class of processors keeps every bit",
        level=logging.WARNING,
        agent=agent,
        batch=batch,
        before=before,
        fingerprint=here,
    )


def _begun(decision: Decision) -> tuple[int, str | None]:
    return decision.batch_id, decision.pins.get(FINGERPRINT)


def _newest(batches: StoredTable) -> tuple[int, str | None]:
    newest = newest_batch(batches, ["batch_id", "fingerprints"])
    if newest is None or not newest["fingerprints"]:
        return 0, None
    return newest["batch_id"], newest["fingerprints"][-1]


@dataclass(frozen=True)
class ComputedOn:
    """The machine that computed the newest batch, and from which batch on it did.

    Attributes:
        fingerprint: see streaming.arrays.fingerprint.
        before: that of the machine before, None where there was no other.
        batch_id: of the first batch that this one had a part in, None where there was no other before.
        closed_at: when that one was closed.
    """

    fingerprint: str
    before: str | None = None
    batch_id: int | None = None
    closed_at: datetime | None = None

    @classmethod
    def of(cls, batches: pl.DataFrame) -> ComputedOn | None:
        """Return it by COMPUTED_COLUMNS of all closed batches, None where none has noted a machine."""
        noted = batches.filter(pl.col("fingerprints").list.len() > 0).sort("next_sequence", "closed_at")
        each = noted.explode("fingerprints").with_columns(before=pl.col("fingerprints").shift())
        if each.height == 0:
            return None
        moves = each.filter(pl.col("fingerprints") != pl.col("before"))
        newest = each["fingerprints"][-1]
        if moves.height == 0:
            return cls(newest)
        move = moves.row(-1, named=True)
        return cls(newest, move["before"], move["batch_id"], move["closed_at"].astimezone(UTC))
