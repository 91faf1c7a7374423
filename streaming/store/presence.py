"""Whether an object store answers."""

from __future__ import annotations

import obstore

from schemas.errors import RetryableError
from streaming.store.client import client_of, key_of, store_faults
from streaming.store.place import Place


def store_away(place: Place) -> str | None:
    """Say why nothing can be read below a place in a store; None where it can, or it is a folder.

    Raises:
        ConfigurationError: the store does not admit this process, or there is no such bucket.
    """
    if place.is_local:
        return None
    try:
        with store_faults(place):
            next(iter(obstore.list(client_of(place), key_of(place), chunk_size=1)), None)
    except RetryableError as fault:
        return str(fault)
    return None
