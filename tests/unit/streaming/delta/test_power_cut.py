"""What a power cut leaves at the end of a log is repaired where nothing rests on it, or refused by name."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from schemas.errors import DataLossError
from streaming.batch import outbox
from streaming.batch.mending import mend
from streaming.batch.steps import BatchStep
from streaming.delta import durable
from streaming.delta.lake_table import LakeTable, Stamp
from streaming.delta.log_tail import cut_from, entry_path, is_torn, mend_checkpoints, torn_end
from streaming.delta.stored import open_version
from streaming.delta.table_versions import newest_version, open_for_reading
from streaming.delta.whole_tables import read_stored
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.kafka.outbox_record import OutboxRecord
from streaming.run import alerts_end, opening
from streaming.run.surroundings import Hooks
from streaming.store.place import Place
from streaming.testing.live_lake import TOPIC, QuietLane, agent, events, judge, records
from streaming.versions.clients import Clients

SCHEMA = pa.schema([("n", pa.int64())])
SPEC = agent()
ROWS, SLICE = 240, 60
GOOD = events(ROWS + SLICE)
# Of every slice some are sent twice and some cannot be used.
TOLD = [
    GOOD[place - 1] if place % 20 == 7 else {**event, "amount": None} if place % 20 == 11 else event
    for place, event in enumerate(GOOD)
]


CUTS = [
    *((1, step) for step in (BatchStep.STORE, BatchStep.ALERT, BatchStep.PUBLISH, BatchStep.CLOSE)),
    (3, BatchStep.CLOSE),
]
TABLES = [
    *("transactions", "quarantine", "duplicates", "alerts", "monitoring", "batches"),
    "ledger",
    "late",
    "audit",
]


class _PowerCutError(Exception):
    """The power is gone."""


class Lane(QuietLane):
    """An alerts topic that outlives drivers."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: dict[int, bytes] = {}

    def __call__(self, *_: object, **__: object) -> Lane:
        return self

    def open(self, stored_next: int) -> None:
        pass

    def publish(self, records: Iterable[OutboxRecord]) -> int:
        new = [record for record in records if record.outbox_seq >= self.marker]
        for record in new:
            self.sent[record.outbox_seq] = record.value
        self.marker += len(new)
        return len(new)


def run(
    settings: Settings,
    lane: Lane,
    patch: pytest.MonkeyPatch,
    cut: tuple[int, BatchStep] | None = None,
    rows: int = ROWS,
) -> None:
    """Run all batches, those closed before once more; end where `cut` says."""
    patch.setattr(alerts_end, "Publisher", lane)
    at = [0]

    def reached(step: BatchStep) -> None:
        if cut == (at[0], step):
            raise _PowerCutError

    stream, hooks = records(TOLD), Hooks(reached=reached)
    with (
        Clients(settings, "none") as clients,
        opening.open_agent(PlacedAgent(settings, SPEC), "", clients, hooks) as started,
    ):
        for number, first in enumerate(range(0, rows, SLICE)):
            at[0] = number
            part, end = stream.slice(first, SLICE), {TOPIC: {"0": first + SLICE}}
            started.pipeline.process(lambda part=part: part, "live", number, lambda end=end: end)


def facts(lake: Path) -> dict[str, Any]:
    """What a lake must hold in the end, however it came to it."""
    wanted = {
        "transactions": ["sequence", "transaction_id"],
        "quarantine": ["offset"],
        "duplicates": ["offset"],
        "alerts": ["outbox_seq", "alert_id", "revision", "score"],
        "monitoring": ["batch_id", "count"],
        "batches": ["batch_id", "stored", "quarantined", "duplicates", "alerts", "next_outbox_seq"],
    }
    found = {}
    for name, columns in wanted.items():
        rows = read_stored(Place.local(lake / name), columns)
        assert rows is not None
        found[name] = sorted(map(repr, rows.to_pylist()))
    return found


class Homes(dict[Any, Any]):
    """By the moment at which the power goes; short to print."""

    def __repr__(self) -> str:
        return "Homes()"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Homes:
    """Homes as they are when the power goes after a step of a batch, with the marker and what was sent."""
    made = Homes()
    with pytest.MonkeyPatch.context() as patch:
        for cut in CUTS:
            home, lane = tmp_path_factory.mktemp("home"), Lane()
            settings = Settings.load(home, {})
            with pytest.raises(_PowerCutError):
                run(settings, lane, patch, cut)
            made[cut] = (home, lane.marker, dict(lane.sent))
        home, lane = tmp_path_factory.mktemp("whole"), Lane()
        settings = Settings.load(home, {})
        run(settings, lane, patch)
        made["whole"] = (facts(settings.lake("tester").path), lane.sent)
    return made


def torn(entry: bytes, share: float, *, at_line: bool) -> bytes:
    """Return the beginning of a log entry, cut anywhere or at the end of one of its lines."""
    ends = [0, *[place for place, byte in enumerate(entry) if byte == ord("\n")]]
    return entry[: ends[int(share * len(ends))] if at_line else int(share * len(entry))]


@pytest.mark.long
@given(
    cut=st.sampled_from(CUTS), name=st.sampled_from(TABLES), share=st.floats(0, 0.999), at_line=st.booleans()
)
@examples(
    deadline=None,
    max_examples=16,
    phases=[Phase.generate],
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
def test_a_torn_newest_commit_is_done_again_or_refused_by_name(
    template: Homes,
    tmp_path_factory: pytest.TempPathFactory,
    cut: tuple[int, BatchStep],
    name: str,
    share: float,
    at_line: bool,
) -> None:
    home, marker, sent = template[cut]
    copy = tmp_path_factory.mktemp("copy") / "home"
    shutil.copytree(home, copy)
    settings, lane = Settings.load(copy, {}), Lane()
    lane.marker, lane.sent = marker, dict(sent)
    table = settings.lake("tester") / name
    entry = entry_path(table, DeltaTable(table.path).version())
    entry.write_bytes(torn(entry.read_bytes(), share, at_line=at_line))
    with pytest.MonkeyPatch.context() as patch:
        try:
            run(settings, lane, patch)
        except DataLossError as refused:
            assert str(entry) in str(refused) or "on Kafka" in str(refused)
            return
    wanted, published = template["whole"]
    assert facts(settings.lake("tester").path) == wanted
    assert lane.sent.keys() == published.keys()
    assert all(lane.sent[number] == said for number, said in sent.items())


def table_of(folder: Path, commits: int) -> LakeTable:
    table = LakeTable(Place.local(folder / "things"), SCHEMA, "agent/epoch", timedelta(days=1))
    table.claim(1)
    for number in range(commits):
        table.append(pa.table({"n": [number]}, schema=SCHEMA), Stamp("app", number), {"query_id": "q"})
    return table


def test_an_entry_cut_at_any_byte_is_torn_and_nobody_reads_past_it(tmp_path: Path) -> None:
    table = table_of(tmp_path, 3)
    entry = entry_path(table.place, table.version)
    whole = entry.read_bytes()
    for length in range(len(whole)):
        entry.write_bytes(whole[:length])
        assert is_torn(table.place, table.version), length
        if length % 50 == 0 or whole[length : length + 1] == b"\n":
            for read in (newest_version, open_for_reading, open_version):
                with pytest.raises(DataLossError, match="is not whole"):
                    read(table.place)
            with pytest.raises(DataLossError, match="is not whole"):
                table_of(tmp_path, 0)
    entry.write_bytes(bytes(len(whole)))
    assert torn_end(table.place) == table.version
    cut_from(table.place, table.version)
    assert newest_version(table.place).transaction_version("app") == 1


@pytest.mark.parametrize("length", [0, 100, -1])
def test_a_data_file_that_is_not_whole_tears_its_commit(tmp_path: Path, length: int) -> None:
    table = table_of(tmp_path, 2)
    [newest] = set(DeltaTable(table.place.path).file_uris()) - set(
        DeltaTable(table.place.path, version=2).file_uris()
    )
    file = table.place.path / Path(newest).name
    file.write_bytes(file.read_bytes()[:length])
    assert is_torn(table.place, table.version)


def test_a_torn_commit_with_whole_ones_after_it_is_refused(tmp_path: Path) -> None:
    table = table_of(tmp_path, 4)
    entry_path(table.place, 3).write_bytes(b"")
    with pytest.raises(DataLossError, match=r"00003\.json is not whole.*later commits"):
        torn_end(table.place)
    entry_path(table.place, 3).write_text('{"commitInfo":{}}')
    assert torn_end(table.place) is None


@pytest.mark.long
@given(share=st.floats(0, 0.999), name=st.sampled_from(["_last_checkpoint", "checkpoint"]))
@examples(deadline=None, max_examples=40, derandomize=True, suppress_health_check=list(HealthCheck))
def test_a_torn_checkpoint_is_made_up_for_by_the_entries(
    tmp_path_factory: pytest.TempPathFactory, share: float, name: str
) -> None:
    table = table_of(tmp_path_factory.mktemp("lake"), 3)
    newest = newest_version(table.place)
    newest.create_checkpoint()
    [torn] = (table.place.path / "_delta_log").glob(
        f"*{name}*" if name == "_last_checkpoint" else "*.parquet"
    )
    whole = torn.read_bytes()
    torn.write_bytes(whole[: int(len(whole) * share)])
    mend_checkpoints(table.place)
    again = newest_version(table.place)
    assert (again.version(), again.transaction_version("app")) == (newest.version(), 2)
    assert len(again.file_uris()) == 3


def test_a_torn_checkpoint_whose_entries_are_gone_is_refused(tmp_path: Path) -> None:
    table = table_of(tmp_path, 3)
    newest_version(table.place).create_checkpoint()
    entry_path(table.place, 0).unlink()
    [torn] = (table.place.path / "_delta_log").glob("*.parquet")
    torn.write_bytes(torn.read_bytes()[:-3])
    with pytest.raises(DataLossError, match="restore the table"):
        mend_checkpoints(table.place)


def test_alerts_leave_only_once_all_they_rest_on_is_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    class Watched(Lane):
        def publish(self, records: Iterable[OutboxRecord]) -> int:
            told.append("published")
            return super().publish(records)

    def synced(folder: Path) -> None:
        told.append("synced")
        durable.sync(Place.local(folder))

    monkeypatch.setattr(outbox, "sync", synced)
    run(Settings.load(tmp_path, {}), Watched(), monkeypatch)
    assert told
    assert told == ["synced", "published"] * (len(told) // 2)


def test_what_a_shared_table_answers_for_is_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Place] = []
    monkeypatch.setattr("streaming.delta.lake_table.sync", synced.append)
    judge(PlacedAgent(Settings.load(tmp_path, {}), SPEC), ["t1"])
    assert synced == [Settings.load(tmp_path, {}).lake("tester") / "labels"]


@pytest.mark.long
def test_labels_that_batches_have_counted_are_not_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, lane = Settings.load(tmp_path, {}), Lane()
    run(settings, lane, monkeypatch)
    judge(PlacedAgent(settings, SPEC), ["t00001"])
    labels = settings.lake("tester") / "labels"
    entry = entry_path(labels, DeltaTable(labels.path).version())
    whole = entry.read_bytes()
    entry.write_bytes(b"")
    mend(PlacedAgent(settings, SPEC))
    assert not entry.exists()
    entry.write_bytes(whole)
    run(settings, lane, monkeypatch, rows=ROWS + SLICE)
    entry.write_bytes(b"")
    with pytest.raises(DataLossError, match="batches have counted its labels"):
        mend(PlacedAgent(settings, SPEC))
