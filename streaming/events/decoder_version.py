"""What a decoder is made of: two of the same make columns of the same bits of the same records."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Sequence
from functools import cache
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from zoneinfo import TZPATH, available_timezones

import schemas
import streaming
from streaming.arrays.kernel_cache import sources_digest

_LIBRARIES = ("flagstream", "numba", "numpy", "orjson", "polars", "protobuf", "pyarrow", "pydantic")
_TASK = Path(streaming.__file__).parent / "kafka" / "executor_decode.py"


@cache
def decoder_version() -> str:
    """Return versions of Python and libraries, and digests over time zones and the sources of a task.

    Records may name any zone, so all zones count, as `zoneinfo` finds them.
    """
    libraries = [f"{each} {version(each)}" for each in _LIBRARIES]
    digests = f"zone files {zones_digest()}", f"sources {_sources()}"
    return ", ".join([f"Python {platform.python_version()}", *libraries, *digests])


def zones_digest(folders: Sequence[str] = TZPATH) -> str:
    """Return a digest over the names and files of all time zones that this machine knows.

    Args:
        folders: where zone files lie, in the order in which `zoneinfo` looks; those of the package `tzdata`
            come last.
    """
    digest = hashlib.sha256()
    for name in sorted(available_timezones()):
        found = _zone_file(name, folders)
        digest.update(f"{name} {len(found)} ".encode() + found)
    return digest.hexdigest()[:16]


def _zone_file(name: str, folders: Sequence[str]) -> bytes:
    for path in (Path(each, name) for each in folders):
        if path.is_file():
            return path.read_bytes()
    return resources.files("tzdata").joinpath("zoneinfo", *name.split("/")).read_bytes()


def _sources() -> str:
    digest = hashlib.sha256(sources_digest(_TASK).encode())
    for each in sorted(Path(schemas.__file__).parent.glob("*.py")):
        digest.update(each.read_bytes())
    return digest.hexdigest()[:16]
