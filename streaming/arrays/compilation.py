"""One way to compile the numeric kernels, so that all of them share the flags their exactness rests on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

from streaming.arrays.kernel_cache import KernelCache

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int32]
Hashes = npt.NDArray[np.uint64]
Bytes = npt.NDArray[np.uint8]
Flags = npt.NDArray[np.bool_]

Kernel = TypeVar("Kernel", bound=Callable[..., Any])


def compiled(kernel: Kernel) -> Kernel:
    """Compile `kernel` to machine code on first use, cached on disk, run without the GIL.

    Fast math stays off: reordered sums would make a score depend on how rows were cut into batches.
    """
    return _kept(kernel, numba.njit(nogil=True, error_model="numpy", fastmath=False))


def inlined(kernel: Kernel) -> Kernel:
    """Compile like `compiled`, into every caller: for steps so small that a call costs more than they do."""
    return _kept(kernel, numba.njit(nogil=True, error_model="numpy", fastmath=False, forceinline=True))


def read_only(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a read-only view: Arrow buffers are read-only, and Numba compiles that as a type of its own."""
    view = array.view()
    view.flags.writeable = False
    return view


def _kept(kernel: Kernel, compile_: Callable[[Kernel], Any]) -> Kernel:
    """Have what is compiled kept on disk; Numba's own way would look for a folder now, at import."""
    dispatcher = compile_(kernel)
    dispatcher._cache = KernelCache(kernel)
    return cast(Kernel, dispatcher)
