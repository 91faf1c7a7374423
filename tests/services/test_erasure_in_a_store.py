"""What is promised of an erasure on a disk holds with the lake in an object store."""

from __future__ import annotations

from pathlib import Path

import obstore
import pytest

from schemas.errors import ConfigurationError
from streaming.audit.audit_check import check_audit
from streaming.audit.audit_log import AuditPlaces
from streaming.delta.erasure_plan import Erasable
from streaming.erasure.erasing import Erasure
from streaming.history.replay_runs import ReplaySpan, run_replay
from streaming.history.snapshots import find_snapshot
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.store.client import client_of, key_of, name_in
from streaming.store.opening import folders_of
from streaming.testing.live_lake import run_live, without_broker
from streaming.testing.stores import RunningStore
from tests.services.test_erasure import IDS, SAID, SUBJECTS, decided, live, naming, spec, tables, told

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.parametrize("store", ["gofakes3", "azurite"], indirect=True),
]
ROWS = 360


@pytest.fixture
def settings(store: RunningStore, tmp_path: Path) -> Settings:
    given = {
        "FLAGSTREAM_STORE": str(store.place),
        "FLAGSTREAM_AUDIT_KEY": "a" * 32,
        "FLAGSTREAM_PSEUDONYM_KEY": "p" * 32,
    }
    found = Settings.load(tmp_path / "home", given)
    live(found, IDS, ROWS)
    return found


def naming_in(store: RunningStore, home: Path, copies: Path) -> list[str]:
    """Return where an id stands, in objects and in files of this machine."""
    for each in obstore.list(client_of(store.place), key_of(store.place)).collect():
        file = copies / name_in(store.place, each["path"])
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bytes(obstore.get(client_of(store.place), each["path"]).bytes()))
    return [*naming(copies, (*IDS, SAID)), *naming(home, (*IDS, SAID))]


def check_a_trial(settings: Settings, store: RunningStore) -> None:
    """It counts, and changes nothing."""

    def objects() -> dict[str, str | None]:
        found = obstore.list(client_of(store.place), key_of(store.place)).collect()
        return {each["path"]: each["e_tag"] for each in found}

    before = objects()
    counted = Erasure(PlacedAgent(settings, spec())).trial([Erasable("customer", IDS[0])])
    assert objects() == before
    assert counted.rows["transactions"] > 0
    assert (counted.snapshots, counted.checkpoints > 0) == (1, True)


def test_after_a_trial_and_interrupted_anywhere_nothing_of_an_id_is_left_and_all_replays(
    settings: Settings, store: RunningStore, tmp_path: Path
) -> None:
    check_a_trial(settings, store)
    before, steps = decided(settings), list[str]()
    assert naming_in(store, settings.home, tmp_path / "before") != []

    def fall(step: str) -> None:
        if step not in steps:
            steps.append(step)
            raise KeyboardInterrupt

    while True:
        try:
            erased = Erasure(PlacedAgent(settings, spec()), fall).run(
                SUBJECTS, "anna", "asked for it by letter"
            )
            break
        except KeyboardInterrupt:
            with pytest.MonkeyPatch.context() as patch, pytest.raises(ConfigurationError, match="once more"):
                without_broker(patch)
                run_live(PlacedAgent(settings, spec()), told()[:1], first_batch=40)
    assert {"claim", "transactions", "checkpoints", "snapshot kept", "leftovers", "audit"} <= set(steps)
    assert (erased.snapshots, erased.kept, erased.young) == (1, {}, 0)
    assert erased.checkpoints > 0
    assert naming_in(store, settings.home, tmp_path / "after") == []
    assert decided(settings) == before
    assert run_replay(PlacedAgent(settings, spec()), ReplaySpan()).differences == ()
    assert run_replay(PlacedAgent(settings, spec()), ReplaySpan(snapshot="kept")).differences == ()
    find_snapshot(folders_of(settings.snapshots("tester"), settings.spool), "kept").check()
    assert check_audit(AuditPlaces(PlacedAgent(settings, spec()))).sound
    assert erased.tokens[0] in set(tables(settings).frame("transactions", ["customer"])["customer"])
