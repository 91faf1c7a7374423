from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = {"schemas", "agent", "streaming", "benchmarks", "tests"}
MAY_IMPORT = {
    "schemas": {"schemas"},
    "agent": {"agent", "schemas"},
    "streaming": {"streaming", "agent", "schemas"},
    "benchmarks": {"benchmarks", "streaming", "agent", "schemas"},
}
# The command line offers the benchmarks, too.
EXCEPTIONS = {("streaming/cli/bench.py", "benchmarks")}

# What options are parsed into, and how the process is set up before anything is done.
BESIDE_COMMANDS = {
    "streaming.arrays.kernel_folder",
    "streaming.files.dialect",
    "streaming.history.asking",
    "streaming.history.replay_runs",
    "streaming.home.private_files",
    "streaming.home.settings",
    "streaming.labels.label_files",
    "streaming.output.log",
    "streaming.quarantine.choosing",
    "streaming.service.interrupts",
    "streaming.setup.machine_limits",
}


def imported(source: str) -> set[str]:
    return {name.partition(".")[0] for node in ast.walk(ast.parse(source)) for name in names(node)}


def names(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "relative imports hide the direction"
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imports_of(package: str) -> set[tuple[str, str]]:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files, f"no modules in {package}"
    return {
        (path.relative_to(ROOT).as_posix(), name)
        for path in files
        for name in imported(path.read_text(encoding="utf-8"))
    }


@pytest.mark.parametrize("package", sorted(MAY_IMPORT))
def test_imports_go_from_streaming_to_agent_to_schemas_and_never_back(package: str) -> None:
    forbidden = PROJECT - MAY_IMPORT[package]
    assert {found for found in imports_of(package) if found[1] in forbidden} <= EXCEPTIONS


def packages_imported() -> dict[str, set[str]]:
    """Package of the data path → those that it imports."""
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / "streaming").rglob("*.py")):
        own = place(path.relative_to(ROOT).with_suffix("").as_posix().replace("/", "."))
        tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        known = (name for node in tree for name in names(node) if name.startswith("streaming."))
        found.setdefault(own, set()).update({place(name) for name in known} - {own})
    return found


def test_every_arrow_of_the_packages_diagram_is_an_import() -> None:
    page = (ROOT / "docs" / "ARCHITECTURE.md").read_text(encoding="utf-8")
    (diagram,) = re.findall(r"```mermaid\nflowchart TD\n(.*?)```", page, re.DOTALL)
    arrows = [line.strip().split(" --> ") for line in diagram.splitlines()]
    found = packages_imported()
    assert len(arrows) > 10
    assert [(own, other) for own, other in arrows if other not in found[own]] == []


def test_packages_of_the_data_path_import_each_other_in_one_direction() -> None:
    found = packages_imported()
    order = list(TopologicalSorter(found).static_order())
    assert order.index("delta") < order.index("batch") < order.index("run") < order.index("cli")


def test_tests_import_by_absolute_names() -> None:
    assert imports_of("tests")  # which refuses relative ones


def test_nothing_in_production_imports_what_is_for_tests() -> None:
    files = [path for package in ("schemas", "agent", "streaming") for path in (ROOT / package).rglob("*.py")]
    production = [path for path in files if not path.is_relative_to(ROOT / "streaming" / "testing")]
    assert len(files) > len(production) > 0
    for path in production:
        text = path.read_text(encoding="utf-8")
        found = {name for node in ast.walk(ast.parse(text)) for name in names(node)}
        assert not {name for name in found if name.startswith("streaming.testing")}, path


def place(module: str) -> str:
    """The package of a module of the data path, or the module itself where it stands alone."""
    return module.split(".")[1]


@pytest.mark.parametrize("package", ["agent", "schemas"])
def test_only_streaming_and_benchmarks_know_spark(package: str) -> None:
    assert not {found for found in imports_of(package) if found[1] in {"pyspark", "delta"}}


def test_imports_inside_functions_and_type_checking_blocks_count() -> None:
    late = "def late():\n    from agent.triage import x\n"
    guarded = "if TYPE_CHECKING:\n    import pyspark.sql\n"
    assert imported("import os.path\n" + late + guarded) == {"os", "agent", "pyspark"}


def test_the_command_line_parses_and_leaves_doing_and_showing_to_commands() -> None:
    allowed = ("streaming.cli", "streaming.commands", *BESIDE_COMMANDS)
    for path in sorted((ROOT / "streaming" / "cli").glob("*.py")):
        tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        found = {name for node in tree for name in names(node) if name.startswith(("streaming.", "rich"))}
        assert not {name for name in found if not name.startswith(allowed)}, path.name
