"""How values and keys of records are written: what a contract says before any field can be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal, NamedTuple

import fastavro
from pydantic import ConfigDict, Field, field_validator, model_validator

from schemas.documents import read_text
from schemas.loading import Document

# What Confluent's serializers put first: a zero byte, then the schema's id.
FRAME_BYTES = 5
_FILES = (".avsc", ".json", ".proto")


class Written(NamedTuple):
    """How values are written that only a schema makes readable.

    Attributes:
        kind: as registries call it.
        text: the schema of all records; None where each names its own by an id.
        message: the type of a record, None for the one that each record names.
    """

    kind: Literal["AVRO", "PROTOBUF"]
    text: str | None
    message: str | None = None


class JsonFormat(Document):
    """Values of JSON. `framing: confluent` where serializers of a schema registry put five bytes first."""

    framing: Literal["none", "confluent"] = "none"


class AvroFormat(Document):
    """Avro: by the schema whose id each record names (`registry`), or all by one `schema`.

    `schema` names a file beside the contract, or is the schema itself as text.
    """

    model_config = ConfigDict(serialize_by_alias=True)

    registry: bool = False
    schema_text: str | None = Field(default=None, alias="schema")

    @field_validator("schema_text")
    @classmethod
    def _is_a_schema(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                fastavro.parse_schema(json.loads(value))
            except Exception as fault:
                raise ValueError(f"not a schema of Avro, nor a file of one: {type(fault).__name__}") from None
        return value

    @model_validator(mode="after")
    def _exactly_one(self) -> AvroFormat:
        if self.registry == (self.schema_text is not None):
            raise ValueError("expected exactly one of 'registry: true' and 'schema'")
        return self


class ProtobufFormat(Document):
    """Protobuf: by the schema whose id each record names (`registry`), or all by one `schema`.

    `schema` names a `.proto` file beside the contract, or is its text; `message` is the full name of the
    records' message, the file's first one unless given.
    """

    model_config = ConfigDict(serialize_by_alias=True)

    registry: bool = False
    schema_text: str | None = Field(default=None, alias="schema")
    message: str | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> ProtobufFormat:
        if self.registry == (self.schema_text is not None):
            raise ValueError("expected exactly one of 'registry: true' and 'schema'")
        if self.registry and self.message is not None:
            raise ValueError("'message' belongs to 'schema': with a registry each record names its own")
        return self


class EventFormat(Document):
    """How values are written: JSON unless the contract says otherwise."""

    model_config = ConfigDict(serialize_by_alias=True)

    json_format: JsonFormat | None = Field(default=None, alias="json")
    avro: AvroFormat | None = None
    protobuf: ProtobufFormat | None = None

    @field_validator("json_format")
    @classmethod
    def _unless_plain(cls, value: JsonFormat | None) -> JsonFormat | None:
        return None if value == JsonFormat() else value

    @model_validator(mode="after")
    def _one_at_most(self) -> EventFormat:
        given = [name for name in ("json_format", "avro", "protobuf") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError("expected one format")
        return self

    @property
    def framed(self) -> bool:
        """Whether every value begins with a frame."""
        binary = self.avro or self.protobuf
        if binary is not None:
            return binary.registry
        return self.json_format is not None and self.json_format.framing == "confluent"

    @property
    def written(self) -> Written | None:
        """How values are written that only a schema makes readable; None for JSON."""
        return _written(self.avro, self.protobuf)


class KeyFormat(Document):
    """How keys are written that are neither text nor JSON: in `avro` or in `protobuf`."""

    avro: AvroFormat | None = None
    protobuf: ProtobufFormat | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> KeyFormat:
        if (self.avro is None) == (self.protobuf is None):
            raise ValueError("expected exactly one of 'avro' and 'protobuf'; keys of text and JSON need none")
        return self

    @property
    def written(self) -> Written:
        """How keys are written."""
        found = _written(self.avro, self.protobuf)
        assert found is not None, "one of the two is given"
        return found


def _written(avro: AvroFormat | None, protobuf: ProtobufFormat | None) -> Written | None:
    if avro is not None:
        return Written("AVRO", avro.schema_text)
    if protobuf is not None:
        return Written("PROTOBUF", protobuf.schema_text, protobuf.message)
    return None


def with_schema_files(content: object, folder: Path) -> object:
    """Return a contract's content with the text of schemas in place of the names of their files.

    Raises:
        ConfigurationError: such a file cannot be read.
    """
    if not isinstance(content, dict):
        return content
    given = {key: content[key] for key in ("format", "key_format") if isinstance(content.get(key), dict)}
    return content | {
        key: {name: _with_text(each, folder) for name, each in formats.items()}
        for key, formats in given.items()
    }


def _with_text(given: object, folder: Path) -> object:
    schema = given.get("schema") if isinstance(given, dict) else None
    if not isinstance(given, dict) or not isinstance(schema, str) or not schema.endswith(_FILES):
        return given
    return {**given, "schema": read_text(folder / schema)}
