"""Every locked package has a wheel for the machines that are promised: nothing is compiled at set-up."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "requirements").glob("*.txt"))
BUILT = {"pyspark"}  # published as source alone, which is Python and jars


@pytest.fixture(scope="session")
def uv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The resolver, installed by pip as the packages themselves are."""
    folder = tmp_path_factory.mktemp("resolver")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    lock = Path(__file__).parent / "uv.lock"
    command = [str(folder / "bin" / "pip"), "install", "--quiet", "--require-hashes", "-r", str(lock)]
    subprocess.run(command, check=True, capture_output=True)
    return folder / "bin" / "uv"


def lacking(uv: Path, requirements: Path, folder: Path, python: str, platform: str) -> set[str]:
    """Return the names of the packages that have no wheel; one is found at a time."""
    blocks = re.findall(r"^\S[^\n]*\n(?:[ #][^\n]*\n)*", requirements.read_text(encoding="utf-8"), re.M)
    left, found = [block for block in blocks if not block.startswith("#")], set[str]()
    while left:
        (folder / "left.txt").write_text("".join(left), encoding="utf-8")
        options = ["--target", str(folder / "target"), "--dry-run", "--no-deps", "--require-hashes"]
        machine = ["--only-binary", ":all:", "--python-version", python, "--python-platform", platform]
        done = subprocess.run(
            [str(uv), "pip", "install", *options, *machine, "-r", str(folder / "left.txt")],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == 0:
            break
        named = re.search(r"Because (\S+?)==\S+ has no", done.stderr)
        assert named is not None, done.stderr
        found.add(named[1])
        left = [block for block in left if not block.startswith(f"{named[1]}==")]
    return found


@pytest.mark.timeout(300)
@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13", "3.14"])
@pytest.mark.parametrize("platform", ["aarch64-manylinux_2_28", "x86_64-manylinux_2_28"])
def test_every_package_has_a_wheel(uv: Path, tmp_path: Path, python: str, platform: str) -> None:
    assert len(FILES) >= 3
    for requirements in FILES:
        assert lacking(uv, requirements, tmp_path, python, platform) <= BUILT, requirements.name


@pytest.mark.timeout(300)
def test_a_machine_that_no_wheel_is_for_is_found(uv: Path, tmp_path: Path) -> None:
    found = lacking(uv, ROOT / "requirements" / "lock.txt", tmp_path, "3.14", "aarch64-manylinux_2_17")
    assert found - BUILT
