from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from schemas.spec import load_spec
from streaming.audit.access import record_done, record_read
from streaming.audit.audit_log import AuditPlaces
from streaming.cli.root import main
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from tests.unit.streaming.audit.test_audit_log import SPEC, batch, filled, log, rewrite
from tests.unit.streaming.commands.test_cost import BATCHES_DONE, lake_with


class Shell:
    """Calls the command line in this process."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], home: Path
    ) -> None:
        self._monkeypatch, self._capsys, self.home = monkeypatch, capsys, home
        self.spec = home.parent / "tester.yaml"
        self.spec.write_text(yaml.safe_dump(SPEC.model_dump(mode="json")), encoding="utf-8")
        self.errors = ""

    def __call__(self, *arguments: object) -> tuple[int, str]:
        given = [*map(str, arguments), "--spec", str(self.spec), "--home", str(self.home)]
        self._monkeypatch.setattr(sys, "argv", ["flagstream", *given])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = self._capsys.readouterr()
        self.errors = printed.err
        return int(ended.value.code or 0), printed.out

    def json(self, *arguments: object) -> tuple[int, dict[str, Any]]:
        code, printed = self(*arguments, "--json")
        return code, json.loads(printed)


@pytest.fixture
def flagstream(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Shell:
    return Shell(monkeypatch, capsys, tmp_path / "home")


def read_by(flagstream: Shell, command: str = "explain") -> None:
    record_read(PlacedAgent(Settings.load(flagstream.home, {}), SPEC), command, ["alerts", "transactions"])


def test_a_sound_log_is_sound(flagstream: Shell) -> None:
    filled(flagstream.home)
    code, found = flagstream.json("audit", "verify")
    assert (code, found["sound"], found["rows"], found["findings"]) == (0, True, 10, [])
    code, printed = flagstream("audit", "verify")
    assert (code, printed) == (0, "sound: 10 rows up to number 9, anchored at 9\n")


def test_a_broken_log_is_told_by_row_with_exit_1(flagstream: Shell) -> None:
    rewrite((filled(flagstream.home).table).path, "edit")
    code, printed = flagstream("audit", "verify")
    assert (code, printed.splitlines()[0]) == (1, "row 4: edited: its content does not fit its hash")
    assert printed.splitlines()[1].startswith("BROKEN")
    code, found = flagstream.json("audit", "verify")
    assert (code, found["findings"][0]["number"], found["findings"][0]["problem"]) == (1, 4, "edited")


def test_a_copy_of_the_anchor_finds_what_was_set_back_as_a_whole(flagstream: Shell, tmp_path: Path) -> None:
    where = filled(flagstream.home, 1)
    shutil.copytree(flagstream.home, tmp_path / "earlier")
    log(flagstream.home).record(batch(1))
    copy = shutil.copy(where.anchor.place.path, tmp_path / "copy.anchor")
    shutil.rmtree(flagstream.home)
    shutil.copytree(tmp_path / "earlier", flagstream.home)
    assert flagstream("audit", "verify")[0] == 0
    code, printed = flagstream("audit", "verify", "--anchor", copy)
    assert (code, printed.splitlines()[0]) == (
        1,
        "row 2: cut: rows 2 to 3 are cut off: the anchor names row 3",
    )


def test_what_cannot_be_verified_is_bad_input(flagstream: Shell, tmp_path: Path) -> None:
    assert flagstream("audit", "verify")[0] == 2
    assert "nothing was recorded yet" in flagstream.errors
    filled(flagstream.home)
    (tmp_path / "no.anchor").write_text("[]", encoding="utf-8")
    assert flagstream("audit", "verify", "--anchor", tmp_path / "no.anchor")[0] == 2
    assert "no.anchor: holds no anchor" in flagstream.errors
    (flagstream.home / "audit" / "tester" / "key").unlink()
    assert flagstream("audit", "verify")[0] == 2
    assert "key is gone" in flagstream.errors


def test_the_newest_events_are_shown_and_filtered(flagstream: Shell) -> None:
    filled(flagstream.home, 3)
    read_by(flagstream)
    code, printed = flagstream("audit", "show", "--count", 2, "--json")
    rows = [json.loads(line) for line in printed.splitlines()]
    assert (code, [row["number"] for row in rows]) == (0, [5, 6])
    assert rows[1]["detail"]["tables"] == ["alerts", "transactions"]
    code, printed = flagstream("audit", "show", "--kind", "data_access")
    assert (code, "explain" in printed, "step_1" in printed) == (0, True, False)
    assert flagstream("audit", "show", "--kind", "data_acess")[0] == 2
    assert "did you mean 'data_access'" in flagstream.errors


def test_verifying_and_showing_change_nothing(flagstream: Shell) -> None:
    filled(flagstream.home)
    before = sorted((path, path.stat().st_mtime_ns) for path in flagstream.home.rglob("*"))
    for arguments in (("audit", "verify"), ("audit", "show"), ("cost",)):
        assert flagstream(*arguments)[0] == 0
    assert sorted((path, path.stat().st_mtime_ns) for path in flagstream.home.rglob("*")) == before


def test_each_command_is_told_once_with_who_ran_it(flagstream: Shell) -> None:
    filled(flagstream.home, 1)
    read_by(flagstream)
    read_by(flagstream)
    record_done(PlacedAgent(Settings.load(flagstream.home, {}), SPEC), "labels-import", 12)
    _, printed = flagstream("audit", "show", "--json")
    rows = [json.loads(line) for line in printed.splitlines()][2:]
    assert [(row["kind"], row["subject"]) for row in rows] == [
        ("data_access", "explain"),
        ("data_access", "explain"),
        ("action", "labels-import"),
    ]
    assert all(row["detail"]["actor"].startswith("uid:") for row in rows)
    assert rows[2]["detail"]["rows"] == 12
    assert flagstream("audit", "verify")[0] == 0


def test_a_log_that_cannot_be_written_is_a_note_and_no_fault(
    flagstream: Shell, capsys: pytest.CaptureFixture[str]
) -> None:
    where = filled(flagstream.home, 1)
    where.anchor.place.path.unlink()
    read_by(flagstream)
    assert "not recorded in the audit log" in capsys.readouterr().err


def test_a_command_begins_no_log_for_an_agent_that_never_ran(flagstream: Shell) -> None:
    read_by(flagstream)
    assert not flagstream.home.exists()


def test_an_import_of_labels_is_an_action(flagstream: Shell, tmp_path: Path) -> None:
    filled(flagstream.home, 1)
    labels = tmp_path / "labels.csv"
    labels.write_text("transaction_id,is_fraud\nt1,1\nt2,0\n", encoding="utf-8")
    code, _ = flagstream.json("labels", "import", labels)
    assert code == 0
    _, printed = flagstream("audit", "show", "--kind", "action", "--count", 1, "--json")
    row = json.loads(printed)
    assert (row["subject"], row["detail"]["rows"]) == ("labels-import", 2)


def test_costs_are_printed_for_people_and_programs(flagstream: Shell) -> None:
    lake_with(
        (AuditPlaces(PlacedAgent(Settings.load(flagstream.home, {}), SPEC)).table.parent).path, BATCHES_DONE
    )
    code, found = flagstream.json("cost", "--by", "model")
    assert code == 0
    assert {row["model"]: row["llm_calls"] for row in found["rows"]} == {"small": 3, "large": 2, "none": 0}
    assert found["unpriced"] == ["large", "small"]
    code, printed = flagstream("cost", "--by", "prompt")
    assert (code, "triage/2" in printed, "no price in llm.prices" in printed) == (0, True, True)
    assert flagstream("cost", "--by", "modle")[0] == 2
    assert "did you mean 'model'" in flagstream.errors


def test_a_forecast_is_printed_for_people_and_programs(flagstream: Shell) -> None:
    code, found = flagstream.json("cost", "--forecast", 1000, "--compute-price", 0.25)
    assert (code, found["compute_usd_per_day"], found["events_per_day"]) == (0, 6.0, 86_400_000)
    code, printed = flagstream("cost", "--forecast", 1000)
    assert code == 0
    assert "assumed" in printed
    assert flagstream("cost", "--forecast", 0)[0] == 2
    assert load_spec(flagstream.spec).compute_price == 0.0
