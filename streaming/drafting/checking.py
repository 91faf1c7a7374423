"""What a contract makes of a sample: what is accepted, and what each reason rejects, with examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from schemas.contract import EventContract
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
    """

    records: int
    accepted: int
    filtered: Mapping[str, int]
    rejected: Mapping[str, int]
    examples: Mapping[str, Sequence[Example]]
    repeated: int
    faults: Mapping[str, int]
    largest: Mapping[str, float]

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
    )


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
