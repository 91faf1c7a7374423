"""A bundle that somebody owns and edits: read, put together for a target, checked."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import ConfigurationError
from streaming.databricks.bundle_tree import merged
from streaming.databricks.costs import job_costs
from streaming.databricks.references import followed
from streaming.databricks.resolved import ResolvedBundle, bundle_host, resolve
from streaming.databricks.sequences import job_run, rollback_run
from tests.unit.streaming.databricks.samples import GIVEN, USER, wheel, written


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return written(tmp_path / "bundle")


def resolved(bundle: Path, target: str = "prod", **more: str) -> ResolvedBundle:
    return resolve(bundle, target, {**GIVEN, **more}, USER, wheel())


def edited(bundle: Path, name: str = "databricks.yml", **changes: Any) -> None:
    path = bundle / name
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    path.write_text(yaml.safe_dump(merged(content, changes)), encoding="utf-8")


def test_every_reference_is_followed(bundle: Path) -> None:
    for target in ("dev", "staging", "prod"):
        assert "${" not in repr(resolved(bundle, target).resources)


def test_paths_lead_to_the_files_of_this_version(bundle: Path) -> None:
    found = resolved(bundle)
    task = found.jobs["smoke"]["tasks"][0]
    assert task["notebook_task"]["notebook_path"] == f"{found.file_path}/notebooks/smoke"
    assert task["libraries"][0] == {"whl": found.wheel}
    assert task["libraries"][1] == {"requirements": f"{found.file_path}/requirements.txt"}
    assert found.version in found.file_path
    assert found.file_path.startswith(found.root)


def test_two_targets_share_neither_lake_nor_schema(bundle: Path) -> None:
    found = [resolved(bundle, target) for target in ("dev", "staging", "prod")]
    lakes = {
        each.jobs["agent"]["job_clusters"][0]["new_cluster"]["spark_env_vars"]["FLAGSTREAM_STORE"]
        for each in found
    }
    assert len(lakes) == 3
    assert len({each.resources["schemas"]["schema"]["name"] for each in found}) == 3


def test_in_development_nothing_begins_by_itself_and_names_say_whose_they_are(bundle: Path) -> None:
    found = resolved(bundle, "dev")
    assert all(name.startswith("[dev anna_schmidt] ") for name in found.names().values())
    for job in found.jobs.values():
        for trigger in ("continuous", "schedule"):
            assert job.get(trigger, {"pause_status": "PAUSED"})["pause_status"] == "PAUSED"
    kept = found.jobs["agent"]["tasks"][0]["python_wheel_task"]["parameters"][1]
    assert found.resources["schemas"]["schema"]["name"] in kept


def test_a_target_lays_its_own_over_the_rest(bundle: Path) -> None:
    tags = {"jobs": {"agent": {"timeout_seconds": 5, "tasks": [{"task_key": "agent", "max_retries": 2}]}}}
    edited(bundle, targets={"prod": {"resources": tags, "variables": {"catalog": "risk"}}})
    found = resolved(bundle)
    assert found.jobs["agent"]["timeout_seconds"] == 5
    assert found.jobs["agent"]["tasks"][0]["max_retries"] == 2
    assert found.jobs["agent"]["tasks"][0]["python_wheel_task"]["entry_point"] == "flagstream-job"
    assert found.resources["schemas"]["schema"]["catalog_name"] == "risk"
    assert resolved(bundle, "staging").resources["schemas"]["schema"]["catalog_name"] == "main"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sync": {}}, r"sync: unknown here: `databricks bundle deploy` takes it"),
        ({"include": "resources/*.yml"}, "include: expected a list"),
        ({"include": ["../*.yml"]}, r"include: '\.\./\*\.yml' leads out of the bundle"),
        ({"resources": {"jobs": [1]}}, r"resources\.jobs: expected a mapping"),
        (
            {"targets": {"prod": {"resources": {"pipelines": {}}}}},
            r"targets\.prod\.resources\.pipelines: unknown",
        ),
        ({"resources": {"pipelines": {}}}, r"resources\.pipelines: unknown here"),
        ({"targets": {"prod": {"presets": {}}}}, r"targets\.prod\.presets: unknown here"),
        ({"artifacts": {"flagstream": {"build": "rm -rf /"}}}, "only the wheel of flagstream"),
        ({"variables": {"catalog": {"default": "${var.catalog}"}}}, "in a circle"),
        ({"variables": {"catalog": {"default": "${bundle.nmae}"}}}, "leads nowhere"),
        (
            {"targets": {"prod": {"resources": {"jobs": {"agent": {"continuos": {}}}}}}},
            r"resources\.jobs\.agent: does not fit",
        ),
    ],
)
def test_what_cannot_be_used_is_named(changes: dict[str, Any], said: str, bundle: Path) -> None:
    edited(bundle, **changes)
    with pytest.raises(ConfigurationError, match=said):
        resolved(bundle)


def test_the_home_of_whoever_deploys_may_stand_as_a_tilde_and_folders_may_hold_blanks(bundle: Path) -> None:
    edited(bundle, targets={"prod": {"workspace": {"root_path": "~/of mine/${bundle.name}"}}})
    assert resolved(bundle).root == f"/Workspace/Users/{USER}/of mine/card-fraud"


@pytest.mark.parametrize("path", ["agents/x", "/Workspace/Users/a/../b", "", "..", "~", None, 5])
def test_a_folder_that_leads_elsewhere_or_nowhere_is_refused(path: object, bundle: Path) -> None:
    edited(bundle, targets={"prod": {"workspace": {"root_path": path}}})
    with pytest.raises(ConfigurationError, match=r"workspace\.root_path: expected a folder of the workspace"):
        resolved(bundle)


@pytest.mark.parametrize(
    "name", ["../outside.py", "../../outside.py", "../notebooks/smoek.py", "../notebooks"]
)
def test_a_task_runs_what_the_bundle_brings_and_nothing_else(name: str, bundle: Path) -> None:
    (bundle.parent / "outside.py").write_text("print()", encoding="utf-8")
    tasks = [{"task_key": "smoke", "notebook_task": {"notebook_path": name}}]
    edited(bundle, "resources/jobs.yml", resources={"jobs": {"smoke": {"tasks": tasks}}})
    with pytest.raises(ConfigurationError, match=r"jobs\.yml: smoke: .* is no file of the bundle"):
        resolved(bundle)


def test_a_task_of_one_target_and_a_script_lead_to_the_files_of_this_version_too(bundle: Path) -> None:
    (bundle / "more.py").write_text("print()", encoding="utf-8")
    tasks = [
        {"task_key": "smoke", "notebook_task": {"notebook_path": "notebooks/tables.py"}},
        {"task_key": "more", "spark_python_task": {"python_file": "more.py"}},
    ]
    edited(bundle, targets={"prod": {"resources": {"jobs": {"smoke": {"tasks": tasks}}}}})
    found = resolved(bundle)
    smoke, more = found.jobs["smoke"]["tasks"]
    assert smoke["notebook_task"]["notebook_path"] == f"{found.file_path}/notebooks/tables"
    assert more["spark_python_task"]["python_file"] == f"{found.file_path}/more.py"


def test_a_job_of_several_tasks_is_resolved_and_refused_as_a_run_on_its_own(bundle: Path) -> None:
    more = [{"task_key": "more", "notebook_task": {"notebook_path": "notebooks/tables.py"}}]
    edited(bundle, targets={"prod": {"resources": {"jobs": {"tables": {"tasks": more}}}}})
    with pytest.raises(
        ConfigurationError, match="card-fraud-tables-prod: has 2 tasks: a run on its own is of one"
    ):
        job_run(resolved(bundle), "tables", "now")


def test_a_key_whose_content_is_commented_out_takes_nothing_away(bundle: Path) -> None:
    whole = resolved(bundle).resources
    edited(bundle, targets={"prod": {"resources": None, "variables": None}})
    assert resolved(bundle).resources.keys() == whole.keys()


def test_the_address_of_a_workspace_is_no_reference(bundle: Path) -> None:
    edited(bundle, workspace={"host": "${var.catalog}"})
    with pytest.raises(ConfigurationError, match=r"workspace\.host: the login is chosen by it"):
        bundle_host(bundle, "prod")


def nodes(tree: Any, names: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield names
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree if isinstance(tree, list) else ())
    for name, each in inner:
        yield from nodes(each, (*names, name))


def with_another(tree: Any, names: tuple[Any, ...], value: object) -> Any:
    if not names:
        return value
    changed = tree.copy()
    changed[names[0]] = with_another(tree[names[0]], names[1:], value)
    return changed


@pytest.mark.long
@pytest.mark.parametrize("name", ["databricks.yml", "resources/jobs.yml", "resources/catalog.yml"])
@pytest.mark.parametrize("value", [None, "x", "${x}", 5, [None], {"x": None}])
def test_whatever_stands_at_one_place_the_bundle_is_used_or_refused_by_one_of_our_errors(
    name: str, value: object, bundle: Path
) -> None:
    whole = yaml.safe_load((bundle / name).read_text(encoding="utf-8"))
    for names in random.Random(f"{name} {value}").sample([*nodes(whole)], 12):
        (bundle / name).write_text(yaml.safe_dump(with_another(whole, names, value)), encoding="utf-8")
        with suppress(ConfigurationError):
            bundle_host(bundle, "prod")
            found = resolved(bundle)
            job_costs(found.jobs, 1.0)
            for each in found.names():
                job_run(found, each, "now")
            rollback_run(found, "why", 0)


def test_a_target_and_a_variable_that_there_are_not_are_named(bundle: Path) -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'prod'"):
        resolved(bundle, "production")
    with pytest.raises(ConfigurationError, match="no variable 'cataloge'"):
        resolved(bundle, cataloge="x")
    with pytest.raises(
        ConfigurationError, match=r"variables\.store: has no value: give it with --var store="
    ):
        resolve(bundle, "prod", {**GIVEN, "store": ""}, USER, wheel())


def test_the_version_follows_from_the_content_alone(bundle: Path) -> None:
    first = resolved(bundle).version
    assert resolved(bundle).version == first
    assert resolved(bundle, runtime="18.1.x-scala2.13").version != first
    spec = bundle / "agent" / "spec.yaml"
    spec.write_text(spec.read_text(encoding="utf-8").replace("0.995", "0.99"), encoding="utf-8")
    assert resolved(bundle).version != first


def test_what_is_hidden_or_built_stays_here(bundle: Path) -> None:
    before = resolved(bundle)
    for name in (".env", ".git/config", "dist/old.whl", ".databricks/state.json"):
        (bundle / name).parent.mkdir(parents=True, exist_ok=True)
        (bundle / name).write_text("token: dapi-secret", encoding="utf-8")
    assert resolved(bundle).files == before.files


def test_a_file_that_is_too_large_for_a_workspace_is_named(bundle: Path) -> None:
    with (bundle / "model.bin").open("wb") as file:
        file.truncate(11 * 1024 * 1024)
    with pytest.raises(ConfigurationError, match=r"model\.bin: larger than 10 MiB"):
        resolved(bundle)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet="abc $.{}", max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(PLAIN)
def test_what_holds_no_reference_stays_as_it_is(value: Any) -> None:
    def lookup(name: str) -> object:
        raise AssertionError(name)

    assert followed(value, lookup) == value


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers() | st.text("xy", max_size=3), min_size=1))
def test_a_reference_alone_keeps_its_type_and_within_a_text_becomes_text(known: dict[str, Any]) -> None:
    for name, value in known.items():
        assert followed(f"${{{name}}}", known.__getitem__) == value
        assert followed({"k": [f"<${{{name}}}>"]}, known.__getitem__) == {"k": [f"<{value}>"]}


TREES = st.recursive(
    st.integers(), lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3), max_leaves=8
).filter(lambda found: isinstance(found, dict))


@given(TREES, TREES)
def test_what_lies_above_counts_and_what_is_below_stays(below: dict[str, Any], above: dict[str, Any]) -> None:
    found = merged(below, above)
    assert set(found) == set(below) | set(above)
    assert merged(found, above) == found
    for key in set(below) - set(above):
        assert found[key] == below[key]
