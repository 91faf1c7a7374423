"""Compiled kernels of one version are never taken for those of another."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sandbox import Sandbox, require_namespaces

ROOT = Path(__file__).resolve().parents[2]
TYPES = """
from typing import NamedTuple
from streaming.arrays.compilation import compiled
class {name}(NamedTuple):
    value: int
@compiled
def raised(of):
    return of.value + {more}
"""
USER = """
from streaming.arrays.compilation import compiled
from streaming.probe_types import {imported}
@compiled
def twice(of):
    return 2 * raised(of)
def result():
    return twice({name}(20))
"""


IMPORTS = ("raised, {name}", "(\n    {name},\n    raised,\n)")
PROBES = [f"probe_{number}" for number in range(len(IMPORTS))]


def run(folder: Path, cache: str | None = None) -> set[tuple[int, int]]:
    """Return what the kernels of each probe say, and how many were compiled."""
    code = "\n".join(
        f"from streaming.{name} import result, twice\nprint(result(), sum(twice.stats.cache_misses.values()))"
        for name in PROBES
    )
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    environment.pop("NUMBA_CACHE_DIR", None)
    if cache is not None:
        environment["NUMBA_CACHE_DIR"] = str(folder / cache)
    done = subprocess.run(
        # Python takes its own compiled file for a source of the same size written within the same second.
        [sys.executable, "-B", "-c", code],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    assert len(said) == len(PROBES)
    return {(value, compiled) for value, compiled in said}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    arrays = tmp_path / "streaming" / "arrays"
    arrays.mkdir(parents=True)
    for name in ("__init__.py", "compilation.py", "kernel_cache.py", "kernel_folder.py"):
        (arrays / name).write_text((ROOT / "streaming" / "arrays" / name).read_text())
    (arrays.parent / "__init__.py").touch()
    return tmp_path


def write(project: Path, name: str, more: int) -> None:
    (project / "streaming" / "probe_types.py").write_text(TYPES.format(name=name, more=more))
    for probe, imported in zip(PROBES, IMPORTS, strict=True):
        text = USER.format(name=name, imported=imported.format(name=name))
        (project / "streaming" / f"{probe}.py").write_text(text)


def test_what_another_version_has_compiled_is_compiled_anew(project: Path) -> None:
    write(project, "Limit", 1)
    assert run(project) == {(42, 1)}
    assert run(project) == {(42, 0)}, "kept on disk"
    write(project, "Bound", 1)
    assert run(project) == {(42, 1)}, "a type that kept kernels name is gone"
    (project / "streaming" / "probe_types.py").write_text(TYPES.format(name="Bound", more=2))
    assert run(project) == {(44, 1)}, "a kernel that is called has changed, its caller has not"
    assert run(project, "elsewhere") == {(44, 1)}, "nothing is kept there yet"
    folders = [each for each in project.rglob("probe*-*") if each.is_dir()]
    assert len(folders) == 6, "of three modules in two places, nothing of earlier versions"


def test_nothing_is_looked_for_when_a_module_is_imported(project: Path) -> None:
    write(project, "Limit", 1)
    code = f"import streaming.{PROBES[0]}"
    environment = {"PYTHONPATH": str(project), "PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([sys.executable, "-c", code], env=environment, cwd=project, check=True)
    assert not list(project.rglob("__pycache__"))


def test_torn_files_are_compiled_anew(project: Path) -> None:
    write(project, "Limit", 1)
    assert run(project) == {(42, 1)}
    for suffix in (".nbi", ".nbc"):
        for each in project.rglob(f"probe*/*{suffix}"):
            each.write_bytes(each.read_bytes()[:20])
        assert run(project) == {(42, 1)}, suffix
        assert run(project) == {(42, 0)}, f"{suffix} kept anew"


NAMED = f"""
import sys
from pathlib import Path
from streaming.arrays.kernel_folder import keep_kernels_in
keep_kernels_in(Path(sys.argv[1]))
from streaming.{PROBES[0]} import result, twice
print(result(), sum(twice.stats.cache_misses.values()))
"""


def test_a_user_who_may_not_write_beside_the_code_reads_there_and_keeps_in_the_named_folder(
    project: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    require_namespaces()

    def run_hardened(folder: Path) -> list[str]:
        closed = Sandbox([f"chmod -R a-w {project}"], nameless=True, environ={"PYTHONPATH": str(project)})
        done = closed.run(sys.executable, "-B", "-c", NAMED, folder)
        subprocess.run(["chmod", "-R", "u+w", str(project)], check=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    write(project, "Limit", 1)
    named, nowhere = tmp_path_factory.mktemp("named"), Path("/proc/nowhere")
    assert run_hardened(nowhere) == ["42", "1"], "kept nowhere, and compiled"
    assert run_hardened(named) == ["42", "1"]
    assert run_hardened(named) == ["42", "0"]
    assert run(project) == {(42, 1)}
    assert run_hardened(nowhere) == ["42", "0"], "read beside the code"
