from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import DataLossError
from streaming.detection import checkpoints
from streaming.detection.scoring import Scorer
from streaming.store.local_folders import LocalFolders
from tests.unit.scoring_samples import agent_spec, load, save, stream

ROWS = 400
STREAM = stream(ROWS)


def scorer(rows: int = 0, **changes: Any) -> Scorer:
    made = Scorer(agent_spec(**changes), ("customer", "terminal"))
    made.fold(STREAM.slice(0, rows))
    return made


def remaining_bits(scoring: Scorer) -> bytes:
    batch = scoring.score(STREAM.slice(scoring.next_sequence))
    return batch.log_odds.tobytes() + batch.contributions.tobytes()


@given(st.integers(0, ROWS))
@settings(deadline=None, derandomize=True, max_examples=20)
def test_saved_and_loaded_continues_as_if_never_stopped(
    tmp_path_factory: pytest.TempPathFactory, rows: int
) -> None:
    folder, running, resumed = tmp_path_factory.mktemp("profiles"), scorer(rows), scorer()
    assert save(running, folder).name == f"{rows:020d}"
    assert load(resumed, folder) == ()
    assert resumed.next_sequence == rows
    assert remaining_bits(resumed) == remaining_bits(running)


def test_resumed_scorer_writes_the_same_checkpoint(tmp_path: Path) -> None:
    resumed = scorer()
    first = save(scorer(200), tmp_path / "first")
    load(resumed, tmp_path / "first")
    second = save(resumed, tmp_path / "second")
    assert [path.name for path in sorted(first.iterdir())] == [path.name for path in sorted(second.iterdir())]
    for path in first.iterdir():
        assert path.read_bytes() == (second / path.name).read_bytes()


def test_those_that_are_not_beyond_a_row_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for rows in (100, 200):
        save(scorer(rows), tmp_path)
    folders, definition = LocalFolders.of(tmp_path), scorer().definition_hash
    found = [checkpoints.newest(folders, definition, beyond=each).snapshot for each in (-1, 199)]
    assert [each.next_sequence for each in found if each is not None] == [200, 200]
    monkeypatch.setattr(checkpoints, "_found", None)
    assert checkpoints.newest(folders, definition, beyond=200) == checkpoints.FoundCheckpoint(None, ())


def test_newest_three_are_kept(tmp_path: Path) -> None:
    running = scorer()
    for start in range(0, ROWS, 80):
        running.fold(STREAM.slice(start, 80))
        save(running, tmp_path)
    assert sorted(int(path.name) for path in tmp_path.iterdir()) == [240, 320, 400]


def test_a_disk_that_cannot_be_read_costs_no_checkpoint_and_a_torn_one_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, torn = save(scorer(100), tmp_path), save(scorer(200), tmp_path)
    folders = LocalFolders.of(tmp_path)

    def fails(*_: object) -> bytes:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(LocalFolders, "read", fails)
        with pytest.raises(OSError, match="Too many open files"):
            checkpoints.change_all(folders, lambda state: state)
    assert [kept.is_dir(), torn.is_dir()] == [True, True]
    cut_short(torn)
    assert checkpoints.change_all(folders, lambda state: state) == 2
    assert [kept.is_dir(), torn.is_dir()] == [True, False]


def cut_short(checkpoint: Path) -> None:
    victim = checkpoint / "entities-1.arrow"
    victim.write_bytes(victim.read_bytes()[:-100])


def flip_a_bit(checkpoint: Path) -> None:
    victim = checkpoint / "entities-0.arrow"
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(bytes(content))


def lose_a_file(checkpoint: Path) -> None:
    (checkpoint / "calibration.arrow").unlink()


def cut_manifest(checkpoint: Path) -> None:
    victim = checkpoint / "manifest.json"
    victim.write_text(victim.read_text()[:40])


def lose_manifest(checkpoint: Path) -> None:
    (checkpoint / "manifest.json").unlink()


def raise_format(checkpoint: Path) -> None:
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    (checkpoint / "manifest.json").write_text(json.dumps({**manifest, "format": 99}))


@pytest.mark.parametrize(
    "damage", [cut_short, flip_a_bit, lose_a_file, cut_manifest, lose_manifest, raise_format]
)
def test_damaged_checkpoint_is_passed_over_for_the_one_before(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    save(scorer(100), tmp_path)
    newest = save(scorer(200), tmp_path)
    damage(newest)
    resumed = scorer()
    (skipped,) = load(resumed, tmp_path)
    assert resumed.next_sequence == 100
    assert skipped.place.path == newest
    assert skipped.reason


def test_foreign_checkpoint_is_skipped_and_says_so(tmp_path: Path) -> None:
    save(scorer(100, detectors={"amount": {"weight": 2}}), tmp_path)
    resumed = scorer()
    (skipped,) = load(resumed, tmp_path)
    assert "another profile definition" in skipped.reason
    assert resumed.next_sequence == 0


def test_unfinished_checkpoint_does_not_count_and_is_cleared_away(tmp_path: Path) -> None:
    whole = save(scorer(100), tmp_path)
    shutil.copytree(whole, tmp_path / ".unfinished-00000000000000000300")
    resumed = scorer()
    load(resumed, tmp_path)
    assert resumed.next_sequence == 100
    resumed.fold(STREAM.slice(100, 10))
    save(resumed, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{rows:020d}" for rows in (100, 110)]


def test_through_passes_over_later_checkpoints(tmp_path: Path) -> None:
    for rows in (100, 200, 300):
        save(scorer(rows), tmp_path)
    resumed = scorer()
    assert load(resumed, tmp_path, through=250) == ()
    assert resumed.next_sequence == 200


def test_nothing_there_leaves_the_scorer_as_it_was(tmp_path: Path) -> None:
    fresh = scorer(50)
    assert load(fresh, tmp_path / "absent") == ()
    assert fresh.next_sequence == 50


def test_snapshot_can_be_written_after_the_scorer_has_moved_on(tmp_path: Path) -> None:
    running = scorer(100)
    snapshot = running.snapshot()
    running.fold(STREAM.slice(100, 200))
    checkpoints.write(snapshot, LocalFolders.of(tmp_path))
    resumed = scorer()
    load(resumed, tmp_path)
    assert remaining_bits(resumed) == remaining_bits(scorer(100))


def test_same_sequence_written_again_replaces_the_earlier(tmp_path: Path) -> None:
    first = save(scorer(100), tmp_path)
    cut_short(first)
    save(scorer(100), tmp_path)
    resumed = scorer()
    assert load(resumed, tmp_path) == ()
    assert resumed.next_sequence == 100


def test_snapshot_of_another_definition_is_not_restored() -> None:
    with pytest.raises(DataLossError, match="another profile definition"):
        scorer().restore(scorer(10, profiles={"block_rows": 8}).snapshot())


def test_loaded_state_is_independent_of_the_files(tmp_path: Path) -> None:
    save(scorer(200), tmp_path)
    resumed = scorer()
    load(resumed, tmp_path)
    expected = remaining_bits(scorer(200))
    for path in tmp_path.rglob("*.arrow"):
        path.write_bytes(np.zeros(path.stat().st_size, np.uint8).tobytes())
    assert remaining_bits(resumed) == expected


def test_checkpoints_beyond_the_lake_are_removed(tmp_path: Path) -> None:
    for rows in (10, 20, 30):
        save(scorer(rows), tmp_path)
    checkpoints.drop_after(LocalFolders.of(tmp_path), 20)
    assert sorted(int(path.name) for path in tmp_path.iterdir()) == [10, 20]
