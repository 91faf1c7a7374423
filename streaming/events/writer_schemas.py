"""The schemas by which records were written: from a schema registry by their ids, or one for all records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Literal, Protocol

import pyarrow as pa

from schemas.contract import EventContract
from schemas.errors import ConfigurationError
from schemas.event_formats import Written
from schemas.schema_texts import SchemaText
from streaming.events.avro_schema import UnusableSchemaError, avro_schema
from streaming.events.framing import NO_ID, counted, ids_of
from streaming.events.protobuf_schema import message_by_name

FormatReason = Literal[
    "missing_framing",
    "not_an_object",
    "unknown_schema",
    "unusable_schema",
    "malformed_avro",
    "malformed_protobuf",
]


class UnreadableError(Exception):
    """Why the value of one record cannot be read; the detail quotes nothing of the record."""

    def __init__(self, reason: FormatReason, detail: str = "") -> None:
        self.reason, self.detail = reason, detail
        super().__init__(f"{reason}: {detail}")


# By id what a registry has; NO_ID stands for the schema of a contract without a registry.
WriterSchemas = Mapping[int, SchemaText | UnreadableError]

NO_WRITERS: WriterSchemas = {}


class SchemaSource(Protocol):
    """Where schemas come from."""

    def schemas(self, kind: str, ids: Iterable[int]) -> WriterSchemas:
        """Return the schemas of some ids.

        Args:
            kind: AVRO or PROTOBUF; schemas of another kind are unusable.
            ids: as records name them, each once; those that most records name come first.

        Raises:
            RetryableError: the registry is away.
        """
        ...

    def away(self) -> str | None:
        """Say why the registry cannot be asked, None when it answers."""
        ...


class NoRegistry:
    """Stands where nobody has named a registry."""

    def schemas(self, kind: str, ids: Iterable[int]) -> WriterSchemas:  # noqa: ARG002 -- a SchemaSource
        """See SchemaSource.

        Raises:
            ConfigurationError: always.
        """
        raise _none_named()

    def away(self) -> str | None:
        """See SchemaSource.

        Raises:
            ConfigurationError: always.
        """
        raise _none_named()


def _none_named() -> ConfigurationError:
    return ConfigurationError(
        "the contract reads by a schema registry: set FLAGSTREAM_SCHEMA_REGISTRY to its address",
        where="format",
    )


NO_REGISTRY = NoRegistry()


def check_own_schemas(contract: EventContract) -> None:
    """Check the schemas that a contract holds itself.

    Raises:
        ConfigurationError: one cannot be used.
    """
    key = None if contract.key_format is None else contract.key_format.written
    for where, written in (("format", contract.format.written), ("key_format", key)):
        if written is not None and written.text is not None:
            _own(written, where)


def writers_of(records: pa.Table, contract: EventContract, source: SchemaSource) -> WriterSchemas:
    """Return the schemas by which the values of records were written.

    Raises:
        ConfigurationError: the contract's own schema cannot be used.
        RetryableError: the registry is away.
    """
    return _writers(records["value"], contract.format.written, source, "format")


def key_writers_of(records: pa.Table, contract: EventContract, source: SchemaSource) -> WriterSchemas:
    """Return the schemas by which the keys of records were written; none where the contract names no format.

    Raises:
        ConfigurationError: the contract's own schema cannot be used.
        RetryableError: the registry is away.
    """
    written = None if contract.key_format is None else contract.key_format.written
    return _writers(records["key"], written, source, "key_format")


def _writers(
    column: pa.ChunkedArray, written: Written | None, source: SchemaSource, where: str
) -> WriterSchemas:
    if written is None:
        return NO_WRITERS
    if written.text is not None:
        return {NO_ID: _own(written, where)}
    return source.schemas(written.kind, _by_records(column.chunks))


def _by_records(chunks: Iterable[pa.Array]) -> list[int]:
    """Return the ids that records name, those of most records first."""
    named = Counter[int]()
    for chunk in chunks:
        named.update(counted(ids_of(chunk)))
    del named[NO_ID]
    return sorted(named, key=lambda each: (-named[each], each))


def _own(written: Written, where: str) -> SchemaText:
    """Return the schema of a contract: one that cannot be used is no fault of the records."""
    text = SchemaText(written.text or "")
    try:
        if written.kind == "PROTOBUF":
            message_by_name(text, written.message)
        else:
            avro_schema(text)
    except UnusableSchemaError as fault:
        raise ConfigurationError(str(fault), where=where, key="schema") from None
    return text
