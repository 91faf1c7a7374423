"""The command line against real services: what it prints, what it returns, and how it stops."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import polars as pl
import pytest
from confluent_kafka import OFFSET_END, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from pyspark.sql import SparkSession

from agent.model.processes import free_port
from schemas.errors import DataLossError
from schemas.spec import load_spec
from streaming.batch.runner import StreamRunner
from streaming.cli.root import main
from streaming.home.brokers import connection
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.kafka.topic import committed_messages
from streaming.kafka.topic_admin import ensure_topic
from streaming.run.opening import open_agent
from streaming.testing.drivers import Child
from streaming.testing.streams import Stream, published, write_spec
from streaming.versions.clients import Clients

CHILD_SECONDS = 90.0
Topic = Callable[[str], str]


class Shell:
    """Calls the command line in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys
        self.errors = ""

    def __call__(self, *arguments: object) -> tuple[int, str]:
        """Run `flagstream` and return its exit code and what it printed."""
        self._monkeypatch.setattr(sys, "argv", ["flagstream", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = self._capsys.readouterr()
        self.errors = printed.err
        return int(ended.value.code or 0), printed.out

    def json(self, *arguments: object, code: int = 0) -> dict[str, Any]:
        """Run `flagstream … --json`, check its exit code and return what it printed."""
        found, printed = self(*arguments, "--json")
        assert found == code, (printed, self.errors)
        return json.loads(printed)  # type: ignore[no-any-return]  # the commands print objects


@pytest.fixture
def flagstream(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], bootstrap: str) -> Shell:
    monkeypatch.setenv("FLAGSTREAM_KAFKA", bootstrap)
    return Shell(monkeypatch, capsys)


def run_until_idle(spark: SparkSession, settings: Settings, spec_file: Path, bootstrap: str) -> None:
    with open_agent(
        PlacedAgent(settings, load_spec(spec_file)), bootstrap, Clients(settings, "none")
    ) as agent:
        StreamRunner(spark, agent.pipeline, agent.stream).run(Event(), until_idle=True)


def write_job(folder: Path, bootstrap: str, topic: Topic) -> tuple[Path, Stream]:
    spec_file = write_spec(folder, topic, name=topic("tester"))
    spec = load_spec(spec_file)
    ensure_topic(bootstrap, spec.data_sources.transactions.topic, 1)
    ensure_topic(bootstrap, spec.alerts.topic, 1)
    return spec_file, Stream(bootstrap, spec.data_sources.transactions.topic)


@pytest.fixture(scope="module")
def filled(
    spark: SparkSession, bootstrap: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path, Stream]:
    """A home with 300 events processed: spec file, home, stream."""
    folder, marker = tmp_path_factory.mktemp("filled"), uuid.uuid4().hex[:8]
    spec_file, stream = write_job(folder, bootstrap, lambda name: f"{name}-{marker}")
    stream.send(300)
    settings = Settings.load(folder / "home")
    run_until_idle(spark, settings, spec_file, bootstrap)
    return spec_file, settings.home, stream


def test_a_good_spec_is_valid(flagstream: Shell, tmp_path: Path, topic: Topic) -> None:
    spec_file = write_spec(tmp_path, topic)
    found = flagstream.json("spec", "validate", spec_file)
    assert found["valid"] is True
    assert found["file_digest"] == load_spec(spec_file).digest


def test_an_unknown_key_is_named_with_the_nearest_right_one(
    flagstream: Shell, tmp_path: Path, topic: Topic
) -> None:
    spec_file = write_spec(tmp_path, topic, tresholds=0.9)
    code, printed = flagstream("spec", "validate", spec_file)
    assert (code, printed) == (2, "")
    assert "tresholds" in flagstream.errors
    assert "threshold" in flagstream.errors.replace("tresholds", "")
    assert len(flagstream.errors.splitlines()) == 1


def test_status_sums_up_what_was_done(flagstream: Shell, filled: tuple[Path, Path, Stream]) -> None:
    spec_file, home, stream = filled
    found = flagstream.json("status", "--spec", spec_file, "--home", home)
    totals = found["totals"]
    assert (totals["read"], totals["stored"], totals["quarantined"]) == (303, 300, stream.malformed)
    assert sum(found["quarantine_reasons"].values()) == stream.malformed
    assert (found["balanced"], found["lag"]) == (True, 0)
    code, printed = flagstream("status", "--spec", spec_file, "--home", home)
    assert code == 0
    assert "303" in printed


def test_alerts_are_printed_as_consumers_see_them(
    flagstream: Shell, bootstrap: str, filled: tuple[Path, Path, Stream]
) -> None:
    spec_file, home, _ = filled
    code, printed = flagstream("alerts", "--spec", spec_file, "--home", home, "--json")
    on_kafka = published(bootstrap, load_spec(spec_file).alerts.topic)
    assert code == 0
    assert [json.loads(line) for line in printed.splitlines()] == on_kafka
    assert len(on_kafka) > 0


def test_replay_compares_judges_candidates_and_sends_again(
    flagstream: Shell, filled: tuple[Path, Path, Stream], tmp_path: Path, topic: Topic
) -> None:
    spec_file, home, _ = filled
    replay = ("replay", "--spec", spec_file, "--home", home)
    found = flagstream.json(*replay)
    assert (found["transactions"], found["differences"]) == (300, 0)
    code, printed = flagstream(*replay)
    assert (code, "0 differences" in " ".join(printed.split())) == (0, True)
    candidate = write_spec(tmp_path, topic, version="2.0.0", limit=30)
    judged = flagstream.json("what-if", candidate, *replay[1:], "--report", tmp_path / "report.html")
    assert judged["published"]["alerts"] == found["alerts"] < judged["replayed"]["alerts"]
    assert "</html>" in (tmp_path / "report.html").read_text()
    code, printed = flagstream("what-if", candidate, *replay[1:])
    assert (code, "alerts per day" in printed) == (0, True)
    assert flagstream.json("resend", topic("again"), *replay[1:])["sent"] == found["alerts"]
    for wrong in (("--alert", "nobody"), ("--candidate", candidate), ("--to-version", 99)):
        assert flagstream(*replay, *wrong)[0] == 2, wrong


def test_who_looked_is_audited_and_what_it_cost_is_told(
    flagstream: Shell, filled: tuple[Path, Path, Stream]
) -> None:
    spec_file, home, _ = filled
    where = ("--spec", spec_file, "--home", home)
    spent = flagstream.json("cost", *where, "--by", "alert", "--compute-price", 1)
    assert len(spent["rows"]) == spent["total"]["alerts"] > 0
    assert spent["total"]["llm_usd"] == 0 < spent["total"]["compute_usd"]
    before = flagstream.json("audit", "verify", *where)
    flagstream.json("explain", spent["rows"][0]["alert_id"], *where)
    after = flagstream.json("audit", "verify", *where)
    assert (after["sound"], after["rows"]) == (True, before["rows"] + 1)
    _, printed = flagstream("audit", "show", *where, "--count", 1, "--json")
    assert json.loads(printed)["subject"] == "explain"
    run_on = flagstream.json("cost", *where, "--forecast", 50)
    assert "measured" in run_on["basis"]["seconds_per_batch"]["basis"]


def test_the_columns_that_rules_can_look_at_are_listed(
    flagstream: Shell, filled: tuple[Path, Path, Stream]
) -> None:
    columns = flagstream.json("spec", "columns", filled[0])
    assert {"amount", "score", "count_customer_1_hour", "merchant_category"} <= columns.keys()


def test_training_without_labels_is_refused_and_says_what_adds_them(
    flagstream: Shell, filled: tuple[Path, Path, Stream]
) -> None:
    spec_file, home, _ = filled
    assert flagstream("train", "--spec", spec_file, "--home", home)[0] == 2
    assert "labelled rows" in flagstream.errors or "labels import" in flagstream.errors


def test_reconcile_agrees_until_a_stray_message_is_there(
    flagstream: Shell, bootstrap: str, filled: tuple[Path, Path, Stream]
) -> None:
    spec_file, home, _ = filled
    arguments = ("reconcile", "--spec", spec_file, "--home", home)
    before = flagstream.json(*arguments)
    assert before["differences"] == 0
    assert before["alerts_on_kafka"] == before["alerts_in_delta"] > 0
    alerts = load_spec(spec_file).alerts.topic
    doubled = next(iter(committed_messages(bootstrap, alerts)))
    producer = Producer({**connection(bootstrap), "enable.idempotence": True})
    producer.produce(alerts, doubled.value(), doubled.key())
    producer.produce(alerts, b'{"alert_id": "stray", "revision": 1}')
    assert producer.flush(30) == 0
    after = flagstream.json(*arguments, code=1)
    assert (after["doubled_on_kafka"], after["unknown_on_kafka"], after["differences"]) == (1, 1, 2)


def test_reconcile_finds_alerts_that_are_not_on_kafka(
    flagstream: Shell, bootstrap: str, filled: tuple[Path, Path, Stream]
) -> None:
    spec_file, home, _ = filled
    alerts = TopicPartition(load_spec(spec_file).alerts.topic, 0, OFFSET_END)
    admin = AdminClient({**connection(bootstrap)})
    for future in admin.delete_records([alerts]).values():
        future.result(30)
    found = flagstream.json("reconcile", "--spec", spec_file, "--home", home, code=1)
    assert found["missing_on_kafka"] == found["alerts_in_delta"] == found["differences"] > 0


def test_doctor_finds_this_machine_fit(flagstream: Shell, tmp_path: Path) -> None:
    code, printed = flagstream("doctor", "--home", tmp_path, "--json")
    findings = json.loads(printed)
    assert code == (0 if all(finding["ok"] for finding in findings) else 3)
    by_name = {finding["name"]: finding for finding in findings}
    assert by_name["Kafka"]["ok"], by_name
    assert by_name["JDK"]["ok"], by_name


def test_a_simulated_file_is_sent_row_by_row(
    flagstream: Shell, bootstrap: str, tmp_path: Path, topic: Topic
) -> None:
    file = tmp_path / "stream.parquet"
    made = flagstream.json("simulate", "--to", file, "--rate", 50, "--seconds", 4)
    rows = pl.read_parquet(file)
    assert made["sent"] == rows.height > 100
    again = tmp_path / "again.parquet"
    flagstream.json("simulate", "--to", again, "--rate", 50, "--seconds", 4, "--seed", made["seed"] + 1)
    assert pl.read_parquet(again)["amount"].to_list() != rows["amount"].to_list()
    name = topic("payments")
    flagstream.json("produce", file, "--contract", "simulator", "--topic", name, "--partitions", 2)
    sent = [json.loads(message.value() or b"") for message in committed_messages(bootstrap, name)]
    assert sorted(event["tx_id"] for event in sent) == sorted(rows["tx_id"].to_list())
    assert sum(event["amount"] for event in sent) == pytest.approx(rows["amount"].sum())


def test_an_agent_that_init_drafts_from_a_file_runs_on_it(
    flagstream: Shell, spark: SparkSession, bootstrap: str, tmp_path: Path, topic: Topic
) -> None:
    file, folder, name = tmp_path / "stream.parquet", tmp_path / "agent", topic("drafted")
    made = flagstream.json("simulate", "--to", file, "--rate", 100, "--seconds", 4)
    flagstream.json("init", name, "--file", file, "--to", folder, "--topic", name)
    spec_file, contract = folder / "agent.yaml", folder / "contract.yaml"
    assert flagstream.json("spec", "validate", spec_file)["valid"] is True
    assert flagstream.json("contract", "check", contract, "--file", file)["rejected_share"] == 0
    flagstream.json("produce", file, "--contract", contract, "--topic", name)
    ensure_topic(bootstrap, load_spec(spec_file).alerts.topic, 1)
    settings = replace(Settings.load(tmp_path / "home"), kafka=bootstrap)
    run_until_idle(spark, settings, spec_file, bootstrap)
    found = flagstream.json("status", "--spec", spec_file, "--home", settings.home)
    assert (found["totals"]["stored"], found["totals"]["quarantined"]) == (made["sent"], 0)


def test_an_agent_that_init_drafts_from_a_topic_is_valid(
    flagstream: Shell, bootstrap: str, tmp_path: Path, topic: Topic
) -> None:
    stream = Stream(bootstrap, topic("events"))
    stream.send(300)
    flagstream.json("init", "mine", "--topic", stream.topic, "--to", tmp_path / "mine")
    spec_file = tmp_path / "mine" / "agent.yaml"
    assert flagstream.json("spec", "validate", spec_file)["valid"] is True
    assert load_spec(spec_file).data_sources.transactions.topic == stream.topic


def test_bash_completes_commands_options_and_names_of_specs(tmp_path: Path) -> None:
    program = tmp_path / "flagstream"
    program.write_text(f"#!{sys.executable}\nfrom streaming.cli.root import main; main()\n", encoding="utf-8")
    program.chmod(0o755)
    script = """
    eval "$(flagstream completion bash)"
    try() {
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
        _flagstream_completion flagstream; echo "${COMPREPLY[@]}"
    }
    try flagstream quar; try flagstream run --until; try flagstream status --spec card
    """
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script], env={**os.environ, "PATH": path}, capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n") == ["quarantine", "--until-idle", "card-fraud", ""]


def test_the_embedded_broker_is_started_shown_and_stopped(flagstream: Shell, tmp_path: Path) -> None:
    at = ("--home", tmp_path)
    assert flagstream.json("broker", "status", *at, code=1) == {"running": False, "bootstrap": None}
    try:
        address = flagstream.json("broker", "start", *at)["bootstrap"]
        assert flagstream.json("broker", "status", *at) == {"running": True, "bootstrap": address}
    finally:
        stopped = flagstream.json("broker", "stop", *at)
    assert stopped == {"stopped": True}
    assert flagstream.json("broker", "stop", *at) == {"stopped": False}


@contextmanager
def running(spec_file: Path, home: Path, bootstrap: str) -> Iterator[Child]:
    """`flagstream run` as a process of its own, in a process group of its own."""
    program = ["-c", "from streaming.cli.root import main; main()"]
    arguments = ["run", "--spec", spec_file, "--home", home, "--llm", "none", "--json"]
    child = Child(
        [sys.executable, *program, *map(str, arguments)],
        apart=True,
        start_new_session=True,
        env={**os.environ, "FLAGSTREAM_KAFKA": bootstrap},
    )
    try:
        yield child
    finally:
        if child.poll() is None:
            child.kill()
        child.communicate()


def has_read_events(line: str) -> bool:
    return line.startswith("{") and json.loads(line).get("progress", {}).get("events", 0) > 0


def test_the_first_interrupt_finishes_the_batch_in_hand(
    flagstream: Shell, bootstrap: str, tmp_path: Path, topic: Topic
) -> None:
    spec_file, stream = write_job(tmp_path, bootstrap, topic)
    stream.send(20_000)
    home = tmp_path / "home"
    with running(spec_file, home, bootstrap) as child:
        child.wait_for(has_read_events, CHILD_SECONDS)
        child.send_signal(signal.SIGINT)
        printed, errors = child.communicate(timeout=CHILD_SECONDS)
        assert child.returncode == 0, errors
    assert "finishing the current batch" in errors
    last = json.loads(printed.splitlines()[-1])["progress"]
    found = flagstream.json("reconcile", "--spec", spec_file, "--home", home)
    assert found["read"] == last["events"]
    assert 0 < found["read"] < 20_003, "it stopped before the end"
    assert found["alerts_on_kafka"] == last["alerts"] > 0


@pytest.mark.parametrize("command", ["alerts", "reconcile", "status"])
def test_before_any_run_it_says_what_to_start(
    flagstream: Shell, tmp_path: Path, topic: Topic, command: str
) -> None:
    spec_file = write_spec(tmp_path, topic, name=topic("tester"))
    assert flagstream(command, "--spec", spec_file, "--home", tmp_path) == (2, "")
    assert "no agent has run in this home yet: `flagstream run` starts one" in flagstream.errors


def test_a_broken_line_does_not_take_back_what_was_sent_before_it(
    flagstream: Shell, tmp_path: Path, topic: Topic
) -> None:
    event = {"tx_id": "t", "event_time": "2026-01-01T00:00:00Z", "amount": 1, "currency": "EUR"}
    line = json.dumps({**event, "customer_id": "c", "terminal_id": "s"})
    path, name = tmp_path / "long.jsonl", topic("produced")
    path.write_text("\n".join([*[line] * 50_001, "broken"]), encoding="utf-8")
    code, _ = flagstream("produce", path, "--contract", "simulator", "--topic", name, "--home", tmp_path)
    assert code == 2
    assert "long.jsonl:50002: column 1: not JSON" in flagstream.errors
    assert "sent before it: 50,000 records" in flagstream.errors


def test_a_home_that_is_no_folder_and_an_address_without_a_broker_are_told_in_a_line(
    filled: tuple[Path, Path, Stream], flagstream: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec_file, home, _ = filled
    file = tmp_path / "file"
    file.write_text("", encoding="utf-8")
    code, _ = flagstream("broker", "start", "--home", file)
    assert (code, flagstream.errors.count("\n")) == (3, 1)
    monkeypatch.setenv("FLAGSTREAM_KAFKA", f"127.0.0.1:{free_port()}")
    code, _ = flagstream("reconcile", "--spec", spec_file, "--home", home)
    assert code == 1
    assert "no broker answers at" in flagstream.errors


def test_a_lake_whose_batches_are_gone_is_not_run_on(
    filled: tuple[Path, Path, Stream], spark: SparkSession, bootstrap: str, tmp_path: Path
) -> None:
    spec_file, home, stream = filled
    shutil.copytree(home, tmp_path / "home")
    settings = Settings.load(tmp_path / "home")
    spec = load_spec(spec_file)
    stream.send(20)
    run_until_idle(spark, settings, spec_file, bootstrap)
    shutil.rmtree((settings.lake(spec.name) / spec.tables.batches).path)
    with pytest.raises(DataLossError, match="restore what was removed"):
        run_until_idle(spark, settings, spec_file, bootstrap)
