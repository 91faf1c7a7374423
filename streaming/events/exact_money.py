"""What amounts, currencies and directions mean under a contract that does not take them as they stand.

Digits are kept as they are written until the amount is a double, which is then the nearest one to them.
"""

from __future__ import annotations

import base64
import binascii
import re
from decimal import Decimal
from typing import Any, Literal

from schemas.contract import EventContract
from schemas.currencies import iso_code
from schemas.event_columns import DIRECTION, PAYMENT, REFUND, Column
from schemas.money_fields import CurrencyField
from streaming.events.decimal_texts import LONGEST_TEXT, DecimalTexts

_BROKEN = re.compile("[\ud800-\udfff]")

MoneyFault = Literal[
    "bad_amount", "amount_too_large", "bad_currency", "mistyped_field", "oversized_field", "invalid_utf8"
]


class MoneyError(Exception):
    """Why an amount or a currency cannot be used; `detail` quotes nothing of the record."""

    def __init__(self, reason: MoneyFault, detail: str) -> None:
        self.reason, self.detail = reason, detail
        super().__init__(f"{reason}: {detail}")


class Currencies:
    """What texts stand for which currency, and how many decimal places its amounts are moved by."""

    def __init__(self, contract: EventContract) -> None:
        self._field: CurrencyField = contract.currency
        self._places = contract.amount.decimal_places
        self._only_known = bool(self._places) or self._field.codes == "iso4217"

    def code_of(self, text: str) -> str | None:
        """Return the code that a text stands for, None where it stands for no currency."""
        if not self._only_known:
            return self._field.map.get(text.strip(), text)
        bare = text.strip()
        if bare in self._field.map:
            return self._field.map[bare]
        return iso_code(bare) or (bare.upper() if bare.upper() in self._places else None)

    def places_of(self, code: str) -> int:
        """Return the decimal places that amounts of a currency do not show: 0 in major units."""
        return self._places.get(code, 0)


class MoneyReader:
    """Reads amount, currency and direction of one record at a time: the definition of what they mean.

    The three are read as their columns come, and settled together: in minor units an amount says nothing
    without its currency.
    """

    def __init__(self, contract: EventContract) -> None:
        self._contract, self._amount = contract, contract.amount
        self._currencies = Currencies(contract)
        self._decimals = DecimalTexts(contract.amount)

    def read(self, column: Column, value: Any) -> Any:
        """Return what a value of one of the three columns is so far.

        Raises:
            MoneyError: it is nothing that the column can hold.
        """
        if column.role == "amount":
            return self._read_amount(column, value)
        if column.role == "currency":
            return self._read_currency(column, value)
        return _text_of(column, value)

    def settle(self, row: dict[str, Any]) -> None:
        """Replace what was read of the three by what goes into their columns.

        Raises:
            MoneyError: the amount is too large for the contract.
        """
        read: Decimal = row["amount"]
        row["amount"] = scaled(read, self._currencies.places_of(row["currency"]))
        if row["amount"] > self._amount.most:
            raise MoneyError("amount_too_large", f"more than {self._amount.most:g}")
        if self._contract.has_direction:
            negative = self._amount.negative == "refund" and read.is_signed()
            values = self._contract.direction.refund if self._contract.direction else ()
            row[DIRECTION] = REFUND if negative or row[DIRECTION] in values else PAYMENT

    def _read_amount(self, column: Column, value: Any) -> Decimal:
        read = self._digits(column, value)
        if not read.is_finite():
            raise MoneyError("bad_amount", f"{column.source} is not finite")
        if read.is_signed() and self._amount.negative == "reject":
            raise MoneyError("bad_amount", "negative")
        return read

    def _digits(self, column: Column, value: Any) -> Decimal:
        if self._amount.format == "connect_decimal":
            return _from_connect(column, value, self._amount.scale)
        if isinstance(value, str) and self._amount.format == "decimal":
            read = self._decimals.read(value)
            if read is None:
                raise MoneyError("bad_amount", f"{column.source} is no decimal number of the contract")
            return read
        if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
            raise MoneyError("mistyped_field", column.source or "")
        # The shortest digits that mean a double are those that were written, if they were 15 or fewer.
        return Decimal(repr(value)) if isinstance(value, float) else Decimal(value)

    def _read_currency(self, column: Column, value: Any) -> str:
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise MoneyError("mistyped_field", column.source or "")
        if isinstance(value, str) and _BROKEN.search(value):
            raise MoneyError("invalid_utf8", column.source or "")
        code = self._currencies.code_of(str(value))
        if code is None:
            raise MoneyError("bad_currency", f"{column.source} is no currency of the contract")
        if column.max_length is not None and len(code) > column.max_length:
            raise MoneyError("oversized_field", f"{column.source}: more than {column.max_length} characters")
        return code


def scaled(value: Decimal, places: int) -> float:
    """Return |value| / 10**places as the double nearest to its digits."""
    _, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int)
    return float(Decimal((0, digits, exponent - places)))


def _from_connect(column: Column, value: Any, scale: int) -> Decimal:
    """Read the bytes of an unscaled big-endian two's complement integer, in JSON as base64."""
    if not isinstance(value, str | bytes):
        raise MoneyError("mistyped_field", column.source or "")
    try:
        content = base64.b64decode(value, validate=True) if isinstance(value, str) else value
    except (binascii.Error, ValueError):
        content = b""
    if not content or len(value) > LONGEST_TEXT:
        raise MoneyError("bad_amount", f"{column.source} is no decimal of Kafka Connect")
    unscaled = int.from_bytes(content, "big", signed=True)
    digits = tuple(map(int, str(abs(unscaled))))
    return Decimal((int(unscaled < 0), digits, -scale))


def _text_of(column: Column, value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str | int):
        raise MoneyError("mistyped_field", column.source or "")
    return str(value)
