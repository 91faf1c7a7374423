"""The main job on real parts: Spark, Kafka, Delta and, where it says so, the local model."""

from __future__ import annotations

import io
import json
import random
import shutil
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml
from confluent_kafka import OFFSET_END, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from deltalake import DeltaTable
from pyspark.sql import SparkSession
from rich.console import Console

from agent import SPECS
from schemas.alert import ALERT_FIELDS
from schemas.contract import CONTRACTS, load_contract
from schemas.errors import ConfigurationError, DataLossError
from schemas.lake_tables import lake_schemas
from schemas.spec import AgentSpec, load_spec
from streaming.audit.audit_check import check_audit
from streaming.audit.audit_log import AuditPlaces
from streaming.audit.audit_reading import newest_events
from streaming.batch.deciders import in_share
from streaming.batch.engine import Engine
from streaming.batch.runner import StreamRunner
from streaming.commands.backfill import run_backfill
from streaming.commands.explain import plot, show
from streaming.commands.what_if import write_report
from streaming.definition.agent_definition import AgentDefinition
from streaming.delta.lake_reader import AgentLake
from streaming.delta.lake_table import LakeTable
from streaming.delta.whole_tables import read_stored
from streaming.detection import checkpoints
from streaming.history.decided import DecidedHistory
from streaming.history.explain import explain
from streaming.history.reconcile import Reconciliation, reconcile
from streaming.history.replay import Replayer
from streaming.history.replay_runs import ReplaySpan, run_replay, run_what_if, send_again
from streaming.history.replayed import ExactReplay
from streaming.history.snapshot_copy import create_snapshot
from streaming.home.brokers import connection
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.kafka.topic import committed_messages
from streaming.kafka.topic_admin import ensure_topic
from streaming.labels.entity_labels import entity_labels_schema
from streaming.run.opening import open_agent
from streaming.run.status import read_status
from streaming.store.opening import folders_of
from streaming.store.place import Place
from streaming.testing.drivers import wait_until
from streaming.testing.scripted_llm import nobody_listening
from streaming.testing.streams import (
    Stream,
    folded_scores,
    labels_by_row,
    published,
    stored,
    versions,
    write_spec,
)
from streaming.versions.clients import Clients
from streaming.versions.registry import Author, SpecRegistry
from streaming.versions.shadow_status import SideBySide
from tests.registry_rows import activate, entry, put

CONTRACT = load_contract("simulator")
HOUR = timedelta(hours=1)
Topic = Callable[[str], str]


def event(**changes: object) -> bytes:
    plain: dict[str, object] = {
        "tx_id": "refused",
        "event_time": "2024-05-01T12:00:00Z",
        "customer_id": "c1",
        "terminal_id": "m1",
        "amount": 10.0,
        "currency": "EUR",
    }
    return json.dumps({**plain, **changes}).encode()


BROKEN: dict[str, bytes | None] = {
    "malformed_json": b'{"tx_id": "cut',
    "invalid_utf8": b'{"tx_id": "\xff\xfe"}',
    "null_value": None,
    "not_an_object": b"[1, 2]",
    "missing_field": event(customer_id=None),
    "mistyped_field": event(tx_id=["list"]),
    "oversized_field": event(customer_id="c" * 1_000),
    "amount_too_large": event(amount=1.7e308),
    "bad_amount": event(amount=float("nan")),
    "bad_time": event(event_time="yesterday"),
    "absurd_time": event(event_time="1066-10-14T09:00:00Z"),
    "time_ahead_of_broker": event(event_time=(datetime.now(UTC) + timedelta(days=2)).isoformat()),
    "oversized_record": event(memo="x" * CONTRACT.max_record_bytes),
}


def send(bootstrap: str, topic: str, values: list[bytes | None]) -> None:
    # Compressed, a record larger than the topic admits gets through.
    large = {"message.max.bytes": 4 << 20, "compression.type": "lz4"}
    producer = Producer({**connection(bootstrap), "enable.idempotence": True, **large})
    for place, value in enumerate(values):
        producer.produce(topic, value, f"key-{place}".encode(), headers=[("trace", str(place).encode())])
    assert producer.flush(30) == 0


@dataclass(frozen=True)
class Job:
    """An agent, its home, and how to run it until its topic is read."""

    spark: SparkSession
    settings: Settings
    spec: AgentSpec
    bootstrap: str

    @property
    def source(self) -> str:
        return self.spec.data_sources.transactions.topic

    def run(self, llm: str = "none") -> None:
        with (
            Clients(self.settings, llm) as clients,
            open_agent(PlacedAgent(self.settings, self.spec), self.bootstrap, clients) as agent,
        ):
            StreamRunner(self.spark, agent.pipeline, agent.stream).run(threading.Event(), until_idle=True)

    def table(self, name: str, order: str) -> pa.Table:
        return stored(self.settings.lake(self.spec.name), name, order)

    def audited(self, kind: str) -> list[dict[str, Any]]:
        """The events of one kind in the audit log, which is sound."""
        places = AuditPlaces(PlacedAgent(self.settings, self.spec))
        assert check_audit(places).findings == ()
        return newest_events(places, kind, 1_000)

    def reconciled(self) -> Reconciliation:
        return reconcile(PlacedAgent(self.settings, self.spec), self.bootstrap, HOUR)

    def scores(self) -> dict[str, tuple[float, float]]:
        alerts = self.table("alerts", "outbox_seq")
        pairs = zip(alerts["score"].to_pylist(), alerts["log_odds"].to_pylist(), strict=True)
        return dict(zip(alerts["transaction_id"].to_pylist(), pairs, strict=True))

    def copy_to(self, home: Path) -> Job:
        shutil.copytree(self.settings.home, home)
        return replace(self, settings=replace(self.settings, home=home))


def new_job(
    spark: SparkSession,
    settings: Settings,
    bootstrap: str,
    topic: Topic,
    *,
    partitions: int = 1,
    source_config: Mapping[str, str] | None = None,
    **changes: object,
) -> Job:
    """Set an agent up; Kafka knows it by a name that no other test uses."""
    changes = {"name": topic("tester"), **changes}
    spec = load_spec(write_spec(settings.home.parent, topic, **changes))  # type: ignore[arg-type]  # keywords
    ensure_topic(bootstrap, spec.data_sources.transactions.topic, partitions, source_config)
    ensure_topic(bootstrap, spec.alerts.topic, 1)
    return Job(spark, settings, spec, bootstrap)


@dataclass(frozen=True)
class Done:
    """A job that has read everything, and what was sent to it."""

    job: Job
    stream: Stream


@pytest.fixture(scope="module")
def done(spark: SparkSession, bootstrap: str, tmp_path_factory: pytest.TempPathFactory) -> Done:
    """One run over 1,200 events on two partitions, with every kind of broken record among them."""
    marker = uuid.uuid4().hex[:8]
    settings = Settings.load(tmp_path_factory.mktemp("done") / "home")
    job = new_job(spark, settings, bootstrap, lambda name: f"{name}-{marker}", partitions=2)
    stream = Stream(bootstrap, job.source)
    for _ in range(3):
        stream.send(400)
    send(bootstrap, job.source, list(BROKEN.values()))
    job.run()
    return Done(job, stream)


def test_every_event_is_stored_quarantined_or_a_duplicate(done: Done) -> None:
    transactions = done.job.table("transactions", "sequence")
    quarantine = done.job.table("quarantine", "offset")
    duplicates = done.job.table("duplicates", "offset")
    assert Counter(transactions["transaction_id"].to_pylist()) == Counter(done.stream.sent_ids)
    assert transactions["sequence"].to_pylist() == list(range(len(done.stream.sent_ids)))
    assert quarantine.num_rows == done.stream.malformed + len(BROKEN)
    assert duplicates.num_rows == done.stream.redelivered > 0
    batches = done.job.table("batches", "batch_id").to_pylist()
    assert len(batches) > 2
    for batch in batches:
        assert batch["read"] == batch["stored"] + batch["quarantined"] + batch["duplicates"] > 0
    assert sum(batch["read"] for batch in batches) == 3 * 403 + done.stream.redelivered + len(BROKEN)


@pytest.mark.parametrize("reason", BROKEN)
def test_a_refused_record_is_kept_as_it_came_with_its_reason(reason: str, done: Done) -> None:
    quarantine = done.job.table("quarantine", "offset")
    key = f"key-{list(BROKEN).index(reason)}".encode()
    (row,) = quarantine.filter(pc.equal(quarantine["key"], key)).to_pylist()
    assert row["value"] == BROKEN[reason]
    assert row["headers"] == [{"key": "trace", "value": key.removeprefix(b"key-")}]
    assert row["reason"] == reason
    assert row["topic"] == done.job.source
    assert row["partition"] in {0, 1}
    assert row["offset"] >= 0
    assert abs(row["kafka_timestamp"] - datetime.now(UTC)) < HOUR


def test_alerts_in_delta_are_the_alerts_on_kafka(done: Done) -> None:
    alerts = done.job.table("alerts", "outbox_seq").to_pylist()
    messages = published(done.job.bootstrap, done.job.spec.alerts.topic)
    assert len(alerts) > 30
    assert [alert["outbox_seq"] for alert in alerts] == list(range(len(alerts)))
    for alert, message in zip(alerts, messages, strict=True):
        assert list(message) == [field.name for field in ALERT_FIELDS]
        for name in ("alert_id", "outbox_seq", "sequence", "score", "classification", "severity", "rules"):
            assert message[name] == alert[name]
    found = done.job.reconciled()
    assert found.differences == 0, found
    assert (found.alerts_in_delta, found.alerts_on_kafka) == (len(alerts), len(alerts))


def test_scores_are_those_of_one_fold_over_the_recorded_sequence(done: Done) -> None:
    assert done.job.scores() == folded_scores(done.job.spec, done.job.table("transactions", "sequence"))


def test_an_alert_is_taken_apart_from_delta_alone(done: Done) -> None:
    lake = done.job.settings.lake(done.job.spec.name)
    alert = done.job.table("alerts", "outbox_seq").to_pylist()[-1]
    customer = dict(alert["entities"])["customer"]
    rows = done.job.table("transactions", "sequence").to_pylist()
    before = [row for row in rows if row["customer"] == customer and row["sequence"] < alert["sequence"]]
    found = explain(AgentLake(lake, done.job.spec), alert["alert_id"][:12], "customer")
    assert found.alert["alert_id"] == alert["alert_id"]
    assert found.adds_up
    assert found.normal[0].payments == found.history.height == len(before) > 5
    assert len(found.nearest) == 5
    assert {each["transaction_id"] for each in found.nearest} <= {row["transaction_id"] for row in before}
    assert found.alert == explain(AgentLake(lake, done.job.spec), alert["transaction_id"], "customer").alert
    console = Console(record=True, width=120, file=io.StringIO())
    show(found, console)
    shown = console.export_text()
    assert "exact" in shown
    assert "X" in plot(found.history, found.alert)
    with pytest.raises(ConfigurationError, match="no alert"):
        explain(AgentLake(lake, done.job.spec), "0" * 32, "customer")


def test_every_batch_is_summed_up_in_monitoring(done: Done) -> None:
    batches = done.job.table("batches", "batch_id").to_pylist()
    told = done.job.table("monitoring", "batch_id").to_pylist()
    assert [(row["query_id"], row["batch_id"]) for row in told] == [
        (batch["query_id"], batch["batch_id"]) for batch in batches
    ]
    for row, batch in zip(told, batches, strict=True):
        assert (row["alert"], row["count"]) == (batch["alerts"] > 0, batch["alerts"])
        assert row["status"] == ("alert" if batch["alerts"] else "ok")
    assert sum(row["count"] for row in told) == done.job.table("alerts", "outbox_seq").num_rows


def test_every_batch_says_what_decided_it_and_what_it_took(done: Done) -> None:
    batches = done.job.table("batches", "batch_id").to_pylist()
    reached: dict[str, int] = {}
    for batch in batches:
        pins, versions = json.loads(batch["pins"]), json.loads(batch["versions"])
        assert AgentSpec.model_validate(pins["spec"]) == done.job.spec
        assert pins["spec_digest"] == done.job.spec.digest
        assert pins["contract_digest"] == CONTRACT.digest
        assert pins["model"] is None
        shared = {"labels", "labels_quarantine", "audit", "findings", "findings_sandbox", "specs", "shadow"}
        assert set(versions) == set(done.job.spec.tables.model_dump().values()) - shared
        durations = json.loads(batch["durations"])
        assert {"take", "decode", "store", "score", "publish"} <= durations.keys()
        assert all(seconds >= 0 for seconds in durations.values())
        offsets = json.loads(batch["offsets"])[done.job.source]
        assert batch["read"] == sum(offsets.values()) - sum(reached.values())
        reached = offsets
    assert [batch["first_sequence"] for batch in batches[1:]] == [
        batch["next_sequence"] for batch in batches[:-1]
    ]


def test_every_batch_is_audited_without_a_word_of_any_record(done: Done) -> None:
    batches = done.job.table("batches", "batch_id").to_pylist()
    told = done.job.audited("batch_decided")
    assert [(row["detail"]["batch_id"], row["detail"]["alerts"]) for row in told] == [
        (batch["batch_id"], batch["alerts"]) for batch in batches
    ]
    start = done.job.audited("configuration_change")
    assert [row["detail"]["change"] for row in start] == ["start"]
    assert start[0]["detail"]["spec_digest"] == done.job.spec.digest
    assert start[0]["detail"]["policy_digest"] is not None
    written = json.dumps(done.job.table("audit", "number").drop_columns(["at"]).to_pylist())
    assert "[redacted]" not in written
    seen = done.job.table("transactions", "sequence")
    for name in ("transaction_id", "customer"):
        assert not [value for value in seen[name].to_pylist() if json.dumps(value) in written]


@pytest.mark.parametrize(("table", "order"), [("alerts", "outbox_seq"), ("batches", "batch_id")])
def test_spark_reads_the_tables_of_the_job(table: str, order: str, done: Done) -> None:
    path = str(done.job.settings.lake(done.job.spec.name) / table)
    expected = done.job.table(table, order)
    done.job.spark.conf.set("spark.databricks.delta.snapshotPartitions", "1")
    found = done.job.spark.read.format("delta").load(path).sort(order).toArrow()
    assert found.select(expected.schema.names).to_pylist() == expected.to_pylist()


def test_profiles_come_back_from_checkpoints_as_from_a_whole_fold(done: Done, tmp_path: Path) -> None:
    job = done.job
    rows = LakeTable(
        job.settings.lake(job.spec.name) / "transactions",
        lake_schemas(CONTRACT)["transactions"],
        "reader",
        HOUR,
    )
    without = replace(job.settings, home=tmp_path / "without-checkpoints")
    engines = [
        Engine.on_rules(each, AgentDefinition.pinned(job.spec, CONTRACT)) for each in (job.settings, without)
    ]
    folders = folders_of(job.settings.profiles(job.spec.name))
    found = checkpoints.newest(folders, engines[0].decider.layout.definition)
    assert found.snapshot is not None
    split = found.snapshot.next_sequence + 100
    assert 500 <= found.snapshot.next_sequence < split < 1_200
    tail = rows.read("sequence", split)
    nothing = entity_labels_schema(CONTRACT.entity_names).empty_table()
    for engine in engines:
        engine.restore(rows, split, lambda *_: nothing, lambda *_: [])
    scored = [engine.memory.scorer.score(tail) for engine in engines]
    assert tail.num_rows > 0
    assert np.array_equal(scored[0].score, scored[1].score)
    assert np.array_equal(scored[0].log_odds, scored[1].log_odds)


def test_a_lake_that_does_not_know_sparks_batches_stops_the_agent(done: Done, tmp_path: Path) -> None:
    job = done.job.copy_to(tmp_path / "home")
    shutil.rmtree(job.settings.lake(job.spec.name).path)
    with pytest.raises(DataLossError, match="checkpoint"):
        job.run()


def test_a_contract_that_changes_a_stored_column_is_refused(done: Done, tmp_path: Path) -> None:
    content: dict[str, Any] = yaml.safe_load((CONTRACTS / "simulator.yaml").read_text(encoding="utf-8"))
    content["extra"]["country"] = {"field": "country", "type": "integer"}
    changed = tmp_path / "changed.yaml"
    changed.write_text(yaml.safe_dump(content), encoding="utf-8")
    source = done.job.spec.data_sources.transactions.model_copy(update={"contract": str(changed)})
    sources = done.job.spec.data_sources.model_copy(update={"transactions": source})
    spec = done.job.spec.model_copy(update={"data_sources": sources})
    with pytest.raises(ConfigurationError, match="'country' holds string there"):
        replace(done.job, spec=spec).run()


def test_a_restarted_agent_goes_on_as_if_it_had_never_stopped(
    spark: SparkSession, settings: Settings, bootstrap: str, topic: Topic, tmp_path: Path
) -> None:
    twice = new_job(spark, settings, bootstrap, topic)
    stream = Stream(bootstrap, twice.source)
    stream.send(397)  # with 3 malformed records a full batch of 400: both agents cut the stream alike
    twice.run()
    between = twice.table("batches", "batch_id").num_rows
    stream.send(395)
    twice.run()
    once = replace(
        twice,
        settings=replace(settings, home=tmp_path / "once"),
        spec=twice.spec.model_copy(
            update={
                "name": topic("once"),
                "alerts": twice.spec.alerts.model_copy(update={"topic": topic("once-alerts")}),
            }
        ),
    )
    ensure_topic(bootstrap, once.spec.alerts.topic, 1)
    once.run()
    assert (between, twice.table("batches", "batch_id").num_rows) == (1, 2)
    marks = ["query_id"]
    transactions = [job.table("transactions", "sequence").drop_columns(marks) for job in (twice, once)]
    assert transactions[0] == transactions[1]
    assert twice.scores() == once.scores() != {}
    assert [job.reconciled().differences for job in (twice, once)] == [0, 0]


def test_without_its_checkpoint_an_agent_resumes_from_the_offsets_in_the_lake(
    spark: SparkSession, settings: Settings, bootstrap: str, topic: Topic
) -> None:
    job = new_job(spark, settings, bootstrap, topic, partitions=2)
    stream = Stream(bootstrap, job.source)
    stream.send(300)
    job.run()
    shutil.rmtree(job.settings.checkpoint(job.spec.name))
    stream.send(200)
    job.run()
    batches = job.table("batches", "first_sequence")
    assert len(set(batches["query_id"].to_pylist())) == 2, "a new query"
    assert sum(batches["read"].to_pylist()) == 303 + 205, "nothing is read again"
    transactions = job.table("transactions", "sequence")
    assert sorted(transactions["transaction_id"].to_pylist()) == sorted(stream.sent_ids)
    assert job.scores() == folded_scores(job.spec, transactions)
    assert job.reconciled().differences == 0


def test_frauds_confirmed_on_the_labels_topic_make_their_terminal_suspect(
    spark: SparkSession, settings: Settings, bootstrap: str, topic: Topic
) -> None:
    job = new_job(spark, settings, bootstrap, topic, labels=topic("labels"))
    ensure_topic(bootstrap, topic("labels"), 1)
    stream = Stream(bootstrap, job.source)
    stream.send(400)
    job.run()
    transactions = job.table("transactions", "sequence").to_pylist()
    bad = {"m7", "m8", "m9"}
    labels = [
        {"transaction_id": row["transaction_id"], "is_fraud": row["terminal"] in bad} for row in transactions
    ]
    send(bootstrap, topic("labels"), [json.dumps(label).encode() for label in labels])
    stream.send(400)
    job.run()
    lake = job.settings.lake(job.spec.name)
    assert labels_by_row(AgentLake(lake, job.spec)).num_rows == 400
    alerts = job.table("alerts", "outbox_seq").to_pylist()
    blamed = {
        alert["sequence"]: dict(alert["entities"])["terminal"]
        for alert in alerts
        if any(each["name"] == "risk.terminal" and each["contribution"] > 2 for each in alert["reasons"])
    }
    assert bad.issuperset(blamed.values())
    assert min(blamed) >= 400, "nothing was known of them before"
    assert read_status(AgentLake(lake, job.spec), None).labels == 400
    assert job.scores() == folded_scores(job.spec, job.table("transactions", "sequence"), lake)
    found = replayed(job, slice_rows=77)
    assert (found.rows, found.alerts) == (800, len(alerts))
    assert found.differences == (), "each row knows what it knew then"


def test_rules_of_a_file_change_between_batches_and_look_at_features(
    spark: SparkSession, settings: Settings, bootstrap: str, topic: Topic, tmp_path: Path
) -> None:
    path = tmp_path / "rules.yaml"
    rule = {"name": "busy", "when": "count_customer_1_hour >= 8", "severity": "low", "reason": "busy"}
    path.write_text(yaml.safe_dump({"rules": [rule]}), encoding="utf-8")
    job = new_job(spark, settings, bootstrap, topic, threshold=0.9999, rules_file=str(path))
    stream = Stream(bootstrap, job.source)
    with open_agent(PlacedAgent(job.settings, job.spec), bootstrap, Clients(job.settings, "none")) as agent:
        for when in (rule["when"], "score > 0.99 and amount > 1"):
            path.write_text(yaml.safe_dump({"rules": [{**rule, "when": when}]}), encoding="utf-8")
            stream.send(300)
            StreamRunner(spark, agent.pipeline, agent.stream).run(threading.Event(), until_idle=True)
    alerts = pl.DataFrame(job.table("alerts", "outbox_seq").drop_columns(["entities"]))
    busy = alerts.filter(pl.col("rules").list.contains("busy"))
    first, second = (busy.filter(pl.col("batch_id") == batch) for batch in (0, 1))
    assert first["score"].min() < 0.99 < second["score"].min()  # type: ignore[operator]  # a float column
    assert [part["rules_version"].n_unique() for part in (first, second, busy)] == [1, 1, 2]
    assert replayed(job).differences == ()


def test_versions_take_over_between_batches_without_a_restart_and_are_rolled_back_in_one_command(
    spark: SparkSession, settings: Settings, bootstrap: str, topic: Topic
) -> None:
    job = new_job(spark, settings, bootstrap, topic, threshold=0.99)
    stricter = AgentSpec.model_validate(
        {**job.spec.model_dump(), "version": "1.1.0", "threshold": 0.999, "promotion": {"canary_percent": 40}}
    )
    off = {"rate": {"enabled": False}, "novelty": {"enabled": False}}
    pair = {"entity": "customer", "first": "amount > 20", "then": "amount > 25", "within": "1h"}
    rule = {"name": "twice", "sequence": pair, "severity": "low", "reason": "twice"}
    changed = AgentSpec.model_validate(
        {**job.spec.model_dump(), "version": "1.2.0", "threshold": 0.9, "detectors": off, "rules": [rule]}
    )
    stream = Stream(bootstrap, job.source)
    activate(settings, job.spec)

    def in_shadow() -> None:
        """What 1.2.0 decides beside the agent is on record before it takes over, as it is afterwards."""
        wait_until(
            lambda: (found := read_stored(lake / "shadow")) is not None and found.num_rows > 0,
            60,
            "a batch that is decided in shadow",
        )

    lake, beside = settings.lake(job.spec.name), list[SideBySide]()
    steps = [
        lambda: put(settings, entry(changed, "shadow", "promoted", datetime.now(UTC))),
        lambda: (in_shadow(), activate(settings, stricter, job.spec)),
        lambda: put(settings, entry(changed, "canary", "promoted")),
        lambda: (
            beside.extend(read_status(AgentLake(lake, job.spec), None).beside),
            activate(settings, changed, stricter),
        ),
        lambda: SpecRegistry(PlacedAgent(settings, job.spec)).rollback(Author("anna", "too many alerts")),
    ]
    with open_agent(PlacedAgent(job.settings, job.spec), bootstrap, Clients(job.settings, "none")) as agent:
        for step in steps:
            step()
            agent.registry.refresh()
            stream.send(300)
            StreamRunner(spark, agent.pipeline, agent.stream).run(threading.Event(), until_idle=True)
    batches = job.table("batches", "first_sequence").to_pylist()
    pins = [json.loads(each["pins"]) for each in batches]
    shared_batches = {
        (each["query_id"], each["batch_id"]) for each in batches if "canary" in json.loads(each["pins"])
    }
    versions = [each["spec"]["version"] for each in pins]
    assert list(dict.fromkeys(versions)) == [job.spec.version, "1.1.0", "1.2.0"]
    assert versions[-1] == "1.1.0"
    found = job.table("alerts", "outbox_seq")
    alerts = pl.DataFrame(found.drop_columns(["entities"]))
    by_score = alerts.filter(pl.col("rules").list.len() == 0)
    lowest = dict(by_score.group_by("spec_version").agg(pl.col("score").min()).iter_rows())
    assert lowest.pop("1.2.0") < 0.99 <= min(lowest.values(), default=1.0)
    assert replayed(job).differences == (), "every batch pinned its versions"

    shared = {each["canary"]["percent"]: each["spec"]["version"] for each in pins if "canary" in each}
    assert shared == {40.0: "1.1.0"}
    owners = Counter(
        (row["spec_version"], in_share(dict(row["entities"])[CONTRACT.primary_entity], 40))
        for row in found.to_pylist()
        if (row["query_id"], row["batch_id"]) in shared_batches
    )
    assert owners["1.2.0", True] > 0 == owners["1.2.0", False] + owners["1.1.0", True]
    (side,) = beside
    assert (side.percent, side.published.version, side.beside.version) == (40, "1.1.0", "1.2.0")
    assert side.beside.alerts == owners["1.2.0", True]
    assert side.published.alerts == owners["1.1.0", False]
    told = [each["detail"]["version"] for each in job.audited("configuration_change")
            if each["detail"]["change"] == "rolled_back"]  # fmt: skip
    assert told == ["1.2.0"]


def test_sequences_and_absences_are_alerted_once_across_restarts_and_changing_rules(
    spark: SparkSession, settings: Settings, bootstrap: str, topic: Topic, tmp_path: Path
) -> None:
    path = tmp_path / "rules.yaml"
    times = {"within": "40s", "lateness": "20s"}
    forms = {
        "twice": {"sequence": {"entity": "customer", "first": "amount > 20", "then": "amount > 25", **times}},
        "silent": {
            "absence": {"entity": "customer", "after": "amount > 25", "expected": "amount < 20", **times}
        },
        "left": {
            "absence": {"entity": "terminal", "after": "amount > 30", "expected": "amount < 5", **times}
        },
    }

    def put_in_force(*names: str) -> None:
        rules = [{"name": name, **forms[name], "severity": "medium", "reason": name} for name in names]
        path.write_text(yaml.safe_dump({"rules": rules}), encoding="utf-8")

    put_in_force("twice", "silent")
    job = new_job(spark, settings, bootstrap, topic, threshold=0.9999, rules_file=str(path))
    stream = Stream(bootstrap, job.source)
    stream.send(300)
    job.run()
    with open_agent(PlacedAgent(job.settings, job.spec), bootstrap, Clients(job.settings, "none")) as agent:
        for names in (("silent", "left"), ("silent", "twice")):
            put_in_force(*names)
            stream.send(300)
            StreamRunner(spark, agent.pipeline, agent.stream).run(threading.Event(), until_idle=True)
    stream.send(300)
    job.run()
    alerts = job.table("alerts", "outbox_seq").to_pylist()
    kinds = Counter(alert["kind"] for alert in alerts)
    assert set(kinds) == {"transaction", "absence.silent", "absence.left"}
    assert len({alert["alert_id"] for alert in alerts}) == len(alerts)
    silent = [alert for alert in alerts if alert["kind"] == "absence.silent"]
    ends = job.table("batches", "first_sequence")["next_sequence"].to_pylist()
    crossed = {np.searchsorted(ends, each["sequence"], side="right") for each in silent
               if any(each["sequence"] < end <= each["passed_by"] for end in ends)}  # fmt: skip
    assert len(crossed) > 1, "some were awaited across batches, a restart among them"
    found = job.reconciled()
    assert (found.differences, found.alerts_on_kafka) == (0, len(alerts))
    for again in (replayed(job), replayed(job, slice_rows=77)):
        assert (again.rows, again.alerts, again.differences) == (1_200, len(alerts), ())
    one = replayed(job, alert=silent[-1]["alert_id"])
    assert one.span.first <= silent[-1]["passed_by"] < one.span.end
    assert one.differences == ()
    lake = job.settings.lake(job.spec.name)
    told = explain(AgentLake(lake, job.spec), silent[0]["alert_id"], "customer")
    shown = io.StringIO()
    show(told, Console(file=shown, width=200))
    assert told.adds_up
    assert f"rule silent: {silent[0]['rule_texts'][0]}" in shown.getvalue()
    put_in_force("silent")
    same = run_what_if(PlacedAgent(job.settings, job.spec), job.spec, ReplaySpan())
    assert same.published.by_reason["rule left"] == kinds["absence.left"]
    assert "rule left" not in same.replayed.by_reason
    assert same.replayed.alerts == same.kept + same.added


def replayed(job: Job, *, slice_rows: int = 1_000, **wanted: Any) -> ExactReplay:
    history = DecidedHistory(PlacedAgent(job.settings, job.spec))
    span = ReplaySpan(**wanted).span(history)
    return Replayer(
        job.settings, AgentDefinition.pinned(job.spec, CONTRACT), history, slice_rows=slice_rows
    ).exactly(span)


def test_a_replay_in_slices_of_any_size_decides_bit_for_bit_what_was_published(done: Done) -> None:
    alerts = done.job.table("alerts", "outbox_seq").to_pylist()
    for slice_rows in (97, 5_000):
        found = replayed(done.job, slice_rows=slice_rows)
        assert (found.rows, found.alerts, found.differences) == (1_200, len(alerts), ())
    batches = done.job.table("batches", "first_sequence").to_pylist()
    one = replayed(done.job, alert=alerts[-1]["alert_id"])
    assert (one.span.first, one.span.end) in {(b["first_sequence"], b["next_sequence"]) for b in batches}
    assert one.span.first <= alerts[-1]["sequence"] < one.span.end
    assert one.differences == ()
    versions = [json.loads(batch["versions"])["transactions"] for batch in batches]
    some = replayed(done.job, from_version=versions[0], to_version=versions[1])
    assert some.span == (batches[0]["next_sequence"], batches[1]["next_sequence"])
    assert some.differences == ()
    moment = done.job.table("transactions", "sequence")["event_time"][600].as_py().replace(tzinfo=None)
    assert replayed(done.job, from_time=moment).differences == ()


def note_sizes(table: Path) -> None:
    """Have the log name the files' sizes as they are now, as who forges them would."""
    for commit in (table / "_delta_log").glob("*.json"):
        actions = [json.loads(line) for line in commit.read_text(encoding="utf-8").splitlines()]
        for added in (action["add"] for action in actions if "add" in action):
            added["size"] = (table / added["path"]).stat().st_size
        commit.write_text("\n".join(map(json.dumps, actions)), encoding="utf-8")


def test_what_was_changed_after_it_was_decided_shows(done: Done, tmp_path: Path) -> None:
    job = done.job.copy_to(tmp_path / "home")
    lake, alerts = job.settings.lake(job.spec.name), job.table("alerts", "outbox_seq")
    forged = alerts.set_column(
        alerts.schema.get_field_index("score"), "score", pc.subtract(alerts["score"], 1e-12)
    )
    version = DeltaTable((lake / "alerts").path).version()
    for path in ((lake / "alerts").path).glob("*.parquet"):
        rows = forged.filter(
            pc.is_in(forged["outbox_seq"], pq.read_table(path)["outbox_seq"].combine_chunks())
        )
        pq.write_table(rows, path)
    note_sizes((lake / "alerts").path)
    assert DeltaTable((lake / "alerts").path).version() == version
    found = replayed(job)
    assert len(found.differences) == alerts.num_rows
    assert {tuple(each.fields) for each in found.differences} == {("score",)}


def test_a_stream_goes_on_after_a_backfill_and_is_replayed_from_a_snapshot(
    spark: SparkSession, settings: Settings, bootstrap: str, topic: Topic
) -> None:
    job = new_job(spark, settings, bootstrap, topic)
    stream, rng = Stream(bootstrap, job.source), random.Random(5)
    file = settings.home.parent / "history.jsonl"
    file.write_bytes(b"".join(stream._event(rng) + b"\n" for _ in range(500)))
    assert run_backfill(PlacedAgent(job.settings, job.spec), file)["stored"] == 500
    stream.send(600)
    job.run()
    found = job.reconciled()
    assert (found.differences, found.transactions, found.alerts_in_delta > 5) == (0, 1_100, True)
    again = replayed(job)
    assert (again.rows, again.backfilled, again.differences) == (600, 500, ())
    assert min(job.table("alerts", "outbox_seq")["sequence"].to_pylist()) >= 500
    create_snapshot(job.settings, AgentDefinition.pinned(job.spec, CONTRACT), "all", again.span)
    for table in ("transactions", "alerts", "batches", "labels"):
        shutil.rmtree((job.settings.lake(job.spec.name) / table).path)
    shutil.rmtree(job.settings.profiles(job.spec.name).path)
    assert run_replay(PlacedAgent(job.settings, job.spec), ReplaySpan(snapshot="all")) == again


def test_a_candidate_is_judged_in_a_sandbox_and_publishes_nothing(done: Done, tmp_path: Path) -> None:
    job = done.job
    before = versions(job.settings.lake(job.spec.name)), published(job.bootstrap, job.spec.alerts.topic)
    file = write_spec(tmp_path, lambda name: name, version="2.0.0", limit=60, threshold=0.99)
    candidate = load_spec(file)
    found = run_what_if(PlacedAgent(job.settings, job.spec), candidate, ReplaySpan())
    rows = job.table("transactions", "sequence")
    expected = set(folded_scores(candidate, rows))
    kept = pl.DataFrame(read_stored(Place.local(found.sandbox / "alerts")))
    assert set(kept["transaction_id"]) == expected
    assert found.replayed.alerts == len(expected) == found.kept + found.added
    assert found.published.alerts == job.table("alerts", "outbox_seq").num_rows == found.kept + found.removed
    flips = sum(sum(row.values()) for row in found.flips["severity"].values())
    assert flips == found.kept + found.added + found.removed
    assert sum(new for _, new in found.per_day.values()) == found.replayed.alerts
    page = write_report(found, tmp_path / "report.html").read_text()
    assert "<svg" in page
    assert str(found.replayed.alerts) in page
    after = versions(job.settings.lake(job.spec.name)), published(job.bootstrap, job.spec.alerts.topic)
    assert after == before


def test_alerts_of_a_span_are_sent_once_more_to_another_topic_exactly_once(done: Done, topic: Topic) -> None:
    job, other = done.job, topic("again")
    alerts = job.table("alerts", "outbox_seq").to_pylist()
    sent = send_again(PlacedAgent(job.settings, job.spec), ReplaySpan(), job.bootstrap, other)
    assert (sent["alerts"], sent["sent"]) == (len(alerts), len(alerts))
    again = send_again(PlacedAgent(job.settings, job.spec), ReplaySpan(), job.bootstrap, other)
    assert (again["alerts"], again["sent"]) == (len(alerts), 0)
    part = send_again(
        PlacedAgent(job.settings, job.spec), ReplaySpan(alert=alerts[0]["alert_id"]), job.bootstrap, other
    )
    messages = list(committed_messages(job.bootstrap, other))
    values = [message.value() for message in messages]
    assert values[: len(alerts)] == [
        message.value() for message in committed_messages(job.bootstrap, job.spec.alerts.topic)
    ]
    assert len(values) - len(alerts) == part["sent"] == part["alerts"]
    marks = {dict(message.headers() or ())["replay"] for message in messages}
    assert marks == {str(each["replay"]).encode() for each in (sent, part)}
    assert job.reconciled().differences == 0
    with pytest.raises(ConfigurationError, match="does not use itself"):
        send_again(PlacedAgent(job.settings, job.spec), ReplaySpan(), job.bootstrap, job.spec.alerts.topic)


def test_the_alerts_table_is_a_source_for_structured_streaming(
    done: Done, spark: SparkSession, tmp_path: Path
) -> None:
    path = done.job.settings.lake(done.job.spec.name) / "alerts"
    alerts = spark.readStream.format("delta").option("startingVersion", "0").load(str(path))
    writer = alerts.writeStream.format("delta").option("checkpointLocation", str(tmp_path / "checkpoint"))
    query = writer.trigger(availableNow=True).start(str(tmp_path / "copy"))
    query.awaitTermination()
    copied = DeltaTable(tmp_path / "copy").to_pyarrow_table().sort_by("outbox_seq")
    ours = done.job.table("alerts", "outbox_seq")
    assert copied["alert_id"].to_pylist() == ours["alert_id"].to_pylist()


def test_replays_that_cannot_be_are_refused_with_what_to_do(done: Done, tmp_path: Path) -> None:
    job = done.job.copy_to(tmp_path / "home")
    sandboxes = sorted(job.settings.sandbox(job.spec.name).rglob("*"))
    refusals: dict[str, dict[str, Any]] = {
        "no alert with this id": {"alert": "nobody-knows-it"},
        "is still to come": {"to_version": 10_000},
        "no batch brought": {"from_version": 0, "to_version": 0},
        "no transactions in this span": {"to_time": datetime(2001, 1, 1)},
        "choose one of": {"alert": "a", "to_version": 1},
    }
    for message, wanted in refusals.items():
        with pytest.raises(ConfigurationError, match=message):
            replayed(job, **wanted)
    with pytest.raises(ConfigurationError, match="candidate is for contract 'handbook'"):
        run_what_if(PlacedAgent(job.settings, job.spec), load_spec(SPECS / "handbook.yaml"), ReplaySpan())
    assert sorted(job.settings.sandbox(job.spec.name).rglob("*")) == sandboxes
    lake = job.settings.lake(job.spec.name)
    first = json.loads(job.table("batches", "first_sequence")["versions"][0].as_py())["transactions"]
    ((lake / "transactions" / "_delta_log" / f"{first:020}.json").path).unlink()
    with pytest.raises(
        ConfigurationError,
        match=r"entries of it are missing\. No span can be replayed any more",
    ):
        replayed(job)


def test_a_model_that_is_not_there_loses_no_alert(
    spark: SparkSession, settings: Settings, bootstrap: str, topic: Topic
) -> None:
    with nobody_listening() as address:
        llm = {"mode": "inline", "base_url": address, "deadline": "5s"}
        job = new_job(spark, settings, bootstrap, topic, llm=llm)
        Stream(bootstrap, job.source).send(200)
        job.run(llm="auto")
    alerts = job.table("alerts", "outbox_seq").to_pylist()
    assert job.scores() == folded_scores(job.spec, job.table("transactions", "sequence"))
    assert {alert["classification_source"] for alert in alerts} == {"rules"}
    reasons = Counter(alert["fallback_reason"] for alert in alerts)
    assert reasons["unreachable"] > 0
    assert set(reasons) <= {"unreachable", "circuit_open", "over_budget"}
    calls = job.audited("model_call")
    assert {row["detail"]["outcome"] for row in calls} <= {"unreachable", "circuit_open"}
    assert len(calls) >= sum(job.table("batches", "batch_id")["llm_calls"].to_pylist()) > 0
    assert set(job.table("monitoring", "batch_id")["status"].to_pylist()) == {"degraded"}
    assert read_status(PlacedAgent(job.settings, job.spec), None).degraded_share == 1.0
    found = job.reconciled()
    assert found.differences == 0, found
    assert found.alerts_on_kafka == len(alerts) > 0


def test_records_that_left_the_topic_unread_are_not_passed_over(
    spark: SparkSession, settings: Settings, bootstrap: str, topic: Topic
) -> None:
    job = new_job(spark, settings, bootstrap, topic)
    stream = Stream(bootstrap, job.source)
    stream.send(30)
    job.run()
    stream.send(30)
    admin = AdminClient(connection(bootstrap))
    lost = TopicPartition(job.source, 0, OFFSET_END)
    admin.delete_records([lost])[lost].result(30)
    with pytest.raises(DataLossError, match="no longer holds offsets 33 to 67 of partition 0"):
        job.run()


def test_a_checkpoint_that_was_set_back_is_refused(done: Done, tmp_path: Path) -> None:
    job = done.job.copy_to(tmp_path / "home")
    closed = job.table("batches", "batch_id").to_pylist()[0]
    offsets = json.loads(closed["offsets"])
    later = {name: {place: end + 5 for place, end in ends.items()} for name, ends in offsets.items()}
    with open_agent(
        PlacedAgent(job.settings, job.spec), job.bootstrap, Clients(job.settings, "none")
    ) as agent:
        batch = (closed["query_id"], closed["batch_id"])
        assert agent.pipeline.process(lambda: pa.table({}), *batch, lambda: offsets) is None
        with pytest.raises(DataLossError, match="checkpoint was set back"):
            agent.pipeline.process(lambda: pa.table({}), *batch, lambda: later)


def test_a_lake_whose_log_was_cleaned_up_goes_on_where_its_rows_end(
    spark: SparkSession, settings: Settings, bootstrap: str, topic: Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = new_job(spark, settings, bootstrap, topic)
    stream = Stream(bootstrap, job.source)
    stream.send(100)
    job.run()
    monkeypatch.setattr(LakeTable, "newest_metadata", lambda _: None)
    stream.send(100)
    job.run()
    transactions = job.table("transactions", "sequence")
    assert transactions["sequence"].to_pylist() == list(range(200))
    assert job.scores() == folded_scores(job.spec, transactions)
    assert job.reconciled().differences == 0
