"""What-ifs on a real lake whose agent asked a scripted model: whose answers count, what is asked and told."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from deltalake import DeltaTable

from agent.triage.triage import Quote
from schemas.errors import ConfigurationError
from schemas.spec import AgentSpec, load_spec
from streaming.audit.audit_log import AuditPlaces
from streaming.audit.audit_reading import newest_events
from streaming.cli.root import main
from streaming.commands.what_if_page import page
from streaming.commands.what_if_view import show_what_if
from streaming.delta.whole_tables import read_stored
from streaming.history import replay, what_if_report
from streaming.history.asking import Asking
from streaming.history.replay_runs import ReplaySpan, run_what_if
from streaming.history.what_if_found import NO_ALERT, Changes, WhatIf
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.labels.judged_rows import JudgedRows, card_precision_at_k
from streaming.output.terminal import Terminal
from streaming.store.place import Place
from streaming.testing.live_lake import LARGE, agent, events, judge, run_live, without_broker
from streaming.testing.scripted_llm import ScriptedLlm, answer, fails, scripted_llm

ROWS = 720
MODEL, OTHER_MODEL = "gpt-4o-mini", "gpt-4.1"
PRICES = {name: {"input": 1.0, "output": 10.0} for name in (MODEL, OTHER_MODEL)}
PUBLISHED_BUDGET = 30


@dataclass(frozen=True)
class Lived:
    """A home of an agent that asked a model, the server that answered, and how often it was asked."""

    settings: Settings
    server: ScriptedLlm
    asked: int

    def spec(self, **changes: Any) -> AgentSpec:
        """Return the agent's spec, changed; `llm` is added to what it says."""
        llm = {"base_url": self.server.base_url, "mode": "inline", "model": MODEL, "prices": PRICES}
        llm |= changes.pop("llm", {})
        return agent(**{"alerts_per_day": PUBLISHED_BUDGET, **changes}, llm=llm)

    def what_if(self, asking: Asking | None = None, **changes: Any) -> WhatIf:
        """Replay under a candidate that differs."""
        candidate = self.spec(**{"version": "2.0.0", **changes})
        return run_what_if(
            PlacedAgent(self.settings, self.spec()), candidate, ReplaySpan(), asking=asking or Asking()
        )

    @property
    def new_requests(self) -> int:
        """How often the model was asked since the agent ended."""
        return len(self.server.requests) - self.asked

    def table(self, name: str, found: WhatIf | None = None) -> pl.DataFrame:
        """Return a table of the agent, or of a sandbox."""
        folder = self.settings.lake("tester") if found is None else Place.local(found.sandbox)
        return pl.DataFrame(read_stored(folder / name))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, ScriptedLlm]]:
    home = tmp_path_factory.mktemp("home")
    with scripted_llm(default=answer(severity="critical")) as server, pytest.MonkeyPatch.context() as patch:
        without_broker(patch)
        settings = Settings.load(home, {})
        spec = Lived(settings, server, 0).spec()
        run_live(PlacedAgent(settings, spec), events(ROWS), llm="auto")
        alerts = read_stored(settings.lake("tester") / "alerts")
        assert alerts is not None
        assert set(alerts["classification_source"].to_pylist()) == {"llm"}
        judge(PlacedAgent(settings, spec), [*alerts["transaction_id"].to_pylist()[::3], "t00001", "t00002"])
        yield home, server


@pytest.fixture
def lived(home: tuple[Path, ScriptedLlm], tmp_path: Path) -> Lived:
    shutil.copytree(home[0], tmp_path / "home")
    return Lived(Settings.load(tmp_path / "home", {}), home[1], len(home[1].requests))


def model_calls(lived: Lived) -> int:
    return len(newest_events(AuditPlaces(PlacedAgent(lived.settings, lived.spec())), "model_call", 1_000))


def test_the_same_spec_answers_from_the_record_and_changes_nothing(lived: Lived) -> None:
    found = lived.what_if()
    assert (found.changes, found.unanswered, lived.new_requests) == (Changes(), 0, 0)
    assert found.answering.same_question == found.replayed.alerts == found.replayed.answered > 10
    assert found.answering.left == Quote()
    assert found.flips["severity"] == {"critical": {"critical": found.kept}}
    assert (found.published, found.entities, found.reasons) == (found.replayed, {}, {})


def test_nobody_is_asked_unless_told_to(lived: Lived) -> None:
    calls = model_calls(lived)
    found = lived.what_if(alerts_per_day=200)
    told = found.answering
    assert (lived.new_requests, told.calls, told.usd, model_calls(lived)) == (0, 0, 0.0, calls)
    assert told.same_question + told.same_alert == found.kept
    assert found.unanswered == found.added == told.by_rules["llm_off"] > 5
    assert found.flips["classification_source"][NO_ALERT] == {"rules": found.added}
    assert found.flips["classification_source"]["llm"]["llm"] == found.kept
    assert 0 < told.left.calls <= told.left.groups <= found.added
    assert told.left.usd == pytest.approx((told.left.input_tokens + 10 * told.left.output_tokens) / 1e6)
    assert not (lived.settings.sandbox("tester") / "ledger").exists()


def test_answers_of_another_model_do_not_stand_for_the_candidates(lived: Lived) -> None:
    found = lived.what_if(llm={"model": OTHER_MODEL})
    told = found.answering
    assert (told.model, told.same_question, told.same_alert) == (OTHER_MODEL, 0, 0)
    assert told.passed_over == found.unanswered == found.kept == found.published.alerts
    assert found.flips["classification_source"] == {"llm": {"rules": found.kept}}
    assert found.published.answered == found.kept


def test_a_candidate_without_a_model_takes_no_answers(lived: Lived) -> None:
    found = lived.what_if(llm={"provider": "none"})
    assert (found.answering.model, found.answering.passed_over) == (None, 0)
    assert found.unanswered == found.replayed.alerts
    with pytest.raises(ConfigurationError, match="asks no model"):
        lived.what_if(Asking("auto", max_tokens=10), llm={"provider": "none"})


@pytest.mark.long
def test_new_answers_are_paid_once_and_told_to_the_audit_log(lived: Lived) -> None:
    calls, ledger = model_calls(lived), lived.table("ledger").height
    found = lived.what_if(Asking("auto", max_usd=5.0), alerts_per_day=200)
    told = found.answering
    assert told.calls == lived.new_requests > 0
    assert (found.unanswered, told.asked_now, told.by_rules, told.left) == (0, found.added, {}, Quote())
    assert (told.input_tokens, told.output_tokens) == (100 * told.calls, 20 * told.calls)
    assert told.usd == pytest.approx(told.calls * (100 * 1 + 20 * 10) / 1e6)
    assert model_calls(lived) > calls
    assert lived.table("ledger").height == ledger
    assert set(lived.table("alerts", found)["classification_source"]) == {"llm"}

    requests = lived.new_requests
    for asking in (Asking("auto", max_usd=5.0), Asking()):
        again = lived.what_if(asking, alerts_per_day=200)
        assert (lived.new_requests, again.answering.calls, again.unanswered) == (requests, 0, 0)
        columns = ["alert_id", "classification", "severity", "rationale"]
        assert (
            lived.table("alerts", again).select(columns).equals(lived.table("alerts", found).select(columns))
        )


@pytest.mark.long
@pytest.mark.parametrize("kind", ["max_tokens", "max_usd"])
def test_asking_ends_at_the_cap_and_the_rest_is_counted(lived: Lived, kind: str) -> None:
    left = lived.what_if(llm={"model": OTHER_MODEL}).answering.left
    room = {"max_tokens": left.input_tokens + left.output_tokens, "max_usd": left.usd}[kind]
    used = {"max_tokens": 120, "max_usd": 300e-6}[kind]
    asking = Asking("auto", **{kind: type(room)(room / left.calls + used)})
    found = lived.what_if(asking, llm={"model": OTHER_MODEL})
    told = found.answering
    assert 0 < told.calls == lived.new_requests
    assert told.input_tokens + told.output_tokens <= (asking.max_tokens or sys.maxsize)
    assert told.usd <= (asking.max_usd or sys.maxsize)
    assert told.by_rules == {"over_budget": found.unanswered}
    assert found.unanswered + told.asked_now == found.replayed.alerts
    assert 0 < told.asked_now < found.replayed.alerts
    assert told.left.groups > 0


def test_a_cap_of_nothing_asks_nothing(lived: Lived) -> None:
    found = lived.what_if(Asking("auto", max_tokens=0), llm={"model": OTHER_MODEL})
    assert (lived.new_requests, found.answering.calls) == (0, 0)
    assert found.answering.by_rules == {"over_budget": found.replayed.alerts}


def test_a_model_that_is_down_degrades_the_alerts_and_ends_the_asking(lived: Lived) -> None:
    with scripted_llm(default=fails(400)) as broken:
        found = lived.what_if(
            Asking("auto", max_tokens=10**7), llm={"model": OTHER_MODEL, "base_url": broken.base_url}
        )
    assert found.answering.asked_now == 0
    assert set(found.answering.by_rules) <= {"rejected", "circuit_open", "over_budget"}
    assert sum(found.answering.by_rules.values()) == found.unanswered == found.replayed.alerts


@pytest.mark.parametrize(
    ("asking", "changes", "message"),
    [
        (Asking("auto"), {}, "--llm: new calls need a cap: add --max-usd or --max-tokens"),
        (Asking("always"), {}, "--llm: expected one of: auto, local, recorded"),
        (Asking(max_usd=1.0), {}, "nobody is asked: caps go with --llm auto or local"),
        (Asking("auto", max_usd=1.0), {"prices": {}}, "--max-usd: .* none for 'gpt-4o-mini'.*--max-tokens"),
        (Asking("local", max_usd=1.0), {}, "--max-usd: .* none for 'local'"),
    ],
)
def test_caps_that_do_not_hold_are_refused(
    lived: Lived, asking: Asking, changes: dict[str, Any], message: str
) -> None:
    before = files(lived.settings.home)
    with pytest.raises(ConfigurationError, match=message):
        lived.what_if(asking, llm=changes)
    assert (files(lived.settings.home), lived.new_requests) == (before, 0)


def test_card_precision_ranks_the_entities_of_the_alerts_of_each_day(lived: Lived) -> None:
    found = lived.what_if(alerts_per_day=None, threshold=0.5)
    alerts = lived.table("alerts", found).sort("sequence", "kind")
    labels = lived.table("labels")["transaction_id"].to_list()
    days = alerts["event_time"].dt.epoch("d").to_numpy().astype(np.int64)
    customers = np.array([dict(each)["customer"] for each in read_entities(found)])
    rows = JudgedRows(
        alerts["score"].to_numpy(), alerts["transaction_id"].is_in(labels).to_numpy(), days, customers
    )
    assert found.replayed.cp100 == pytest.approx(card_precision_at_k(rows), abs=1e-4)
    assert found.replayed.cp100 > 0
    assert found.published.budget == PUBLISHED_BUDGET
    assert found.replayed.budget is None
    over = [day for day, (published, _) in found.per_day.items() if published > PUBLISHED_BUDGET]
    assert found.published.days_over_budget == len(over)


def read_entities(found: WhatIf) -> list[Any]:
    alerts = read_stored(Place.local(found.sandbox / "alerts"))
    assert alerts is not None
    return alerts.sort_by([("sequence", "ascending"), ("kind", "ascending")])["entities"].to_pylist()


def test_a_day_without_alerts_is_one_without_hits() -> None:
    day = datetime(2026, 5, 1, tzinfo=UTC)
    alerts = pl.DataFrame(
        {
            "sequence": [0],
            "kind": ["a"],
            "event_time": [day],
            "score": [0.9],
            "entity": ["c"],
            "is_fraud": [True],
        }
    )
    days = frozenset(range(20574, 20578))
    told = what_if_report._card_precision(alerts, what_if_report.Tally(rows=9, frauds=2, days=days))
    assert day.timestamp() / 86_400 in days
    assert told == round(1 / 100 / 4, 4)
    none = what_if_report.Tally(rows=9)
    assert what_if_report._card_precision(alerts, none) is None


def test_changes_add_up_by_entity_and_by_reason(lived: Lived) -> None:
    rules = [{**LARGE, "severity": "low"}]
    found = lived.what_if(alerts_per_day=None, threshold=0.98, rules=rules, llm={"provider": "none"})
    assert found.added + found.removed > 0
    assert found.changes.reclassified > 0
    assert found.changes.regraded > 0
    assert sum(each.total for each in found.reasons.values()) == found.changes.total
    assert all(each.total for each in found.entities.values())
    for flips in found.flips.values():
        counted = sum(sum(row.values()) for row in flips.values())
        assert counted == found.added + found.removed + found.kept
    changed = sum(
        count for old, row in found.flips["severity"].items() for new, count in row.items()
        if old != new and NO_ALERT not in (old, new)
    )  # fmt: skip
    assert changed == found.changes.regraded


def test_the_report_does_not_depend_on_the_slices(lived: Lived, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = lived.what_if(threshold=0.9)
    real = replay.Replayer.__init__

    def in_small_slices(self: replay.Replayer, *arguments: Any) -> None:
        real(self, *arguments, slice_rows=90)

    monkeypatch.setattr(replay.Replayer, "__init__", in_small_slices)
    assert replace(lived.what_if(threshold=0.9), sandbox=whole.sandbox) == whole


def test_reports_tell_all_of_it_and_the_page_is_the_same_each_time(
    lived: Lived, capsys: pytest.CaptureFixture[str]
) -> None:
    found = lived.what_if(alerts_per_day=200)
    show_what_if(found, Terminal(width=200))
    printed = capsys.readouterr().out
    drawn = page(found)
    for text in (
        "card precision@100",
        "alerts per day asked for",
        "re-classified",
        "severity: published",
        "no model was asked",
    ):
        assert text.lower() in printed.lower()
        assert text.lower() in drawn.lower()
    assert drawn == page(found)
    assert drawn.count("<svg") == 2 + len(found.flips) + 1
    assert "http-equiv" not in drawn and "<script" not in drawn
    told = json.loads(json.dumps(found.facts(), default=str))
    assert told["answering"]["left"] == asdict(found.answering.left)
    hostile = replace(found, entities={"<b>$x^$": Changes(added=1)}, reasons={})
    assert "<b>" not in page(hostile)


def files(folder: Path) -> list[str]:
    return sorted(str(each.relative_to(folder)) for each in folder.rglob("*"))


COMMANDS = ("replay", "what-if")


class Shell:
    """Calls the command line in this process."""

    def __init__(self, lived: Lived, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
        self._monkeypatch, self._capsys, self.lived = monkeypatch, capsys, lived
        self.folder = lived.settings.home.parent

    def file(self, name: str, spec: AgentSpec) -> str:
        path = self.folder / name
        path.write_text(yaml.safe_dump(spec.model_dump(mode="json", exclude_defaults=True)), encoding="utf-8")
        return str(path)

    def __call__(self, *arguments: object) -> tuple[int, str, str]:
        words = [*map(str, arguments)] if arguments[0] in COMMANDS else ["replay", *map(str, arguments)]
        given = [*words, "--home", str(self.lived.settings.home)]
        self._monkeypatch.setattr(sys, "argv", ["flagstream", *given])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = self._capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err


@pytest.fixture
def shell(lived: Lived, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(lived, monkeypatch, capsys)


def test_the_command_asks_under_a_cap_and_writes_the_page(shell: Shell) -> None:
    mine = shell.file("mine.yaml", shell.lived.spec())
    other = shell.file("other.yaml", shell.lived.spec(version="2.0.0", alerts_per_day=200))
    common = ("what-if", other, "--spec", mine, "--json")
    code, printed, errors = shell(*common)
    assert code == 0, errors
    assert (json.loads(printed)["answering"]["calls"], shell.lived.new_requests) == (0, 0)
    report = shell.folder / "what-if.html"
    code, printed, errors = shell(*common, "--llm", "auto", "--max-usd", 1, "--report", report)
    assert code == 0, errors
    assert json.loads(printed)["answering"]["calls"] == shell.lived.new_requests > 0
    assert report.read_text().startswith("<!doctype html>")


def test_bad_input_is_refused_with_what_to_do_and_nothing_is_written(shell: Shell) -> None:
    lived = shell.lived
    mine = shell.file("mine.yaml", lived.spec())
    other = shell.file("other.yaml", lived.spec(version="2.0.0"))
    handbook = Path(load_spec.__code__.co_filename).parent.parent / "agent" / "specs" / "handbook.yaml"
    unruly = lived.spec(version="2.0.0").model_dump(mode="json", exclude_defaults=True)
    unruly["rules"] = [{**LARGE, "when": "amuont > 3"}]
    (shell.folder / "unruly.yaml").write_text(yaml.safe_dump(unruly))
    candidate = ("what-if", other)
    refusals: list[tuple[tuple[object, ...], str]] = [
        (("--alert", "nobody-knows-it"), "no alert with this id"),
        ((*candidate, "--alert", "nobody-knows-it"), "no alert with this id"),
        ((*candidate, "--to-version", 10_000), "is still to come; the newest closed one is"),
        ((*candidate, "--from-version", 0, "--to-version", 0), "no batch brought"),
        ((*candidate, "--to-time", "2001-01-01"), "no transactions in this span"),
        ((*candidate, "--from-time", "2101-01-01"), "no transactions in this span"),
        (("what-if", handbook), "name a candidate of the same contract"),
        (("what-if", shell.folder / "nowhere.yaml"), "nowhere.yaml"),
        (("what-if", shell.folder / "unruly.yaml"), "amuont"),
        ((*candidate, "--llm", "auto"), "new calls need a cap"),
        ((*candidate, "--llm", "sometimes"), "recorded"),
        ((*candidate, "--max-tokens", "-1"), "--max-tokens"),
        ((*candidate, "--report", shell.folder / "no" / "folder.html"), "--report"),
        (
            ("--candidate", other),
            "--candidate: what another spec would have decided is asked with `flagstream what-if",
        ),
        (("--report", "page.html"), "--report: what another spec"),
        (("--llm", "auto"), "--llm: what another spec"),
        (("--warm-up", "7d"), "--warm-up: what another spec"),
        (("--max-usd", "1"), "--max-usd: what another spec"),
        (("--max-tokens", "1"), "--max-tokens: what another spec"),
        (("--to-topic", "again"), "--to-topic: alerts are sent again with `flagstream resend TOPIC`"),
        ((*candidate, "--warm-up", "soon"), "--warm-up"),
    ]
    before = files(lived.settings.home)
    for arguments, told in refusals:
        code, printed, errors = shell(*arguments, "--spec", mine)
        assert (code, printed) == (2, ""), (arguments, errors)
        assert told in errors.replace("\n", " "), (arguments, errors)
        assert files(lived.settings.home) == before, arguments


def refused_for_gone(shell: Shell, *span: object) -> str:
    lived = shell.lived
    mine = shell.file("mine.yaml", lived.spec())
    other = shell.file("other.yaml", lived.spec(version="2.0.0"))
    before = files(lived.settings.home)
    for command in (("replay",), ("what-if", other)):
        code, printed, errors = shell(*command, "--spec", mine, *span)
        assert (code, printed) == (2, ""), errors
        assert files(lived.settings.home) == before
    return " ".join(errors.split())


def versions_of(lived: Lived, batch: int) -> dict[str, int]:
    versions: dict[str, int] = json.loads(lived.table("batches").sort("next_sequence")["versions"][batch])
    return versions


def test_a_version_whose_log_was_cleaned_up_is_refused_with_the_earliest_that_is_left(shell: Shell) -> None:
    needed, kept = (versions_of(shell.lived, batch) for batch in (1, 2))
    lake = shell.lived.settings.lake("tester")
    checkpointed = DeltaTable((lake / "transactions").path, version=kept["transactions"])
    checkpointed.create_checkpoint()
    for version in range(kept["transactions"]):
        ((lake / "transactions" / "_delta_log" / f"{version:020}.json").path).unlink()
    told = refused_for_gone(shell, "--from-version", 0, "--to-version", needed["transactions"])
    assert f"needs version {needed['transactions']} of transactions, and its log was cleaned up" in told
    assert "delta.logRetentionDuration: interval" in told
    end = shell.lived.table("batches").sort("next_sequence")["next_sequence"][2] - 1
    assert f"ends with sequence {end} or later, from any start: --to-version {kept['transactions']}" in told
    assert (
        run_what_if(
            PlacedAgent(shell.lived.settings, shell.lived.spec()),
            shell.lived.spec(),
            ReplaySpan(to_version=kept["transactions"]),
        ).changes
        == Changes()
    )


def test_vacuumed_files_are_refused_with_the_reason(shell: Shell) -> None:
    for file in ((shell.lived.settings.lake("tester") / "alerts").path).glob("*.parquet"):
        file.unlink()
    told = refused_for_gone(shell, "--to-version", versions_of(shell.lived, -1)["transactions"])
    assert "files were vacuumed (delta.deletedFileRetentionDuration: interval" in told
    assert "No span can be replayed any more" in told
