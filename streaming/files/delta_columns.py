"""What the columns of a Delta table are called in its data files, and of which type they are there.

Column mapping keeps names in the log: a renamed column keeps its name in the files, a dropped one stays
there, and another one may have its former name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from schemas.errors import ConfigurationError

_MODE = "delta.columnMapping.mode"
_NAME, _ID = "delta.columnMapping.physicalName", "delta.columnMapping.id"
_FIELD_ID = b"PARQUET:field_id"
_NOT_IN_TABLE = "\1"

Declared = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class MappedColumns:
    """The columns that a log declares, found again in data files.

    Attributes:
        declared: the fields of the table's schema, as the log has them.
        mode: `none`, `name` or `id`.
    """

    declared: Declared
    mode: str

    @classmethod
    def of(cls, configuration: Mapping[str, str], declared: Declared) -> MappedColumns:
        """Take the columns of a table.

        Raises:
            ConfigurationError: its mode of column mapping is unknown.
        """
        mode = configuration.get(_MODE, "none")
        if mode not in ("none", "name", "id"):
            raise ConfigurationError(f"{_MODE} is {mode!r}, which is not read: copy the table")
        return cls(declared, mode)

    def named(self, held: pa.Schema) -> pa.Schema:
        """Return the schema of a file under the table's names, in the file's order.

        What the table has not, or has no more, gets a name that no column can have.

        Raises:
            ConfigurationError: the file does not number its columns, by which alone they are found.
        """
        if self.mode == "id" and not any(_FIELD_ID in (field.metadata or {}) for field in held):
            raise ConfigurationError("its columns are not numbered, as column mapping by id needs them")
        return pa.schema(self._fields(list(held), self.declared))

    def _fields(self, held: Sequence[pa.Field], declared: Declared) -> list[pa.Field]:
        known = {self._key(each): each for each in declared}
        return [self._field(place, field, known) for place, field in enumerate(held)]

    def _field(self, place: int, field: pa.Field, known: Mapping[object, Mapping[str, Any]]) -> pa.Field:
        found = known.get(self._key_in_file(field))
        if found is None:
            return pa.field(f"{_NOT_IN_TABLE}{place}", field.type)
        return pa.field(found["name"], self._type(field.type, found["type"]))

    def _type(self, kind: pa.DataType, declared: Any) -> pa.DataType:
        if not isinstance(declared, dict):
            return kind
        if pa.types.is_struct(kind) and declared["type"] == "struct":
            return pa.struct(self._fields(list(kind), declared["fields"]))
        if pa.types.is_list(kind) and declared["type"] == "array":
            return pa.list_(self._within(kind.value_field, declared["elementType"]))
        if pa.types.is_map(kind) and declared["type"] == "map":
            key = self._within(kind.key_field, declared["keyType"])
            return pa.map_(key, self._within(kind.item_field, declared["valueType"]))
        return kind

    def _within(self, field: pa.Field, declared: Any) -> pa.Field:
        return field.with_type(self._type(field.type, declared))

    def _key(self, declared: Mapping[str, Any]) -> object:
        noted = declared.get("metadata", {})
        if self.mode == "id":
            return int(noted[_ID])
        return noted.get(_NAME, declared["name"]) if self.mode == "name" else declared["name"]

    def _key_in_file(self, field: pa.Field) -> object:
        if self.mode != "id":
            return field.name
        number = (field.metadata or {}).get(_FIELD_ID)
        return None if number is None else int(number)


class Renamed:
    """A batch under other names, nested ones too: the layout is the same, so nothing is copied."""

    def __init__(self, batch: pa.RecordBatch, schema: pa.Schema) -> None:
        self._batch, self._schema = batch, schema

    def __arrow_c_array__(self, requested_schema: object = None) -> tuple[object, object]:
        """Return it as Arrow's PyCapsule interface has it."""
        return self._schema.__arrow_c_schema__(), self._batch.__arrow_c_array__()[1]
