"""Which compiled scanner finds the fields of a contract's records."""

from __future__ import annotations

from schemas.contract import EventContract
from streaming.events.found import FieldFinder
from streaming.events.json_fields import JsonFinder


def finder_of(contract: EventContract) -> FieldFinder:
    """Return what finds `contract.read_fields`, in their order."""
    return JsonFinder(contract.read_fields, contract.max_record_bytes, framed=contract.format.framed)
