"""What a contract makes of a sample: what is accepted, and what each reason rejects, with examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from schemas.contract import EventContract
from schemas.time_fields import TimeField
from streaming.drafting.sample import EventSample, TriedSample

_EXAMPLES = 3
_SHOWN_BYTES = 300


@dataclass(frozen=True)
class Example:
    """A rejected record: where it stands, what is wrong, and how it begins."""

    place: str
    detail: str | None
    value: str


@dataclass(frozen=True)
class SampleCheck:
    """What became of a sample under a contract.

    Attributes:
        records: how many there were.
        accepted: how many are payments.
        filtered: how many the contract does not want, by reason.
        rejected: how many are no payments, by reason, the most frequent first.
        examples: some of them, by reason.
        repeated: accepted records whose id an earlier one has.
        faults: optional fields that could not be used, by what is wrong.
        largest: by entity, the share of accepted records of its most frequent id.
        shown_twice: accepted records of an hour that the clocks of their zone show twice, where their times
            have no offset that tells one from the other.
    """

    records: int
    accepted: int
    filtered: Mapping[str, int]
    rejected: Mapping[str, int]
    examples: Mapping[str, Sequence[Example]]
    repeated: int
    faults: Mapping[str, int]
    largest: Mapping[str, float]
    shown_twice: int = 0

    @property
    def rejected_share(self) -> float:
        """The share of the records that is rejected."""
        return sum(self.rejected.values()) / max(self.records, 1)


def check_sample(sample: EventSample, contract: EventContract) -> SampleCheck:
    """Decode a sample under a contract and count.

    Raises:
        ConfigurationError: a file lacks a column that the contract names, or cannot be read.
    """
    tried = sample.tried(contract)
    valid = tried.decoded.valid
    rejected = Counter(tried.decoded.rejected["reason"].to_pylist())
    ids = valid["transaction_id"].to_pylist()
    known = [each for each in ids if each is not None]
    faults = Counter(fault for row in valid["faults"].to_pylist() for fault in _split(row))
    return SampleCheck(
        records=tried.count,
        accepted=valid.num_rows,
        filtered=dict(Counter(tried.decoded.filtered["reason"].to_pylist())),
        rejected=dict(rejected.most_common()),
        examples={reason: _examples(tried, reason) for reason in rejected},
        repeated=len(known) - len(set(known)),
        faults=dict(faults.most_common()),
        largest={name: _largest(valid[name].to_pylist()) for name in contract.entity_names},
        shown_twice=_shown_twice(valid["event_time"].to_pylist(), contract.event_time),
    )


def _shown_twice(moments: Sequence[datetime], field: TimeField) -> int:
    if not field.is_local:
        return 0
    local = [each.astimezone(ZoneInfo(field.zone)) for each in moments]
    return sum(each.replace(fold=0).utcoffset() != each.replace(fold=1).utcoffset() for each in local)


def _split(faults: Any) -> Sequence[str]:
    if faults is None:
        return ()
    return faults.split("; ") if isinstance(faults, str) else list(faults)


def _examples(tried: TriedSample, reason: str) -> list[Example]:
    rows = [row for row in tried.decoded.rejected.select(_SHOWN).to_pylist() if row["reason"] == reason]
    return [
        Example(tried.place_of(row["partition"], row["offset"]), row["detail"], _shown(row["value"]))
        for row in rows[:_EXAMPLES]
    ]


_SHOWN = ["reason", "detail", "value", "partition", "offset"]


def _shown(value: bytes | None) -> str:
    if value is None:
        return ""
    text = value[:_SHOWN_BYTES].decode("utf-8", "backslashreplace")
    return f"{text} …" if len(value) > _SHOWN_BYTES else text


def _largest(ids: Sequence[str | None]) -> float:
    counts = Counter(each for each in ids if each is not None)
    return max(counts.values(), default=0) / max(len(ids), 1)
