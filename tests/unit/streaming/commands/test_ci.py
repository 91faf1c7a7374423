"""What continuous integration runs on specs: all faults told, a changed spec tried beside the old."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import polars as pl
import pytest
import yaml

import agent
from schemas.spec import load_spec
from streaming.batch import moved
from streaming.cli.root import main
from streaming.commands.ci import CiReport, markdown, run_ci
from streaming.commands.fixture_lake import Fixture, build_fixture
from streaming.definition.agent_definition import AgentDefinition
from streaming.delta.whole_tables import read_stored
from streaming.home.settings import Settings

SHIPPED = Path(agent.__file__).parent
SMALL = Fixture(rows=6_000, batches=3)


@pytest.fixture
def content(tmp_path: Path) -> Path:
    """The shipped content, to be changed, with the one spec that is tried."""
    folder = tmp_path / "content"
    for kind in ("specs", "policies", "prompts"):
        shutil.copytree(SHIPPED / kind, folder / kind)
    for other in ("amlsim", "handbook"):
        (folder / "specs" / f"{other}.yaml").unlink()
    return folder


def change(folder: Path, **changes: object) -> None:
    path = folder / "specs" / "card-fraud.yaml"
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    path.write_text(yaml.safe_dump({**content, **changes}), encoding="utf-8")


def faults(report: CiReport) -> list[str]:
    return [each.fault for each in report.checked if each.fault is not None]


def test_the_shipped_content_is_right_and_decides_as_before(content: Path) -> None:
    report = run_ci([content], [], SMALL)
    assert (report.exit_code, faults(report)) == (0, [])
    assert {each.kind for each in report.checked} == {"spec", "policy", "prompt", "cases"}
    (tried,) = report.tried
    assert (tried.exact.rows, tried.exact.differences, tried.changed) == (6_000, (), None)
    assert tried.exact.alerts > 0


def test_a_replay_within_a_tolerance_is_told_from_one_that_is_exact(
    content: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fixture's batches say that another machine has computed them."""
    exact = run_ci([content], [], SMALL)
    assert "**0 differences**, bit for bit." in markdown(exact)
    assert exact.facts()["tried"][0]["replay"]["tolerated"] is None
    monkeypatch.setattr(moved, "machine_fingerprint", lambda: "1-000000000000feed")
    report = run_ci([content], [], SMALL)
    assert report.exit_code == 0
    assert "**0 differences**, within a tolerance: 3 batches computed by a machine of another" in markdown(
        report
    )
    assert report.facts()["tried"][0]["replay"]["tolerated"]["batches"] == 3


def test_every_fault_is_told(content: Path) -> None:
    change(content, treshold=0.9)
    (content / "policies" / "default.json").write_text("{}", encoding="utf-8")
    (content / "rules").mkdir()
    (content / "rules" / "night.yaml").write_text("rules: [{name: odd}]", encoding="utf-8")
    prompt = content / "prompts" / "triage" / "v2.md"
    prompt.write_text(prompt.read_text(encoding="utf-8").replace("$data", "$dta"), encoding="utf-8")
    report = run_ci([content], [], SMALL)
    told = "\n".join(faults(report))
    assert (report.exit_code, len(faults(report)), report.tried) == (2, 4, ())
    for place in (
        "treshold: unknown key; did you mean 'threshold'?",
        "default.json",
        "night.yaml",
        "v2.md: user",
    ):
        assert place in told
    assert markdown(report).count("- **") == 4


@pytest.mark.long
def test_a_changed_spec_is_tried_beside_the_one_before(content: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(content, base)
    change(content, version="1.1.0", threshold=0.9)
    report = run_ci([content], [base], SMALL)
    (tried,) = report.tried
    assert tried.changed is not None
    assert tried.changed.added > 0 == tried.changed.removed
    assert tried.changed.published.judged == tried.changed.published.alerts, "all frauds are labelled"
    page = markdown(report)
    assert f"{tried.changed.added} alerts added, 0 removed" in page
    assert f"| alerts | {tried.changed.published.alerts} | {tried.changed.replayed.alerts} |" in page


@pytest.mark.long
def test_two_fixtures_of_one_seed_are_the_same_lake(tmp_path: Path) -> None:
    spec = load_spec(SHIPPED / "specs" / "card-fraud.yaml")
    lakes = []
    for name in ("one", "other"):
        settings = Settings.load(tmp_path / name, {})
        build_fixture(settings, AgentDefinition.of(spec), SMALL)
        tables = (read_stored(settings.lake(spec.name) / each) for each in ("transactions", "alerts"))
        lakes.append([pl.DataFrame(table).sort("sequence") for table in tables])
    for one, other in zip(*lakes, strict=True):
        assert one.equals(other)
        assert one.height > 0


@pytest.mark.long
def test_the_report_goes_to_the_job_s_summary(
    content: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    monkeypatch.setattr(sys, "argv", ["flagstream", "ci", str(content), "--rows", "600"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert (ended.value.code, capsys.readouterr().out) == (0, "")
    assert summary.read_text(encoding="utf-8").startswith("# Specs")


def test_a_folder_without_specs_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["flagstream", "ci", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
