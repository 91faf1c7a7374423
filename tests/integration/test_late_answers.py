"""Late answers on real Spark, Kafka and Delta: revision 2 of each alert, once, whenever the model answers."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence

import pytest
from pyspark.sql import SparkSession

from schemas.errors import RetryableError
from schemas.spec import AgentSpec
from streaming.batch.late_answers import LateTotals
from streaming.batch.runner import StreamRunner
from streaming.history.replay_runs import ReplaySpan, run_what_if, send_again
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.kafka.outbox_record import OutboxRecord
from streaming.run.opening import open_agent
from streaming.run.status import Status, read_status
from streaming.run.surroundings import Hooks
from streaming.testing import scripted_llm as scripted
from streaming.testing.drivers import wait_until
from streaming.testing.streams import Stream, folded_scores, published
from streaming.versions.clients import Clients
from tests.integration.test_main_job import Job, Topic, new_job, replayed
from tests.registry_rows import activate

SECONDS = 90.0


def status_of(job: Job) -> Status:
    return read_status(PlacedAgent(job.settings, job.spec), None)


def run_until(job: Job, enough: Callable[[Status], bool]) -> LateTotals:
    """Run an agent until its status is as wanted; return what late answers came to."""
    stop = threading.Event()

    def watch() -> None:
        latest = time.monotonic() + SECONDS
        while not (enough(status_of(job)) or stop.wait(0.1) or time.monotonic() > latest):
            pass
        stop.set()

    with (
        Clients(job.settings, "auto") as clients,
        open_agent(PlacedAgent(job.settings, job.spec), job.bootstrap, clients) as agent,
    ):
        watching = threading.Thread(target=watch)
        watching.start()
        try:
            StreamRunner(job.spark, agent.pipeline, agent.stream).run(stop)
        finally:
            stop.set()
            watching.join()
        assert agent.late is not None
        assert enough(status_of(job)), "in time"
        return agent.late.totals


def settled(status: Status) -> bool:
    return status.late["pending"] == 0


def await_settled(job: Job) -> None:
    wait_until(lambda: settled(status_of(job)), SECONDS, "every alert to be answered")


def test_answers_follow_as_revision_2_after_a_restart_and_on_an_idle_topic(
    spark: SparkSession, settings: Settings, bootstrap: str, topic: Topic
) -> None:
    answering = threading.Event()

    def in_its_own_time(request: scripted.LlmRequest) -> scripted.LlmReply:
        return (scripted.answer() if answering.is_set() else scripted.hang())(request)

    with scripted.scripted_llm(default=in_its_own_time) as server:
        llm = {"base_url": server.base_url, "groups_per_request": 1}
        job = new_job(spark, settings, bootstrap, topic, llm=llm, limit=40)
        stream = Stream(bootstrap, job.source)
        stream.send(300)
        job.run(llm="auto")  # it ends, although no answer comes for an hour: a stop waits for none
        first = job.table("alerts", "outbox_seq").to_pylist()
        assert {(each["revision"], each["fallback_reason"]) for each in first} == {(1, "deferred")}
        assert len(published(bootstrap, job.spec.alerts.topic)) == len(first) > 10
        assert status_of(job).late == {"pending": len(first), "answered": 0, "given_up": 0}
        assert replayed(job).differences == ()

        answering.set()
        totals = run_until(job, settled)
        assert totals.answered == len(first)
        assert job.reconciled().differences == 0

        stream.send(300)
        run_until(job, lambda status: status.totals["stored"] == 600 and settled(status))
        asked = Counter(request.user_message for request in server.requests)

    alerts = job.table("alerts", "outbox_seq").to_pylist()
    sent = published(bootstrap, job.spec.alerts.topic)
    keys = [(each["alert_id"], each["revision"]) for each in alerts]
    assert [(each["alert_id"], each["revision"]) for each in sent] == keys
    ids = {each["alert_id"] for each in alerts}
    assert len(ids) > len(first)
    assert sorted(keys) == sorted((each, revision) for each in ids for revision in (1, 2))
    assert [each["outbox_seq"] for each in alerts] == list(range(len(alerts)))
    for place, each in enumerate(alerts):
        if each["revision"] == 2:
            assert keys.index((each["alert_id"], 1)) < place
            assert (each["classification"], each["classification_source"]) == ("card_testing", "llm")
            assert (each["model"], each["fallback_reason"]) == ("gpt-4o-mini", None)
    assert job.scores() == folded_scores(job.spec, job.table("transactions", "sequence"))
    assert job.reconciled().differences == 0

    status = status_of(job)
    assert status.late == {"pending": 0, "answered": len(ids), "given_up": 0}
    assert (status.totals["alerts"], status.totals["llm_alerts"]) == (len(ids), len(ids))
    answered = status.totals["input_tokens"] // 100
    assert answered == len(asked) <= status.totals["llm_calls"]
    assert set(job.table("monitoring", "batch_id")["status"].to_pylist()) == {"alert"}

    found = replayed(job)
    assert (found.alerts, found.differences) == (len(ids), ())
    same = run_what_if(PlacedAgent(job.settings, job.spec), job.spec, ReplaySpan())
    assert (same.added, same.removed, same.unanswered, same.kept) == (0, 0, 0, len(ids))
    assert all({old} == set(row) for flips in same.flips.values() for old, row in flips.items())
    again = send_again(PlacedAgent(job.settings, job.spec), ReplaySpan(), bootstrap, topic("again"))
    assert again["sent"] == len(alerts)


def test_an_alert_whose_answers_are_of_no_use_is_given_up_and_not_asked_about_again(
    spark: SparkSession, settings: Settings, bootstrap: str, topic: Topic
) -> None:
    with scripted.scripted_llm(default=scripted.says("no idea")) as server:
        job = new_job(spark, settings, bootstrap, topic, llm={"base_url": server.base_url}, limit=40)
        stream = Stream(bootstrap, job.source)
        stream.send(60)
        totals = run_until(job, lambda status: status.late["given_up"] > 0 and settled(status))
        asked = len(server.requests)
        assert totals.given_up == status_of(job).totals["degraded"] > 0
        stream.send(1)
        run_until(job, lambda status: status.totals["stored"] == 61 and settled(status))
        assert len(server.requests) == asked
    assert set(job.table("alerts", "outbox_seq")["revision"].to_pylist()) == {1}
    assert job.reconciled().differences == 0


def test_a_fault_in_the_lane_stops_an_idle_agent_and_the_next_one_goes_on(
    spark: SparkSession, settings: Settings, bootstrap: str, topic: Topic
) -> None:
    def refuse(records: Sequence[OutboxRecord]) -> None:
        if any(json.loads(record.value)["revision"] == 2 for record in records):
            raise RetryableError("no room for answers")

    with scripted.scripted_llm() as server:
        job = new_job(spark, settings, bootstrap, topic, llm={"base_url": server.base_url}, limit=40)
        Stream(bootstrap, job.source).send(100)
        with (
            Clients(settings, "auto") as clients,
            open_agent(
                PlacedAgent(settings, job.spec), bootstrap, clients, Hooks(before_commit=refuse)
            ) as agent,
            pytest.raises(RetryableError, match="no room for answers"),
        ):
            StreamRunner(spark, agent.pipeline, agent.stream).run(threading.Event())
        assert {each["revision"] for each in published(bootstrap, job.spec.alerts.topic)} == {1}
        run_until(job, settled)
    revisions = Counter(each["revision"] for each in published(bootstrap, job.spec.alerts.topic))
    assert revisions[1] == revisions[2] > 0
    assert job.reconciled().differences == 0


def test_versions_switch_the_model_on_and_off_without_a_restart(
    spark: SparkSession, settings: Settings, bootstrap: str, topic: Topic
) -> None:
    with scripted.scripted_llm() as server:
        job = new_job(spark, settings, bootstrap, topic, llm={"provider": "none"}, limit=40)
        asking, silent = (
            AgentSpec.model_validate({**job.spec.model_dump(), "version": version, "llm": llm})
            for version, llm in (("1.1.0", {"base_url": server.base_url}), ("1.2.0", {"provider": "none"}))
        )
        stream, asked = Stream(bootstrap, job.source), []
        steps = [
            lambda: activate(settings, job.spec),
            lambda: activate(settings, asking, job.spec),
            lambda: activate(settings, silent, asking),
        ]
        with (
            Clients(job.settings, "auto") as clients,
            open_agent(PlacedAgent(job.settings, job.spec), job.bootstrap, clients) as agent,
        ):
            for step in steps:
                step()
                agent.registry.refresh()
                stream.send(100)
                StreamRunner(spark, agent.pipeline, agent.stream).run(threading.Event(), until_idle=True)
                await_settled(job)
                asked.append(len(server.requests))
    assert asked[0] == 0 < asked[1] == asked[2]
    alerts = job.table("alerts", "outbox_seq").to_pylist()
    revisions = {(each["spec_version"], each["revision"]) for each in alerts}
    assert revisions == {(job.spec.version, 1), ("1.1.0", 1), ("1.1.0", 2), ("1.2.0", 1)}
    assert replayed(job).differences == ()
    assert job.reconciled().differences == 0
