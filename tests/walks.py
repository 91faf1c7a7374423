"""The walks of CONTRIBUTING.md, taken as they are written in a copy of the tree."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
COPIED = (
    "agent",
    "schemas",
    "streaming",
    "benchmarks",
    "tests",
    "docs",
    "docker",
    "requirements",
    ".github",
)
_BLOCK = re.compile(r"^( *)```(diff|python)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_NEW_FILE = re.compile(r"`([\w./-]+)`, a new file")


@dataclass(frozen=True)
class Edit:
    """What becomes of one file: lines added where the lines around them stand, or a new file."""

    path: str
    hunks: tuple[str, ...]
    is_new: bool

    def apply(self, tree: Path) -> None:
        """Change the file.

        Raises:
            AssertionError: it is not as the walk says.
        """
        path = tree / self.path
        if self.is_new:
            assert not path.exists(), f"{self.path} is there already"
            path.write_text(self.hunks[0], encoding="utf-8")
            return
        text = path.read_text(encoding="utf-8")
        for hunk in self.hunks:
            before, after = _sides(hunk)
            assert text.count(before) == 1, f"{self.path} holds this {text.count(before)} times:\n{before}"
            text = text.replace(before, after)
        path.write_text(text, encoding="utf-8")


def walks() -> dict[str, tuple[Edit, ...]]:
    """Return the edits of each walk by its title."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    sections = re.split(r"^### ", text, flags=re.MULTILINE)[1:]
    return {section.partition("\n")[0]: tuple(_edits(section)) for section in sections}


def copy_of_the_tree(folder: Path) -> Path:
    """Copy the sources, compiled kernels among them, to where a walk may change them."""
    tree = folder / "tree"
    for name in COPIED:
        shutil.copytree(ROOT / name, tree / name)
    for path in ROOT.iterdir():
        if path.is_file() and path.name != ".git":
            shutil.copy2(path, tree / path.name)
    return tree


def run(tree: Path, *arguments: str) -> str:
    """Run Python in the copy; return what it printed.

    Raises:
        AssertionError: it failed.
    """
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    command = [sys.executable, *arguments]
    child = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stdout + child.stderr
    return child.stdout


def _edits(section: str) -> Iterator[Edit]:
    for block in _BLOCK.finditer(section):
        indent, kind, body = block.groups()
        code = textwrap.dedent("\n".join(line.removeprefix(indent) for line in body.split("\n")))
        if kind == "python":
            path = _NEW_FILE.findall(section[: block.start()])[-1]
            yield Edit(path, (code,), is_new=True)
        else:
            head, _, rest = code.partition("\n")
            yield Edit(head.removeprefix("--- "), tuple(rest.split("@@\n")), is_new=False)


def _sides(hunk: str) -> tuple[str, str]:
    """Return the lines of a hunk before and after the change."""
    lines = hunk.rstrip("\n").split("\n")
    before = [line[1:] for line in lines if line[:1] != "+"]
    after = [line[1:] for line in lines if line[:1] != "-"]
    return "\n".join(before), "\n".join(after)
