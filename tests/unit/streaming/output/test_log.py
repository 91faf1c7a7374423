"""A running agent's log: one way out, structured, without secrets, and no outsider forges a line of it."""

from __future__ import annotations

import ast
import io
import json
import logging
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import ConfigurationError
from streaming.home.jaas import quoted
from streaming.home.settings import Settings
from streaming.output.log import FORMATS, configure, log, say_fault
from streaming.output.redaction import keep_secret, redacted
from streaming.run.display import JsonProgress
from streaming.service.health import ActiveCondition, Condition
from tests.unit.streaming.output.test_terminal import ANYTHING, is_safe

ROOT = Path(__file__).parents[4]
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
SECRET = "sk-never-to-be-seen-4711"


def written(form: str, *logged: tuple[str, str]) -> str:
    configure(form)
    shown, before = io.StringIO(), sys.stderr
    sys.stderr = shown
    try:
        for event, message in logged:
            log(event, message, level=logging.WARNING, agent="payments", batch=7, cause=message, nothing=None)
    finally:
        sys.stderr = before
    return shown.getvalue()


def test_a_line_for_people() -> None:
    line = written("text", ("condition_holds", "broker_away: no broker answers"))
    rest = (
        r" warning condition_holds: broker_away: no broker answers  agent=.payments. batch=7 cause=.bro.*\n"
    )
    assert re.fullmatch(TIME + rest, line)


def test_a_line_for_programs() -> None:
    facts = json.loads(written("json", ("condition_holds", "no broker answers")))
    assert abs(datetime.fromisoformat(facts.pop("time")) - datetime.now(UTC)).total_seconds() < 60
    assert facts == {
        "level": "warning",
        "event": "condition_holds",
        "message": "no broker answers",
        "agent": "payments",
        "batch": 7,
        "cause": "no broker answers",
    }


@given(text=ANYTHING, form=st.sampled_from(FORMATS))
def test_no_text_of_outsiders_steers_a_terminal_or_forges_a_line(text: str, form: str) -> None:
    lines = written(form, ("e", f"a{text}z"))
    assert is_safe(lines)
    assert lines.count("\n") == 1
    if form == "json":
        assert is_safe(json.loads(lines)["message"])


@given(before=ANYTHING, after=ANYTHING, form=st.sampled_from(FORMATS))
def test_no_secret_is_logged_wherever_it_stands(before: str, after: str, form: str) -> None:
    keep_secret(SECRET)
    assert SECRET not in written(form, ("e", f"{before}{SECRET}{after}"))


def test_a_token_that_holds_another_secret_is_taken_out_whole() -> None:
    keep_secret("inner-secret")
    assert redacted("Bearer inner-secretgh") == "Bearer [redacted]"
    assert redacted("Bearer ab-inner-secret-cd inner-secret") == "Bearer [redacted] [redacted]"


def test_secrets_are_known_from_settings_and_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BANK_API_KEY", "from-the-environment-1")
    key = "k" * 40
    settings = Settings.load(tmp_path, {"FLAGSTREAM_AUDIT_KEY": key, "ANY_NAME": "named-in-a-policy-2"})
    settings.api_key("ANY_NAME")
    configure()
    for secret in ("from-the-environment-1", "named-in-a-policy-2", key):
        log("e", f"it said {secret}!")
        say_fault(f"flagstream: it said {secret}!")
    printed = capsys.readouterr().err
    assert printed.count("it said [redacted]!") == 6
    assert redacted("http://user:hidden@host/ and Bearer abcdefgh") == (
        "http://user:[redacted]@host/ and Bearer [redacted]"
    )


def test_libraries_go_the_same_way_from_warnings_on(capsys: pytest.CaptureFixture[str]) -> None:
    configure("json")
    for name in ("httpx", "openai", "deltalake", "py4j"):
        logging.getLogger(name).info("GET https://example.org")
        logging.getLogger(name).warning("odd \x1b[31m")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["logger"] for line in lines] == ["httpx", "openai", "deltalake"]
    assert {line["message"] for line in lines} == {"odd \\x1b[31m"}


@pytest.mark.parametrize("form", FORMATS)
def test_a_record_that_cannot_be_formatted_ends_nobody(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    configure(form)
    ours = logging.getLogger().handlers[-1]  # pytest's own would raise
    ours.handle(logging.LogRecord("some.package", 30, "module.py", 7, "%d of %s", ("too few",), None))
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "module.py:7 cannot be formatted: TypeError" in line


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_every_record_is_json_as_the_standard_has_it(
    number: float, capsys: pytest.CaptureFixture[str]
) -> None:
    configure("json")
    log("measured", "a rate of nothing", rate=number)
    said = json.loads(capsys.readouterr().err, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert said["rate"] == str(number)


@given(st.text("ab@:!?#", min_size=1))
def test_no_part_of_a_password_in_an_address_is_shown(password: str) -> None:
    said = redacted(f"GET https://user:<{password}>@host/v1 for anna@bank")
    assert said == "GET https://user:[redacted]@host/v1 for anna@bank"


WRITTEN = st.text(st.characters(exclude_categories=["Cs"]), min_size=6)


@given(WRITTEN, st.sampled_from(["json", "letters", "repr", "bytes", "jaas", "address"]), st.booleans())
def test_a_secret_is_hidden_however_it_is_quoted(value: str, how: str, again: bool) -> None:
    """As it stands in a login of Java's client, in JSON, in an error of Python or in an address."""
    form = {
        "json": json.dumps(value)[1:-1],
        "letters": json.dumps(value, ensure_ascii=False)[1:-1],
        "repr": repr(value)[1:-1],
        "bytes": repr(value.encode())[2:-1],
        "jaas": quoted(value),
        "address": quote(value, safe=""),
    }[how]
    form = json.dumps(form)[1:-1] if again else form
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("streaming.output.redaction._known", {})
        keep_secret(value)
        assert redacted(f"it is {form}!") == "it is [redacted]!"


def test_a_traceback_is_part_of_its_record(capsys: pytest.CaptureFixture[str]) -> None:
    keep_secret(SECRET)
    for form in FORMATS:
        configure(form)
        try:
            raise ValueError(f"\n2026-01-01T00:00:00.000Z info forged: {SECRET}")
        except ValueError:
            logging.getLogger("library").exception("failed")
    text, record = capsys.readouterr().err.rsplit("\n{", 1)
    assert all(line.startswith("  | ") for line in text.splitlines()[1:])
    assert "ValueError" in json.loads("{" + record)["traceback"]
    assert SECRET not in text + record


def test_why_a_command_ends_is_a_record_where_the_log_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    say_fault("flagstream: no such file")
    configure("json")
    say_fault("flagstream: no such file")
    line, record = capsys.readouterr().err.splitlines()
    assert line == "flagstream: no such file"
    assert json.loads(record)["event"] == "ended_with_fault"


def test_a_format_that_is_none_is_refused(tmp_path: Path) -> None:
    assert Settings.load(tmp_path, {"FLAGSTREAM_LOG_FORMAT": "json"}).log_format == "json"
    with pytest.raises(ConfigurationError, match="FLAGSTREAM_LOG_FORMAT: no format '"):
        Settings.load(tmp_path, {"FLAGSTREAM_LOG_FORMAT": "jsn"})
    with pytest.raises(ConfigurationError, match="--log-format"):
        configure("jsn")


_SIGNALS = """
import os, signal, threading
from streaming.output.log import configure
from streaming.service.interrupts import stop_on_interrupt

configure("json")
stop = threading.Event()
with stop_on_interrupt(stop):
    os.kill(os.getpid(), signal.SIGINT)
    stop.wait(60)
    os.kill(os.getpid(), signal.SIGINT)
    threading.Event().wait(60)
"""


def test_what_a_signal_brings_is_logged_like_all_else() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SIGNALS], capture_output=True, text=True, timeout=60, check=False, cwd=ROOT
    )
    events = [json.loads(line)["event"] for line in done.stderr.splitlines()]
    assert {"stopped"} <= set(events) <= {"stopping", "stopped"}
    assert done.returncode == 130


def test_conditions_are_records_that_name_agent_and_condition(capsys: pytest.CaptureFixture[str]) -> None:
    configure("json")
    display = JsonProgress("payments")
    since = datetime(2026, 5, 1, tzinfo=UTC)
    display.condition(Condition.BROKER_AWAY, ActiveCondition(Condition.BROKER_AWAY, "gone", since))
    display.condition(Condition.BROKER_AWAY, None)
    records = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(each["event"], each["level"]) for each in records] == [
        ("condition_holds", "warning"),
        ("condition_over", "info"),
    ]
    assert {(each["agent"], each["condition"]) for each in records} == {("payments", "broker_away")}


def test_progress_is_a_line_at_the_first_events_and_then_every_ten_seconds_at_most(
    capsys: pytest.CaptureFixture[str],
) -> None:
    now = 0.0
    display = JsonProgress("payments", lambda: now)

    def lines() -> list[int]:
        shown = capsys.readouterr().out.splitlines()
        return [json.loads(line)["progress"]["events"] for line in shown]

    with display:
        display.lag(0)
        assert lines() == []
        for second in range(60):
            now = float(second)
            display.totals.events += 5
            display.show()
        assert lines() == [5, 55, 105, 155, 205, 255]
        for second in range(60, 600):
            now = float(second)
            display.lag(0)
        assert lines() == [300], "an agent with nothing to do says nothing"
    assert lines() == [300]


# An engine that parses queries says on its own what it could not understand; it is silenced.
MAY_NAME_LOGGERS = {"streaming/output/log.py", "agent/planning/sql_guard.py"}
EVENT = re.compile(r"[a-z]+(_[a-z]+)*")


def test_only_one_module_formats_and_every_event_is_in_the_operators_manual() -> None:
    manual = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    events: set[str] = set()
    for path in [each for name in ("streaming", "agent") for each in sorted((ROOT / name).rglob("*.py"))]:
        place = path.relative_to(ROOT).as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                allowed = place in MAY_NAME_LOGGERS or not called.startswith("logging.")
                assert allowed, f"{place}: {called}"
                if called in ("log", "last_words", "self._log_once") and isinstance(
                    node.args[0], ast.Constant
                ):
                    events.add(str(node.args[0].value))
    assert len(events) >= 8
    for event in events:
        assert EVENT.fullmatch(event), event
        assert f"`{event}`" in manual, event
