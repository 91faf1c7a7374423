"""How the value of a record is written: what a contract says before any field can be read."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from schemas.loading import Document

# What Confluent's serializers put first: a zero byte, then the schema's id.
FRAME_BYTES = 5


class JsonFormat(Document):
    """Values of JSON. `framing: confluent` where serializers of a schema registry put five bytes first."""

    framing: Literal["none", "confluent"] = "none"


class EventFormat(Document):
    """How values are written: JSON unless the contract says otherwise."""

    model_config = ConfigDict(serialize_by_alias=True)

    json_format: JsonFormat = Field(default=JsonFormat(), alias="json")

    @property
    def framed(self) -> bool:
        """Whether every value begins with a frame."""
        return self.json_format.framing == "confluent"
