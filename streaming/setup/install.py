"""Runs pip for `make setup` and says what it does, which pip alone does at length or not at all.

`python streaming/setup/install.py FILE WORDS [OPTIONS]` installs a file of pinned requirements; WORDS say how
large that is, OPTIONS are pip's. Nothing is installed yet when it runs, so it needs Python alone.
"""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

_EVERY_SECONDS = 5.0
_REDRAW_SECONDS = 0.5
_BAR = 30
_COMPLAINTS = 12
_WIDTH = 79
_PINNED = re.compile(r"^([A-Za-z0-9][\w.-]*)(?:\[[^\]]*\])?==")
_TAKEN = re.compile(r"^\s*(?:Downloading|Using cached) (\S+?)(?:\.metadata)? \((\d+(?:\.\d+)?) ?([kMG]?)B\)")
_MEGABYTES = {"": 1e-6, "k": 1e-3, "M": 1.0, "G": 1e3}
_HINT = (
    "Check the network and run `make setup` again. Behind a proxy set HTTPS_PROXY, with an index of your own "
    "PIP_INDEX_URL; what is downloaded is kept."
)


@dataclass
class PipProgress:
    """How far pip has come.

    Attributes:
        whole: packages to install.
        collected: packages whose file is there.
        megabytes: of these files.
        file: the newest one.
        is_installing: whether all files are there.
        said: the last lines of pip.
    """

    whole: int
    collected: int = 0
    megabytes: float = 0.0
    file: str = ""
    is_installing: bool = False
    said: deque[str] = field(default_factory=lambda: deque(maxlen=_COMPLAINTS))

    def take(self, line: str) -> None:
        """Take in a line of pip's output, of which nothing steers a terminal afterwards."""
        line = "".join(each if each.isprintable() else "?" for each in line.rstrip())
        self.said.append(line)
        if line.startswith("Ignoring "):  # a package for another platform or version of Python
            self.whole -= 1
        elif line.startswith(("Collecting ", "Requirement already satisfied: ")):
            self.collected += 1
        elif line.startswith("Installing collected packages"):
            self.is_installing = True
        found = _TAKEN.match(line)
        if found is not None:
            self.megabytes += float(found[2]) * _MEGABYTES[found[3]]
            self.file = found[1].rpartition("/")[2]

    def line(self, installed: int, seconds: float) -> str:
        """Return what there is to say, within 79 columns.

        Args:
            installed: packages that are installed.
            seconds: since the beginning.
        """
        if self.is_installing:
            said = f"installed {min(installed, self.whole)} of {self.whole} packages, {seconds:.0f} s"
        else:
            said = (
                f"{min(self.collected, self.whole)} of {self.whole} packages, {self.megabytes:.0f} MB, "
                f"{seconds:.0f} s  {self.file}"
            )
        return said[:_WIDTH].rstrip()

    def bar(self, installed: int, seconds: float) -> str:
        """Return the same after a bar, of which downloading is the first half."""
        done = self.whole + min(installed, self.whole) if self.is_installing else self.collected
        filled = round(_BAR * min(done / max(2 * self.whole, 1), 1.0))
        return f"[{'#' * filled}{'.' * (_BAR - filled)}] {self.line(installed, seconds)}"[:_WIDTH]


def pinned_names(lines: Iterable[str]) -> list[str]:
    """Return the packages that a file of requirements pins."""
    return [found[1] for found in map(_PINNED.match, lines) if found]


def install(file: Path, words: str, options: list[str]) -> int:
    """Install a file of requirements with this Python's pip; return pip's exit code."""
    course = PipProgress(len(pinned_names(file.read_text(encoding="utf-8").splitlines())))
    print(f"{file}: {words}", flush=True)  # how many packages fit this machine, pip alone knows
    quiet = ("--disable-pip-version-check", "--progress-bar", "off", "--no-deps", "--require-hashes")
    command = [sys.executable, "-u", "-m", "pip", "install", *quiet, *options, "-r", str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as pip:
        # No worker: it ends with pip, whose output it takes.
        reading = threading.Thread(target=_read, args=(pip.stdout or (), course))
        reading.start()
        _show_until(reading, course)
        code = pip.wait()
    if code:
        print("\n".join([*course.said, _HINT]), file=sys.stderr)
    return code


def _read(lines: Iterable[str], course: PipProgress) -> None:
    for line in lines:
        course.take(line)


def _show_until(reading: threading.Thread, course: PipProgress) -> None:
    """Show how far pip has come until its output ends: a bar on a terminal, else a line now and then."""
    began, before, terminal = time.monotonic(), _installed(), sys.stdout.isatty()
    every = _REDRAW_SECONDS if terminal else _EVERY_SECONDS
    reading.join(every)
    while reading.is_alive():
        installed, seconds = _installed() - before, time.monotonic() - began
        if terminal:
            print(f"\r\x1b[K{course.bar(installed, seconds)}", end="", flush=True)
        else:
            print(f"  {course.line(installed, seconds)}", flush=True)
        reading.join(every)
    start = "\r\x1b[K" if terminal else ""
    print(f"{start}  done in {time.monotonic() - began:.0f} s", flush=True)


def _installed() -> int:
    """Return how many packages this Python has."""
    return sum(1 for _ in Path(sysconfig.get_path("purelib")).glob("*.dist-info"))


if __name__ == "__main__":
    raise SystemExit(install(Path(sys.argv[1]), sys.argv[2], sys.argv[3:]))
