"""Tables and texts in the width that there is: no word is ever cut, so every id can be copied whole.

A table that is too wide first wraps its columns of prose; where that is not enough it is turned on its side,
one record per block. A word that is wider than the terminal stands on a line of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from rich.cells import cell_len
from rich.text import Text

from agent.triage.untrusted_text import escaped
from streaming.output.terminal import Terminal

_GAP = 2
_READABLE = 24  # a column of prose is not made narrower than this
_NUMBER = re.compile(r"-|[+-]?[\d,]+(\.\d+)?(e[+-]?\d+)?( ?%)?")


def show_table(
    console: Terminal, heads: Sequence[str], rows: Iterable[Sequence[object]], title: str = ""
) -> None:
    """Print rows under their heads, or that there are none.

    Nothing (None, or a list without items) is shown as `-`, what holds or not as `yes` or `no`, a list as its
    items.

    Args:
        heads: as many as every row has cells.
        title: a line above the table.
    """
    heads, cells = [escaped(each) for each in heads], [[_cell(each) for each in row] for row in rows]
    if title:
        _print(console, wrapped(title, console.width), "italic")
    if not cells:
        _print(console, wrapped("  ".join(heads), console.width), "bold")
        _print(console, ["(none)"])
        return
    widths = _widths(heads, cells, console.width)
    if widths is None:
        for row in cells:
            _print(console, [*block_lines(dict(zip(heads, row, strict=True)), console.width), ""])
        return
    _print(console, _row_lines(heads, widths, [False] * len(heads)), "bold")
    numbers = [all(_NUMBER.fullmatch(row[place]) for row in cells) for place in range(len(heads))]
    for row in cells:
        _print(console, _row_lines(row, widths, numbers))


def show_block(console: Terminal, record: Mapping[str, object]) -> None:
    """Print one record, a field to a line; values as in show_table."""
    _print(
        console, block_lines({escaped(name): _cell(value) for name, value in record.items()}, console.width)
    )


def show_text(console: Terminal, text: str) -> None:
    """Print prose, wrapped at spaces alone."""
    for line in escaped(text, lines=True).split("\n"):
        _print(console, wrapped(line, console.width) or [""])


def block_lines(record: Mapping[str, str], width: int) -> list[str]:
    """Return one record's lines, none wider than `width` unless a word is."""
    indent = min(max((cell_len(name) for name in record), default=0) + _GAP, width // 2)
    return [line for name, value in record.items() for line in _field_lines(name, value, indent, width)]


def wrapped(text: str, width: int) -> list[str]:
    """Return a text's lines of at most `width` columns, broken at spaces alone."""
    lines: list[str] = []
    for word in text.split(" "):
        if lines and cell_len(lines[-1]) + 1 + cell_len(word) <= width:
            lines[-1] += f" {word}"
        elif word or not lines:
            lines.append(word)
    return lines


def _field_lines(name: str, value: str, indent: int, width: int) -> Iterator[str]:
    """Beside its name where the value fits there, else below it."""
    begin = name + " " * max(indent - cell_len(name), _GAP)
    if cell_len(begin) + cell_len(value) <= width:
        yield (begin + value).rstrip()
        return
    fits = cell_len(begin) == indent and _longest_word(value) <= width - indent
    room = indent if fits else _GAP
    lines = [" " * room + line for line in wrapped(value, width - room)]
    if fits:
        lines[0] = begin + lines[0][room:]
    else:
        yield from wrapped(name, width)
        lines = [line if cell_len(line) <= width else line.lstrip() for line in lines]
    yield from lines


def _widths(heads: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[int] | None:
    """Return the widths of a table's columns, None where it does not fit."""
    columns = [[head, *(row[place] for row in rows)] for place, head in enumerate(heads)]
    natural = [max(map(cell_len, column)) for column in columns]
    least = [
        min(wide, max(_READABLE, *map(_longest_word, column)))
        for wide, column in zip(natural, columns, strict=True)
    ]
    spare = width - sum(least) - _GAP * (len(heads) - 1)
    if spare < 0:
        return None
    wanting = sum(natural) - sum(least)
    return [
        few + min(wide - few, spare * (wide - few) // max(wanting, 1))
        for wide, few in zip(natural, least, strict=True)
    ]


def _row_lines(cells: Sequence[str], widths: Sequence[int], numbers: Sequence[bool]) -> Iterator[str]:
    columns = [wrapped(cell, wide) or [""] for cell, wide in zip(cells, widths, strict=True)]
    for place in range(max(map(len, columns), default=0)):
        parts = [lines[place] if place < len(lines) else "" for lines in columns]
        placed = (_placed(*each) for each in zip(parts, widths, numbers, strict=True))
        yield (" " * _GAP).join(placed).rstrip()


def _placed(part: str, wide: int, number: bool) -> str:
    room = " " * (wide - cell_len(part))
    return room + part if number else part + room


def _longest_word(text: str) -> int:
    return max(map(cell_len, text.split(" ")))


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        value = [f"{name}: {_cell(each)}" for name, each in value.items()]
    if isinstance(value, list | tuple):
        return ", ".join(map(_cell, value)) or "-"
    return "-" if value is None else escaped(str(value))


def _print(console: Terminal, lines: Iterable[str], style: str = "") -> None:
    for line in lines:
        console.print(Text(line, style), soft_wrap=True)
