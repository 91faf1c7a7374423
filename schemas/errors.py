"""Every error flagstream raises on purpose, split by what the caller does about it.

FlagstreamError
├── ConfigurationError    a file or option is wrong: fix it and start again (exit 2)
│   └── NotFoundError     what a name or id means is not there
├── MachineError          the machine lacks something: install or free it (exit 3)
├── RetryableError        the same call may succeed later: try again under a deadline
│   ├── DiskError         the disk is full, read-only, failing or gone: wait until it takes something again
│   └── StoreError        the object store is away, busy, or its credentials have expired: wait for it
├── ConflictError         it has changed since it was read: read it again, and decide anew
├── FencedError           a successor has taken over: stop and write nothing more (exit 4)
└── DataLossError         going on could lose or double a record: stop and ask (exit 5)
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class FlagstreamError(Exception):
    """Base of all errors raised on purpose; `exit_code` is what the command line returns."""

    exit_code = 1


class ConfigurationError(FlagstreamError):
    """A configuration file, key or option that cannot be used.

    Args:
        problem: what is wrong and what was expected.
        where: the file or option it stands in.
        key: dotted path of the key inside the file.
    """

    exit_code = 2

    def __init__(self, problem: str, *, where: str = "", key: str = "") -> None:
        self.problem, self.where, self.key = problem, where, key
        place = ": ".join(part for part in (where, key) if part)
        super().__init__(f"{place}: {problem}" if place else problem)

    def within(self, where: str, key: str = "") -> ConfigurationError:
        """Return this error placed in a file and at a key, unless it names its own."""
        return self if self.where else ConfigurationError(self.problem, where=where, key=self.key or key)


class NotFoundError(ConfigurationError):
    """What a name or an id means is not there, or not to be seen by whoever asks."""


class MachineError(FlagstreamError):
    """The machine lacks a tool, a port, a file or a service that the work needs."""

    exit_code = 3


class RetryableError(FlagstreamError):
    """A passing fault: the same call may succeed when repeated."""


class DiskError(RetryableError):
    """The disk takes nothing, or cannot be read: space must be freed, or it must be mounted again."""


class StoreError(RetryableError):
    """The object store does not answer, is busy, or takes the credentials no longer: it is waited for."""


class ConflictError(FlagstreamError):
    """What was to be changed has changed since the caller read it; nothing was written."""


class FencedError(FlagstreamError):
    """Another driver has taken over this agent; this one must not write again."""

    exit_code = 4


class DataLossError(FlagstreamError):
    """Going on could lose or double records, so the work stops here."""

    exit_code = 5


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint naming the known word closest to `name`, or listing all of them."""
    candidates = sorted(known)
    close = difflib.get_close_matches(name, candidates, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"expected one of: {', '.join(candidates)}" if candidates else ""
