"""Which compiled scanner finds the fields of a contract's records."""

from __future__ import annotations

from collections.abc import Sequence

from schemas.contract import EventContract
from schemas.event_sources import sources_of
from streaming.events.beside_fields import RecordFinder
from streaming.events.found import FieldFinder
from streaming.events.json_fields import JsonFinder


def finder_of(contract: EventContract, *, from_file: bool = False) -> FieldFinder:
    """Return what finds `contract.read_fields`, in their order.

    Args:
        from_file: values are JSON made from a file's rows, whose columns are named like the fields.
    """

    def in_value(paths: Sequence[str]) -> FieldFinder:
        framed = contract.format.framed and not from_file
        return JsonFinder(paths, contract.max_record_bytes, framed=framed)

    sources = sources_of(contract.read_fields, from_file=from_file)
    if all(each.part == "value" for each in sources):
        return in_value([each.path for each in sources])
    return RecordFinder(sources, [_scalar(contract, each) for each in contract.read_fields], in_value)


def _scalar(contract: EventContract, field: str) -> bool | None:
    """Tell whether a text beside the value is read as number or boolean, None where columns differ."""
    asked = {each.json_type != "string" for each in contract.columns if each.source == field}
    if field in contract.judged_fields:
        asked.add(False)
    return asked.pop() if len(asked) == 1 else None
