"""Tries a store: what a lake asks of it, on objects of a scratch prefix that are gone afterwards."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import ObjectStore

from schemas.errors import ConfigurationError, FlagstreamError, RetryableError
from streaming.store.access import Access
from streaming.store.client import client_of, key_of, store_faults
from streaming.store.faults import unknown_login
from streaming.store.object_files import mark_of
from streaming.store.place import Place

RACERS = 16
_RACES = 3
_AZURE_ROLE = "the role Storage Blob Data Contributor, or a SAS with the permissions r, a, c, w, d, l"


@dataclass(frozen=True)
class StoreTrial:
    """What trying one operation has shown.

    Attributes:
        operation: what was tried, in words.
        fault: what was wrong; empty where it works.
        needs: the permission that it takes; empty where none is missing.
    """

    operation: str
    fault: str = ""
    needs: str = ""


def try_store(place: Place, access: Access | None = None, *, removes: bool = True) -> list[StoreTrial]:
    """Try what a lake asks of a store: whatever is written is removed, or named where it cannot be.

    A store that does not answer, has no such bucket or does not know the login is asked for nothing else.

    Args:
        place: a prefix of an object store.
        access: how it is reached, where not as the environment says.
        removes: whether who uses it removes anything. If not, the trial's own objects are removed where that
            is permitted, and stay where it is not.
    """
    scratch = place / f"doctor-{uuid.uuid4().hex[:12]}"
    found: list[StoreTrial] = []
    for operation, permission, attempt in _OPERATIONS:
        fault = _fault_of(attempt, scratch, access)
        if attempt is not _remove or removes:
            found.append(_trial(operation, permission, scratch, fault))
        if isinstance(fault, RetryableError) or "no such bucket" in str(fault) or unknown_login(str(fault)):
            return found
    return found


def require_atomic(place: Place) -> None:
    """Have many create and replace one object at once, which a lake cannot do without.

    That none of them is let in proves nothing: the answer to the one that was may be lost.

    Raises:
        ConfigurationError: several are let in.
        RetryableError: the store is away.
    """
    scratch = place / f"trial-{uuid.uuid4().hex[:12]}"
    with store_faults(scratch):
        store, key = client_of(scratch), f"{key_of(scratch)}/race-0"
        try:
            won = _winners(store, key, "create")
            if won <= 1:
                held = mark_of(obstore.put(store, key, b"held", use_multipart=False))
                won = _winners(store, key, held)
        finally:
            with suppress(BaseError, FileNotFoundError):
                obstore.delete(store, key)
    if won > 1:
        raise ConfigurationError(
            f"of {RACERS} that wrote one object at once, each only in place of what it knew, {won} were let "
            "in: no lake can be kept there; see docs/stores.md, and `flagstream doctor`",
            where=str(place),
        )


class _NotAtomicError(Exception):
    """The store has done what nobody may build on."""


def _fault_of(
    attempt: Callable[[ObjectStore, str], None], scratch: Place, access: Access | None
) -> Exception | None:
    try:
        with store_faults(scratch):
            attempt(client_of(scratch, access), key_of(scratch))
    except (FlagstreamError, _NotAtomicError, FileNotFoundError) as fault:
        return fault
    return None


def _trial(operation: str, permission: str, scratch: Place, fault: Exception | None) -> StoreTrial:
    if fault is None:
        return StoreTrial(operation)
    if isinstance(fault, _NotAtomicError):
        return StoreTrial(operation, str(fault))
    if code := unknown_login(str(fault)):
        return StoreTrial(operation, f"the store does not know this login ({code}): correct key and secret")
    if isinstance(fault, ConfigurationError) and "does not admit" in str(fault):
        return StoreTrial(operation, "not permitted", _permission(permission, scratch))
    return StoreTrial(operation, str(fault))


def _write(store: ObjectStore, scratch: str) -> None:
    obstore.put(store, f"{scratch}/plain", b"one", use_multipart=False)


def _create(store: ObjectStore, scratch: str) -> None:
    """A second creation must be refused: servers that know no conditions take it."""
    _put_new(store, f"{scratch}/once", b"one")
    if _put_new(store, f"{scratch}/once", b"two"):
        raise _NotAtomicError("it has replaced an object that was to be written only if absent")


def _race_creating(store: ObjectStore, scratch: str) -> None:
    for number in range(_RACES):
        won = _winners(store, f"{scratch}/race-{number}", "create")
        if won != 1:
            raise _NotAtomicError(f"of {RACERS} that created one object at once {won} were let in, not one")


def _race_replacing(store: ObjectStore, scratch: str) -> None:
    for number in range(_RACES):
        key = f"{scratch}/race-{number}"
        held = mark_of(obstore.put(store, key, b"held", use_multipart=False))
        won = _winners(store, key, held)
        if won != 1:
            raise _NotAtomicError(f"of {RACERS} that replaced one object at once {won} were let in, not one")


def _winners(store: ObjectStore, key: str, mode: Any) -> int:
    gate = threading.Barrier(RACERS)

    def write(number: int) -> bool:
        gate.wait()
        try:
            obstore.put(store, key, str(number).encode(), mode=mode, use_multipart=False)
        except (AlreadyExistsError, PreconditionError):
            return False
        return True

    # No worker: the check waits for every race and raises what it raised.
    with ThreadPoolExecutor(RACERS) as pool:
        return sum(pool.map(write, range(RACERS)))


def _replace(store: ObjectStore, scratch: str) -> None:
    key = f"{scratch}/replaced"
    first = mark_of(obstore.put(store, key, b"one", use_multipart=False))
    obstore.put(store, key, b"two", mode=first, use_multipart=False)
    try:
        obstore.put(store, key, b"three", mode=first, use_multipart=False)
    except PreconditionError:
        return
    raise _NotAtomicError("it has replaced an object that was no longer what was read")


def _read(store: ObjectStore, scratch: str) -> None:
    with suppress(FileNotFoundError):  # where it could not be written
        if bytes(obstore.get(store, f"{scratch}/plain").bytes()) != b"one":
            raise _NotAtomicError("it returns another content than was written")


def _list(store: ObjectStore, scratch: str) -> None:
    obstore.list_with_delimiter(store, scratch)


def _remove(store: ObjectStore, scratch: str) -> None:
    names = ("plain", "once", "replaced", *(f"race-{number}" for number in range(_RACES)))
    obstore.delete(store, [f"{scratch}/{name}" for name in names])


_OPERATIONS: tuple[tuple[str, str, Callable[[ObjectStore, str], None]], ...] = (
    ("write", "s3:PutObject", _write),
    ("write if absent", "s3:PutObject", _create),
    (f"race of {RACERS} creations", "s3:PutObject", _race_creating),
    ("replace if unchanged", "s3:PutObject", _replace),
    (f"race of {RACERS} replacements", "s3:PutObject", _race_replacing),
    ("read", "s3:GetObject", _read),
    ("list", "s3:ListBucket", _list),
    ("delete", "s3:DeleteObject", _remove),
)


def _put_new(store: ObjectStore, key: str, content: bytes) -> bool:
    try:
        obstore.put(store, key, content, mode="create", use_multipart=False)
    except AlreadyExistsError:
        return False
    return True


def _permission(permission: str, scratch: Place) -> str:
    if not scratch.uri.startswith("s3://"):
        return _AZURE_ROLE
    bucket, _, prefix = scratch.parent.uri.removeprefix("s3://").partition("/")
    inside = f"{prefix}/*" if prefix else "*"
    on = bucket if permission == "s3:ListBucket" else f"{bucket}/{inside}"
    return f"{permission} on arn:aws:s3:::{on}"
