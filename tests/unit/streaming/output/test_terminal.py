"""What outsiders have written steers no terminal, no page and no reader of JSON, wherever it is shown."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import re
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from agent.triage.untrusted_text import escaped
from streaming.audit.access import record_done
from streaming.cli.root import app, main
from streaming.commands.alerts import alert_line
from streaming.commands.html_page import table
from streaming.delta.whole_tables import read_stored
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.output.terminal import Terminal, html_text, print_json, print_json_text, say_error, say_line
from streaming.store.place import Place
from streaming.testing.small_lake import BUSY, build_lake, spec_of
from tests.unit.plan_samples import plan, query, step

ROOT = Path(__file__).parents[4]
HOSTILE = (
    "\x1b[31mred",
    "\x1b]8;;http://evil.example\x07link\x1b]8;;\x07",
    "\x1b]0;title\x1b\\",
    "\x9b2J",
    "\x90dcs\x9c",
    "\u202egnp.exe",
    "\u2066isolate\u2069",
    "zero\u200bwidth",
    "\ufeffmark",
    "blank\u3164filler",
    "[bold]fat[/bold]",
    "[/x]",
    "[link=http://evil.example]x[/link]",
    ":smiley:",
    "<script>alert(1)</script>",
    "</td><img src=x onerror=alert(1)>",
    "a\rb",
    "a\nb",
    "nul\x00",
    "del\x7f",
    "line\u2028break",
    "$\\frac{",
    "--> <!--",
    "back\x08space",
)


def is_safe(text: str) -> bool:
    return all(each == "\n" or (each.isprintable() and each not in "\u3164\u2800") for each in text)


def hostile(table: pa.Table) -> pa.Table:
    """The same payments with hostile ids, currencies and texts."""
    rows = table.to_pylist()
    for place, row in enumerate(rows):
        marks = [HOSTILE[(place + shift) % len(HOSTILE)] for shift in range(4)]
        row["transaction_id"] += marks[0]
        row["customer"] = f"{row['customer']}{HOSTILE[hash_of(row['customer'])]}"
        if row["terminal"] != BUSY:
            row["terminal"] = f"{row['terminal']}{HOSTILE[hash_of(row['terminal'])]}"
        row["currency"], row["memo"], row["country"], row["merchant_category"] = marks[3], *marks[:3]
    return pa.Table.from_pylist(rows, schema=table.schema)


def hash_of(identifier: str) -> int:
    return int(identifier[1:]) % len(HOSTILE)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    build_lake(PlacedAgent(Settings.load(folder, {}), spec_of()), rows=240, edit=hostile)
    (folder / "spec.yaml").write_text(spec_of().model_dump_json(), encoding="utf-8")
    (folder / "other.yaml").write_text(
        spec_of(threshold=0.9, rules=[], version="1.1.0").model_dump_json(), encoding="utf-8"
    )
    record_done(PlacedAgent(Settings.load(folder, {}), spec_of()), "labels-import", 1, begins_log=True)
    return folder


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def flagstream(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setenv("TERM", "xterm-256color")  # a dumb one has 80 columns, whatever COLUMNS says
    monkeypatch.setenv("FORCE_COLOR", "1")

    def call(*arguments: str) -> tuple[int, str, str]:
        given = [*arguments, "--home", str(home), "--spec", str(home / "spec.yaml")]
        monkeypatch.setattr(sys, "argv", ["flagstream", *given])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return call


def without_styles(text: str) -> str:
    """Rich's own styles, which FORCE_COLOR brings out, are the one thing that may steer: plain SGR."""
    parts = text.split("\x1b[")
    kept = [parts[0]]
    for part in parts[1:]:
        codes, found, rest = part.partition("m")
        assert found, f"not a style: {part[:20]!r}"
        assert set(codes) <= set("0123456789;"), f"not a style: {codes!r}"
        kept.append(rest)
    return "".join(kept)


def alerts_of(home: Path) -> list[dict[str, Any]]:
    found = read_stored(Place.local(home / "lake" / "tester" / "alerts"))
    assert found is not None
    return list(found.to_pylist())


def test_every_alert_is_explained_without_steering_anything(home: Path, flagstream: Command) -> None:
    for alert in alerts_of(home)[:6]:
        code, shown, errors = flagstream("explain", alert["alert_id"])
        assert code == 0, errors
        assert is_safe(without_styles(shown)), shown
        assert "\\x1b[0m" not in shown, "a style of our own, written out"
        assert escaped(dict(alert["entities"])["customer"]) in without_styles(shown)


def test_markup_in_ids_is_text(home: Path, flagstream: Command) -> None:
    marks = ("[bold]fat[/bold]", "[/x]", "[link=http://evil.example]x[/link]", ":smiley:")
    shown = 0
    for mark in marks:
        for alert in [each for each in alerts_of(home) if mark in dict(each["entities"])["customer"]][:1]:
            assert mark in without_styles(flagstream("explain", alert["alert_id"])[1])
            shown += 1
    assert shown >= 2


def test_json_is_ascii_and_reads_back_as_it_was(home: Path, flagstream: Command) -> None:
    for alert in alerts_of(home)[:6]:
        code, printed, _ = flagstream("explain", alert["alert_id"], "--json")
        assert code == 0
        assert printed.isascii()
        assert is_safe(printed)
        assert json.loads(printed)["alert"]["transaction_id"] == alert["transaction_id"]
        assert json.loads(printed)["alert"]["entities"] == dict(alert["entities"])


def test_an_error_names_what_was_asked_for_without_steering_anything(flagstream: Command) -> None:
    for mark in HOSTILE[::3]:
        code, shown, errors = flagstream("explain", f"x{mark}")
        assert (code, shown) == (2, "")
        assert escaped(mark, lines=True) in errors
        assert is_safe(errors)


@pytest.mark.long
def test_a_what_if_and_its_page_hold_no_markup_of_outsiders(home: Path, flagstream: Command) -> None:
    page = home / "page.html"
    wanted = ("what-if", str(home / "other.yaml"))
    code, shown, errors = flagstream(*wanted, "--report", str(page))
    assert code == 0, errors
    assert is_safe(without_styles(shown))
    content = page.read_text(encoding="utf-8")
    assert is_safe(content)
    code, printed, _ = flagstream(*wanted, "--json")
    assert (code, printed.isascii()) == (0, True)
    entities = json.loads(printed)["entities"]
    assert any(mark in each for each in entities for mark in HOSTILE)
    assert all(html_text(each) in content for each in entities)


def test_a_page_s_table_is_the_same_whatever_its_cells_hold() -> None:
    made = table(HOSTILE, [HOSTILE, HOSTILE])
    assert is_safe(made)
    tags = re.findall(r"<[^>]*>", made)
    assert set(tags) == {"<table>", "</table>", "<tr>", "</tr>", "<th>", "</th>", "<td>", "</td>"}
    assert made.count("<td>") == 2 * len(HOSTILE)


@pytest.mark.long
def test_what_an_agent_run_finds_is_shown_and_told_as_it_is(home: Path, flagstream: Command) -> None:
    path = home / "plan.json"
    steps = plan(
        query(1, "SELECT transaction_id, customer, terminal, currency, country FROM transactions LIMIT 60"),
        query(2, "SELECT customer AS x FROM transactions WHERE customer = ?", f"c1{HOSTILE[1]}"),
        step(3, "entity_history", entity="terminal", id=BUSY, limit=20),
    )
    path.write_text(steps.model_dump_json(), encoding="utf-8")
    given = ("agent", "run", "--goal", f"why {HOSTILE[0]} {HOSTILE[1]}", "--plan", str(path), "--llm", "none")
    code, shown, errors = flagstream(*given)
    assert code == 0, errors
    assert is_safe(without_styles(shown))
    assert "[/x]" in shown
    code, printed, _ = flagstream(*given, "--json")
    assert (code, printed.isascii()) == (0, True)
    rows = json.loads(printed)["steps"][0]["result"]["rows"]
    assert {
        mark
        for mark in HOSTILE
        if any(mark in str(row.values()) or mark in row["transaction_id"] for row in rows)
    }


@pytest.mark.parametrize(
    "command", [["status"], ["replay"], ["audit", "show"], ["quarantine", "list"], ["cost"]]
)
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_other_views_steer_nothing(flagstream: Command, command: list[str], form: list[str]) -> None:
    code, shown, errors = flagstream(*command, *form)
    assert code in (0, 1), errors
    assert is_safe(without_styles(shown) + errors)


def test_rejected_labels_are_named_without_steering_anything(home: Path, flagstream: Command) -> None:
    path = home / "labels.jsonl"
    lines = [json.dumps({"transaction_id": mark, "is_fraud": f"maybe{mark}"}) for mark in HOSTILE]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    code, shown, errors = flagstream("labels", "import", str(path))
    assert code in (0, 1, 2)
    assert errors
    assert is_safe(without_styles(shown) + errors)


@pytest.mark.parametrize("mark", HOSTILE)
def test_an_alert_is_one_line(home: Path, mark: str) -> None:
    alert = {**alerts_of(home)[0], "transaction_id": mark, "currency": mark, "event_time": mark}
    line = alert_line({**alert, "reasons": [{"text": mark}]})
    assert is_safe(line)
    assert "\n" not in line


def test_a_fault_of_ours_that_quotes_an_outsider_steers_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["flagstream", "doctor"])

    def fails(*_: object) -> None:
        raise KeyError("".join(HOSTILE)) from ValueError("".join(HOSTILE))

    monkeypatch.setattr("streaming.commands.doctor.check_machine", fails)
    with pytest.raises(SystemExit) as ended:
        main()
    printed = capsys.readouterr()
    assert (ended.value.code, printed.out) == (1, "")
    assert "KeyError" in printed.err
    assert is_safe(printed.err)
    assert app.pretty_exceptions_enable is False


ANYTHING = st.one_of(st.text(), st.sampled_from(HOSTILE), st.text(st.characters(categories=["C", "Z", "P"])))


@given(ANYTHING, ANYTHING, st.integers(8, 200))
def test_nothing_printed_on_a_terminal_steers_it(text: str, other: str, width: int) -> None:
    written = io.StringIO()
    console = Terminal(file=written, width=width)
    table = Table(text, other, title=text, caption=other)
    table.add_row(text, Text(other))
    table.add_row(Panel(text), other)
    console.print(table)
    console.print(text, other)
    console.print(Text(text), soft_wrap=True)
    console.print(text, markup=False, soft_wrap=True)
    assert is_safe(written.getvalue())


@given(ANYTHING)
def test_what_is_escaped_says_the_same(text: str) -> None:
    assert escaped(escaped(text)) == escaped(text)
    assert is_safe(escaped(text))
    assert "\n" not in escaped(text)
    plain = "".join(each for each in text if unicodedata.category(each)[0] in "LNPS" and is_safe(each))
    assert all(each in escaped(text) for each in plain)
    assert is_safe(html_text(text))
    assert not set(html_text(text)) & set("<>\"'")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@pytest.mark.long
@given(content=JSON)
def test_json_says_the_same_in_plain_ascii(content: Any) -> None:
    for document in (json.dumps(content), json.dumps(content, ensure_ascii=False)):
        written = io.StringIO()
        before, sys.stdout = sys.stdout, written
        try:
            print_json_text(document)
        finally:
            sys.stdout = before
        assert written.getvalue().isascii()
        assert is_safe(written.getvalue())
        assert json.loads(written.getvalue()) == content


def test_lines_for_people_and_programs(capsys: pytest.CaptureFixture[str]) -> None:
    say_line("a\x1b\nb")
    say_error("c\u202e")
    print_json({"d": "\x7f\ud800"})
    printed = capsys.readouterr()
    assert printed.out == 'a\\x1b\nb\n{"d": "\\u007f\\ud800"}\n'
    assert printed.err == "c\\u202e\n"


WAYS_OUT = {"print", "Console", "echo", "secho", "print_exception"}
# Set-up prints while no package is there yet, what pip says without what would steer a terminal.
EXCEPTIONS = {
    "streaming/output/terminal.py",
    "streaming/output/log.py",
    "streaming/setup/install.py",
    "streaming/databricks/credential_server.py",  # a process of its own, whose output is a pipe to its parent
}


def ways_out(source: str) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            plain = isinstance(node.func, ast.Name) or ast.unparse(node.func).startswith(("typer.", "rich."))
            if (name in WAYS_OUT and plain) or ast.unparse(node.func) in (
                "sys.stderr.write",
                "sys.stdout.write",
            ):
                found.add(ast.unparse(node.func))
    return found


def test_everything_that_is_printed_goes_by_the_one_way_out() -> None:
    files = [path for package in ("streaming", "agent") for path in sorted((ROOT / package).rglob("*.py"))]
    found = {
        path.relative_to(ROOT).as_posix(): ways
        for path in files
        if (ways := ways_out(path.read_text(encoding="utf-8")))
    }
    assert found.keys() - EXCEPTIONS == set(), found
    assert ways_out("print(1)\nsys.stderr.write('x')\ntyper.echo('x')\nconsole.print('x')") == {
        "print",
        "sys.stderr.write",
        "typer.echo",
    }


@given(st.text())
def test_readable_json_reads_back_and_all_of_it_is_seen(text: str) -> None:
    written = io.StringIO()
    with contextlib.redirect_stdout(written):
        print_json({"Währung": text}, readable=True)
    shown = written.getvalue()
    assert json.loads(shown) == {"Währung": text}
    assert "Währung" in shown
    assert is_safe(shown)


def test_readable_json_is_plain_where_standard_output_has_no_other_letters() -> None:
    written = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    with contextlib.redirect_stdout(written):
        print_json({"Währung": 1}, readable=True)
    written.seek(0)
    assert json.loads(written.read()) == {"Währung": 1}
