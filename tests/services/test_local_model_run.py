"""A whole run that asks the local model: every call is on record, and replays know the answers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable

from pyspark.sql import SparkSession

from streaming.history.replay_runs import ReplaySpan, run_what_if
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.testing.streams import Stream
from tests.integration.test_main_job import new_job, replayed

Topic = Callable[[str], str]


def test_the_local_model_classifies_alerts_of_a_whole_run(
    spark: SparkSession, settings: Settings, bootstrap: str, topic: Topic
) -> None:
    llm = {"mode": "inline", "deadline": "60s", "max_concurrency": 1, "budget": {"calls_per_batch": 2}}
    job = new_job(spark, settings, bootstrap, topic, llm=llm)
    Stream(bootstrap, job.source).send(150)
    job.run(llm="local")
    alerts = job.table("alerts", "outbox_seq").to_pylist()
    by_model = [alert for alert in alerts if alert["classification_source"] == "llm"]
    assert by_model, Counter(alert["fallback_reason"] for alert in alerts)
    for alert in by_model:
        assert (alert["model"], alert["prompt_id"], alert["fallback_reason"]) == ("local", "triage", None)
        assert alert["evidence"]
    ledger = job.table("ledger", "commit").to_pylist()
    asked, answered = ({row["key"] for row in ledger if row["kind"] == kind} for kind in ("intent", "answer"))
    assert answered
    assert answered <= asked
    first_commit = {
        kind: min(row["commit"] for row in ledger if row["kind"] == kind) for kind in ("intent", "answer")
    }
    assert first_commit["intent"] < first_commit["answer"]
    totals = job.table("batches", "batch_id").to_pydict()
    assert sum(totals["llm_calls"]) == len(asked)
    assert sum(totals["llm_alerts"]) == len(by_model)
    assert sum(totals["input_tokens"]) > 0
    assert sum(totals["output_tokens"]) > 0
    assert json.loads(totals["pins"][0])["model"] == "local"
    calls = job.audited("model_call")
    assert {row["detail"]["question"]: row["detail"]["outcome"] for row in calls}.keys() == asked
    assert sum(row["detail"]["outcome"] == "answered" for row in calls) == len(answered)
    assert sum(row["detail"]["output_tokens"] for row in calls) == sum(totals["output_tokens"])
    rulings = job.audited("policy_decision")
    assert {row["detail"]["decision"] for row in rulings} == {"allowed"}
    assert "entities.customer" in rulings[0]["detail"]["withheld"]
    assert job.reconciled().differences == 0
    assert replayed(job).differences == (), "the model's answers are those on record"
    same = run_what_if(PlacedAgent(job.settings, job.spec), job.spec, ReplaySpan())
    assert (same.added, same.removed, same.unanswered) == (0, 0, len(alerts) - len(by_model))
