"""What the demo says at its end follows from its lake, fits the terminal, and can be gone on with."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import shlex
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from typer.main import get_group

from agent import SPECS
from schemas.spec import AgentSpec, load_spec
from streaming.cli.options import spec_named
from streaming.cli.root import app
from streaming.commands.demo_feed import ModelWait
from streaming.commands.demo_page import page
from streaming.commands.demo_result import DemoResult, Planted, alerts_of, result_of, with_kinds
from streaming.commands.demo_view import columns_for, next_commands, served_again, show_demo, show_result
from streaming.delta.lake_reader import LakeReader
from streaming.events.simulator import LABELS
from streaming.history.scored_again import scored_again
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.kafka.feeds import Simulated
from streaming.output import shell
from streaming.output.terminal import Terminal, html_text
from streaming.run.progress import Totals
from streaming.testing.small_lake import DAY, build_lake, spec_of

SPEC = load_spec(SPECS / "card-fraud.yaml")
ROOT = Path(__file__).parents[4]


def waited(totals: list[tuple[float, int]], alerts: int = 100) -> list[bool]:
    """What a wait says at each moment, of so many alerts classified by then."""
    now = 0.0
    waiting = ModelWait(lambda: now)
    said = []
    for moment, done in totals:
        now = moment
        said.append(waiting.is_over(Totals(alerts=alerts, llm_alerts=done)))
    return said


def test_the_demo_waits_for_the_last_answer_as_long_as_answers_come() -> None:
    assert waited([(0, 5), (60, 50), (119, 99), (119.5, 100)]) == [False, False, False, True]


def test_after_two_minutes_nine_in_ten_are_enough_and_less_is_not() -> None:
    assert waited([(60, 89), (121, 89), (150, 90)]) == [False, False, True]


def test_a_model_that_says_nothing_is_not_waited_for() -> None:
    assert waited([(0, 5), (119, 5), (121, 5)]) == [False, False, True]
    slow = [(float(second), second // 10) for second in range(0, 610, 10)]
    assert waited(slow) == [False] * 60 + [True]


def test_alerts_that_get_no_answer_are_not_waited_for() -> None:
    assert ModelWait(lambda: 0.0).is_over(Totals(alerts=10, llm_alerts=7, given_up=3))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    settings = Settings.load(tmp_path_factory.mktemp("demo") / "home")
    build_lake(PlacedAgent(settings, spec_of()))
    return settings


def sent_of(frauds: dict[str, str], events: int = 600) -> Simulated:
    ids = [f"t{number:05d}" for number in range(events)]
    kinds = [frauds.get(each) for each in ids]
    truth = pa.table([ids, [kind is not None for kind in kinds], kinds], schema=LABELS)
    return Simulated(events, len(frauds), None, truth, events)


def test_precision_recall_and_why_a_kind_was_missed_come_from_the_lake(small: Settings) -> None:
    spec = spec_of()
    reader = LakeReader(small.lake(spec.name), spec.tables)
    alerted = alerts_of(reader)["transaction_id"].to_list()
    quiet = [each for each in (f"t{number:05d}" for number in range(600)) if each not in alerted]
    planted = {alerted[0]: "leaked_card", alerted[1]: "leaked_card", quiet[-1]: "card_testing"}
    sent = sent_of(planted)
    result = result_of(
        PlacedAgent(small, spec), with_kinds(alerts_of(reader), sent), sent, 0.0, DAY.timestamp() + 31
    )
    assert (result.frauds, result.caught, result.alerts) == (3, 2, len(alerted))
    assert result.precision == pytest.approx(2 / len(alerted))
    assert result.recall == pytest.approx(2 / 3)
    assert (result.due, result.llm_due) == (len(alerted), 0)
    caught, missed = result.kinds
    assert (caught.kind, caught.planted, caught.caught, caught.signs) == ("leaked_card", 2, 2, {})
    (found,) = scored_again(PlacedAgent(small, spec), {quiet[-1]})
    assert (missed.kind, missed.caught) == ("card_testing", 0)
    assert (missed.highest_missed, missed.threshold) == (found.score, spec.threshold)
    assert missed.signs == {found.reason or "none": 1}


def test_scores_computed_again_are_those_of_the_alerts(small: Settings) -> None:
    alerts = alerts_of(LakeReader(small.lake("tester"), spec_of().tables))
    published = dict(alerts.select("transaction_id", "score").iter_rows())
    again = scored_again(PlacedAgent(small, spec_of()), set(published))
    assert {each.transaction_id: each.score for each in again} == published


def test_alerts_that_have_just_left_are_not_held_against_the_model(small: Settings) -> None:
    spec = spec_of()
    alerts = with_kinds(alerts_of(LakeReader(small.lake(spec.name), spec.tables)), None)
    result = result_of(PlacedAgent(small, spec), alerts, None, 0.0, DAY.timestamp() + 29)
    assert (result.due, result.recall) == (0, None)


def test_the_report_is_one_page_in_which_nothing_of_outsiders_is_markup(small: Settings) -> None:
    spec = spec_of()
    alerts = with_kinds(alerts_of(LakeReader(small.lake(spec.name), spec.tables)), None)
    hostile = alerts.with_columns(currency=pl.lit("<script>alert(1)</script>"))
    planted = Planted("leaked_card", 5, 2, 0.9, 0.99, {"amount.customer": 3})
    found = dataclasses.replace(
        result_of(PlacedAgent(small, spec), alerts, None, 0.0, DAY.timestamp()),
        kinds=[planted],
        lake="/a/<b>",
    )
    made = page(hostile, found, spec, small.home)
    assert made == page(hostile, found, spec, small.home)
    assert "<script" not in made and "/a/&lt;b&gt;" in made
    assert made.count("<svg") == 1
    assert all(html_text(each) in made for each in alerts["alert_id"].to_list()[:200])
    assert "scores up to 0.90000" in made and "<pre>" in made
    assert not re.search(r'(?:src|href)="(?!#)', made), "it refers to nothing outside itself"
    empty = page(alerts.clear(), dataclasses.replace(found, kinds=[]), spec, small.home)
    assert empty.startswith("<!doctype html>")


TOP = [
    {
        "alert_id": "3f2a9c" + "0" * 26,
        "score": 0.99999,
        "severity": "critical",
        "classification": "likely_legitimate",
        "classification_source": "rules",
        "amount": 1701.24,
        "currency": "EUR",
        "reasons": [
            {"text": "1701.24 EUR is 57.7 times this terminal's usual 29.50 EUR (9 payments in 30 days)"},
            {"text": "first payment of this customer; 1 in 2 payments comes from a new one"},
        ],
        "fraud_type": "new_account_cash_out",
    }
]
KINDS = [
    Planted("card_testing", 20, 8, 0.98172, 0.995, {"rate.customer": 7, "none": 5}),
    Planted("leaked_card", 12, 12, None, None, {}),
    Planted("compromised_terminal", 3, 0, 0.7, 0.995, {"none": 3}),
]
RESULT = DemoResult(12_000, 64, 33, 33 / 71, 33 / 64, 71, 70, 71, 70, 19.4, KINDS, "var/demo/lake/card-fraud")


def shown(width: int, spec: AgentSpec = SPEC) -> list[str]:
    file = io.StringIO()
    show_result(TOP, RESULT, spec, Terminal(file=file, width=width))
    return file.getvalue().splitlines()


@pytest.mark.parametrize("width", [80, 120, 200])
def test_the_table_of_alerts_fits_the_terminal_and_is_a_table(width: int) -> None:
    drawn = shown(width)
    assert max(map(len, drawn)) <= width
    (heads,) = [line for line in drawn if line.startswith("score")]
    assert heads.split() == columns_for(width)
    text = " ".join(" ".join(drawn).split())
    for word in ("0.99999", "critical", "likely_legitimate", "1701.24 EUR", "57.7"):
        assert word in text


def test_a_wider_terminal_shows_more() -> None:
    assert len(columns_for(80)) < len(columns_for(120)) < len(columns_for(200))
    assert TOP[0]["alert_id"] in "".join(shown(200))


def test_figures_say_what_was_missed_and_why() -> None:
    text = " ".join(" ".join(shown(200)).split())
    assert "scores up to 0.98172, threshold 0.995; rate.customer raised it most in 7 of 12" in text
    assert "scores up to 0.70000, threshold 0.995; nothing raised the score in 3 of 3" in text
    assert "33 caught (recall 52%); 71 alerts, 46% of them planted frauds (precision)" in text
    assert "70 classified by the model (70 of the 71 older than 30 s)" in text


def test_an_alert_budget_is_named_where_it_decides() -> None:
    spec = SPEC.model_copy(update={"alerts_per_day": 40.0})
    assert "the alert budget asks for 0.995" in " ".join(" ".join(shown(200, spec)).split())


def test_a_demo_without_alerts_or_frauds_says_so() -> None:
    nothing = dataclasses.replace(
        RESULT, frauds=0, caught=0, precision=None, recall=None, alerts=0, llm_alerts=0, due=0, llm_due=0,
        first_alert_s=None, kinds=[],
    )  # fmt: skip
    file = io.StringIO()
    show_result([], nothing, SPEC, Terminal(file=file, width=80))
    text = " ".join(file.getvalue().split())
    assert "(none)" in text
    assert "no alert." in text


def test_commands_to_go_on_with_can_be_pasted_whatever_the_folder_is_called(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    home = tmp_path / "my demo's home"
    monkeypatch.setattr(shell.shutil, "which", lambda _: None)
    commands = [shlex.split(each) for each in next_commands(home, TOP)]
    assert len(commands) == 3
    for words in commands:
        assert Path(words[0]).name == "flagstream"
        assert words[words.index("--home") + 1] == str(home)
    assert commands[0][1:3] == ["explain", "3f2a9c000000"]
    monkeypatch.setattr(shell.shutil, "which", lambda name: f"/usr/bin/{name}")
    found: list[Any] = next_commands(home, [])
    assert found[0].startswith("flagstream alerts ")


def test_the_command_that_serves_metrics_again_is_one_that_run_takes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shell.shutil, "which", lambda name: f"/usr/bin/{name}")
    home = tmp_path / "my demo's home"
    command = served_again(home)
    _, name, *words = shlex.split(command)
    given = get_group(app).commands[name].make_context(name, words).params
    assert (spec_named(given["spec"]), given["home"], given["metrics_port"]) == (SPEC, home, "9464")
    show_demo(pl.DataFrame(TOP), RESULT, SPEC, home, as_json=False)
    assert f"  {command}\n" in capsys.readouterr().out


def test_the_readme_shows_what_a_run_has_printed() -> None:
    run = json.loads((Path(__file__).parent / "demo_of_the_readme.json").read_text(encoding="utf-8"))
    kinds = [Planted(**each) for each in run["result"].pop("kinds")]
    file = io.StringIO()
    show_result(run["top"], DemoResult(**run["result"], kinds=kinds), SPEC, Terminal(file=file, width=130))
    assert file.getvalue() in (ROOT / "README.md").read_text(encoding="utf-8")
