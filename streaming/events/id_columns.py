"""Ids that are more than the text of one field: those of many events at once, as `exact_ids` reads each."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.event_columns import Column
from schemas.id_fields import BLANKS, IdField
from streaming.arrays.compilation import Flags
from streaming.events import json_strings
from streaming.events.found import Found

_JOINING = (("\\", "\\\\"), ("|", "\\|"))


def id_array(column: Column, field: IdField, found: Mapping[str, Found], vouched: Flags) -> pa.Array:
    """Return one id per row, null where an event has none.

    Args:
        found: by path, what was found of each field.
        vouched: bool[n]; cleared for rows left to the exact decoder.
    """
    parts = [_part(column, field, found[source], vouched) for source in field.sources]
    if not parts:
        return pa.nulls(len(vouched), pa.string())
    ids = parts[0] if len(parts) == 1 else _joined(parts)
    fit = pc.fill_null(pc.less_equal(pc.utf8_length(ids), field.max_length), not column.required)
    vouched &= _flags(fit)
    return ids


def _part(column: Column, field: IdField, found: Found, vouched: Flags) -> pa.Array:
    wanted = found.kinds == json_strings.INTEGER
    if column.json_type == "string":
        wanted |= found.are_texts()
    vouched &= wanted | found.are_null()
    texts = _normalised(found.texts(wanted & vouched), field)
    if field.null_values:
        is_id = pc.invert(pc.is_in(texts, pa.array(sorted(field.placeholders), pa.string())))
        texts = pc.if_else(is_id, texts, pa.scalar(None, pa.string()))
    vouched &= _flags(pc.fill_null(pc.not_equal(pc.binary_length(texts), 0), fill_value=True))
    return texts


def _normalised(texts: pa.Array, field: IdField) -> pa.Array:
    """Texts beyond ASCII are changed by the same code as a single one, each distinct one once."""
    if not field.normalise:
        return texts
    plain = pc.fill_null(pc.string_is_ascii(texts), fill_value=True)
    if pc.all(plain).as_py():
        return _plainly(texts, field)
    encoded = texts.filter(pc.invert(plain)).dictionary_encode()
    changed = pa.array([field.normalised(each) for each in encoded.dictionary.to_pylist()], pa.string())
    others = changed.take(encoded.indices)
    return pc.replace_with_mask(_plainly(texts, field), pc.invert(plain), others)


def _plainly(texts: pa.Array, field: IdField) -> pa.Array:
    if "upper" in field.normalise:
        texts = pc.ascii_upper(texts)
    if "lower" in field.normalise:
        texts = pc.ascii_lower(texts)
    return pc.utf8_trim(texts, characters=BLANKS) if "trim" in field.normalise else texts


def _joined(parts: list[pa.Array]) -> pa.Array:
    """Join texts as schemas.id_fields.joined does; null where one of them is."""
    escaped = []
    for part in parts:
        for plain, written in _JOINING:
            part = pc.replace_substring(part, plain, written)  # noqa: PLW2901 -- one step after the other
        escaped.append(part)
    return pc.binary_join_element_wise(*escaped, "|")


def _flags(values: pa.Array) -> Flags:
    flags: Flags = np.asarray(values.to_numpy(zero_copy_only=False), np.bool_)
    return flags
