"""How a table's data file is opened: by its path on this machine, by its bytes from an object store.

Files of a table never change, so the bytes of small ones are kept for whoever reads them next: a batch reads
back what it has just stored.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import obstore
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs as pafs

from streaming.store.client import client_of, key_of, store_faults
from streaming.store.place import Place

_FETCHED_WHOLE = 32 << 20
KEPT_EACH, _KEPT = 8 << 20, 64 << 20
_READ_AHEAD = 4 << 20


def opened(file: Place) -> Path | pa.NativeFile:
    """Return what pyarrow reads a file from.

    Raises:
        FileNotFoundError: it is gone from the store.
        FlagstreamError: the store does not give it.
    """
    if file.is_local:
        return file.path
    content = _RECENT.of(file.uri)
    return _fetched(file) if content is None else pa.BufferReader(content)


def scanned(files: Sequence[Place]) -> pl.LazyFrame:
    """Return the rows of some files of one table, read when they are asked for."""
    if files[0].is_local:
        return pl.scan_parquet([str(file) for file in files])
    # Polars would reach the store by a client, credentials and waits of its own.
    named = [file.uri for file in files]
    return pl.scan_pyarrow_dataset(ds.dataset(named, format="parquet", filesystem=file_system()))


def keep(file: Place, content: bytes) -> None:
    """Keep the bytes of a file that was just written."""
    _RECENT.keep(file.uri, content)


def _fetched(file: Place) -> pa.NativeFile:
    client, key = client_of(file), key_of(file)
    with store_faults(file):
        answer = obstore.get(client, key)
        if answer.meta["size"] > _FETCHED_WHOLE:
            return pa.PythonFile(obstore.open_reader(client, key, buffer_size=_READ_AHEAD), mode="r")
        content = answer.bytes()
    _RECENT.keep(file.uri, content)
    return pa.BufferReader(pa.py_buffer(content))


class _Recent:
    """The bytes of small files, those used last."""

    def __init__(self) -> None:
        self._lock, self._size = threading.Lock(), 0
        self._held: OrderedDict[str, pa.Buffer] = OrderedDict()

    def of(self, uri: str) -> pa.Buffer | None:
        with self._lock:
            found = self._held.get(uri)
            if found is not None:
                self._held.move_to_end(uri)
            return found

    def keep(self, uri: str, content: object) -> None:
        held = pa.py_buffer(content)
        if held.size > KEPT_EACH:
            return
        with self._lock:
            if uri in self._held:
                return
            self._held[uri] = held
            self._size += held.size
            while self._size > _KEPT:
                self._size -= self._held.popitem(last=False)[1].size


_RECENT = _Recent()


def file_system() -> pafs.FileSystem:
    """Return what pyarrow's datasets open files of an object store with, by their URIs."""
    return pafs.PyFileSystem(_StoreFiles())


class _StoreFiles(pafs.FileSystemHandler):  # type: ignore[misc]  # the library ships no types
    """Only what reading files by their names asks for."""

    def get_type_name(self) -> str:
        return "flagstream-store"

    def normalize_path(self, path: str) -> str:
        return path

    def get_file_info(self, paths: Sequence[str]) -> list[pafs.FileInfo]:
        return [pafs.FileInfo(path, pafs.FileType.File) for path in paths]

    def open_input_file(self, path: str) -> pa.NativeFile:
        source: pa.NativeFile = opened(Place(path))
        return source

    def open_input_stream(self, path: str) -> pa.NativeFile:
        return self.open_input_file(path)

    def _refused(self, *_: object, **__: object) -> NoReturn:
        raise NotImplementedError("files of a table are only read")

    get_file_info_selector = create_dir = delete_dir = delete_dir_contents = _refused
    delete_root_dir_contents = delete_file = move = copy_file = _refused
    open_output_stream = open_append_stream = _refused
