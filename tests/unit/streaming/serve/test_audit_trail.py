"""Reads go on record as counts of a minute, writes one by one; nothing is lost while the log is away."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated

import pytest
from fastapi import APIRouter
from hypothesis import given
from hypothesis import strategies as st

from agent.audit.events import AuditEvent, AuditLog
from schemas.errors import StoreError
from streaming.audit.audit_check import check_audit
from streaming.audit.audit_log import AuditPlaces, LakeAudit
from streaming.audit.audit_reading import newest_events
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.serve.audit_trail import AuditTrail
from streaming.serve.calls import Call, needs
from streaming.testing.api import api_of
from streaming.testing.live_lake import agent

NOW = datetime(2026, 5, 1, 12, 0, 30, tzinfo=UTC)
SPEC = agent()


class Kept:
    """Keeps events in memory, unless it is away."""

    def __init__(self) -> None:
        self.events: list[AuditEvent] = []
        self.is_away = False

    def record(self, events: Sequence[AuditEvent]) -> None:
        if self.is_away:
            raise StoreError("away")
        told = [each.position for each in self.events]
        self.events += [each for each in events if each.position not in told]


READS = st.lists(
    st.tuples(
        st.sampled_from(["anna", "bert"]), st.sampled_from(["a", "b"]), st.integers(0, 90), st.booleans()
    )
)


@given(READS)
def test_every_read_is_counted_once_in_its_minute(reads: list[tuple[str, str, int, bool]]) -> None:
    log, now = Kept(), NOW
    trail = AuditTrail(lambda _: log, lambda: now)
    expected: Counter[tuple[str, str]] = Counter()
    for who, command, seconds, is_away in reads:
        now += timedelta(seconds=seconds)
        trail.read(who, command)
        expected[who, command] += 1
        log.is_away = is_away
        try:
            trail.flush()
        except StoreError:
            assert log.is_away
        assert all(each.kind == "data_access" for each in log.events)
    log.is_away = False
    trail.flush(whole=True)
    found: Counter[tuple[str, str]] = Counter()
    for each in log.events:
        found[each.detail["actor"], each.detail["command"]] += each.detail["rows"]
    assert found == expected
    assert [each.position for each in log.events] == list(range(len(log.events)))


def test_a_minute_is_on_record_once_it_is_over() -> None:
    log, now = Kept(), NOW
    trail = AuditTrail(lambda _: log, lambda: now)
    trail.read("anna", "list")
    trail.flush()
    assert log.events == []
    trail.wrote("anna", "label", 2)
    trail.flush()
    assert [(each.kind, each.detail["rows"]) for each in log.events] == [("action", 2)]
    now += timedelta(seconds=30)
    trail.flush()
    assert [each.kind for each in log.events] == ["action", "data_access"]


def test_who_only_looks_begins_no_log() -> None:
    asked = []

    def open_log(begins: bool) -> AuditLog | None:
        asked.append(begins)
        return None

    trail = AuditTrail(open_log, lambda: NOW)
    trail.read("anna", "list")
    trail.flush(whole=True)
    trail.wrote("anna", "label", 1)
    trail.flush()
    assert asked == [False, True]


def test_what_the_server_did_is_in_the_chain_of_the_agent(settings: Settings) -> None:
    router = APIRouter()

    @router.post("/v1/label")
    def write_label(call: Annotated[Call, needs("triage")]) -> int:
        call.rows = 7
        return 0

    @router.get("/v1/list")
    def list_alerts(call: Annotated[Call, needs("read")]) -> str:
        return call.who

    places = AuditPlaces(PlacedAgent(settings, SPEC))
    LakeAudit(places, SPEC.replay_horizon).record(
        [AuditEvent("action", "begin", {"command": "begin"}, "command/begin", 0)]
    )
    with api_of(settings, SPEC, routers=[router]) as client:
        headers = client.bearer(SPEC, "triage", name="night-shift")
        assert client.post("/v1/label", headers=headers).status_code == 200
        for _ in range(3):
            assert client.get("/v1/list", headers=headers).status_code == 200
        assert client.post("/v1/label").status_code == 401
    rows = newest_events(places, None, 10)
    told = {(row["kind"], row["detail"]["command"]): row["detail"] for row in rows if row["subject"] == "api"}
    assert told["action", "api/write-label"]["rows"] == 7
    assert sum(row["detail"]["rows"] for row in rows if row["kind"] == "data_access") == 3
    assert {each["actor"] for each in told.values()} == {"token:night-shift"}
    assert check_audit(places).sound


@pytest.mark.parametrize("begins", [True, False])
def test_a_log_that_cannot_be_written_is_a_condition_and_not_a_fault_of_the_request(begins: bool) -> None:
    log = Kept()
    log.is_away = True
    trail = AuditTrail(lambda _: log, lambda: NOW)
    trail.wrote("anna", "label", 1) if begins else trail.read("anna", "list")
    with pytest.raises(StoreError):
        trail.flush(whole=True)
    log.is_away = False
    trail.flush(whole=True)
    assert len(log.events) == 1
