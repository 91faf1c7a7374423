"""What a contract says of ids: where they are in an event, and how they are written alike."""

from __future__ import annotations

import unicodedata
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from schemas.loading import Document

Normalisation = Literal["trim", "upper", "lower", "nfc"]
MadeOf = Literal["coordinates", "digest"]

# Every character that Unicode calls white space, so that no version of Python trims others.
BLANKS = (
    "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009"
    "\u200a\u2028\u2029\u202f\u205f\u3000"
)
_BETWEEN, _ESCAPE = "|", "\\"
_LONGEST_PLACEHOLDER = 256

FieldName = Annotated[str, Field(min_length=1)]
Placeholder = Annotated[str, Field(max_length=_LONGEST_PLACEHOLDER)]


def at_least_two(value: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse a list of one field, or of one that is named twice; none at all is fine."""
    if len(value) == 1:
        raise ValueError("expected at least two fields; one is named by 'field'")
    if len(set(value)) < len(value):
        raise ValueError("names a field twice")
    return value


class IdField(Document):
    """A field, or several `fields`, that hold an id; an integer becomes its decimal text.

    Ids go into every alert, so one longer than `max_length` characters is refused. 256 leave room for two
    SHA-512 digests in hex. Of several fields the id is their texts with `|` between them; a `|` or a
    backslash within one has a backslash before it, so that no two ids look alike. Where one of them is null,
    so is the id. `normalise` changes each text: `trim` takes blanks from its ends, `upper` or `lower` its
    case, `nfc` composes its characters. A text among `null_values` is no id at all: it counts as null.
    """

    LATER: ClassVar[frozenset[str]] = frozenset({"max_length", "fields", "null_values", "normalise"})

    field: FieldName | None = None
    type: Literal["string", "integer"] = "string"
    max_length: int = Field(default=256, ge=1)
    fields: Annotated[tuple[FieldName, ...], AfterValidator(at_least_two)] = ()
    null_values: tuple[Placeholder, ...] = ()
    normalise: tuple[Normalisation, ...] = ()

    @model_validator(mode="after")
    def _says_one_thing(self) -> IdField:
        if self.field is not None and self.fields:
            raise ValueError("expected one of 'field' and 'fields', not both")
        if {"upper", "lower"} <= set(self.normalise):
            raise ValueError("'normalise' says both upper and lower")
        self._check_fields()
        return self

    @property
    def sources(self) -> tuple[str, ...]:
        """The fields that it is read from, none where it is not read."""
        return self.fields or (() if self.field is None else (self.field,))

    @property
    def is_plain(self) -> bool:
        """Whether it is the text of one field, as it is."""
        return self.field is not None and not self.null_values and not self.normalise

    @property
    def placeholders(self) -> frozenset[str]:
        """`null_values` as they look once they are normalised."""
        return frozenset(self.normalised(each) for each in self.null_values)

    def normalised(self, text: str) -> str:
        """Return a text as it counts."""
        if "upper" in self.normalise:
            text = text.upper()
        if "lower" in self.normalise:
            text = text.lower()
        if "nfc" in self.normalise:
            text = unicodedata.normalize("NFC", text)
        return text.strip(BLANKS) if "trim" in self.normalise else text

    def _check_fields(self) -> None:
        if not self.sources:
            raise ValueError("expected a 'field', or several 'fields'")


class EntityField(IdField):
    """An entity's id, see IdField. Unless `required`, events without one are payments all the same.

    Such a payment is scored by its other entities and by what is usual among all payments.
    """

    LATER: ClassVar[frozenset[str]] = IdField.LATER | {"required"}

    required: bool = True


class TransactionIdField(IdField):
    """The transaction's id, see IdField; by `from` what it is made of where the event has none.

    `coordinates` are the record's topic, partition and offset: every record is a payment of its own, also one
    that was sent twice. `digest` is the SHA-256 of its bytes: of identical payments within the duplicates'
    horizon all but the first are taken for redeliveries.
    """

    model_config = ConfigDict(serialize_by_alias=True)
    LATER: ClassVar[frozenset[str]] = IdField.LATER | {"made_of"}

    made_of: MadeOf | None = Field(default=None, alias="from")

    @property
    def is_plain(self) -> bool:
        """Whether it is the text of one field, as it is, and nothing else."""
        return super().is_plain and self.made_of is None

    def _check_fields(self) -> None:
        if not self.sources and self.made_of is None:
            raise ValueError("expected a 'field', several 'fields', or 'from'")


def joined(parts: list[str]) -> str:
    """Return several texts as one, from which they can be read again."""
    if len(parts) == 1:
        return parts[0]
    return _BETWEEN.join(map(escaped_part, parts))


def escaped_part(text: str) -> str:
    """Return a text as it stands in an id that is made of several."""
    return text.replace(_ESCAPE, _ESCAPE * 2).replace(_BETWEEN, f"{_ESCAPE}{_BETWEEN}")


def parted(text: str) -> list[str]:
    """Return the texts that `joined` has put together; one that it has not is returned as it is."""
    parts, escaped = [""], False
    for each in text:
        if escaped or each not in (_BETWEEN, _ESCAPE):
            parts[-1] += each
            escaped = False
        elif each == _ESCAPE:
            escaped = True
        else:
            parts.append("")
    return parts if len(parts) > 1 else [text]
