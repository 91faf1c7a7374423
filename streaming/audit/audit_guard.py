"""What guards the audit table from outside of it: the key of its hashes, and the anchor at its end."""

from __future__ import annotations

import fcntl
import json
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pydantic import SecretStr

from agent.audit.chain import ChainKey, Head
from schemas.documents import parse_json, read_text
from schemas.errors import ConfigurationError, MachineError
from schemas.loading import Document, parse_document
from streaming.home.whole_files import create_file, replace_file

_KEY_BYTES = 32
_LOCK_SECONDS, _LOCK_POLL_SECONDS = 1.0, 0.005


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
        path: the file; its folder must lie outside of the table's.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> Anchor | None:
        """Return the anchor, None when there is no file.

        Raises:
            ConfigurationError: the file holds something else.
        """
        where = str(self.path)
        if not self.path.exists():
            return None
        try:
            noted = parse_document(parse_json(read_text(self.path), where=where), _AnchorFile, where=where)
        except ConfigurationError:
            raise ConfigurationError("holds no anchor of an audit log", where=where) from None
        return Anchor(Head(noted.number, noted.hash), noted.key)

    def advance(self, anchor: Anchor) -> None:
        """Replace the anchor by a later one; a file that is ahead already stays. After a crash either holds.

        A process stopped while it moves the anchor must not stop its successor: the anchor then stays
        behind until the next writer finds nobody in its way.

        Raises:
            ConfigurationError: the file holds something else than an anchor.
            MachineError: there is no anchor yet, and somebody else is about to write it but does not.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(self.path.with_suffix(".lock")) as alone:
            current = self.read()
            if not alone:
                if current is None:
                    raise MachineError(f"another process holds {self.path.with_suffix('.lock')}: end it")
                return
            if current is None or current.head.number < anchor.head.number:
                replace_file(self.path, anchor.to_json().encode())


def chain_key(path: Path, given: SecretStr | None) -> ChainKey | None:
    """Return the key of an audit log: the one given, else the one in a file, None without either."""
    if given is not None:
        return ChainKey(given.get_secret_value().encode())
    with suppress(FileNotFoundError):
        return ChainKey(path.read_bytes().strip())
    return None


def make_key(path: Path) -> ChainKey:
    """Keep a random key that only its owner may read, unless another process just has; return it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    create_file(path, f"{secrets.token_hex(_KEY_BYTES)}\n".encode())
    return ChainKey(path.read_bytes().strip())


@contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Yield whether the lock was to be had within a second."""
    until = time.monotonic() + _LOCK_SECONDS
    with path.open("a") as lock:
        while not (alone := _try_lock(lock)) and time.monotonic() < until:
            time.sleep(_LOCK_POLL_SECONDS)
        yield alone


def _try_lock(lock: IO[str]) -> bool:
    with suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False
