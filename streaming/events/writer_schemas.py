"""The schemas by which records were written: from a schema registry by their ids, or one for all records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, Protocol

import pyarrow as pa

from schemas.contract import EventContract
from schemas.errors import ConfigurationError
from schemas.event_formats import Written
from schemas.schema_texts import SchemaText
from streaming.events.avro_schema import UnusableSchemaError, avro_schema
from streaming.events.framing import NO_ID, distinct, ids_of
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
            ids: as records name them.

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


def writers_of(records: pa.Table, contract: EventContract, source: SchemaSource) -> WriterSchemas:
    """Return the schemas by which records were written.

    Raises:
        ConfigurationError: the contract's own schema cannot be used.
        RetryableError: the registry is away.
    """
    written = contract.format.written
    if written is None:
        return {}
    if written.text is not None:
        return {NO_ID: _own(written)}
    found = {each for chunk in records["value"].chunks for each in distinct(ids_of(chunk))}
    return source.schemas(written.kind, sorted(found - {NO_ID}))


def _own(written: Written) -> SchemaText:
    """Return the schema of a contract: one that cannot be used is no fault of the records."""
    text = SchemaText(written.text or "")
    try:
        if written.kind == "PROTOBUF":
            message_by_name(text, written.message)
        else:
            avro_schema(text)
    except UnusableSchemaError as fault:
        raise ConfigurationError(str(fault), where="format", key="schema") from None
    return text
