"""What a contract says of money: amount, currency and direction."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from schemas.currencies import exponents, iso_code
from schemas.errors import nearest
from schemas.loading import Document

Code = Annotated[str, Field(pattern=r"^[A-Z0-9]{3,16}$")]


class AmountField(Document):
    """The field that holds the amount, from 0 to `most` in units such as euros.

    `format` is `number` (a JSON number), `decimal` (text such as `1,234.56`, or a number) or
    `connect_decimal` (base64 of an unscaled big-endian integer, as Kafka Connect writes decimals, with
    `scale` decimal places). Under `unit: minor` it counts cents, or what the currency has instead by
    ISO 4217; `exponents` says otherwise for currencies that the sender treats in another way.
    """

    LATER: ClassVar[frozenset[str]] = frozenset(
        {
            *("most", "format", "unit", "negative", "decimal", "thousands", "signs"),
            *("scale", "exponents"),
        }
    )

    field: str = Field(min_length=1)
    most: float = Field(default=1e12, gt=0)
    format: Literal["number", "decimal", "connect_decimal"] = "number"
    unit: Literal["major", "minor"] = "major"
    negative: Literal["reject", "absolute", "refund"] = Field(
        default="reject",
        description="what a negative amount is: refused, taken without its sign, or a refund",
    )
    decimal: Literal[".", ","] = Field(default=".", description="the decimal mark of `decimal`")
    thousands: Literal["", ",", ".", "'", " "] = Field(
        default="", description="what stands between groups of digits in `decimal`"
    )
    signs: tuple[str, ...] = Field(
        default=(),
        description="texts such as `kr` or `Rs.` that may stand before or after the digits of `decimal`, "
        "besides signs such as `$`, `€` and `US$`",
    )
    scale: int = Field(default=0, ge=0, le=38, description="decimal places of `connect_decimal`")
    exponents: dict[Code, Annotated[int, Field(ge=0, le=18)]] = Field(
        default={}, description="decimal places of currencies, where the sender departs from ISO 4217"
    )

    @field_validator("signs")
    @classmethod
    def _are_signs(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for sign in value:
            if not sign or sign.startswith(".") or any(_counts(each) for each in sign):
                raise ValueError(f"{sign!r} is no sign: expected letters and currency signs, no digits")
        return value

    @model_validator(mode="after")
    def _keys_are_used(self) -> AmountField:
        if self.format != "decimal" and (self.decimal != "." or self.thousands or self.signs):
            raise ValueError("'decimal', 'thousands' and 'signs' need 'format: decimal'")
        if self.format != "connect_decimal" and self.scale:
            raise ValueError("'scale' needs 'format: connect_decimal'")
        if self.unit != "minor" and self.exponents:
            raise ValueError("'exponents' needs 'unit: minor'")
        if self.thousands == self.decimal:
            raise ValueError("'thousands' and 'decimal' are the same mark")
        return self

    @property
    def is_plain(self) -> bool:
        """Whether it is a number as it stands, of which negative ones are refused."""
        return (self.format, self.unit, self.negative) == ("number", "major", "reject")

    @property
    def json_type(self) -> str:
        """What it mostly is in JSON."""
        return "number" if self.format == "number" else "string"

    @property
    def decimal_places(self) -> Mapping[str, int]:
        """How many decimal places amounts have by currency; empty where they are not in minor units."""
        return {**exponents(), **self.exponents} if self.unit == "minor" else {}


class CurrencyField(Document):
    """Where the currency comes from: a field, or one constant for all events.

    `codes: as_given` takes any text. `codes: iso4217`, which amounts in minor units imply, makes codes of
    lower case ones and of numbers (`eur`, `978`), and refuses what is none. `map` says what names mean, such
    as `{US Dollar: USD}`; it goes first. A code longer than `max_length` characters is refused: it goes into
    every alert several times.
    """

    LATER: ClassVar[frozenset[str]] = frozenset({"max_length", "codes", "map"})

    field: str | None = None
    constant: str | None = None
    max_length: int = Field(default=16, ge=1)
    codes: Literal["as_given", "iso4217"] = "as_given"
    map: dict[str, Code] = Field(default={})

    @field_validator("map")
    @classmethod
    def _are_names(cls, value: dict[str, Code]) -> dict[str, Code]:
        for name in value:
            if name != name.strip():
                raise ValueError(f"{name!r} matches no text: blanks around a name do not count")
        return value

    @model_validator(mode="after")
    def _exactly_one(self) -> CurrencyField:
        if (self.field is None) == (self.constant is None):
            raise ValueError("expected exactly one of 'field' and 'constant'")
        return self

    @property
    def is_plain(self) -> bool:
        """Whether texts are taken as they stand."""
        return self.codes == "as_given" and not self.map


def _as_text(value: Any) -> Any:
    """Values of the field are compared as JSON writes them, so that `true` and `1` may stand for a refund."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int) else value


class DirectionField(Document):
    """The field that says which events are refunds: those where it holds one of the values of `refund`."""

    field: str = Field(min_length=1)
    refund: tuple[Annotated[str, BeforeValidator(_as_text)], ...] = Field(min_length=1)


def _counts(character: str) -> bool:
    """Whether a character belongs to a number, so that no sign may hold it."""
    return character in "+-\u2212(),'\u2019" or unicodedata.category(character)[0] in "NZC"


def check_currency(amount: AmountField, currency: CurrencyField) -> None:
    """Refuse a constant or a name's code that is no currency, where only currencies are taken.

    Raises:
        ValueError: naming the code and the nearest right one.
    """
    known = amount.decimal_places or (exponents() if currency.codes == "iso4217" else {})
    if not known:
        return
    if currency.constant is not None and currency.constant not in known:
        raise ValueError(f"'currency.constant': {_unknown(currency.constant, known)}")
    for name, code in currency.map.items():
        if amount.unit == "minor" and code not in known:
            raise ValueError(f"'currency.map' of {name!r}: {_unknown(code, known)}, or 'amount.exponents'")


def _unknown(code: str, known: Mapping[str, int]) -> str:
    wanted = iso_code(code) or code.upper()
    close = nearest(wanted, known)
    hint = close if close.startswith("did you mean") else "expected a code such as EUR"
    return f"no currency {code!r} in ISO 4217; {hint}"
