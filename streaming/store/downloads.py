"""Objects of a store, fetched into files of this machine."""

from __future__ import annotations

from pathlib import Path

import obstore

from streaming.store.client import client_of, key_of, store_faults
from streaming.store.place import Place

PART_BYTES = 16 << 20
AT_ONCE = 4


def download(place: Place, size: int, path: Path) -> None:
    """Fetch an object in ranges, several at once: none of them takes longer than a call may.

    Args:
        size: bytes that it has.
        path: of the file, whose folder is made.

    Raises:
        FileNotFoundError: it is not there, or of another size.
        ConfigurationError: the store does not admit this process, or there is no such bucket.
        RetryableError: the store is away or busy.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    client, key, step = client_of(place), key_of(place), PART_BYTES * AT_ONCE
    with path.open("wb") as file:
        for first in range(0, size, step):
            starts = list(range(first, min(first + step, size), PART_BYTES))
            ends = [min(start + PART_BYTES, size) for start in starts]
            try:
                with store_faults(place):
                    parts = obstore.get_ranges(client, key, starts=starts, ends=ends, coalesce=0)
            except FileNotFoundError:  # the library's own words are the store's whole answer
                raise FileNotFoundError(f"{place} is missing") from None
            for part in parts:
                file.write(part)
        if file.tell() != size:
            raise FileNotFoundError(f"{place} is not what was written: {file.tell()} bytes")
