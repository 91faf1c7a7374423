"""What guards the audit table from outside of it: the key of its hashes, and the anchor at its end."""

from __future__ import annotations

import json
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from agent.audit.chain import ChainKey, Head
from schemas.documents import decoded, parse_json
from schemas.errors import ConfigurationError
from schemas.loading import Document, parse_document
from streaming.store.files import Files
from streaming.store.local_files import LocalFiles
from streaming.store.place import Place
from streaming.store.whole_files import create_file

_KEY_BYTES = 32
_ADVANCE_SECONDS = 1.0


@dataclass(frozen=True)
class Anchor:
    """The end of a chain as of some moment, and the identity of the chain's key."""

    head: Head
    key: str

    def to_json(self) -> str:
        """Return the anchor as one line of JSON."""
        return json.dumps({"number": self.head.number, "hash": self.head.hash, "key": self.key}) + "\n"


class _AnchorFile(Document):
    number: int
    hash: str
    key: str


class AnchorFile:
    """The file that holds the anchor of one chain; it only ever moves on.

    Args:
        files: where it lies, outside of the table.
        name: what it is called.
    """

    def __init__(self, files: Files, name: str) -> None:
        self._files, self._name = files, name

    @classmethod
    def at(cls, path: Path) -> AnchorFile:
        """Return that at a path of this machine."""
        return cls(LocalFiles(Place.local(path.parent)), path.name)

    @property
    def place(self) -> Place:
        """Where it lies."""
        return self._files.place / self._name

    def read(self) -> Anchor | None:
        """Return the anchor, None when there is no file.

        Raises:
            ConfigurationError: the file holds something else.
            RetryableError: the store is away.
        """
        held = self._files.read(self._name)
        return None if held is None else self._parsed(held.content)

    def advance(self, anchor: Anchor) -> None:
        """Replace the anchor by a later one; a file that is ahead already stays. After a crash either holds.

        A process stopped while it moves the anchor must not stop its successor: the anchor then stays
        behind until the next writer finds nobody in its way.

        Raises:
            ConfigurationError: the file holds something else than an anchor.
            RetryableError: the store is away.
        """
        until, written = time.monotonic() + _ADVANCE_SECONDS, None
        while written is None and time.monotonic() < until:
            held = self._files.read(self._name)
            if held is None:
                written = self._files.create(self._name, anchor.to_json().encode())
            elif self._parsed(held.content).head.number < anchor.head.number:
                written = self._files.replace(self._name, anchor.to_json().encode(), held)
            else:
                return

    def _parsed(self, content: bytes) -> Anchor:
        where = str(self.place)
        try:
            read = parse_json(decoded(content, where), where=where)
            noted = parse_document(read, _AnchorFile, where=where)
        except ConfigurationError:
            raise ConfigurationError("holds no anchor of an audit log", where=where) from None
        return Anchor(Head(noted.number, noted.hash), noted.key)


def chain_key(path: Path | None, given: SecretStr | None) -> ChainKey | None:
    """Return the key of an audit log: the one given, else the one in a file, None without either."""
    if given is not None:
        return ChainKey(given.get_secret_value().encode())
    with suppress(FileNotFoundError):
        return None if path is None else ChainKey(path.read_bytes().strip())
    return None


def make_key(path: Path) -> ChainKey:
    """Keep a random key that only its owner may read, unless another process just has; return it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    create_file(path, f"{secrets.token_hex(_KEY_BYTES)}\n".encode())
    return ChainKey(path.read_bytes().strip())
