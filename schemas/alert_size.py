"""Keeps alerts within the size that a topic admits: a pure function of the alert and the bound.

Ids, currencies and texts have bounds of their own in the contract, so what is cut here comes from lakes and
contracts that know none, or from rules by the thousand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from schemas.alert import ALERTS, CATEGORIES, CLASSIFICATION_SOURCES, FALLBACK_REASONS
from schemas.alert_documents import alert_documents
from schemas.rules import SEVERITIES

CLIPPED = "clipped"
# Kept free for what a model says of an alert, so that how the rest is cut does not depend on it.
_ROOM_FOR_A_MODEL = 4_096
_CITATION_CHARACTERS = 100
_BY_THE_MODEL: Mapping[str, Any] = {
    "rationale": "", "model": None, "prompt_id": None, "prompt_version": None, "evidence": None,
}  # fmt: skip
# Another attempt, or a replay, may have decided these otherwise: each counts as long as it can be.
_BY_THE_ATTEMPT: Mapping[str, Any] = {
    "classification": max(CATEGORIES, key=len),
    "severity": max(SEVERITIES, key=len),
    "classification_source": max(CLASSIFICATION_SOURCES, key=len),
    "fallback_reason": max(FALLBACK_REASONS, key=len),
    "query_id": "0" * 64,
    "batch_id": 2**63 - 1,
    "revision": 2**31 - 1,
    "created_at": datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
}
_TEXTS = ("transaction_id", "currency")
_LISTS = ("entities", "reasons", "rules", "rule_texts")
_ROOM_FOR_AN_ATTEMPT = 512  # more than those take
# Characters of a text, and parts of a list, that are kept: the first pair that suffices.
_STEPS = ((1_000, 1_000), (200, 100), (40, 20), (40, 4))
_BYTES_OF_A_BYTE = 7  # JSON writes a control character as \u001b, and an id stands in the key as well
_FRAME_BYTES = 2_048  # names of fields and signs between them


def fitted(alerts: pa.Table, max_bytes: int) -> pa.Table:
    """Return alerts of schema `ALERTS` of which each takes at most `max_bytes` on the topic, with its key.

    Those that would take more are cut, and their `clipped` names the fields; the others stay as they are.
    What was read from a table of before later fields came may be without them.
    """
    places = _suspect(alerts, max_bytes - _ROOM_FOR_A_MODEL - _ROOM_FOR_AN_ATTEMPT)
    if not places:
        return alerts
    rows = alerts.take(pa.array(places)).to_pylist()
    cut = {place: _cut(row, max_bytes) for place, row in zip(places, rows, strict=True)}
    parts = [
        alerts.slice(place, 1) if (row := cut.get(place)) is None else _table(row, alerts.schema)
        for place in range(alerts.num_rows)
    ]
    return pa.concat_tables(parts).combine_chunks()


def _suspect(alerts: pa.Table, most: int) -> list[int]:
    """Return the places of alerts that take more than `most` bytes, what a model has said included."""
    places = list(_may_exceed(alerts, most))
    sizes = sizes_of(alerts.take(pa.array(places, pa.int64()))) if places else []
    return [place for place, size in zip(places, sizes, strict=True) if size > most]


def sizes_of(alerts: pa.Table) -> list[int]:
    """Return the bytes of each alert's key and value, whatever number it gets in the outbox."""
    place = alerts.schema.get_field_index("outbox_seq")
    numbers = pa.repeat(pa.scalar(2**63 - 1), alerts.num_rows)
    documents = alert_documents(alerts.set_column(place, alerts.schema.field(place), numbers))
    keys = pc.binary_length(alerts["transaction_id"]).to_pylist()
    return [len(document) + key for document, key in zip(documents, keys, strict=True)]


def size_of(alert: Mapping[str, Any]) -> int:
    """Return `sizes_of` one alert as a row."""
    return sizes_of(_table(alert))[0]


def _may_exceed(alerts: pa.Table, most: int, first: int = 0) -> Iterator[int]:
    """Yield the places of alerts that may take more, by halves: mostly one check of the whole shows none."""
    if _BYTES_OF_A_BYTE * alerts.nbytes + _FRAME_BYTES * alerts.num_rows <= most or alerts.num_rows == 0:
        return
    if alerts.num_rows == 1:
        yield first
        return
    middle = alerts.num_rows // 2
    yield from _may_exceed(alerts.slice(0, middle), most, first)
    yield from _may_exceed(alerts.slice(middle), most, first + middle)


def _cut(alert: dict[str, Any], max_bytes: int) -> dict[str, Any] | None:
    """Return the alert cut as little as suffices, None when nothing need be."""
    found, most = alert, max_bytes - _ROOM_FOR_A_MODEL
    for step in _STEPS:
        if size_of({**found, **_BY_THE_MODEL, **_BY_THE_ATTEMPT}) <= most:
            break
        found = _shortened(alert, *step)
    if size_of(found) > max_bytes and found.get("evidence"):
        found = _marked(
            found, {"evidence": [_short(each, _CITATION_CHARACTERS) for each in found["evidence"]]}
        )
    return None if found is alert else found


def _shortened(alert: dict[str, Any], characters: int, parts: int) -> dict[str, Any]:
    texts = {name: _short(alert[name], characters) for name in _TEXTS}
    lists = {
        name: [_short_part(each, characters) for each in alert[name][:parts]]
        for name in _LISTS
        if alert.get(name) is not None
    }
    return _marked(alert, texts | lists)


def _marked(alert: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    cut = [name for name, value in changes.items() if value != alert[name]]
    return {**alert, **changes, CLIPPED: sorted({*(alert.get(CLIPPED) or ()), *cut})}


def _short_part(part: Any, characters: int) -> Any:
    if isinstance(part, str):
        return _short(part, characters)
    if isinstance(part, tuple):
        return (part[0], _short(part[1], characters))
    return {**part, "text": _short(part["text"], characters)}


def _short(text: str, characters: int) -> str:
    return text if len(text) <= characters else text[: characters - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _table(alert: Mapping[str, Any], schema: pa.Schema = ALERTS) -> pa.Table:
    return pa.Table.from_pylist([dict(alert)], schema=ALERTS).select(schema.names).cast(schema)
