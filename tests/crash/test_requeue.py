"""Drivers killed while they take records out of the quarantine: each is stored once, each alert sent once."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from schemas.contract import load_contract
from schemas.spec import load_spec
from streaming.batch.pipeline import BatchStep
from streaming.delta.lake_reader import AgentLake
from streaming.history.reconcile import reconcile
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.kafka.topic_admin import ensure_topic
from streaming.quarantine.choosing import RecordFilter
from streaming.quarantine.inspection import Quarantine
from streaming.testing.drivers import Drivers
from streaming.testing.killable_driver import MID_PUBLISH
from streaming.testing.streams import Stream, folded_scores, published, stored, write_spec
from streaming.versions.registry import Author

pytestmark = pytest.mark.timeout(900)  # a chain of eight drivers, each with a JVM of its own
HOUR = timedelta(hours=1)
LIVE, REPAIR = True, False
PLACES = [
    (BatchStep.TAKE.value, LIVE),
    (BatchStep.STORE.value, LIVE),
    (BatchStep.SCORE.value, REPAIR),
    (BatchStep.ALERT.value, LIVE),
    (MID_PUBLISH, LIVE),
    (BatchStep.CLOSE.value, LIVE),
]
EACH = 60  # records of a request


@pytest.fixture
def drivers(settings: Settings, bootstrap: str) -> Iterator[Drivers]:
    started = Drivers(settings, bootstrap)
    yield started
    started.end()


def contract_file(folder: Path, amount: str) -> str:
    content = load_contract("simulator").model_dump(mode="json", exclude_none=True)
    content["amount"]["field"] = amount
    path = folder / f"{amount}.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return str(path)


def test_a_chain_of_drivers_killed_in_requeued_batches_loses_and_doubles_nothing(
    drivers: Drivers, settings: Settings, bootstrap: str, topic: Callable[[str], str], tmp_path: Path
) -> None:
    """Half of the requests name records of the one before, too; only the last ones are the stream's own."""
    wrong, right = (contract_file(tmp_path, amount) for amount in ("amuont", "amount"))
    source = {"contract": wrong, "topic": topic("events"), "max_records_per_batch": 400}
    spec_file = write_spec(tmp_path, topic, limit=30, data_sources={"transactions": source})
    spec = load_spec(spec_file)
    ensure_topic(bootstrap, source["topic"], 1)
    stream = Stream(bootstrap, spec.data_sources.transactions.topic)
    quarantine = Quarantine(PlacedAgent(settings, spec))
    stream.send(EACH * len(PLACES))
    assert drivers.run(spec_file) == 0, drivers.outputs[-1]
    lake = settings.lake(spec.name)
    assert stored(lake, "quarantine", "offset").num_rows == len(stream.sent_ids) + stream.malformed

    for number, (place, live) in enumerate(PLACES):
        overlap = EACH // 2 if number % 2 else 0
        wanted = RecordFilter(
            ("missing_field",), first_offset=number * EACH - overlap, next_offset=(number + 1) * EACH
        )
        quarantine.requeue(wanted, right, Author("anna", "the contract was wrong"), dry_run=False)
        assert drivers.run(spec_file, place, live=live) == -signal.SIGKILL, (place, drivers.outputs[-1])
    rest = RecordFilter(("missing_field",))
    quarantine.requeue(rest, right, Author("anna", "what is left"), dry_run=False)
    stream.send(100)
    assert drivers.run(spec_file) == 0, drivers.outputs[-1]

    asked = quarantine.requests()
    assert [each["state"] for each in asked] == ["done"] * (len(PLACES) + 1)
    transactions = stored(lake, "transactions", "sequence")
    taken_in = stream.sent_ids[: EACH * len(PLACES)]
    assert Counter(transactions["transaction_id"].to_pylist()) == Counter(taken_in)
    assert transactions["sequence"].to_pylist() == list(range(len(taken_in)))
    assert sum(each["stored"] for each in asked) == len(taken_in)
    table = stored(lake, "alerts", "outbox_seq")
    sent = [(each["alert_id"], each["revision"]) for each in published(bootstrap, spec.alerts.topic)]
    assert sent == list(zip(table["alert_id"].to_pylist(), table["revision"].to_pylist(), strict=True))
    assert len(set(sent)) == len(sent) > len(PLACES)
    folded = folded_scores(spec, transactions)
    assert Counter(table["transaction_id"].to_pylist()) == Counter(folded.keys())
    found = reconcile(AgentLake(lake, spec), bootstrap, HOUR)
    assert (found.differences, found.requeued_twice) == (0, 0), found
