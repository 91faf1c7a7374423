"""Amounts, currencies and directions of whole blocks, as exact_money reads them one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.contract import EventContract
from schemas.event_columns import DIRECTION, PAYMENT, REFUND
from streaming.arrays.compilation import Flags, Floats, Ints
from streaming.events import json_money, json_strings
from streaming.events.exact_money import Currencies
from streaming.events.found import Found

ROLES = ("amount", "currency", "direction")
# Digits below 2**53 and powers of ten up to this one are exact doubles, so their quotient is rounded once.
_MOST_EXACT, _MOST_PLACES = 2**53, 22
_POWERS = np.array([10.0**power for power in range(_MOST_PLACES + 1)])


class MoneyColumns:
    """Reads the columns that belong to money, clearing `vouched` for rows left to the exact decoder.

    Args:
        contract: what they mean.
        found: what was scanned of each of the columns that come from a field, by the column's name.
        vouched: bool[n], in and out.
    """

    def __init__(self, contract: EventContract, found: Mapping[str, Found], vouched: Flags) -> None:
        self._contract, self._amount = contract, contract.amount
        self._found, self._vouched = found, vouched
        self._currencies = Currencies(contract)

    def read(self) -> dict[str, pa.Array]:
        """Return the columns by name; rows that are no longer vouched for hold anything."""
        arrays: dict[str, pa.Array] = {}
        hidden: Ints | int = 0
        if self._contract.currency.constant is not None:
            hidden = self._currencies.places_of(self._contract.currency.constant)
        else:
            arrays["currency"], hidden = self._read_currencies(self._found["currency"])
        digits, places, negative, good = self._digits(self._found["amount"])
        if self._amount.negative == "reject":
            good &= ~negative
        arrays["amount"] = pa.array(self._values(digits, places + hidden, good))
        if self._contract.has_direction:
            arrays[DIRECTION] = self._directions(negative)
        return arrays

    def _values(self, digits: Ints, places: Ints, good: Flags) -> Floats:
        """Return digits / 10**places where that is rounded once, and vouch for no other row."""
        good &= (digits >= 0) & ((places == 0) | ((digits < _MOST_EXACT) & (places <= _MOST_PLACES)))
        values: Floats = digits / _POWERS[np.minimum(places, _MOST_PLACES)]
        self._vouched &= good & (values <= self._amount.most)
        return values

    def _digits(self, found: Found) -> tuple[Ints, Ints, Flags, Flags]:
        """Return each amount's digits, how many follow the point, if it is below zero, and if it was read."""
        if self._amount.format == "connect_decimal":
            return self._from_connect(found)
        good = found.are_digits()
        signed, places = found.digits(good)
        hundredths, exact = found.hundredths()
        signed[exact], places[exact], good = hundredths[exact], 2, good | exact
        digits, negative = np.abs(signed), signed < 0
        if self._amount.format == "decimal":
            marks = ord(self._amount.decimal), ord(self._amount.thousands or "\0")
            at = (found.data, found.kinds, found.starts, found.ends)
            json_money.decimal_texts(*at, marks, digits, places, negative, good)
        return digits, places.astype(np.int64), negative, good

    def _from_connect(self, found: Found) -> tuple[Ints, Ints, Flags, Flags]:
        count = len(self._vouched)
        digits, places = np.zeros(count, np.int64), np.full(count, self._amount.scale, np.int64)
        negative, good = np.zeros(count, np.bool_), np.zeros(count, np.bool_)
        at = (found.data, found.kinds, found.starts, found.ends)
        json_money.connect_decimals(*at, digits, negative, good)
        return digits, places, negative, good

    def _read_currencies(self, found: Found) -> tuple[pa.Array, Ints]:
        """Return the codes, and the decimal places that amounts do not show."""
        wanted = found.are_texts() | (found.kinds == json_strings.INTEGER)
        texts, which = _distinct(found, wanted & self._vouched)
        longest = self._contract.currency.max_length
        read = [self._currencies.code_of(text) for text in texts]
        codes = [code if code is not None and len(code) <= longest else None for code in read]
        known = np.array([code is not None for code in [*codes, None]])
        hidden = np.array([self._currencies.places_of(code or "") for code in [*codes, None]], np.int64)
        self._vouched &= known[which]
        return pa.array([*codes, None], pa.string()).take(pa.array(which)), hidden[which]

    def _directions(self, negative: Flags) -> pa.Array:
        refunded = negative if self._amount.negative == "refund" else np.zeros_like(negative)
        if self._contract.direction is not None:
            found = self._found[DIRECTION]
            wanted = found.are_texts() | found.are_truths() | (found.kinds == json_strings.INTEGER)
            self._vouched &= wanted | found.are_null()
            texts, which = _distinct(found, wanted & self._vouched)
            values = self._contract.direction.refund
            refunded = refunded | np.array([*(text in values for text in texts), False])[which]
        return pa.array([PAYMENT, REFUND]).take(pa.array(refunded.astype(np.int8)))


def _distinct(found: Found, present: Flags) -> tuple[Sequence[str], npt.NDArray[np.int32]]:
    """Return the distinct texts of the present rows, and by row which it is: their count for none."""
    encoded = found.texts(present).dictionary_encode()
    texts = encoded.dictionary.to_pylist()
    return texts, encoded.indices.fill_null(len(texts)).to_numpy()
