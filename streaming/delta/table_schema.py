"""The columns of a table: created, added later, gone from a contract, or other ones than wanted."""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta

import pyarrow as pa
from deltalake import DeltaTable

from schemas.errors import ConfigurationError
from streaming.delta.formats import FORMAT, FORMAT_KEY
from streaming.store.place import Place


def create_table(place: Place, schema: pa.Schema, retention: timedelta) -> None:
    """Create a table unless somebody else just has."""
    if place.is_local:
        place.parent.path.mkdir(parents=True, exist_ok=True)
    kept = f"interval {int(retention.total_seconds())} seconds"
    DeltaTable.create(
        place.uri,
        schema=schema,
        mode="ignore",
        storage_options=place.storage_options,
        configuration={
            "delta.logRetentionDuration": kept,
            "delta.deletedFileRetentionDuration": kept,
            "delta.appendOnly": "true",
            # By default only the first 32 columns have statistics, which reads choose files by.
            "delta.dataSkippingNumIndexedCols": "-1",
            FORMAT_KEY: str(FORMAT),
        },
        raise_if_key_not_exists=False,
    )


def missing_columns(
    found: pa.Schema, wanted: pa.Schema, later: Collection[str], where: Place
) -> list[pa.Field]:
    """Return the columns that a table from before they came has to be given.

    Raises:
        ConfigurationError: it has one that differs in case alone.
    """
    missing = [field for field in wanted if field.name in later and field.name not in found.names]
    spelt = {name.lower(): name for name in found.names}
    for name in (field.name for field in missing):
        if name.lower() in spelt:
            stored = spelt[name.lower()]
            problem = f"column {name!r} is {stored!r} there: names of columns differ in more than case"
            raise ConfigurationError(problem, where=str(where))
    return missing


def former_columns(found: pa.Schema, wanted: pa.Schema) -> list[pa.Field]:
    """Return the columns of a table that the contract does not have any more."""
    former = [field for field in found if field.name not in wanted.names and field.nullable]
    return [pa.field(each.name, _plain(each.type)) for each in former]


def check_columns(found: pa.Schema, wanted: pa.Schema, where: Place) -> None:
    """Check that a table has the columns that are wanted.

    Raises:
        ConfigurationError: it has others, or of other types.
    """
    have = {field.name: _plain(field.type) for field in found}
    want = {field.name: _plain(field.type) for field in wanted}
    changed = sorted(name for name in have.keys() & want.keys() if have[name] != want[name])
    if changed:
        name = changed[0]
        raise ConfigurationError(
            f"column {name!r} holds {have[name]} there and would hold {want[name]}: stored columns never "
            "change; give it another name in the contract, and both are kept",
            where=str(where),
        )
    if have != want:
        differing = sorted(name for name in have.keys() | want.keys() if have.get(name) != want.get(name))
        raise ConfigurationError(
            f"the table exists with other columns ({', '.join(differing)}); "
            "give the agent a new name or other table names to start afresh",
            where=str(where),
        )


def _plain(kind: pa.DataType) -> str:
    return str(kind).replace("large_", "").replace("_view", "").replace("element", "item")
