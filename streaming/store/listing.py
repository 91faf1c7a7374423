"""What lies below a place of an object store."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import obstore

from streaming.store.client import client_of, key_of, name_in, store_faults
from streaming.store.place import Place

if TYPE_CHECKING:
    from obstore import ObjectMeta

_CHUNK = 1000


def objects_below(place: Place, after: Place | None = None) -> Iterator[tuple[str, ObjectMeta]]:
    """Yield all objects below a place: the name relative to it, and what the store says of it.

    Args:
        after: an object; those are left out whose keys do not come after its key.

    Raises:
        ConfigurationError: the store does not admit this process, or there is no such bucket.
        StoreError: it is away or busy.
    """
    offset = None if after is None else key_of(after)
    with store_faults(place):
        for chunk in obstore.list(client_of(place), key_of(place), offset=offset, chunk_size=_CHUNK):
            yield from ((name_in(place, each["path"]), each) for each in chunk)
