"""`flagstream init` writes an agent that loads, whatever the sample, and never overwrites anything."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from schemas.contract import EventContract, load_contract
from schemas.documents import parse_yaml
from schemas.errors import ConfigurationError
from schemas.loading import parse_document
from schemas.policy import Policy
from schemas.spec import AgentSpec, load_spec
from streaming.cli.root import app
from streaming.commands.init import InitOptions, answered, ask_on_terminal, asks_on
from streaming.definition.agent_definition import AgentDefinition
from streaming.drafting.agent_files import POLICY, SPEC, NewAgent, contract_template, round_amount
from streaming.testing.trial import trial

FILES = {"agent.yaml", "contract.yaml", "rules.yaml", "policy.yaml"}


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["init", *map(str, arguments)])


def sample(folder: Path, rows: int = 200) -> Path:
    """Payments as somebody's system may write them."""
    path = folder / "our payments.csv"
    lines = ["payment_id,booked_at,amount,currency,card,shop,note"]
    lines += [
        f"p{row},2026-05-{row % 28 + 1:02}T10:{row % 60:02}:00Z,{row % 90}.50,EUR,"
        f"k{row % 20},s{row % 9},invoice {row} for goods"
        for row in range(rows)
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_a_template_is_an_agent_that_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("my-agent", "--yes")
    assert done.exit_code == 0, done.output
    folder = Path("my-agent")
    assert {path.name for path in folder.iterdir()} == FILES
    spec = load_spec(folder / "agent.yaml")
    assert (spec.name, spec.data_sources.transactions.topic) == ("my-agent", "my-agent")
    assert "is a template" in done.output
    assert f"{spec.rows_to_learn:,} transactions are known" in (folder / "agent.yaml").read_text(
        encoding="utf-8"
    )
    for path in folder.iterdir():
        comments = [line for line in path.read_text(encoding="utf-8").splitlines() if "#" in line]
        assert len(comments) >= 3, path


def test_a_sample_becomes_the_contract_and_its_amounts_the_limit(tmp_path: Path) -> None:
    file, folder = sample(tmp_path), tmp_path / "agents" / "shop"
    done = run("shop", "--file", file, "--to", folder, "--alerts-per-day", 25, "--json")
    assert done.exit_code == 0, done.output
    contract = load_contract(str(folder / "contract.yaml"))
    assert set(contract.entity_names) == {"card", "shop"}
    definition = AgentDefinition.load(load_spec(folder / "agent.yaml"))
    assert definition.spec.alerts_per_day == 25
    assert definition.policy.policyName == "shop"
    assert "amount > 200" in {rule.when for rule in definition.rules.rules}
    following = json.loads(done.stdout)["next"]
    assert [each.split()[1] for each in following] == ["spec", "contract", "produce", "run", "alerts"]
    assert f"'{file}'" in following[2], "a name with a blank is quoted"


def test_what_a_sample_became_decides_the_sample(tmp_path: Path) -> None:
    file, folder = sample(tmp_path), tmp_path / "shop"
    assert run("shop", "--file", file, "--to", folder).exit_code == 0
    rows = list(csv.DictReader(file.read_text(encoding="utf-8").splitlines()))
    large = {**rows[0], "payment_id": "large", "amount": "900.00"}
    with trial(tmp_path / "home", folder / "agent.yaml") as tried:
        tried.send([{**row, "amount": float(row["amount"])} for row in [*rows, large]])
        assert tried.stored("quarantine", "offset").num_rows == 0
        assert tried.stored("transactions", "sequence").num_rows == len(rows) + 1
        (alert,) = tried.alerts
        assert (alert["transaction_id"], alert["rules"]) == ("large", ["large_amount"])


def test_the_policy_is_found_from_wherever_the_agent_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("my-agent", "--yes", "--to", tmp_path / "my-agent")
    monkeypatch.chdir("/")
    spec = load_spec(tmp_path / "my-agent" / "agent.yaml")
    assert AgentDefinition.load(spec).policy.policyName == "my-agent"


def test_nothing_is_overwritten_and_nothing_half_written_is_left(tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    for _ in range(2):
        done = run("my-agent", "--yes", "--to", taken)
        assert isinstance(done.exception, ConfigurationError)
        assert "it exists already; name another folder with --to" in str(done.exception)
    assert list(taken.iterdir()) == []
    empty = tmp_path / "nothing.csv"
    empty.write_text("colour\nred\n", encoding="utf-8")
    refused = run("my-agent", "--file", empty, "--to", tmp_path / "new")
    assert "no field reads as" in str(refused.exception)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["My Agent", "../x", "1st", "", "a_b"])
def test_a_name_that_is_none_is_refused(name: str, tmp_path: Path) -> None:
    done = run(name, "--yes", "--to", tmp_path / "new")
    assert "expected a name of a-z" in str(done.exception)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("alerts", ["inf", "1e12"])
def test_alerts_beyond_number_are_refused_and_others_are_written_as_given(
    alerts: str, tmp_path: Path
) -> None:
    refused = run("shop", "--yes", "--to", tmp_path / "no", "--alerts-per-day", alerts)
    assert "a number of alerts above 0 and below a billion" in str(refused.exception)
    assert not (tmp_path / "no").exists()
    done = run("shop", "--yes", "--to", tmp_path / "shop", "--alerts-per-day", "1234567.5")
    assert done.exit_code == 0, done.output
    assert load_spec(tmp_path / "shop" / SPEC).alerts_per_day == 1_234_567.5


def test_three_answers_are_enough(tmp_path: Path) -> None:
    (tmp_path / "p.csv").touch()
    given_answers = iter(["payments", str(tmp_path / "p.csv"), "30"])
    found = answered(InitOptions("mine"), lambda *_: next(given_answers))
    assert (found.topic, found.file, found.alerts_per_day, found.from_topic) == (
        "payments",
        tmp_path / "p.csv",
        30,
        False,
    )
    usual = answered(InitOptions("mine"), lambda *asked: asked[1])
    assert (usual.topic, usual.is_template, usual.alerts_per_day) == ("mine", True, 100)
    from_topic = answered(
        InitOptions("mine"), lambda question, usual: "topic" if "sample" in question else usual
    )
    assert (from_topic.from_topic, from_topic.file) == (True, None)


def test_an_answer_that_will_not_do_is_asked_for_again_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sample = tmp_path / "p.csv"
    sample.touch()
    given_answers = iter(["my topic", "payments", f"{sample}x", str(sample), "many", "0", "30"])
    asked = list[str]()
    found = answered(InitOptions("mine"), lambda *said: (asked.append(said[0]), next(given_answers))[1])
    assert (found.topic, found.file, found.alerts_per_day) == ("payments", sample, 30)
    assert [asked.count(each) for each in dict.fromkeys(asked)] == [2, 2, 3]
    assert asked == sorted(asked, key=asked.index)
    refused = capsys.readouterr().err.splitlines()
    expected = (
        "expected a topic of",
        f"sample {sample}x: no such file",
        *["expected a number of alerts"] * 2,
    )
    assert all(words in line for words, line in zip(expected, refused, strict=True))


@pytest.mark.parametrize(("typed", "answer"), [("mine\n", "mine"), ("\n", "theirs"), ("", "theirs")])
def test_a_question_goes_to_standard_error_and_enter_takes_what_is_usual(
    typed: str, answer: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
    assert ask_on_terminal("Which topic?", "theirs") == answer
    assert capsys.readouterr() == ("", "Which topic? [theirs]: ")


def test_somebody_is_asked_only_on_a_terminal_and_only_for_what_is_not_given() -> None:
    nothing, file = InitOptions("mine"), InitOptions("mine", file=Path("x.csv"))
    assert asks_on(terminal=True, yes=False, known=nothing)
    assert not asks_on(terminal=True, yes=True, known=nothing)
    assert not asks_on(terminal=True, yes=False, known=file)
    assert not asks_on(terminal=False, yes=False, known=file)
    with pytest.raises(ConfigurationError, match="--file or --topic for a sample, or --yes"):
        asks_on(terminal=False, yes=False, known=nothing)


@given(
    name=st.sampled_from(["null", "true", "on", "e1", "a-b"])
    | st.from_regex(r"[a-z][a-z0-9-]*", fullmatch=True),
    topic=st.sampled_from(["2024", "1.5", "-", "---", "null", "True", ".inf"])
    | st.from_regex(r"[A-Za-z0-9._-]{1,60}", fullmatch=True),
)
@settings(max_examples=50)
def test_any_name_and_topic_are_read_as_they_were_given(name: str, topic: str) -> None:
    text = contract_template(name)
    contract = parse_document(parse_yaml(text, where="c"), EventContract, where="c")
    files = NewAgent(name, topic, 100.0, contract, text, None).files()
    spec = parse_document(parse_yaml(files[SPEC], where=SPEC), AgentSpec, where=SPEC)
    policy = parse_document(parse_yaml(files[POLICY], where=POLICY), Policy, where=POLICY)
    assert (contract.name, spec.name, policy.policyName) == (name, name, name)
    assert spec.data_sources.transactions.topic == topic


SUGGESTED = re.compile(r"^(\s*)# ((?:- )?(?:[a-z_]+: |\{).*)$")
SUGGESTED_BEFORE = {"threshold": "alerts_per_day"}


def suggestions(text: str) -> Iterator[str]:
    """Yield a file with what one of its comments suggests in force, once for each that looks like YAML."""
    lines = text.splitlines()
    for place, line in enumerate(lines):
        found = SUGGESTED.match(line)
        if found is None:
            continue
        instead = SUGGESTED_BEFORE.get(found[2].partition(":")[0])
        kept = [each for each in lines[:place] if instead is None or not each.startswith(f"{instead}:")]
        yield "\n".join([*kept, f"{found[1]}{found[2]}", *lines[place + 1 :]])


def test_what_a_comment_suggests_can_be_written() -> None:
    text = contract_template("mine")
    units = re.findall(r"`(unit: \w+)`", text)
    assert units
    for unit in units:
        minor = text.replace("{field: amount.value}", f"{{field: amount.value, {unit}}}")
        assert parse_document(parse_yaml(minor, where="c"), EventContract, where="c").amount.unit == "minor"
    contract = parse_document(parse_yaml(text, where="c"), EventContract, where="c")
    files = NewAgent("mine", "events", 100.0, contract, text, None).files()
    found = [*suggestions(files[SPEC])]
    assert len(found) == 7
    for each in found:
        parse_document(parse_yaml(each, where=SPEC), AgentSpec, where=SPEC)
    for each in suggestions(files[POLICY]):
        parse_document(parse_yaml(each, where=POLICY), Policy, where=POLICY)


@given(st.floats(min_value=1e-9, max_value=1e300))
def test_a_limit_is_round_and_above_what_was_seen(largest: float) -> None:
    limit = round_amount(largest)
    assert 2 * largest <= limit * (1 + 1e-12)
    assert limit <= 5.001 * 2 * largest
    assert float(f"{limit:.0e}") == pytest.approx(limit)


@pytest.mark.parametrize(("largest", "limit"), [(5e-324, 1e-300), (1.7e308, 1e307)])
def test_an_amount_at_the_end_of_floats_has_a_limit(largest: float, limit: float) -> None:
    assert round_amount(largest) == pytest.approx(limit)


@pytest.mark.parametrize("largest", [None, 0.0, float("inf"), float("nan"), -3.0])
def test_without_amounts_the_limit_is_ten_thousand(largest: float | None) -> None:
    assert round_amount(largest) == 10_000
