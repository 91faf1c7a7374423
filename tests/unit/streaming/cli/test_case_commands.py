"""`flagstream case`: what it prints, what it ends with, and that no text of others steers it."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent.audit.events import AuditEvent
from streaming.audit.audit_log import AuditPlaces, LakeAudit
from streaming.cases.actions import CaseRefusedError
from streaming.cli.root import carried_out
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.testing.small_lake import build_lake, spec_of

HOSTILE = "<script>\x1b[31m\u202ered [bold]"


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The options that name a small lake."""
    home = tmp_path_factory.mktemp("home")
    build_lake(PlacedAgent(Settings.load(home, {}), spec_of()))
    spec = home / "spec.yaml"
    spec.write_text(yaml.safe_dump(spec_of().model_dump(mode="json")), encoding="utf-8")
    return ["--spec", str(spec), "--home", str(home)]


def told(capsys: pytest.CaptureFixture[str], lake: list[str], *words: str) -> Any:
    assert carried_out(["case", *words, *lake, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def shown(capsys: pytest.CaptureFixture[str], lake: list[str], *words: str) -> str:
    assert carried_out(["case", *words, *lake]) == 0
    return capsys.readouterr().out


def test_a_case_from_the_list_to_its_end(
    lake: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    page = told(capsys, lake, "list", "--limit", "2")
    assert (len(page["cases"]), page["facets"]["status"]) == (2, {"open": page["total"]})
    one, two = (each["case_id"] for each in page["cases"])
    assert told(capsys, lake, "claim", "--who", "anna")["case_id"] == one
    assert told(capsys, lake, "merge", two, "--into", one, "--who", "anna")["merged_into"] == one
    told(capsys, lake, "comment", one, HOSTILE, "--who", "anna")
    note = tmp_path / "note.txt"
    note.write_text("called them", encoding="utf-8")
    assert told(capsys, lake, "attach", one, str(note))["attachments"] == 1
    case = told(capsys, lake, "escalate", one[:6], "--who", "anna")
    assert (
        carried_out(["case", "close", one, *lake, "--reason", "fraud", "--seen", "0", "--who", "anna"]) == 1
    )
    assert "changed since" in capsys.readouterr().err
    done = told(
        capsys, lake, "close", one, "--reason", "fraud", "--seen", str(case["version"]), "--who", "anna"
    )
    assert (done["status"], done["labels"]) == ("closed", "written")
    text = shown(capsys, lake, "show", one)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "<script>" in text
    file = tmp_path / "case.json"
    assert "digest" in shown(capsys, lake, "export", one, "--file", str(file))
    assert "differs" not in shown(capsys, lake, "verify", "--file", str(file))
    assert told(capsys, lake, "reopen", one)["status"] == "open"
    assert told(capsys, lake, "undo", one)["status"] == "closed"


def test_many_cases_are_changed_after_a_dry_run(lake: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    words = ["update", "--do", "assign", "--to", "bert", "--assignee", "-", "--severity", "high"]
    dry = told(capsys, lake, *words, "--dry-run")
    assert dry["changed"] == dry["meant"] > 0
    assert told(capsys, lake, *words, "--expect", str(dry["changed"]))["changed"] == dry["changed"]
    assert told(capsys, lake, "list", "--assignee", "bert")["total"] == dry["changed"]
    assert carried_out(["case", *words, *lake, "--expect", "1"]) == 1


def test_lists_fit_the_terminal(
    lake: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = shown(capsys, lake, "list", "--status", "open", "--status", "closed").splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("case ")


def test_what_is_wrong_ends_with_its_exit_code(lake: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for words, code in (
        (["show", "0000"], 2),
        (["list", "--status", "opne"], 2),
        (["list", "--entity", "customer"], 2),
        (["list", "--after", "x"], 2),
        (["claim", "--who", "no name"], 2),
        (["update", "--do", "close"], 2),
        (
            ["reopen", told(capsys, lake, "list", "--limit", "1")["cases"][0]["case_id"]],
            CaseRefusedError.exit_code,
        ),
    ):
        assert carried_out(["case", *words, *lake]) == code, words


def test_an_edited_file_ends_with_one(
    lake: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    case = told(capsys, lake, "list", "--limit", "1")["cases"][0]["case_id"]
    file = tmp_path / "case.json"
    told(capsys, lake, "export", case, "--file", str(file))
    file.write_text(
        file.read_text(encoding="utf-8").replace('"currency": "EUR"', '"currency": "USD"'), "utf-8"
    )
    assert carried_out(["case", "verify", *lake, "--file", str(file)]) == 1
    assert "changed in the file" in capsys.readouterr().out
    for content in (b"[]", b"\xff"):
        file.write_bytes(content)
        assert carried_out(["case", "verify", *lake, "--file", str(file)]) == 2


def test_the_audit_log_says_how_cases_were_closed(
    lake: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    agent = PlacedAgent(Settings.load(Path(lake[-1]), {}), spec_of())
    begun = AuditEvent("action", "run", {"command": "run", "rows": 0}, "command/begun", 0)
    LakeAudit(AuditPlaces(agent), timedelta(days=30)).record([begun])
    one, two, three = (
        each["case_id"] for each in told(capsys, lake, "list", "--status", "open", "--limit", "3")["cases"]
    )
    told(capsys, lake, "close", one, "--reason", "genuine", "--who", "anna")
    for each in (two, three):
        told(capsys, lake, "assign", each, "--to", "carla")
    many = ["update", "--do", "close", "--reason", "other", "--assignee", "carla", "--expect", "2"]
    told(capsys, lake, *many, "--who", "carla")
    told(capsys, lake, "comment", one, "as she said", "--who", "anna")
    assert carried_out(["audit", "show", *lake, "--kind", "action", "--json"]) == 0
    details = [json.loads(line)["detail"] for line in capsys.readouterr().out.splitlines()]
    rows = {each["command"]: each for each in details}
    closed, mass = (each for each in details if each["command"] == "case-close")
    assert (closed["reason"], closed["case"], closed["who"]) == ("genuine", f"case-{one}", "anna")
    assert (mass["reason"], mass["who"]) == ("other", "carla")
    assert sorted(mass["cases"]) == sorted(f"case-{each}" for each in (two, three))
    assert "reason" not in rows["case-comment"]
