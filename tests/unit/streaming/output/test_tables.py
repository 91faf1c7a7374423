"""No table is wider than the terminal, and no word, so no id, is ever cut."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from agent.triage.untrusted_text import escaped
from streaming.cli.root import main
from streaming.delta.whole_tables import read_stored
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.output.facts import show_facts
from streaming.output.tables import show_block, show_table, show_text, wrapped
from streaming.output.terminal import Terminal
from streaming.run.display import _that_fit
from streaming.store.place import Place
from streaming.testing.small_lake import build_lake, next_batch, spec_of
from tests.unit.plan_samples import plan, policy, query, step

TERMINALS = [("xterm-256color", 80), ("xterm-256color", 120), ("xterm-256color", 200), ("dumb", 80)]
TAIL = "-0123456789abcdef0123456789abcdef0123456789"
WORDS = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=70)
CELLS = st.lists(WORDS, min_size=1, max_size=12).map(" ".join)


def shown_by(width: int, show: Callable[[Terminal], None]) -> list[str]:
    written = io.StringIO()
    show(Terminal(file=written, width=width))
    return written.getvalue().splitlines()


def fit(lines: list[str], width: int) -> bool:
    """A word that is wider than the terminal stands alone, so that it can be copied."""
    return all(cell_len(line) <= width or " " not in line.strip() for line in lines)


FACTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text("ab c", max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("xyz"), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["request", "trouble", "differs"]), FACTS, min_size=1))
def test_no_word_of_python_stands_in_facts(facts: dict[str, Any]) -> None:
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        show_facts(facts, as_json=False)
    written = said.getvalue().replace("(none)", "")
    assert not re.search(r"None|True|False|[\[\]{}()']", written)


def test_nothing_is_a_dash_and_what_holds_is_yes(capsys: pytest.CaptureFixture[str]) -> None:
    facts = {"request": None, "differs": (), "dry_run": True, "topics": ["a", "b"], "running": False}
    show_facts({**facts, "usd_per_day": 1 / 3}, as_json=False)
    said = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    expected = {"request": "-", "differs": "-", "dry_run": "yes", "topics": "a, b", "running": "no"}
    assert dict(said) == {**expected, "usd_per_day": "0.333333"}


@pytest.mark.long
@given(
    rows=st.integers(1, 6).flatmap(
        lambda columns: st.lists(st.lists(CELLS, min_size=columns, max_size=columns), min_size=1, max_size=4)
    ),
    width=st.integers(20, 200),
)
def test_a_table_fits_and_holds_every_word_whole(rows: list[list[str]], width: int) -> None:
    heads = [f"head {place}" for place in range(len(rows[0]))]
    lines = shown_by(width, lambda console: show_table(console, heads, rows, "what it is"))
    assert fit(lines, width)
    words = {word for line in lines for word in line.split()}
    assert {word for row in rows for cell in row for word in escaped(cell).split()} <= words


@given(record=st.dictionaries(CELLS, CELLS, min_size=1, max_size=5), width=st.integers(20, 200))
def test_a_block_fits_and_holds_every_word_whole(record: dict[str, str], width: int) -> None:
    lines = shown_by(width, lambda console: show_block(console, record))
    assert fit(lines, width)
    words = {word for line in lines for word in line.split()}
    assert {word for each in record.items() for text in each for word in escaped(text).split()} <= words


@given(text=CELLS, width=st.integers(5, 100))
def test_prose_is_broken_at_spaces_alone(text: str, width: int) -> None:
    assert " ".join(wrapped(text, width)).split() == text.split()
    assert fit(shown_by(width, lambda console: show_text(console, text)), width)


def test_a_narrow_table_is_a_table_and_a_wide_one_a_record_per_block() -> None:
    heads, rows = ("id", "count"), [("a" * 20, 5), ("b" * 20, 4_000)]
    assert shown_by(30, lambda console: show_table(console, heads, rows)) == [
        "id                    count",
        "aaaaaaaaaaaaaaaaaaaa      5",
        "bbbbbbbbbbbbbbbbbbbb   4000",
    ]
    blocks = ["id", "  " + "a" * 20, "count  5", "", "id", "  " + "b" * 20, "count  4000", ""]
    assert shown_by(26, lambda console: show_table(console, heads, rows)) == blocks


def test_a_table_without_rows_says_so_at_any_width() -> None:
    def shown(width: int) -> list[str]:
        return shown_by(width, lambda console: show_table(console, ("version", "stage"), []))

    assert shown(40) == ["version  stage", "(none)"]
    assert shown(10)[-1] == "(none)" and fit(shown(10), 10)


def test_a_fact_has_no_more_digits_than_anybody_reads(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    show_facts({"share": 8 / 21, "cost": 0.0}, as_json=False)
    assert capsys.readouterr().out.split() == ["share", "0.380952", "cost", "0.0"]
    show_facts({"share": 8 / 21}, as_json=True)
    assert str(8 / 21) in capsys.readouterr().out


def test_prose_wraps_beside_an_id() -> None:
    rows = [("a" * 20, "why it was raised, in words that take some more room than there is")]
    lines = shown_by(60, lambda console: show_table(console, ("id", "why"), rows))
    assert lines[1].startswith("a" * 20 + "  why it was raised,")
    assert all(line.startswith(" " * 22) for line in lines[2:])


def test_progress_shows_what_a_line_has_room_for() -> None:
    cells = dict.fromkeys(("events", "events/s", "lag", "alerts", "by LLM", "tokens", "more"), "1,000,000")
    assert [len(_that_fit(cells, width)) for width in (80, 40, 200)] == [7, 3, 7]


def long(table: pa.Table) -> pa.Table:
    rows = table.to_pylist()
    for row in rows:
        for name in ("transaction_id", "customer", "terminal"):
            row[name] += TAIL
    return pa.Table.from_pylist(rows, schema=table.schema)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    (folder / "policy.json").write_text(policy().model_dump_json(), encoding="utf-8")
    spec = spec_of(folder / "policy.json")
    settings = Settings.load(folder, {})
    build_lake(PlacedAgent(settings, spec), rows=240, edit=long)
    next_batch(PlacedAgent(settings, spec))
    (folder / "spec.yaml").write_text(spec.model_dump_json(), encoding="utf-8")
    other = spec.model_copy(update={"threshold": 0.9, "rules": (), "version": "1.1.0"})
    (folder / "other.yaml").write_text(other.model_dump_json(), encoding="utf-8")
    steps = plan(
        query(
            1,
            "SELECT transaction_id, customer, terminal, amount, event_time FROM transactions LIMIT 5",
        ),
        step(2, "entity_history", entity="terminal", id=f"m1{TAIL}", limit=3),
        step(3, "similar_alerts", alert=alerts(folder)[0]["transaction_id"], limit=3),
    )
    (folder / "plan.json").write_text(steps.model_dump_json(), encoding="utf-8")
    return folder


def alerts(home: Path) -> list[dict[str, Any]]:
    found = read_stored(Place.local(home / "lake" / "tester" / "alerts"), ["alert_id", "transaction_id"])
    assert found is not None
    return list(found.to_pylist())


Command = Callable[..., str]


@pytest.fixture
def flagstream(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    def call(*arguments: str) -> str:
        given = [*arguments, "--home", str(home), "--spec", str(home / "spec.yaml")]
        monkeypatch.setattr(sys, "argv", ["flagstream", *given])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        assert (ended.value.code in (0, 1, None), printed.err) == (True, "")
        return printed.out

    return call


COMMANDS: list[list[str]] = [
    ["status"],
    ["labels", "status"],
    ["registry", "list"],
    ["audit", "show"],
    ["cost", "--by", "alert"],
    ["cost", "--by", "batch"],
    ["cost", "--by", "model"],
    ["cost", "--forecast", "100"],
    ["replay"],
    ["what-if", "OTHER"],
    ["snapshot", "list"],
    ["quarantine", "list"],
    ["quarantine", "requests"],
    ["explain", "ALERT"],
    ["agent", "run", "--goal", "what is there?", "--plan", "PLAN", "--llm", "none"],
]


@pytest.mark.parametrize("kind", TERMINALS, ids=lambda kind: f"{kind[0]}-{kind[1]}")
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_command_is_wider_than_the_terminal_or_cuts_an_id(
    home: Path,
    flagstream: Command,
    monkeypatch: pytest.MonkeyPatch,
    command: list[str],
    kind: tuple[str, int],
) -> None:
    alert = alerts(home)[0]
    places = {"OTHER": str(home / "other.yaml"), "PLAN": str(home / "plan.json"), "ALERT": alert["alert_id"]}
    monkeypatch.setenv("TERM", kind[0])
    monkeypatch.setenv("COLUMNS", str(kind[1]))
    if command[0] in ("registry", "audit", "snapshot", "what-if"):
        prepare(flagstream, home)
    shown = flagstream(*(places.get(each, each) for each in command))
    assert shown
    assert fit(shown.splitlines(), kind[1])
    assert "…" not in shown
    ids = re.findall(r"\b[ctm]\d+-[0-9a-f]*", shown)
    assert all(each.endswith(TAIL) for each in ids)
    if command[0] == "explain":
        assert alert["alert_id"] in shown
        assert alert["transaction_id"] in shown
    if command[0] == "agent":
        assert len(set(ids)) > 10


def prepare(flagstream: Command, home: Path) -> None:
    if not (home / "lake" / "tester" / "specs").exists():
        monkey = [
            str(home / "spec.yaml"),
            "--why",
            "a reason that is as long as reasons are when people give them",
        ]
        flagstream_without_spec(home, ["registry", "add", *monkey])
        flagstream("snapshot", "create", "a-name-of-a-snapshot")


def flagstream_without_spec(home: Path, words: list[str]) -> None:
    before, sys.argv = sys.argv, ["flagstream", *words, "--home", str(home)]
    try:
        with pytest.raises(SystemExit):
            main()
    finally:
        sys.argv = before


def test_an_evaluation_is_a_table_of_weeks(monkeypatch: pytest.MonkeyPatch) -> None:
    summary = {
        "mode": "delayed",
        "auc_roc": 0.912,
        "by_scenario": {"1": 0.5, "2": None},
        "plots": ["/a/b.png", "/a/c.png"],
        "weeks": [
            {"start": f"2018-0{month}-04", **{f"figure_{place}": 0.123456789 for place in range(12)}}
            for month in range(1, 4)
        ],
    }
    monkeypatch.setenv("TERM", "xterm")
    for width in (80, 120, 200):
        monkeypatch.setenv("COLUMNS", str(width))
        written = io.StringIO()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stdout", written)
            show_facts(summary, as_json=False)
        lines = written.getvalue().splitlines()
        assert fit(lines, width)
        assert "by_scenario.1  0.5" in lines
        assert written.getvalue().count("0.123456789") == 36
