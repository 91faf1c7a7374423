"""What lies beside tables, opened by its place: small files, and whole folders."""

from __future__ import annotations

from pathlib import Path

from streaming.store.access import Access
from streaming.store.files import Files
from streaming.store.folders import Folders
from streaming.store.local_files import LocalFiles
from streaming.store.local_folders import LocalFolders
from streaming.store.object_files import ObjectFiles
from streaming.store.object_folders import ObjectFolders
from streaming.store.place import Place


def files_of(place: Place, access: Access | None = None) -> Files:
    """Return the files below a place.

    Args:
        access: how the store is reached, where not as its environment says.
    """
    return LocalFiles(place) if place.is_local else ObjectFiles(place, access)


def folders_of(place: Place, spool: Path | None = None) -> Folders:
    """Return the whole folders below a place.

    Args:
        spool: a folder of this machine, where those of a store are filled and read, by default this
            process's.
    """
    return LocalFolders(place) if place.is_local else ObjectFolders(place, spool)
