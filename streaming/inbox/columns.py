"""Columns that grow at their end and are read while they grow.

A reader has slices of what was there when it began. Appending writes behind them; a change of what they hold
is made on a copy. So nobody waits for anybody.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from streaming.arrays.compilation import Ints

Numbers = npt.NDArray[Any]
Chosen = npt.NDArray[np.bool_]
_FIRST_ROWS = 1_024
_MOST_CHUNKS = 64
ABSENT = 0  # the code of what is not there


class GrowingArray:
    """Numbers of one kind.

    Args:
        kind: of NumPy.
    """

    def __init__(self, kind: npt.DTypeLike) -> None:
        self._held: Numbers = np.empty(_FIRST_ROWS, kind)
        self.rows = 0

    @property
    def values(self) -> Numbers:
        """What is there now; it stays as it is."""
        return self._held[: self.rows]

    def append(self, values: npt.ArrayLike) -> None:
        """Add values behind all others."""
        added = np.asarray(values, self._held.dtype)
        end = self.rows + len(added)
        if end > len(self._held):
            larger: Numbers = np.empty(max(end, 2 * len(self._held)), self._held.dtype)
            larger[: self.rows] = self._held[: self.rows]
            self._held = larger
        self._held[self.rows : end] = added
        self.rows = end

    def change(self, places: Ints, values: npt.ArrayLike) -> None:
        """Put other values in some places, of which readers of now see nothing."""
        changed = self._held.copy()
        changed[places] = values
        self._held = changed


@dataclass(frozen=True)
class WordColumn:
    """A column of few different words, as it was at some moment.

    Attributes:
        codes: int32[n], places in `words`.
        words: what the codes mean; the first stands for nothing.
    """

    codes: Numbers
    words: Sequence[str | None]

    def chosen(self, fits: Callable[[str | None], bool]) -> Chosen:
        """Say which rows hold a word that fits; each word is tried once."""
        return cast("Chosen", np.fromiter(map(fits, self.words), np.bool_, len(self.words))[self.codes])

    def counts(self, rows: Ints | None) -> dict[str, int]:
        """Return how many of some rows, or of all, hold each word, the most frequent first."""
        codes = self.codes if rows is None else self.codes[rows]
        found = np.bincount(codes, minlength=len(self.words))
        named = [(word, int(count)) for word, count in zip(self.words, found, strict=True) if count]
        return {word: count for word, count in sorted(named, key=_by_count) if word is not None}


def _by_count(each: tuple[str | None, int]) -> tuple[int, str]:
    return -each[1], each[0] or ""


class GrowingWords:
    """Words of which there are few."""

    def __init__(self) -> None:
        self._codes, self._words = GrowingArray(np.int32), list[str | None]([None])
        self._known: dict[str | None, int] = {None: ABSENT}

    @property
    def column(self) -> WordColumn:
        """What is there now; it stays as it is."""
        return WordColumn(self._codes.values, tuple(self._words))

    def append(self, words: pa.Array | pa.ChunkedArray) -> None:
        """Add words behind all others."""
        self._codes.append(self._coded(words))

    def change(self, places: Ints, words: pa.Array | pa.ChunkedArray) -> None:
        """See GrowingArray."""
        self._codes.change(places, self._coded(words))

    def _coded(self, words: pa.Array | pa.ChunkedArray) -> Numbers:
        whole = words.combine_chunks() if isinstance(words, pa.ChunkedArray) else words
        encoded = pc.dictionary_encode(whole)
        of_word = np.fromiter((self._code(each) for each in encoded.dictionary.to_pylist()), np.int32)
        places = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        return cast("Numbers", np.append(of_word, np.int32(ABSENT))[places])

    def _code(self, word: str) -> int:
        if word not in self._known:
            self._known[word] = len(self._words)
            self._words.append(word)
        return self._known[word]


class GrowingTexts:
    """Texts of which most are different, such as ids."""

    def __init__(self) -> None:
        self._held = pa.chunked_array([], pa.large_string())

    @property
    def values(self) -> pa.ChunkedArray:
        """What is there now; it stays as it is."""
        return self._held

    def append(self, texts: pa.Array | pa.ChunkedArray) -> None:
        """Add texts behind all others."""
        added = texts.cast(pa.large_string())
        chunks = added.chunks if isinstance(added, pa.ChunkedArray) else [added]
        held = pa.chunked_array([*self._held.chunks, *chunks], pa.large_string())
        if held.num_chunks > _MOST_CHUNKS:
            held = pa.chunked_array([held.combine_chunks()], pa.large_string())
        self._held = held
