"""An archive of the classes that a JVM loads at its start, made once and mapped into memory from then on.

Reading, checking and linking some twenty thousand classes out of three hundred jars is most of what a start
of Spark takes. An archive belongs to one JDK and one class path, so its name does, too; a JVM that cannot use
it goes on without.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from streaming.home.settings import find_java

_READABLE = 0o644  # an installation is for every user of the machine
_QUIET = ("-Xlog:disable", "-Xlog:all=error:stderr")  # one that does not fit is a warning on standard output


@dataclass(frozen=True)
class ClassArchive:
    """The archive of one kind of JVM.

    Attributes:
        file: where it is, or will be.
    """

    file: Path

    @classmethod
    def of(cls, folder: Path, name: str, class_path: Sequence[Path]) -> ClassArchive:
        """Return the archive of JVMs called `name` with this class path, under the java that is found now.

        Args:
            folder: of archives.
            name: of the kind of JVM.
            class_path: all its jars.

        Raises:
            MachineError: there is no java.
        """
        java = Path(find_java()).resolve()
        digest = hashlib.sha256("\n".join([_release(java), *map(_identity, class_path)]).encode())
        return cls(folder / f"{name}-{digest.hexdigest()[:16]}.jsa")

    @property
    def is_there(self) -> bool:
        """Whether it has been made."""
        return self.file.is_file()

    def used(self) -> tuple[str, ...]:
        """Return the options of a JVM that uses it, none where it has not been made."""
        return ("-Xshare:auto", f"-XX:SharedArchiveFile={self.file}", *_QUIET) if self.is_there else ()

    def made(self) -> tuple[str, ...]:
        """Return the options of a JVM that makes it when it ends by itself; `keep` then puts it in place."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        return (f"-XX:ArchiveClassesAtExit={self._beside}", *_QUIET)

    def keep(self) -> bool:
        """Put what a JVM has made in place of what was there; False where it has made nothing."""
        with suppress(OSError):
            self._beside.chmod(_READABLE)
            self._beside.replace(self.file)
            self._remove_others()
            return True
        return False

    @property
    def _beside(self) -> Path:
        return self.file.with_suffix(f".{os.getpid()}.new")

    def _remove_others(self) -> None:
        """Those of other JDKs and class paths would only grow in number."""
        name = self.file.name.rpartition("-")[0]
        for each in self.file.parent.glob(f"{name}-*.jsa"):
            if each != self.file:
                with suppress(OSError):
                    each.unlink()


def _release(java: Path) -> str:
    """What a JDK says of itself, without starting it."""
    with suppress(OSError):
        return (java.parents[1] / "release").read_text(encoding="utf-8")
    return _identity(java)


def _identity(file: Path) -> str:
    found = file.stat()
    return f"{file} {found.st_size} {found.st_mtime_ns}"
