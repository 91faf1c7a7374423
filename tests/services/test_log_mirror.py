"""The copy of a log on this machine says what the log in the store says, whatever others do with it."""

from __future__ import annotations

import json
import random
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import obstore
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from schemas.errors import DataLossError
from streaming.delta import log_mirror
from streaming.delta.lake_table import LakeTable, Stamp
from streaming.delta.log_files import POINTER, versions_of
from streaming.delta.log_mirror import LogMirror
from streaming.delta.maintenance import MaintenanceLimits, maintain
from streaming.delta.remote_log import log_names
from streaming.delta.shared_table import SharedTable
from streaming.delta.table_versions import newest_version
from streaming.store.client import client_of, key_of
from streaming.store.place import Place
from streaming.testing.spoiled_store import SpoiledStore
from streaming.testing.stores import RunningStore

SCHEMA = pa.schema([("n", pa.int64())])
KEEP = timedelta(days=30)
OFTEN = MaintenanceLimits(files=6, entries=9)
pytestmark = pytest.mark.parametrize("store", ["gofakes3"], indirect=True)


def rows(*numbers: int) -> pa.Table:
    return pa.table({"n": list(numbers)}, schema=SCHEMA)


def same_as_in_the_store(table: SharedTable, writers: list[str]) -> None:
    there = newest_version(table.place)
    assert table.version == there.version()
    assert sorted(table._names()) == sorted(pa.table(there.get_add_actions())["path"].to_pylist())
    for writer in writers:
        assert table.last_batch(writer) == (there.transaction_version(writer) or -1)


@pytest.mark.parametrize("seed", range(3))
def test_two_that_write_look_and_tidy_in_any_order_see_what_is_there(store: RunningStore, seed: int) -> None:
    rng, place, written = random.Random(seed), store.place / "rows", 0
    tables = [SharedTable(place, SCHEMA, KEEP) for _ in range(2)]
    for step in range(1, 60):
        who = rng.randrange(2)
        act = rng.choice(["append", "append", "append", "renew", "maintain", "reopen"])
        if act == "append":
            written += 1
            tables[who].by_turns(partial(tables[who].append, rows(step), Stamp(f"w{who}", step)))
        elif act == "maintain":
            maintain(place, OFTEN)
        elif act == "renew":
            tables[who].renew()
        else:
            tables[who] = SharedTable(place, SCHEMA, KEEP)
        tables[who].refresh()
        same_as_in_the_store(tables[who], ["w0", "w1"])
    assert tables[0].count() == written


def removed_before(place: Place, version: int) -> None:
    """Take entries from a log as a clearing does after an hour."""
    names = [name for name in log_names(place) if versions_of([name]) and versions_of([name])[0] < version]
    obstore.delete(client_of(place), [key_of(place / "_delta_log" / name) for name in names])


def test_whoever_is_behind_a_log_that_was_shortened_begins_anew(store: RunningStore) -> None:
    place = store.place / "rows"
    busy, idle = (SharedTable(place, SCHEMA, KEEP) for _ in range(2))
    for number in range(12):
        busy.append(rows(number), Stamp("busy", number))
    newest_version(place).create_checkpoint()
    removed_before(place, busy.version)
    idle.refresh()
    same_as_in_the_store(idle, ["busy"])
    idle.by_turns(lambda: idle.append(rows(99), Stamp("idle", 0)))
    busy.refresh()
    assert busy.count() == idle.count() == 13


def test_a_copy_begins_anew_after_many_entries_and_what_was_opened_before_reads_on(
    store: RunningStore,
) -> None:
    place = store.place / "rows"
    table, mirror = SharedTable(place, SCHEMA, KEEP), LogMirror(place)
    before = mirror.opened()
    for number in range(130):
        table.append(rows(number), Stamp("w", number))
        if number in (63, 127):
            assert mirror.follow()
        if number == 100:
            newest_version(place).create_checkpoint()
    assert not mirror.follow()
    there = mirror.opened()
    assert mirror.follow()
    assert there.version() == table.version
    assert there.table_uri != before.table_uri
    before.update_incremental()
    assert before.version() == 128
    files = versions_of([path.name for path in _log_of(there).iterdir()])
    assert min(files) > 100, "what the checkpoint stands for is left out"
    assert table.renew()
    same_as_in_the_store(table, ["w"])


def _log_of(table: DeltaTable) -> Path:
    return Path(table.table_uri.removeprefix("file://")) / "_delta_log"


def test_a_table_that_is_not_there_is_none_and_one_whose_log_is_gone_is_a_loss(store: RunningStore) -> None:
    place = store.place / "rows"
    with pytest.raises(TableNotFoundError):
        LogMirror(place).opened()
    SharedTable(place, SCHEMA, KEEP).append(rows(1), Stamp("w", 0))
    removed_before(place, 10)
    with pytest.raises(DataLossError, match="the log that says which of them count is gone"):
        SharedTable(place, SCHEMA, KEEP)


def test_whoever_is_far_behind_reads_from_the_newest_checkpoint_on(
    store: RunningStore, spoiled: SpoiledStore
) -> None:
    place = store.place / "rows"
    busy, idle = (SharedTable(place, SCHEMA, KEEP) for _ in range(2))
    for number in range(130):
        busy.append(rows(number), Stamp("busy", number))
    newest_version(place).create_checkpoint()
    begun = len(spoiled.requests)
    idle.refresh()
    read = [each.path for each in spoiled.since(begun) if each.verb == "GET"]
    assert len(read) <= 3, "the pointer, the checkpoint and its entry"
    same_as_in_the_store(idle, ["busy"])


def test_a_checkpoint_that_comes_while_a_log_is_copied_is_not_pointed_to(
    store: RunningStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = store.place / "rows"
    table = SharedTable(place, SCHEMA, KEEP)
    table.append(rows(1), Stamp("w", 1))
    newest_version(place).create_checkpoint()

    def listed(*given: Any) -> list[str]:
        names = log_names(*given)
        table.append(rows(2), Stamp("w", 2))
        newest_version(place).create_checkpoint()
        return names

    monkeypatch.setattr(log_mirror, "log_names", listed)
    mirror = LogMirror(place)
    there = mirror.opened()
    assert there.version() == 1
    assert json.loads((_log_of(there) / POINTER).read_bytes())["version"] == 1


def test_a_copy_that_cannot_be_opened_is_used_no_more(
    store: RunningStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = store.place / "rows"
    SharedTable(place, SCHEMA, KEEP).append(rows(1), Stamp("w", 0))
    mirror = LogMirror(place)
    with monkeypatch.context() as patch, pytest.raises(DeltaError):
        patch.setattr(log_mirror, "read_log_file", lambda *_: b"torn")
        mirror.opened()
    assert mirror.opened().version() == 1


def test_facts_before_the_copy_begins_are_asked_of_the_newest_entries_first(
    store: RunningStore, spoiled: SpoiledStore
) -> None:
    place = store.place / "rows"
    table = LakeTable(place, SCHEMA, "agent/epoch", KEEP)
    table.claim(1)
    for number in range(150):
        table.append(rows(number), Stamp("w", number), {"query_id": "w", "batch_id": number})
    newest_version(place).create_checkpoint()
    table = LakeTable(place, SCHEMA, "agent/epoch", KEEP)
    begun = len(spoiled.requests)
    assert table.metadata_of("w", 140)["batch_id"] == 140
    assert len([each for each in spoiled.since(begun) if each.verb == "GET"]) < 100
    assert table.metadata_of("w", 20)["batch_id"] == 20
