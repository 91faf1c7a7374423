"""Where compiled kernels are kept on disk, so that no other version's are ever taken for them.

Numba keeps them beside the source and notices changes of that one file. Kernels call those of other files and
take types of other files, whose names stand in what is kept: after an update, reading it would fail.
The folder is therefore named after the sources of a module and of all modules of the project that it imports.

Nothing is looked for or written before a kernel is needed. It is read beside its source, also where nothing
can be written there, and kept there, or in the folder that a command has named; NUMBA_CACHE_DIR takes the
place of both. Where nothing takes it, each process compiles it anew.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import CompileResultCacheImpl, FunctionCache, UserProvidedCacheLocator, _Cache

from streaming.arrays.kernel_folder import kernel_folder

_ROOT = Path(__file__).resolve().parents[2]
_IMPORTED = re.compile(r"^from (streaming\.[\w.]+) import (\([^)]*\)|[\w, ]+)", re.MULTILINE)


@cache
def sources_digest(source: Path) -> str:
    """Return a digest (hex) over a source file and all files of the project that it imports, transitively."""
    digest = hashlib.sha256()
    for each in sorted(_with_imports(source, set())):
        digest.update(each.read_bytes())
    return digest.hexdigest()[:16]


class KernelCache(_Cache):
    """Numba's cache of one kernel, found when it is first needed."""

    def __init__(self, kernel: Callable[..., Any]) -> None:
        self._kernel = kernel

    @property
    def cache_path(self) -> str | None:
        """See Numba's: where the kernel is kept, None where nothing takes it."""
        return None if self._kept is None else str(self._kept.cache_path)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """See Numba's."""
        found = (each.load_overload(sig, target_context) for each in self._folders)
        return next((each for each in found if each is not None), None)

    def save_overload(self, sig: Any, data: Any) -> None:
        """See Numba's. A disk that takes nothing costs the next process a compilation, and nothing else."""
        if self._kept is not None:
            with suppress(OSError):
                self._kept.save_overload(sig, data)

    def enable(self) -> None:
        """See Numba's: it always is."""

    def disable(self) -> None:
        """See Numba's: it never is."""

    def flush(self) -> None:
        """See Numba's."""
        if self._kept is not None:
            self._kept.flush()

    @cached_property
    def _folders(self) -> list[_FolderCache]:
        return [_FolderCache(self._kernel, each) for each in _places(_source_of(self._kernel)).readable]

    @cached_property
    def _kept(self) -> _FolderCache | None:
        folder = _places(_source_of(self._kernel)).kept
        return None if folder is None else _FolderCache(self._kernel, folder)


class _FolderCache(FunctionCache):
    """The kernels of one module in one folder."""

    def __init__(self, kernel: Callable[..., Any], folder: Path) -> None:
        numbas: Any = self
        numbas._impl_class = lambda each: _InFolder(each, folder)
        super().__init__(kernel)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """See Numba's. Whatever a torn file makes of unpickling, the kernel is compiled and kept anew."""
        try:
            return super().load_overload(sig, target_context)
        except Exception:
            with suppress(OSError):
                Path(self._cache_file._index_path).unlink()
            return None


class _InFolder(CompileResultCacheImpl):
    def __init__(self, kernel: Callable[..., Any], folder: Path) -> None:
        numbas: Any = self
        numbas._locator_classes = [_Finder(folder)]
        super().__init__(kernel)


@dataclass(frozen=True)
class _Finder:
    """Stands where Numba expects a class of locators."""

    folder: Path

    def from_function(self, kernel: Callable[..., Any], source: str) -> _Locator:
        return _Locator(kernel, source, self.folder)


class _Locator(UserProvidedCacheLocator):
    def __init__(self, kernel: Callable[..., Any], source: str, folder: Path) -> None:
        self._py_file, self._lineno = source, kernel.__code__.co_firstlineno
        self._cache_path = str(folder)


@dataclass(frozen=True)
class _Places:
    """Folders of one module's kernels: those that may hold some, and the one that takes new ones."""

    readable: tuple[Path, ...]
    kept: Path | None


@cache
def _places(source: Path) -> _Places:
    """Find the folders of a module's kernels. What versions before have left beside the last is removed."""
    name = f"{source.stem}-{sources_digest(source.resolve())}"
    candidates = [folder / name for folder in _parents(source)]
    kept = next((each for each in candidates if _can_be_written(each)), None)
    if kept is not None:
        _remove_stale(kept, source.stem)
    return _Places(tuple(each for each in candidates if each.is_dir()), kept)


def _parents(source: Path) -> list[Path]:
    # Two modules of the same name have folders of their own.
    apart = str(_Locator.get_suitable_cache_subpath(str(source)))
    config: Any = numba.config
    if config.CACHE_DIR:
        return [Path(config.CACHE_DIR) / apart]
    named = kernel_folder()
    return [source.parent / "__pycache__", *([] if named is None else [named / apart])]


def _source_of(kernel: Callable[..., Any]) -> Path:
    return Path(kernel.__code__.co_filename)


def _can_be_written(folder: Path) -> bool:
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
        return True
    return False


def _remove_stale(folder: Path, stem: str) -> None:
    for stale in folder.parent.glob(f"{stem}-*"):
        if stale != folder and stale.is_dir():
            shutil.rmtree(stale, ignore_errors=True)


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
