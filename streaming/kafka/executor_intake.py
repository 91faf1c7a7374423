"""Takes a micro-batch decoded: executors read and decode, the driver gets columns and where records lie.

The clock that judges stamps is read from the stamps of all records, which come with the answer. So executors
decode by what the clock of the batch before suggests; where another moment would have judged one record
otherwise, they do it again.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from inspect import signature
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql.pandas.types import to_arrow_schema

from schemas.contract import EventContract
from schemas.counts import count_of
from schemas.errors import ConfigurationError, DataLossError
from streaming.arrays.kernel_folder import kernel_folder
from streaming.events.decode import Decoded
from streaming.events.decoder_version import decoder_version
from streaming.events.stamps import judged_alike
from streaming.kafka.executor_decode import ANSWER, DecodedPiece, DecodeOrder, decode_task, decoded_piece
from streaming.kafka.intake import Intake, Taken

# Before Spark 4.2 times are in UTC without a word.
_UTC: dict[str, Any] = {"timezone": "UTC"} if "timezone" in signature(to_arrow_schema).parameters else {}


class ExecutorIntake:
    """How the batches of a stream are taken from executors.

    Args:
        intake: how they are bounded, and how large records are taken, which the driver decodes.
        contract: what records mean unless a batch says otherwise.
    """

    def __init__(self, intake: Intake, contract: EventContract) -> None:
        self._intake, self._contract = intake, contract
        self._ahead = timedelta(0)

    def bounded(self, frame: DataFrame) -> DataFrame:
        """See Intake."""
        return self._intake.bounded(frame)

    def take(self, frame: DataFrame, planned: int) -> Taken:
        """Have a micro-batch read and decoded; see Intake.take.

        Raises:
            ConfigurationError: an executor's decoder is another one than the driver's.
            DataLossError: records left the topic between the first and the second reading.
        """
        frame, share = self._intake.shared(frame, planned)
        machine = datetime.now(UTC)
        job = partial(self._answers, frame, share)
        guess = machine + self._ahead
        answers = job(self._contract, guess)
        places = _together([each.places for each in answers])

        def away(contract: EventContract, now: datetime) -> Decoded:
            self._ahead = now - machine
            if contract is self._contract and judged_alike(places, contract, guess, now):
                return Decoded.together([each.decoded for each in answers])
            again = job(contract, now)
            _check_same(places.num_rows, sum(each.places.num_rows for each in again))
            return Decoded.together([each.decoded for each in again])

        left = _together([each.left for each in answers])
        if not left.num_rows:
            return Taken(places, away=away)
        return Taken(places, self._intake.slices(frame, left, share), places, away)

    def _answers(
        self, frame: DataFrame, share: int, contract: EventContract, now: datetime
    ) -> Sequence[DecodedPiece]:
        reads = self._intake.reads
        topic = reads.names[0] if reads.is_one else None
        order = DecodeOrder(contract, now, topic, tuple(self._intake.places), share, kernel_folder())
        rows = frame.mapInArrow(partial(decode_task, order), ANSWER).collect()
        for row in rows:
            _check_version(row.made_by)  # before what another decoder has packed is read
        answers = [DecodedPiece.unpacked(*row) for row in rows]
        if answers:
            return answers
        # Offsets may hold no record, as after an aborted transaction: then no task has an answer.
        nothing = to_arrow_schema(frame.schema, **_UTC).empty_table()
        return [decoded_piece(order, nothing)]


def _together(parts: Sequence[pa.Table]) -> pa.Table:
    return pa.concat_tables(parts)


def _check_same(before: int, found: int) -> None:
    """A record that was read once, and is in no answer, would be counted as read and stand nowhere."""
    if found != before:
        raise DataLossError(
            f"of {count_of(before, 'record')} {found} are left: their topic removed them while they were "
            "read; keep records for longer (retention.ms)"
        )


def _check_version(made_by: str) -> None:
    ours = decoder_version()
    if made_by != ours:
        raise ConfigurationError(
            f"executors decode with {made_by}, and this driver with {ours}: install the same on all machines",
            where="cluster",
        )
