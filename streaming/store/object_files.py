"""Files in an object store, written under the conditions that its protocol knows."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import obstore
from obstore.exceptions import AlreadyExistsError, PreconditionError
from obstore.store import ObjectStore

from schemas.errors import ConfigurationError
from streaming.store.access import Access
from streaming.store.client import client_of, key_of, name_in, store_faults
from streaming.store.files import MOST_BYTES, FileState
from streaming.store.place import Place

if TYPE_CHECKING:
    from obstore import ObjectMeta, PutMode, PutResult, UpdateVersion


@dataclass(frozen=True)
class ObjectFiles:
    """Objects under a prefix; see streaming.store.files.Files."""

    place: Place
    access: Access | None = field(default=None, repr=False, compare=False)

    def read(self, name: str) -> FileState | None:
        """See Files.read."""
        with suppress(FileNotFoundError), store_faults(self.place):
            got = obstore.get(self._client, self._key(name))
            if got.meta["size"] > MOST_BYTES:
                raise ConfigurationError(f"larger than {MOST_BYTES:,} bytes", where=str(self.place / name))
            return FileState(bytes(got.bytes()), mark_of(got.meta))
        return None

    def create(self, name: str, content: bytes) -> FileState | None:
        """See Files.create."""
        return self._put(name, content, "create")

    def replace(self, name: str, content: bytes, held: FileState) -> FileState | None:
        """See Files.replace."""
        return self._put(name, content, cast("UpdateVersion", held.mark))

    def remove(self, name: str) -> None:
        """See Files.remove."""
        with suppress(FileNotFoundError), store_faults(self.place):
            obstore.delete(self._client, self._key(name))

    def names(self) -> list[str]:
        """See Files.names."""
        with suppress(FileNotFoundError), store_faults(self.place):
            found = obstore.list_with_delimiter(self._client, key_of(self.place))["objects"]
            return sorted(name_in(self.place, each["path"]) for each in found)
        return []

    def newest_at(self) -> float | None:
        """Return when the newest of them was written, in seconds since 1970; None where there is none.

        Raises:
            ConfigurationError: the store does not admit this process, or there is no such bucket.
            RetryableError: the store is away or busy.
        """
        with suppress(FileNotFoundError), store_faults(self.place):
            found = obstore.list_with_delimiter(self._client, key_of(self.place))["objects"]
            return max((each["last_modified"].timestamp() for each in found), default=None)
        return None

    @property
    def _client(self) -> ObjectStore:
        return client_of(self.place, self.access)

    def _key(self, name: str) -> str:
        return key_of(self.place / name)

    def _put(self, name: str, content: bytes, mode: PutMode) -> FileState | None:
        with store_faults(self.place):
            try:
                done = obstore.put(self._client, self._key(name), content, mode=mode, use_multipart=False)
            except (AlreadyExistsError, PreconditionError, FileNotFoundError):
                # Perhaps since it has taken the same before, and the answer was lost.
                found = self.read(name)
                return found if found is not None and found.content == content else None
        return FileState(content, mark_of(done))


def mark_of(known: ObjectMeta | PutResult) -> UpdateVersion:
    """Return the condition of a later replacement; what a store does not know is left out."""
    named = {name: known.get(name) for name in ("e_tag", "version")}
    return cast("UpdateVersion", {name: value for name, value in named.items() if value is not None})


def delete_objects(client: ObjectStore, keys: Sequence[str]) -> None:
    """Delete objects; one that others have been quicker with keeps no other from it."""
    try:
        obstore.delete(client, keys)
    except FileNotFoundError:
        for key in keys:
            with suppress(FileNotFoundError):
                obstore.delete(client, key)
