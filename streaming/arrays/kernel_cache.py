"""Where compiled kernels are kept on disk, so that no other version's are ever taken for them.

Numba keeps them beside the source and notices changes of that one file. Kernels call those of other files and
take types of other files, whose names stand in what is kept: after an update, reading it would fail.
The folder is therefore named after the sources of a module and of all modules of the project that it imports.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import InTreeCacheLocator, UserProvidedCacheLocator, UserWideCacheLocator

_ROOT = Path(__file__).resolve().parents[2]
_IMPORTED = re.compile(r"^from (streaming\.[\w.]+) import (\([^)]*\)|[\w, ]+)", re.MULTILINE)


def keep_apart() -> None:
    """Have Numba keep what it compiles from now on in folders that are named after its sources."""
    config: Any = numba.config
    config.CACHE_LOCATOR_CLASSES = ",".join(
        f"{__name__}.{each.__name__}" for each in (InFolderOfUser, BesideSource, Anywhere)
    )


@cache
def sources_digest(source: Path) -> str:
    """Return a digest (hex) over a source file and all files of the project that it imports, transitively."""
    digest = hashlib.sha256()
    for each in sorted(_with_imports(source, set())):
        digest.update(each.read_bytes())
    return digest.hexdigest()[:16]


def _with_imports(source: Path, known: set[Path]) -> set[Path]:
    if source in known or not source.is_file():
        return known
    known.add(source)
    for module, names in _IMPORTED.findall(source.read_text(encoding="utf-8")):
        place = _ROOT.joinpath(*module.split("."))
        inside = (place / f"{each}.py" for each in re.findall(r"\w+", names))
        for found in (place.with_suffix(".py"), *inside):
            _with_imports(found, known)
    return known


def _move(locator: Any, source: str) -> None:
    """Move a locator's folder; what versions before have left there is removed."""
    path, folder = Path(source), Path(locator._cache_path)
    locator._cache_path = str(folder / f"{path.stem}-{sources_digest(path.resolve())}")
    for stale in folder.glob(f"{path.stem}-*"):
        if str(stale) != locator._cache_path and stale.is_dir():
            shutil.rmtree(stale, ignore_errors=True)


class _Apart:
    def __init__(self, kernel: Callable[..., Any], source: str) -> None:
        numbas: Any = super()
        numbas.__init__(kernel, source)
        _move(self, source)


class InFolderOfUser(_Apart, UserProvidedCacheLocator):
    """See Numba's, for NUMBA_CACHE_DIR."""


class BesideSource(_Apart, InTreeCacheLocator):
    """See Numba's, below `__pycache__`."""


class Anywhere(_Apart, UserWideCacheLocator):
    """See Numba's, for sources in folders that cannot be written."""
