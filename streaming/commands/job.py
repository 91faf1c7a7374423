"""What surrounds a command that runs as a task of a workspace: state that is restored, and kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from schemas.counts import count_of
from schemas.errors import MachineError
from streaming.databricks.store_login import CONFIGURED, store_credentials
from streaming.home.kept_home import KeptHome, keeping
from streaming.output.log import log

_WRITES = "run"


class TaskFailedError(Exception):
    """A task that has failed; the platform shows its text."""


@contextmanager
def surroundings(home: Path, kept: Path | None, credentials: str | None, command: str) -> Iterator[None]:
    """Have the store reached, and state restored and kept, while a command runs.

    Args:
        home: folder of all state on this node.
        kept: folder that outlives the node, None for none.
        credentials: `configured` or `vended`, see store_credentials; None for the former.
        command: the first word of what is run.

    Raises:
        FlagstreamError: see store_credentials and kept_state.
    """
    how = CONFIGURED if credentials is None else credentials
    with store_credentials(how, home), kept_state(home, kept, command):
        yield


@contextmanager
def kept_state(home: Path, kept: Path | None, command: str) -> Iterator[None]:
    """Restore what is kept of the state, and while an agent runs keep it up to date.

    Commands beside a running agent keep nothing: they have a copy of its state, which may be older.

    Args:
        home: folder of all state on this node.
        kept: folder that outlives the node, None for none.
        command: the first word of what is run.

    Raises:
        MachineError: what is kept cannot be read.
    """
    if kept is None:
        yield
        return
    state = KeptHome(home, kept)
    try:
        count = state.restore()
    except OSError as fault:
        raise MachineError(f"{kept}: what is kept of the state cannot be read: {fault.strerror}") from None
    log("state_restored", f"restored {count_of(count, 'file')} of the state", files=count)
    if command != _WRITES:
        yield
        return
    with keeping(state):
        yield
