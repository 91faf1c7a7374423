"""Brings what was written onto the disk, so that a power cut cannot take back what others have been sent."""

from __future__ import annotations

import ctypes
import os
import sys

from streaming.delta.faults import table_faults
from streaming.store.place import Place


def sync(place: Place) -> None:
    """Return once everything written so far to the file system of a folder is on its disk.

    One call covers data files, log entries and the folders that name them. Outside Linux it asks for all file
    systems to be written out, which the system may still be doing when the call returns.

    Raises:
        DiskError: the disk could not take it.
    """
    if not place.is_local:
        return
    if sys.platform != "linux":
        os.sync()
        return
    with table_faults(place):
        descriptor = os.open(place.path, os.O_RDONLY)
        try:
            if _LIBC.syncfs(descriptor) != 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number), str(place))
        finally:
            os.close(descriptor)


_LIBC = ctypes.CDLL(None, use_errno=True)
