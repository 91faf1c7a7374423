"""Refuses settings under which two writers could both believe that they have made the same commit.

A commit is an object that is put where none lies yet. S3 and Azure do that by themselves; older ways, which
these libraries still know, lock in a table of DynamoDB, copy and delete, or do without any check.
"""

from __future__ import annotations

from collections.abc import Mapping

from schemas.errors import ConfigurationError

_SAFE = {"etag", ""}
_UNSAFE = {
    "AWS_S3_ALLOW_UNSAFE_RENAME": "commits would be written without a check, so one could replace another",
    "AWS_S3_LOCKING_PROVIDER": "commits are put under a condition, which a lock beside it would only pretend",
    "AWS_COPY_IF_NOT_EXISTS": "commits are put under a condition, not copied into place",
    "DELTA_DYNAMO_TABLE_NAME": "no lock of DynamoDB is used: the store itself is asked",
    "DYNAMO_LOCK_TABLE_NAME": "no lock of DynamoDB is used: the store itself is asked",
}


def check_atomic(environ: Mapping[str, str]) -> None:
    """Check that the environment leaves commits to the store's conditional put.

    Raises:
        ConfigurationError: it names another way.
    """
    given = {name.upper(): (name, value) for name, value in environ.items()}
    for known, why in _UNSAFE.items():
        if known in given and given[known][1].lower() not in {"", "false"}:
            raise ConfigurationError(f"{why}; unset it", where=given[known][0])
    for known in ("AWS_CONDITIONAL_PUT", "CONDITIONAL_PUT"):
        name, value = given.get(known, (known, ""))
        if value.lower() not in _SAFE:
            raise ConfigurationError(
                f"{value.partition(':')[0]!r} is not safe for two writers: unset it, or set it to etag",
                where=name,
            )
