"""What is kept of the state: restored once, saved as it changes, whole at any moment."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming.home import kept_home
from streaming.home.kept_home import KeptHome, keeping

NAMES = ["llm/endpoints.json", "llm/other.json", "llm/deep/other.json"]
FILES = st.dictionaries(st.sampled_from(NAMES), st.binary(max_size=20))


def put(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def held(folder: Path) -> dict[str, bytes]:
    found = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


@given(before=FILES, here=FILES)
def test_what_is_here_counts_and_what_is_missing_comes_back(
    before: dict[str, bytes], here: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    home, kept = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("kept")
    put(kept, before)
    put(home, here)
    state = KeptHome(home, kept)
    assert state.restore() == len(set(before) - set(here))
    assert held(home) == {**before, **here}
    state.save()
    assert held(kept) == held(home)
    assert state.save() == 0


def test_tables_checkpoints_and_keys_are_not_kept(tmp_path: Path) -> None:
    left = {"lake/a/_delta_log/0.json": b"x", "checkpoints/a/offsets/0": b"x", "pseudonyms.key": b"k"}
    put(tmp_path / "home", {**left, "llm/endpoints.json": b"{}"})
    KeptHome(tmp_path / "home", tmp_path / "kept").save()
    assert held(tmp_path / "kept") == {"llm/endpoints.json": b"{}"}


def test_what_has_gone_here_goes_there(tmp_path: Path) -> None:
    home, kept = tmp_path / "home", tmp_path / "kept"
    put(home, {"llm/a.json": b"1", "llm/b.json": b"2"})
    state = KeptHome(home, kept)
    state.save()
    (home / "llm/a.json").unlink()
    state.save()
    assert held(kept) == {"llm/b.json": b"2"}


def test_it_is_saved_at_the_end_and_a_fault_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "home", {"llm/endpoints.json": b"{}"})
    logged, saved = list[str](), threading.Event()
    monkeypatch.setattr(kept_home, "log", lambda event, *_, **__: logged.append(event))
    (tmp_path / "kept").write_text("no folder", encoding="utf-8")
    with keeping(KeptHome(tmp_path / "home", tmp_path / "kept"), seconds=60):
        saved.set()
    assert logged == ["state_not_kept"]
    (tmp_path / "kept").unlink()
    with keeping(KeptHome(tmp_path / "home", tmp_path / "kept"), seconds=60):
        assert not (tmp_path / "kept").exists()
    assert held(tmp_path / "kept") == {"llm/endpoints.json": b"{}"}
