"""The folder for compiled kernels where none can be written beside the code, as in a hardened container.

It is named before anything is compiled, by commands that must not load a compiler for that.
"""

from __future__ import annotations

from pathlib import Path

_named: list[Path] = []


def keep_kernels_in(folder: Path) -> None:
    """Name the folder; it is made when something is kept in it."""
    _named[:] = [folder]


def kernel_folder() -> Path | None:
    """Return the folder named last, None before."""
    return _named[0] if _named else None
