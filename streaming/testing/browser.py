"""A real browser for tests of pages: a pinned Chromium and what drives it, kept with the downloads.

`python -m streaming.testing.browser` is the part of `make test-services` that fetches them beforehand.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.model.child_environment import child_environment
from agent.model.processes import one_at_a_time
from schemas.errors import MachineError
from streaming.home.settings import Settings
from streaming.output.terminal import say_line
from streaming.testing.store_servers import StoreServer, installed

CHROMIUM = StoreServer("chromium", "npm", "Node.js 20 with npm", "@sparticuz/chromium/bin/chromium.br")
# It has no account, updates nothing and asks nobody but the server of the test.
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
_DRIVER_LOCK = "playwright.lock"
_PARTS = ("fonts.tar", "al2023.tar")
_UNPACK = (
    "const zlib = require('zlib'), fs = require('fs');"
    "const [from, to] = process.argv.slice(1);"
    "fs.writeFileSync(to, zlib.brotliDecompressSync(fs.readFileSync(from)), {mode: 0o755});"
)
_FONTS = (
    '<?xml version="1.0"?><fontconfig><dir>{folder}</dir><cachedir>{folder}/cache</cachedir></fontconfig>'
)
_INSTALL_SECONDS = 600.0


@dataclass(frozen=True)
class Browser:
    """A browser that is installed.

    Attributes:
        folder: where it lies.
        driver: folder of the packages that drive it, for `sys.path`.
    """

    folder: Path
    driver: Path

    @property
    def program(self) -> Path:
        """The program."""
        return self.folder / "chromium"

    @property
    def environment(self) -> Mapping[str, str]:
        """What it needs of an environment: libraries and fonts of its own, so that pictures are the same."""
        return {
            "LD_LIBRARY_PATH": str(self.folder / "al2023" / "lib"),
            "FONTCONFIG_FILE": str(self.folder / "fonts.conf"),
            "HOME": str(self.folder),
        }


def installed_browser(cache: Path) -> Browser:
    """Return the browser, which is fetched and unpacked unless it is there.

    Args:
        cache: folder of downloads.

    Raises:
        MachineError: npm or pip cannot fetch it.
    """
    node, packed = installed(CHROMIUM, cache)
    root = cache.resolve() / "tests" / f"browser-{CHROMIUM.digest[:16]}"
    with one_at_a_time(cache / "tests" / "browser.guard"):
        if not root.exists():
            with tempfile.TemporaryDirectory(dir=root.parent, prefix=".browser-") as name:
                made = Path(name) / "made"
                _unpack(node, Path(packed).parent, made / "chromium")
                _install_driver(made / "driver")
                made.rename(root)
    (root / "chromium" / "fonts.conf").write_text(_FONTS.format(folder=root / "chromium" / "fonts"))
    return Browser(root / "chromium", root / "driver")


def axe_script(cache: Path) -> str:
    """Return the script that finds faults of accessibility in the page that it runs in.

    Raises:
        MachineError: npm cannot fetch it.
    """
    _, packed = installed(CHROMIUM, cache)
    modules = Path(packed).parents[3]
    return (modules / "axe-core" / "axe.min.js").read_text(encoding="utf-8")


def _unpack(node: str, packed: Path, folder: Path) -> None:
    folder.mkdir(parents=True)
    for name in ("chromium", *_PARTS):
        _run([node, "-e", _UNPACK, str(packed / f"{name}.br"), str(folder / name)])
    for name in _PARTS:
        with tarfile.open(folder / name) as archive:
            archive.extractall(folder / name.removesuffix(".tar"), filter="data")


def _install_driver(folder: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes"]
    _run([*pip, "--target", str(folder), "--requirement", str(CHROMIUM.locks / _DRIVER_LOCK)])


def _run(command: list[str]) -> None:
    needed = [
        name for name in os.environ if name.upper().startswith("PIP_") or name.lower().endswith("_proxy")
    ]
    done = subprocess.run(
        command, env=child_environment(needed=needed), capture_output=True, text=True, check=False,
        timeout=_INSTALL_SECONDS,
    )  # fmt: skip
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        raise MachineError(f"the browser of the tests could not be installed: {' | '.join(said[-3:])}")


def main() -> None:
    """Install it; where that cannot be, a line says why, and its tests fail with the same line."""
    try:
        installed_browser(Settings.load(Path("var")).cache)
    except MachineError as fault:
        say_line(str(fault))


if __name__ == "__main__":
    main()
