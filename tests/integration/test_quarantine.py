"""Records out of the quarantine on real Spark, Kafka and Delta, while the agent runs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pyarrow.compute as pc
import pytest
import yaml
from pyspark.sql import SparkSession

from schemas.contract import load_contract
from streaming.batch.runner import StreamRunner
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.quarantine.choosing import RecordFilter
from streaming.quarantine.inspection import Quarantine
from streaming.run.opening import open_agent
from streaming.testing.drivers import wait_until
from streaming.testing.streams import Stream, published
from streaming.versions.clients import Clients
from streaming.versions.registry import Author
from tests.integration.test_main_job import Job, Topic, new_job, replayed

SECONDS = 60.0
pytestmark = pytest.mark.timeout(240)  # the broker and Spark start here where it runs alone
SENT = 200


def contract_file(folder: Path, amount: str) -> Path:
    content = load_contract("simulator").model_dump(mode="json", exclude_none=True)
    content["amount"]["field"] = amount
    path = folder / f"{amount}.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def drive_beside(job: Job, people: Callable[[], None]) -> None:
    """Run the agent until people are done with what they do beside it."""
    stop, failed = threading.Event(), list[BaseException]()

    def act() -> None:
        try:
            people()
        except BaseException as fault:
            failed.append(fault)
        finally:
            stop.set()

    with (
        Clients(job.settings, "none") as clients,
        open_agent(PlacedAgent(job.settings, job.spec), job.bootstrap, clients) as agent,
    ):
        acting = threading.Thread(target=act)
        acting.start()
        try:
            StreamRunner(job.spark, agent.pipeline, agent.stream, requested=agent.requested).run(stop)
        finally:
            stop.set()
            acting.join()
    for fault in failed:
        raise fault


def test_records_that_a_wrong_contract_rejected_are_taken_in_while_the_agent_runs(
    spark: SparkSession, settings: Settings, bootstrap: str, topic: Topic, tmp_path: Path
) -> None:
    wrong, right = contract_file(tmp_path, "amuont"), contract_file(tmp_path, "amount")
    source = {"contract": str(wrong), "topic": topic("events"), "max_records_per_batch": 400}
    job = new_job(spark, settings, bootstrap, topic, data_sources={"transactions": source})
    stream, quarantine = Stream(bootstrap, job.source), Quarantine(PlacedAgent(job.settings, job.spec))
    alerts = job.spec.alerts.topic

    def people() -> None:
        stream.send(SENT)
        rejected = SENT + stream.malformed
        wait_until(
            lambda: quarantine.waiting(RecordFilter()).height == rejected,
            SECONDS,
            "the records to be rejected",
        )
        asked = quarantine.requeue(
            RecordFilter(("missing_field",)),
            str(right),
            Author("anna", "the contract was wrong"),
            dry_run=False,
        )
        assert asked["would_be_stored"] == SENT
        stream.send(SENT)
        wait_until(lambda: quarantine.requests()[0]["state"] == "done", SECONDS, "the request to be taken")
        wait_until(lambda: len(published(bootstrap, alerts)) > 0, SECONDS, "an alert")

    drive_beside(job, people)
    (request,) = quarantine.requests()
    assert (request["stored"], request["no_longer_waiting"]) == (SENT, 0)
    transactions = job.table("transactions", "sequence")
    assert transactions.num_rows == SENT
    assert pc.all(pc.starts_with(transactions["query_id"], "requeue-")).as_py()
    sent = published(bootstrap, alerts)
    assert {each["transaction_id"] for each in sent} == set(job.scores())
    found = job.reconciled()
    assert (found.requeued, found.differences) == (request["records"], 0), found
    assert replayed(job).differences == ()
    # With a lost checkpoint the stream goes on where it was, and takes nothing twice.
    for path in sorted(job.settings.checkpoint(job.spec.name).rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    stream.send(10)
    job.run()
    assert job.table("transactions", "sequence").num_rows == SENT
    assert job.reconciled().differences == 0
