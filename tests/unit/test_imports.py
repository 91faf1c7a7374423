from __future__ import annotations

import ast
import re
import subprocess
import sys
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
# Tests that name nothing of the package they lie under, and why they lie there.
BY_WAY_OF_OTHERS = {
    "tests/unit/streaming/batch/test_contract_changes.py": "a whole agent of streaming.testing",
    "tests/unit/streaming/history/test_store_cost.py": "its arithmetic is tests.store_cost",
    "tests/unit/streaming/serve/test_alerts_api.py": "asked over HTTP, put together by tests.served",
}
# A reader has to know what a package imports; decision 0042 says what the numbers were and when they rise.
MOST_PACKAGES, MOST_IMPORTS = 39, 265
# The command line offers the benchmarks, too.
EXCEPTIONS = {("streaming/cli/bench.py", "benchmarks")}

# What options are parsed into, and how the process is set up before anything is done.
BESIDE_COMMANDS = {
    "streaming.cases.choosing",
    "streaming.cases.orders",
    "streaming.files.dialect",
    "streaming.history.asking",
    "streaming.history.replay_runs",
    "streaming.home.listen",
    "streaming.home.placed_agent",
    "streaming.home.settings",
    "streaming.labels.label_files",
    "streaming.output.log",
    "streaming.quarantine.choosing",
    "streaming.versions.moving",
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
    for path in sorted((ROOT / "streaming").glob("*/**/*.py")):
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


def test_packages_and_the_imports_between_them_do_not_become_more() -> None:
    found = packages_imported()
    assert len(found) <= MOST_PACKAGES
    assert sum(map(len, found.values())) <= MOST_IMPORTS, "see decision 0042"


@pytest.mark.parametrize("folder", ["streaming", "agent"])
def test_a_layer_holds_packages_only(folder: str) -> None:
    assert [path.name for path in (ROOT / folder).glob("*.py")] == ["__init__.py"]


def test_the_page_of_the_architecture_lists_each_package_of_the_data_path() -> None:
    page = (ROOT / "docs" / "ARCHITECTURE.md").read_text(encoding="utf-8")
    (listed,) = re.findall(r"^streaming/ .*\n((?:  .*\n)+)", page, re.MULTILINE)
    names = [line.split()[0] for line in listed.splitlines()]
    assert sorted(names) == sorted(packages_imported())


def packages_of(folder: Path) -> set[str]:
    return {path.parent.name for path in folder.glob("*/*.py")}


@pytest.mark.parametrize("layer", ["streaming", "agent"])
def test_tests_lie_in_folders_as_the_packages_do(layer: str) -> None:
    assert packages_of(ROOT / "tests" / "unit" / layer) == packages_of(ROOT / layer)
    assert [path.name for path in (ROOT / "tests" / "unit" / layer).glob("test_*.py")] == []


def names_its_package(test: Path) -> bool:
    """Say whether a test is about where it lies; one that tries a whole agent need not name its part."""
    package = ".".join(test.parent.relative_to(ROOT / "tests" / "unit").parts)
    named = rf"\b({re.escape(package)}|streaming\.testing\.trial)\b"
    return re.search(named, test.read_text(encoding="utf-8")) is not None


def test_a_test_names_the_package_that_it_lies_under() -> None:
    unit = ROOT / "tests" / "unit"
    layers = ("streaming", "agent", "schemas")
    files = [path for layer in layers for path in (unit / layer).rglob("test_*.py")]
    assert len(files) > 200
    elsewhere = {path.relative_to(ROOT).as_posix() for path in files if not names_its_package(path)}
    assert elsewhere == set(BY_WAY_OF_OTHERS)


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


def test_the_command_line_alone_loads_no_large_library() -> None:
    """Most of a short command's time would be imports."""
    large = {
        *("pyspark", "deltalake", "numba", "openai", "pandas", "polars", "confluent_kafka", "sklearn"),
        *("scipy", "fastapi", "uvicorn", "opentelemetry", "prometheus_client", "databricks", "matplotlib"),
    }
    code = f"import sys, streaming.cli.root; print(sorted({large!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
