"""The wheel of flagstream for a runtime that brings its own Spark: the same files, without what is there.

What it is made of is what is installed here; the same files give the same bytes, and a name that says which.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
import zipfile
from collections.abc import Iterator, Mapping
from functools import cache, cached_property
from importlib.metadata import Distribution, PackageMetadata, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from schemas.errors import MachineError

NAME = "flagstream"
# A second Spark beside the runtime's own would be found first, and speak to another JVM.
_PROVIDED = frozenset({"pyspark", "delta-spark", "py4j"})
_PACKAGES = ("agent", "schemas", "streaming")
_KEPT = frozenset({".py", ".yaml", ".json", ".md", ".lock"})
_ROOT = Path(__file__).resolve().parents[2]
_MOMENT = (1980, 1, 1, 0, 0, 0)
_DIGEST_CHARACTERS = 12
_ENTRY_POINTS = """\
[console_scripts]
flagstream = streaming.cli.root:main
flagstream-job = streaming.cli.job:main
"""
_WHEEL = "Wheel-Version: 1.0\nGenerator: flagstream\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


class PlatformWheel:
    """The wheel: its name, its version and its bytes."""

    def __init__(self, files: Mapping[str, bytes], metadata: PackageMetadata) -> None:
        digest = hashlib.sha256()
        for path, content in sorted(files.items()):
            digest.update(f"{path}\0{len(content)}\0".encode() + content)
        self.version = f"{metadata['Version']}+{digest.hexdigest()[:_DIGEST_CHARACTERS]}"
        self.file_name = f"{NAME}-{self.version}-py3-none-any.whl"
        self._files, self._metadata = files, metadata

    @cached_property
    def content(self) -> bytes:
        """The file."""
        folder = f"{NAME}-{self.version}.dist-info"
        files = {
            **self._files,
            f"{folder}/METADATA": self._described().encode(),
            f"{folder}/WHEEL": _WHEEL.encode(),
            f"{folder}/entry_points.txt": _ENTRY_POINTS.encode(),
        }
        record = "".join(f"{path},{_hash(each)},{len(each)}\n" for path, each in sorted(files.items()))
        files[f"{folder}/RECORD"] = f"{record}{folder}/RECORD,,\n".encode()
        return _zipped(files)

    def _described(self) -> str:
        needed = [each for each in self._metadata.get_all("Requires-Dist") or () if _is_wanted(each)]
        lines = [
            "Metadata-Version: 2.1",
            f"Name: {NAME}",
            f"Version: {self.version}",
            f"Summary: {self._metadata['Summary']}",
            f"Requires-Python: {self._metadata['Requires-Python']}",
            *(f"Requires-Dist: {each}" for each in needed),
        ]
        return "\n".join(lines) + "\n"


@cache
def platform_wheel() -> PlatformWheel:
    """Return the wheel of what is installed here; a process makes it once.

    Raises:
        MachineError: flagstream is not installed, only on the path.
    """
    return PlatformWheel(dict(_package_files()), _installed(NAME).metadata)


def pinned_requirements() -> str:
    """Return what the wheel needs, and what that needs, in the versions installed here, one a line.

    Raises:
        MachineError: one of them is not installed.
    """
    found: dict[str, str] = {}
    waiting = [NAME]
    while waiting:
        for line in _installed(waiting.pop()).requires or ():
            name = canonicalize_name(Requirement(line).name)
            if _is_wanted(line) and name not in found:
                found[name] = _installed(name).version
                waiting.append(name)
    return "".join(f"{name}=={version}\n" for name, version in sorted(found.items()))


def _is_wanted(line: str) -> bool:
    needed = Requirement(line)
    applies = needed.marker is None or needed.marker.evaluate({"extra": ""})
    return applies and canonicalize_name(needed.name) not in _PROVIDED


def _installed(name: str) -> Distribution:
    try:
        return distribution(name)
    except PackageNotFoundError:
        raise MachineError(f"{name} is not installed: run `make setup`, or install flagstream") from None


def _package_files() -> Iterator[tuple[str, bytes]]:
    for package in _PACKAGES:
        for path in sorted((_ROOT / package).rglob("*")):
            if path.suffix in _KEPT and path.is_file() and "__pycache__" not in path.parts:
                yield path.relative_to(_ROOT).as_posix(), path.read_bytes()


def _hash(content: bytes) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")


def _zipped(files: Mapping[str, bytes]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in sorted(files.items()):
            entry = zipfile.ZipInfo(path, _MOMENT)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o100644 << 16
            archive.writestr(entry, content)
    return made.getvalue()


def is_wheel_of_ours(name: str) -> bool:
    """Say whether a file's name is that of such a wheel."""
    return re.fullmatch(rf"{NAME}-[\w.]+\+[0-9a-f]+-py3-none-any\.whl", name) is not None
