"""A commit whose answer was lost has landed or not: what is written twice, or not at all, is neither."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError
from hypothesis import HealthCheck, given
from hypothesis import settings as properties
from hypothesis import strategies as st

from agent.audit.events import AuditEvent
from schemas.errors import DiskError, FencedError, FlagstreamError, RetryableError, StoreError
from schemas.label import GIVEN
from schemas.tables import FINDINGS, LABELS_QUARANTINE, SHADOW
from streaming.audit.audit_check import check_audit
from streaming.audit.audit_log import AuditPlaces, LakeAudit
from streaming.cases.case_store import CaseStore
from streaming.delta import commits
from streaming.delta.commit_target import target_of
from streaming.delta.lake_table import LakeTable, Stamp
from streaming.delta.shared_table import SharedTable
from streaming.delta.whole_tables import read_stored
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.labels.book import LabelBook
from streaming.quarantine.requests import RequestTable, RequeueSlice, read_requests
from streaming.store.place import Place
from streaming.testing.live_lake import agent
from streaming.versions.registry_table import RegistryTable
from tests.registry_rows import entry

KEEP = timedelta(days=30)
NOW = datetime(2026, 5, 1, tzinfo=UTC)
FAULTS: list[Exception] = [
    CommitFailedError("Failed to commit transaction: Concurrent transaction failed"),
    OSError(5, "Input/output error"),
    ConnectionResetError("the store has gone away"),
]


@contextmanager
def answers_lost(fault: Exception, *, landing: bool = True) -> Iterator[list[int]]:
    """Have the next entry raise once it stands in the log, or without having been put; yield the versions."""
    target = type(target_of(Place.local(Path("rows"))))
    real, versions = target.put_entry, list[int]()

    def put(self: Any, version: int, entry: bytes) -> bool:
        versions.append(version)
        landed = (len(versions) == 1 and not landing) or real(self, version, entry)
        if len(versions) == 1:
            raise fault
        return landed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(target, "put_entry", put)
        yield versions


@contextmanager
def log_unreadable(times: int) -> Iterator[None]:
    """Have the log not be read the first few times that somebody looks for a commit's mark."""
    real, looks = LakeTable._reopened, list[Place]()

    def read(table: LakeTable) -> Any:
        looks.append(table.place)
        if len(looks) <= times:
            raise StoreError("the store does not answer")
        return real(table)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LakeTable, "_reopened", read)
        patch.setattr(commits, "_PAUSE_SECONDS", 0.0)
        yield


def label(book: Path) -> None:
    row = {"transaction_id": "t1", "is_fraud": True, "decided_by": "bank", "source_position": 0}
    LabelBook(Place.local(book), retention=KEEP).record(
        pa.Table.from_pylist([row], schema=GIVEN), source="file"
    )


def register(path: Path) -> None:
    RegistryTable(Place.local(path), KEEP).write(lambda _: [entry(agent(), "active")])


def request(path: Path) -> None:
    place = {"topic": "events", "partition": 0, "first_offset": 1, "next_offset": 2}
    RequestTable(Place.local(path), KEEP, lambda: NOW).ask([RequeueSlice([place], 1)], None, "anna", "again")


def by_turns(schema: pa.Schema) -> Callable[[Path], None]:
    def append(path: Path) -> None:
        table = SharedTable(Place.local(path), schema, KEEP)
        row = pa.Table.from_pylist([{}], schema=schema)
        table.by_turns(lambda: table.append(row, Stamp("rows", table.last_batch("rows") + 1)))

    return append


def note_event(path: Path) -> None:
    spec, settings = agent(), Settings.load(path.parents[2], {})
    log = LakeAudit(AuditPlaces(PlacedAgent(settings, spec)), KEEP, lambda: NOW)
    detail = {"change": "added", "version": "1.0.0", "stage": "active", "who": "anna", "why": "a try"}
    log.record([AuditEvent("configuration_change", "tester", detail, "tester/registry", 0)])
    assert check_audit(AuditPlaces(PlacedAgent(settings, spec))).sound


def note_case(path: Path) -> None:
    row = pl.DataFrame({"event": ["opened"], "case_id": ["a"], "at": [NOW]})
    CaseStore(Place.local(path), KEEP).write(lambda: row)


SHARED: dict[str, Callable[[Path], None]] = {
    "labels": label,
    "audit": note_event,
    "specs": register,
    "requeues": request,
    "case_events": note_case,
    "findings": by_turns(FINDINGS),
    "shadow": by_turns(SHADOW),
    "labels_quarantine": by_turns(LABELS_QUARANTINE),
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
@pytest.mark.parametrize("name", SHARED)
def test_what_landed_is_written_once_and_its_writer_goes_on(
    tmp_path: Path, name: str, fault: Exception
) -> None:
    path = tmp_path / "home" / "lake" / "tester" / name
    path.parent.mkdir(parents=True)
    path = (Settings.load(tmp_path / "home", {}).lake("tester") / name).path
    with answers_lost(fault) as versions:
        SHARED[name](path)
    assert versions == [1]
    rows = read_stored(Place.local(path))
    assert rows is not None
    assert rows.num_rows == 1


IN_DOUBT = [FAULTS[0], StoreError("the store does not answer")]


@pytest.mark.parametrize("fault", IN_DOUBT, ids=lambda fault: type(fault).__name__)
@pytest.mark.parametrize("name", SHARED)
def test_what_landed_is_found_although_the_log_is_away_for_a_moment(
    tmp_path: Path, name: str, fault: Exception
) -> None:
    place = Settings.load(tmp_path / "home", {}).lake("tester") / name
    place.path.parent.mkdir(parents=True)
    with answers_lost(fault) as versions, log_unreadable(2):
        SHARED[name](place.path)
    assert versions == [1]
    assert len(DeltaTable(place.path).to_pyarrow_table()) == 1


@pytest.mark.parametrize("fault", IN_DOUBT, ids=lambda fault: type(fault).__name__)
@pytest.mark.parametrize("name", SHARED)
def test_what_may_have_landed_is_not_written_again(tmp_path: Path, name: str, fault: Exception) -> None:
    """By then another reader finds the log again, and with it a version that nobody else has written."""
    place = Settings.load(tmp_path / "home", {}).lake("tester") / name
    place.path.parent.mkdir(parents=True)
    with answers_lost(fault) as versions, log_unreadable(99), pytest.raises(RetryableError):
        SHARED[name](place.path)
    assert versions == [1]
    assert len(DeltaTable(place.path).to_pyarrow_table()) == 1


@pytest.mark.parametrize("fault", FAULTS[1:], ids=lambda fault: type(fault).__name__)
def test_what_did_not_land_is_said(tmp_path: Path, fault: Exception) -> None:
    with answers_lost(fault, landing=False), pytest.raises((FlagstreamError, OSError)):
        label(tmp_path / "labels")
    rows = read_stored(Place.local(tmp_path / "labels"))
    assert rows is not None
    assert rows.num_rows == 0


def test_the_agents_own_table_goes_on_from_what_landed(tmp_path: Path) -> None:
    schema = pa.schema([("n", pa.int64())])
    table = LakeTable(Place.local(tmp_path / "rows"), schema, "agent/epoch", KEEP)
    table.claim(1)
    with answers_lost(FAULTS[0]):
        assert table.append(pa.table({"n": [1]}), Stamp("a", 0), {"query_id": "a", "batch_id": 0})
    assert table.last_batch("a") == 0
    assert table.metadata_of("a", 0) == {"query_id": "a", "batch_id": 0}
    assert table.append(pa.table({"n": [2]}), Stamp("a", 1))
    assert table.read("n", 0)["n"].to_pylist() == [1, 2]


def test_a_successors_commit_is_not_taken_for_ones_own(tmp_path: Path) -> None:
    schema = pa.schema([("n", pa.int64())])
    table, other = (LakeTable(Place.local(tmp_path / "rows"), schema, "agent/epoch", KEEP) for _ in range(2))
    table.claim(1)

    with pytest.raises(FencedError):
        table.append(pa.table({"n": [1]}), Stamp("a", 0), after=[lambda: other.claim(2)])
    assert DeltaTable(tmp_path / "rows").to_pyarrow_table().num_rows == 0


@pytest.mark.long
@properties(deadline=None, max_examples=25, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.lists(st.sampled_from(["fine", "lost", "refused"]), min_size=1, max_size=8))
def test_every_request_is_on_record_once_however_answers_are_lost(
    tmp_path_factory: pytest.TempPathFactory, fates: list[str]
) -> None:
    path = tmp_path_factory.mktemp("lake") / "requeues"
    kept = 0
    for fate in fates:
        if fate == "fine":
            request(path)
        else:
            with answers_lost(FAULTS[0], landing=fate == "lost"):
                try:
                    request(path)
                except RetryableError:
                    kept -= 1
        kept += 1
    assert [each.number for each in read_requests(Place.local(path))] == list(range(kept))


def test_faults_of_the_disk_keep_their_kind(tmp_path: Path) -> None:
    with answers_lost(OSError(28, "No space left on device"), landing=False), pytest.raises(DiskError):
        label(tmp_path / "labels")
