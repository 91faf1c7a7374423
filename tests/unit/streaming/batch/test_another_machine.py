"""An agent goes on without Spark's checkpoint: what was set aside for a batch that is lost stands once."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from schemas.tables import DUPLICATES
from streaming.batch.closed_batches import unbalanced
from streaming.batch.queries import newest_of_the_stream
from streaming.batch.stream_settings import Offsets, is_overtaken
from streaming.delta.lake_table import LakeTable
from streaming.delta.stored import open_version
from streaming.delta.whole_tables import read_stored
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.run.opening import open_agent
from streaming.testing.live_lake import TOPIC, agent, events, records, without_broker
from streaming.versions.clients import Clients

ROWS = 240
SPEC = agent(rules=[])


class CutOffError(Exception):
    """The machine is gone."""


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    without_broker(monkeypatch)
    return Settings.load(tmp_path / "home", {})


def stream() -> pa.Table:
    """One record in nine is no payment, one in ten is sent again five places later."""
    whole = records(events(ROWS))
    values = whole["value"].to_pylist()
    for place in range(0, ROWS, 9):
        values[place] = b"no payment"
    for place in range(0, ROWS - 5, 10):
        values[place + 5] = values[place]
    column = whole.schema.get_field_index("value")
    return whole.set_column(column, "value", pa.array(values, pa.binary()))


def is_called(table: LakeTable, name: str) -> bool:
    names = set(table.schema.names)
    if name == "duplicates":
        return names == set(DUPLICATES.names)
    return {"sequence", "late"} <= names and "outbox_seq" not in names


@contextmanager
def cut_off_before(table: str) -> Iterator[None]:
    """No commit to a table succeeds any more."""
    append = LakeTable.append

    def refusing(self: LakeTable, *args: object, **more: object) -> bool:
        if is_called(self, table):
            raise CutOffError
        return append(self, *args, **more)  # type: ignore[arg-type]  # as they came

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LakeTable, "append", refusing)
        yield


def run(settings: Settings, query: str, size: int, batches: int, cut: str | None = None) -> None:
    """Take batches from where the lake says, under a query of its own; perhaps be cut off in the last."""
    rows, place = stream(), reached(settings)
    with (
        Clients(settings, "none") as clients,
        open_agent(PlacedAgent(settings, SPEC), "127.0.0.1:1", clients) as started,
    ):
        for number in range(batches):
            part = rows.slice(place, size)
            place += part.num_rows
            end = {TOPIC: {"0": place}}
            if cut is not None and number == batches - 1:
                with cut_off_before(cut), pytest.raises(CutOffError):
                    started.pipeline.process(lambda part=part: part, query, number, lambda end=end: end)
            elif part.num_rows:
                started.pipeline.process(lambda part=part: part, query, number, lambda end=end: end)


def reached(settings: Settings) -> int:
    batches = open_version(settings.lake(SPEC.name) / "batches")
    newest = {} if batches is None else newest_of_the_stream(batches)
    offset: int = json.loads(newest["offsets"])[TOPIC]["0"] if newest else 0
    return offset


def places(settings: Settings, *tables: str) -> Counter[int]:
    found: Counter[int] = Counter()
    for name in tables:
        rows = read_stored(settings.lake(SPEC.name) / name, ["offset"])
        found.update([] if rows is None else rows["offset"].to_pylist())
    return found


@pytest.mark.long
@pytest.mark.parametrize(
    ("cut", "before", "sizes"), [("transactions", 0, (100, 240)), ("duplicates", 1, (90, 20))]
)
def test_no_record_is_set_aside_twice_by_a_machine_that_knows_the_lake_alone(
    settings: Settings, tmp_path: Path, cut: str, before: int, sizes: tuple[int, int]
) -> None:
    large, small = sizes
    run(settings, "on-a", large, before + 1, cut)
    assert places(settings, "quarantine").total() > places(settings, "transactions").total() // 8
    run(settings, "on-b", small, 2)
    run(settings, "on-b-again", small, 2, cut)  # what is left of the first machine's batch still counts
    run(settings, "on-c", ROWS, 1)
    everything = places(settings, "transactions", "quarantine", "duplicates")
    assert everything == Counter(range(ROWS))
    batches = pl.DataFrame(read_stored(settings.lake(SPEC.name) / "batches"))
    assert unbalanced(batches) == 0
    assert batches["read"].sum() == ROWS
    undisturbed = Settings.load(tmp_path / "undisturbed", {})
    run(undisturbed, "alone", ROWS, 1)
    for table in ("transactions", "quarantine", "duplicates"):
        assert places(settings, table) == places(undisturbed, table), table


def planned(checkpoint: Path, query: str, begin: Offsets | None, batches: int) -> Path:
    for name in ("offsets", "commits", "sources/0"):
        (checkpoint / name).mkdir(parents=True, exist_ok=True)
    (checkpoint / "metadata").write_text(json.dumps({"id": query}))
    if begin is not None:
        (checkpoint / "sources" / "0" / "0").write_text(f"v1\n{json.dumps(begin)}")
    for number in range(batches):
        (checkpoint / "offsets" / str(number)).write_text(f"v1\n{{}}\n{json.dumps({'a': {'0': 9}})}")
    return checkpoint


def test_a_checkpoint_counts_until_another_query_has_read_on(tmp_path: Path) -> None:
    at: Offsets = {"a": {"0": 5, "1": 7}}
    assert not is_overtaken(tmp_path / "absent", "other", at)
    ours = planned(tmp_path / "ours", "ours", at, 3)
    assert not is_overtaken(ours, "ours", {"a": {"0": 9, "1": 7}})
    assert not is_overtaken(ours, None, {})
    assert is_overtaken(ours, "other", at), "it has closed batches, and another query came since"
    fresh = planned(tmp_path / "fresh", "fresh", at, 1)
    assert not is_overtaken(fresh, "other", at), "it has begun where the other query ended"
    assert not is_overtaken(fresh, "other", {**at, "unread": {"0": 3}})
    assert is_overtaken(fresh, "other", {"a": {"0": 6, "1": 7}}), "the other query has gone on since"
    assert not is_overtaken(planned(tmp_path / "blank", "blank", None, 0), "other", at)
