"""The real pip installs from a folder: what set-up says of it, and what it says when that fails."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "streaming" / "setup" / "install.py"
WHEEL = "a_probe-1.0-py3-none-any.whl"


@pytest.fixture
def requirements(tmp_path: Path) -> Path:
    wheel = tmp_path / WHEEL
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("a_probe.py", "FOUND = True\n")
        archive.writestr(
            "a_probe-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: a-probe\nVersion: 1.0\n"
        )
        archive.writestr(
            "a_probe-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("a_probe-1.0.dist-info/RECORD", "")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    file = tmp_path / "requirements.txt"
    file.write_text(f"a-probe==1.0 \\\n    --hash=sha256:{digest}\n", encoding="utf-8")
    return file


def install(requirements: Path) -> subprocess.CompletedProcess[str]:
    folder = requirements.parent
    options = ["--no-index", "--find-links", folder, "--target", folder / "there", "--no-cache-dir"]
    command = [sys.executable, SCRIPT, requirements, "a probe", *options]
    return subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)


def test_what_is_installed_is_said_first_and_how_long_it_took_last(requirements: Path) -> None:
    done = install(requirements)
    assert (done.returncode, done.stderr) == (0, "")
    assert (requirements.parent / "there" / "a_probe.py").is_file()
    lines = done.stdout.splitlines()
    assert lines[0] == f"{requirements}: a probe"
    assert lines[-1].startswith("  done in ")


def test_what_pip_complains_of_is_shown_with_what_to_do(requirements: Path) -> None:
    other = requirements.read_text(encoding="utf-8").partition("sha256:")[0] + "sha256:" + "0" * 64
    requirements.write_text(other, encoding="utf-8")
    done = install(requirements)
    assert done.returncode != 0
    assert "DO NOT MATCH THE HASHES" in done.stderr
    assert "run `make setup` again" in done.stderr
