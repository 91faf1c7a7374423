"""Currencies of ISO 4217: codes, numbers and how many decimal places each has.

The table is `currencies.json`, as published on the day it names, with codes withdrawn since 2010, which old
payments still carry. It only grows: what a code means never changes. Where the standard gives no minor unit,
as for gold or for tests, there are no decimal places.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path

_TABLE = Path(__file__).with_name("currencies.json")
_LONGEST_NUMBER = 3


@cache
def exponents() -> Mapping[str, int]:
    """Return the decimal places of each currency by code, such as EUR: 2, JPY: 0, KWD: 3."""
    table = _table()
    return {code: places for part in ("withdrawn", "current") for code, (_, places) in table[part].items()}


@cache
def _codes_by_number() -> Mapping[int, str]:
    table = _table()
    return {number: code for part in ("withdrawn", "current") for code, (number, _) in table[part].items()}


def iso_code(text: str) -> str | None:
    """Return the code that a text stands for, None where it stands for none.

    Args:
        text: a code in any case, or a currency's number, such as `eur` or `978`, perhaps with blanks around.
    """
    bare = text.strip()
    if not bare.isascii():
        return None
    if bare.isdigit():
        return _codes_by_number().get(int(bare)) if len(bare) <= _LONGEST_NUMBER else None
    code = bare.upper()
    return code if code in exponents() else None


@cache
def _table() -> Mapping[str, Mapping[str, tuple[int, int]]]:
    table: dict[str, dict[str, tuple[int, int]]] = json.loads(_TABLE.read_text(encoding="utf-8"))
    return table
