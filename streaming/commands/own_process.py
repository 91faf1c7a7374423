"""How the process of a command is set up, before the command does anything."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from streaming.arrays.kernel_folder import keep_kernels_in
from streaming.home.private_files import keep_private
from streaming.home.settings import Settings
from streaming.service.interrupts import orderly_termination
from streaming.setup.machine_limits import machine_limits
from streaming.store.spool import keep_spool_in


@contextmanager
def within_limits(*, is_beside: bool) -> Iterator[None]:
    """Keep libraries to the cores of this process, and have SIGTERM end the block by its own way out.

    Args:
        is_beside: see MachineLimits.keep_threads.
    """
    machine_limits().keep_threads(is_beside=is_beside)
    with orderly_termination():
        yield


def keep_state_in_home(settings: Settings) -> None:
    """Have all that this process writes lie in its home, for its user alone."""
    keep_private(settings.home)
    keep_spool_in(settings.spool)
    keep_kernels_in(settings.home / "kernels")
