"""A lake that lies in a folder goes into a store as docs/stores.md says, and nothing is lost on the way."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from pathlib import Path

import obstore
import pytest

from streaming.audit.audit_check import check_audit
from streaming.audit.audit_log import AuditPlaces
from streaming.delta.lake_reader import LakeReader
from streaming.history.replay_runs import ReplaySpan, run_replay
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.store.client import client_of, key_of
from streaming.testing.live_lake import agent, events, judge, run_live, without_broker
from streaming.testing.stores import RunningStore

PAGE = Path(__file__).parents[2] / "docs" / "stores.md"
SYNC = re.compile(r"^aws s3 sync var/(\S+)/my-agent s3://payments-lake/flagstream/\1/my-agent(.*)$", re.M)


def copied(home: Path, store: RunningStore, name: str) -> None:
    """Copy what the page's commands copy, in their order."""
    for part, options in SYNC.findall(PAGE.read_text(encoding="utf-8")):
        folder, left_out = home / part / name, re.findall(r'--exclude "([^"]+)"', options)
        for path in sorted(each for each in folder.rglob("*") if each.is_file()):
            below = path.relative_to(folder).as_posix()
            if not any(fnmatch(below, each) for each in left_out):
                file = store.place / part / name / below
                obstore.put(client_of(file), key_of(file), path.read_bytes(), use_multipart=False)


@pytest.mark.parametrize("store", ["gofakes3", "azurite"], indirect=True)
def test_a_lake_is_copied_into_a_store_and_goes_on_there(
    store: RunningStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_broker(monkeypatch)
    spec, payments = agent(), events(360)
    here = PlacedAgent(Settings.load(tmp_path / "home", {}), spec)
    run_live(here, payments[:180])
    judge(here, [payments[0]["tx_id"]])
    copied(here.settings.home, store, spec.name)
    key = (here.settings.audit(spec.name) / "key").path.read_text(encoding="utf-8").strip()
    given = {"FLAGSTREAM_STORE": str(store.place), "FLAGSTREAM_AUDIT_KEY": key}
    there = PlacedAgent(Settings.load(tmp_path / "another", given), spec)
    run_live(there, payments[180:], first_batch=2)
    assert LakeReader.of(there).count("transactions") == 360
    assert LakeReader.of(there).count("labels") == 1
    found = run_replay(there, ReplaySpan())
    assert (found.differences, found.rows) == ((), 360)
    report = check_audit(AuditPlaces(there))
    assert (report.sound, report.first) == (True, 0)
