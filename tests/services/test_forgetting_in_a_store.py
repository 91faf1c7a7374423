"""Of a table in a store its newest version alone is left, and what others may be about to commit."""

from __future__ import annotations

from datetime import timedelta

import obstore
import pyarrow as pa
import pytest

from streaming.delta import forgetting, needless
from streaming.delta.forgetting import forget_versions
from streaming.delta.lake_table import Stamp
from streaming.delta.rewriting import rewrite
from streaming.delta.shared_table import SharedTable
from streaming.delta.stored import open_version
from streaming.delta.table_versions import newest_version
from streaming.store.client import client_of, key_of, name_in
from streaming.store.place import Place
from streaming.testing.stores import RunningStore

pytestmark = pytest.mark.parametrize("store", ["gofakes3", "azurite"], indirect=True)
SCHEMA = pa.schema([("n", pa.int64()), ("who", pa.string())])
UNCOMMITTED = "part-of-nobody-yet.parquet"


def names(place: Place) -> set[str]:
    found = obstore.list(client_of(place), key_of(place)).collect()
    return {name_in(place, each["path"]) for each in found}


def made(place: Place) -> SharedTable:
    """A table of which every file was replaced, with a file that nobody has committed."""
    table = SharedTable(place, SCHEMA, timedelta(days=30))
    for number in range(3):
        table.append(pa.table({"n": [number], "who": ["c1"]}, SCHEMA), Stamp("w", number))
    newest_version(place).create_checkpoint()
    rewrite(place, lambda rows: rows.set_column(1, "who", pa.array(["token"] * rows.num_rows)))
    obstore.put(client_of(place), key_of(place / UNCOMMITTED), b"PAR1")
    return table


@pytest.mark.parametrize("shared", [False, True])
def test_the_newest_version_alone_is_left(store: RunningStore, shared: bool) -> None:
    place = store.place / "rows"
    table = made(place)
    version, files = newest_version(place).version(), set(newest_version(place).file_uris())
    assert forget_versions(place, shared=shared) == int(shared)
    earlier = {f"_delta_log/{each:020}.json" for each in range(version)}
    assert {bytes(obstore.get(client_of(place), key_of(place / each)).bytes()) for each in earlier} == {b""}
    log = {f"_delta_log/{version:020}.json", f"_delta_log/{version:020}.checkpoint.parquet", *earlier}
    kept = {each.rpartition("/")[2] for each in files} | ({UNCOMMITTED} if shared else set())
    assert names(place) == {*log, "_delta_log/_last_checkpoint", *kept}
    found = open_version(place)
    assert found is not None
    assert found.read("n", 0)["who"].to_pylist() == ["token"] * 3
    table.by_turns(lambda: table.append(pa.table({"n": [3], "who": ["c2"]}, SCHEMA), Stamp("w", 3)))
    assert table.count() == 4


def test_what_nobody_has_committed_goes_once_it_is_old(
    store: RunningStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = store.place / "rows"
    made(place)
    monkeypatch.setattr(needless, "IN_FLIGHT_SECONDS", -1.0)
    assert forget_versions(place, shared=True) == 0
    assert UNCOMMITTED not in names(place)


def test_a_commit_made_meanwhile_keeps_its_file(store: RunningStore, monkeypatch: pytest.MonkeyPatch) -> None:
    place = store.place / "rows"
    table = made(place)
    monkeypatch.setattr(needless, "IN_FLIGHT_SECONDS", -1.0)

    def commit(_: Place) -> None:
        monkeypatch.setattr(forgetting, "sync", lambda _: None)
        table.by_turns(lambda: table.append(pa.table({"n": [3], "who": ["c2"]}, SCHEMA), Stamp("w", 3)))

    monkeypatch.setattr(forgetting, "sync", commit)
    forget_versions(place, shared=True)
    found = open_version(place)
    assert found is not None
    assert found.read("n", 0)["n"].to_pylist() == [0, 1, 2, 3]


def test_who_has_not_seen_what_was_forgotten_loses_no_commit(store: RunningStore) -> None:
    place = store.place / "rows"
    late, table = SharedTable(place, SCHEMA, timedelta(days=30)), made(place)
    version = table.version
    forget_versions(place, shared=True)
    late.by_turns(lambda: late.append(pa.table({"n": [3], "who": ["c2"]}, SCHEMA), Stamp("w", 3)))
    found = open_version(place)
    assert found is not None
    assert found.version > version
    assert found.read("n", 0)["n"].to_pylist() == [0, 1, 2, 3]
    # The file that nobody has committed, and that of the attempt which was refused.
    assert forget_versions(place, shared=True) == 2


def test_rows_are_changed_beside_others_who_commit(store: RunningStore) -> None:
    place = store.place / "rows"
    table = SharedTable(place, SCHEMA, timedelta(days=30))
    table.append(pa.table({"n": [0], "who": ["c1"]}, SCHEMA), Stamp("w", 0))

    def change(rows: pa.Table) -> pa.Table:
        table.by_turns(lambda: table.append(pa.table({"n": [1], "who": ["c2"]}, SCHEMA), Stamp("w", 1)))
        return rows.set_column(1, "who", pa.array(["token"] * rows.num_rows))

    assert rewrite(place, change).files == 1
    table.by_turns(lambda: table.append(pa.table({"n": [2], "who": ["c3"]}, SCHEMA), Stamp("w", 2)))
    found = open_version(place)
    assert found is not None
    assert found.read("n", 0)["who"].to_pylist() == ["token", "c2", "c3"]
