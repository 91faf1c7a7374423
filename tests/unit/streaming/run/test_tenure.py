"""A driver that opens its lake again takes nothing back from a successor that came meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from schemas.errors import DataLossError, FencedError, RetryableError
from schemas.lake_tables import lake_schemas
from streaming.delta.lake import Lake, Tenure
from streaming.delta.lake_table import LakeTable
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.kafka.outbox_record import OutboxRecord
from streaming.run import alerts_end
from streaming.run.opening import open_agent
from streaming.store.place import Place
from streaming.testing.live_lake import CONTRACT, TOPIC, QuietLane, agent, events, records
from streaming.testing.streams import versions
from streaming.versions.clients import Clients

SPEC = agent()


def open_lake(folder: Path, tenure: Tenure | None = None) -> Lake:
    return Lake.open(
        Place.local(folder), SPEC, lake_schemas(CONTRACT), retention=SPEC.replay_horizon, tenure=tenure
    )


def test_who_opens_again_goes_on_unless_another_has_come_since(tmp_path: Path) -> None:
    ours = Tenure()
    for _ in range(3):
        open_lake(tmp_path, ours)
    open_lake(tmp_path)
    before = versions(Place.local(tmp_path))
    for _ in range(2):
        with pytest.raises(FencedError, match="has taken over"):
            open_lake(tmp_path, ours)
    assert versions(Place.local(tmp_path)) == before, "nothing is claimed back"


def test_an_opening_of_ones_own_that_was_left_half_way_is_no_successor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, claim, left = Tenure(), LakeTable.claim, [3]

    def claim_some(table: LakeTable, epoch: int) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise RetryableError("the disk went")
        claim(table, epoch)

    monkeypatch.setattr(LakeTable, "claim", claim_some)
    with pytest.raises(RetryableError):
        open_lake(tmp_path, ours)
    open_lake(tmp_path, ours)


def test_of_two_drivers_that_claim_the_same_epoch_one_is_fenced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_lake(tmp_path)
    ours = Tenure()
    with monkeypatch.context() as patch, pytest.raises(RetryableError):
        patch.setattr(LakeTable, "claim", raises(RetryableError("the disk went")))
        open_lake(tmp_path, ours)
    theirs = open_lake(tmp_path)
    again = open_lake(tmp_path, ours)
    again.batches.check_ours()
    with pytest.raises(FencedError, match="has taken over"):
        theirs.batches.check_ours()


def raises(fault: Exception) -> Callable[..., None]:
    def claim(*_: object) -> None:
        raise fault

    return claim


class FencedLane(QuietLane):
    def __init__(self, fault: Exception) -> None:
        super().__init__()
        self.fault = fault

    def publish(self, records: Iterable[OutboxRecord]) -> int:  # noqa: ARG002 -- the signature
        raise self.fault


@pytest.mark.parametrize("fault", [FencedError("another driver publishes"), DataLossError("a gap")])
def test_whoever_asks_a_broken_lane_learns_what_broke_it(
    fault: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a driver that was fenced would take the lane for one to be opened anew."""
    monkeypatch.setattr(alerts_end, "Publisher", lambda *_, **__: FencedLane(fault))
    settings = Settings.load(tmp_path / "home", {})
    with (
        Clients(settings, "none") as clients,
        open_agent(PlacedAgent(settings, SPEC), "127.0.0.1:1", clients) as started,
    ):
        rows = records(events(200))
        for call in (
            lambda: started.pipeline.process(lambda: rows, "live", 0, lambda: {TOPIC: {"0": 200}}),
            started.pipeline.check,
        ):
            with pytest.raises(type(fault)) as raised:
                call()
            assert raised.value is fault


class SilentLane(QuietLane):
    def open(self, stored_next: int) -> None:  # noqa: ARG002 -- the signature
        raise RetryableError("the broker does not answer")


def test_attempts_that_fail_after_the_claim_commit_nothing_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, ours = Settings.load(tmp_path / "home", {}), Tenure()

    def attempt() -> dict[str, int]:
        with (
            Clients(settings, "none") as clients,
            open_agent(PlacedAgent(settings, SPEC), "127.0.0.1:1", clients, tenure=ours) as started,
        ):
            started.pipeline.process(lambda: records(events(60)), "live", 0, lambda: {TOPIC: {"0": 60}})
        return versions(settings.lake(SPEC.name))

    monkeypatch.setattr(alerts_end, "Publisher", SilentLane)
    seen = []
    for _ in range(4):
        with pytest.raises(RetryableError, match="does not answer"):
            attempt()
        seen.append(versions(settings.lake(SPEC.name)))
    assert seen == seen[:1] * 4
    monkeypatch.setattr(alerts_end, "Publisher", QuietLane)
    assert attempt()["batches"] == seen[0]["batches"] + 1, "what it holds is enough to write"
    open_lake(settings.lake(SPEC.name).path)
    with pytest.raises(FencedError, match="has taken over"):
        attempt()
