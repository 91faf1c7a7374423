"""Rows of tables brought to events under a contract."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from schemas.contract import EventContract
from schemas.errors import ConfigurationError, nearest
from schemas.event_columns import Column
from schemas.event_paths import steps_of
from streaming.files.cells import CellError, CellReader, text_cells, whole_numbers
from streaming.files.event_text import event_texts


class Chunk(NamedTuple):
    """Some rows of a file.

    Attributes:
        keys: what the primary entity is called in each, as Kafka keys events.
        values: the events, JSON that holds exactly the contract's fields.
        beside: further columns of the same rows that are no part of the events, by name.
        places: where each row stands, for errors.
    """

    keys: list[bytes | None]
    values: list[bytes]
    beside: Mapping[str, list[Any]]
    places: Callable[[int], str]


@dataclass(frozen=True)
class EventRows:
    """Turns batches of a table's columns into events.

    Attributes:
        contract: what the events mean.
        cells: how cells are read.
        beside: paths of columns that go along.
        bytes_are_text: whether columns of bytes hold text in UTF-8.
        absent: fields that the table does not have, since it has them under another name.
    """

    contract: EventContract
    cells: CellReader
    beside: Sequence[str] = ()
    bytes_are_text: bool = False
    absent: frozenset[str] = frozenset()

    def chunk(self, batch: pa.RecordBatch, place: Callable[[int], str]) -> Chunk:
        """Return the events of a batch.

        Raises:
            ConfigurationError: a cell or a column cannot be what the contract says; its place is named.
        """
        columns = columns_by_field(self.contract)
        fields = {}
        for name in self.contract.read_fields:
            try:
                fields[name] = self.cells.read(self._values(batch, name), name, columns.get(name))
            except CellError as fault:
                problem = f"column {name!r} {fault.problem}"
                raise ConfigurationError(problem, where=place(fault.row)) from None
        keys = _keys([self._either(batch, names) for names in key_fields(self.contract)])
        beside = {name: self._values(batch, name).to_pylist() for name in self.beside}
        return Chunk(keys, event_texts(fields), beside, place)

    def _either(self, batch: pa.RecordBatch, names: Sequence[str]) -> pa.Array:
        return pc.coalesce(*(whole_numbers(self._values(batch, name)).cast(pa.string()) for name in names))

    def _values(self, batch: pa.RecordBatch, path: str) -> pa.Array:
        if path in self.absent:
            return pa.nulls(batch.num_rows, pa.string())
        values = value_at(batch, path)
        if isinstance(values, pa.ChunkedArray):
            values = values.combine_chunks()
        return text_cells(values) if self.bytes_are_text and pa.types.is_binary(values.type) else values


def names_of(contract: EventContract, field: str) -> tuple[str, ...]:
    """Return the names that a field may have in an event."""
    return (field, *contract.aliases.get(field, ()))


def columns_by_field(contract: EventContract) -> dict[str, Column]:
    """Return what the contract makes of each field, under any of its names."""
    fields = ((field, each) for each in contract.columns for field in each.sources)
    return {name: each for field, each in fields for name in names_of(contract, field)}


def key_fields(contract: EventContract) -> list[tuple[str, ...]]:
    """Return the fields that name the primary entity, each by all its names."""
    return [names_of(contract, field) for field in contract.entities[contract.primary_entity].sources]


def _keys(columns: Sequence[pa.Array]) -> list[bytes | None]:
    joined = columns[0] if len(columns) == 1 else pc.binary_join_element_wise(*columns, "-")
    keys: list[bytes | None] = joined.cast(pa.binary()).to_pylist()
    return keys


def value_at(rows: pa.RecordBatch | pa.Table, path: str) -> pa.Array:
    """Return the values at a path: a column of just that name, or what lies within nested ones.

    Raises:
        ConfigurationError: a step leads into nothing, or several columns have its name.
    """
    first, *rest = (path,) if path in rows.schema.names else steps_of(path)
    called = rows.schema.names.count(first)
    if called != 1:
        problem = f"{called} columns are called {first!r}: rename them" if called else f"no column {path!r}"
        raise ConfigurationError(problem)
    values = rows[str(first)]
    for step in rest:
        values = _place(values, step, path) if isinstance(step, int) else _member(values, step, path)
    return values


def _member(values: pa.Array, name: str, path: str) -> pa.Array:
    if not pa.types.is_struct(values.type) or values.type.get_field_index(name) < 0:
        raise ConfigurationError(f"no column {path!r}: {values.type} holds no {name!r}")
    return pc.struct_field(values, name)


def _place(values: pa.Array, place: int, path: str) -> pa.Array:
    """Return what stands at a place of each list, null where the list is shorter."""
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if not pa.types.is_list(values.type):
        if not (pa.types.is_large_list(values.type) or pa.types.is_fixed_size_list(values.type)):
            raise ConfigurationError(f"no column {path!r}: {values.type} is no array")
        values = values.cast(pa.list_(values.type.value_type))
    long_enough = pc.greater(pc.list_value_length(values), place)
    starts = values.offsets.slice(0, len(values))
    return values.values.take(pc.if_else(long_enough, pc.add(starts, place), None))


def leads_somewhere(schema: pa.Schema, path: str) -> bool:
    """Whether a table has the values of a path."""
    try:
        value_at(schema.empty_table(), path)
    except ConfigurationError:
        return False
    return True


def check_paths(schema: pa.Schema, paths: Sequence[str], where: str) -> None:
    """Refuse a table in which a path leads nowhere.

    Raises:
        ConfigurationError: it names the nearest column.
    """
    if not schema.names:
        raise ConfigurationError("it has no columns", where=where)
    empty = schema.empty_table()
    for path in paths:
        try:
            value_at(empty, path)
        except ConfigurationError as fault:
            known = list(_flat_names(empty))
            problem = fault.problem if ":" in fault.problem else f"no column {path!r}; {nearest(path, known)}"
            raise ConfigurationError(problem, where=where) from None


def _flat_names(table: pa.Table) -> Iterator[str]:
    while any(pa.types.is_struct(each) for each in table.schema.types):
        table = table.flatten()
    yield from table.schema.names
