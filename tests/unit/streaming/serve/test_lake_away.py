"""A lake whose folder is gone under a running server is a fault that passes, and not an empty lake."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.errors import DiskError
from streaming.delta.lake_reader import LakeReader
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.observe.drift_watch import DriftFigures
from streaming.serve import system_figures
from streaming.serve.lake_folder import LakeFolder
from streaming.serve.system_figures import lake_figures
from streaming.testing.drivers import wait_until
from streaming.testing.small_lake import BUSY, DAY, build_lake, spec_of
from tests.browser_session import console_of, sign_in

SPEC = spec_of()
READ = (
    "/v1/quarantine", "/v1/quarantine/requests", "/v1/versions", "/v1/audit", "/v1/audit/check", "/v1/cost",
    "/v1/status", f"/v1/entities/terminal/{BUSY}", f"/v1/entities/terminal/{BUSY}/neighbours", "/v1/rules",
    "/v1/cases", "/console/quarantine", "/console/versions", "/console/audit", "/console/rules",
    "/console/cases", f"/console/entities/terminal/{BUSY}",
)  # fmt: skip


def test_whatever_is_read_of_it_says_that_it_is_away_until_it_is_back(tmp_path: Path) -> None:
    settings = Settings.load(tmp_path / "home", {})
    build_lake(PlacedAgent(settings, SPEC))
    lake, aside = settings.lake(SPEC.name).path, tmp_path / "aside"
    with console_of(settings, SPEC) as client:
        sign_in(client, SPEC, "operate")
        bearer = client.bearer(SPEC, "operate", name="bert")

        def answers() -> dict[str, int]:
            return {each: client.get(each, headers=bearer).status_code for each in READ}

        before = answers()
        assert before.pop("/v1/audit/check") in (200, 400), "nothing may be on record as yet"
        assert set(before.values()) == {200}, before
        lake.rename(aside)
        served = client.server.agents[SPEC.name]
        served.trail.wrote("token:bert", "label", 1)
        with pytest.raises(DiskError, match="is gone"):
            served._flush()
        away = {each: status for each, status in answers().items() if status != 503}
        system: list[str | None] = []

        def says_so() -> bool:
            system.append(client.get("/v1/system", headers=bearer).json()["fault"])
            return system[-1] is not None

        wait_until(says_so, 30, "the fault of the lake")
        assert str(system[-1]).endswith("is gone")
        page = client.get("/console/system")
        assert (page.status_code, "is gone" in page.text) == (200, True)
        assert away == {}
        assert not lake.exists(), "who looks begins no lake"
        aside.rename(lake)
        assert {each: status for each, status in answers().items() if each in before} == before


def test_a_lake_that_has_not_begun_is_no_fault(tmp_path: Path) -> None:
    placed = PlacedAgent(Settings.load(tmp_path / "home", {}), SPEC)
    folder = LakeFolder(placed)
    folder.check()
    placed.lake.path.mkdir(parents=True)
    folder.check()
    placed.lake.path.rmdir()
    with pytest.raises(DiskError, match="is gone"):
        folder.check()


def test_another_lake_in_the_place_of_the_one_that_was_read_is_a_fault(tmp_path: Path) -> None:
    placed = PlacedAgent(Settings.load(tmp_path / "home", {}), SPEC)
    path = placed.lake.path
    path.mkdir(parents=True)
    folder = LakeFolder(placed)
    folder.check()
    path.rename(tmp_path / "aside")
    path.mkdir()
    with pytest.raises(DiskError, match="another folder than before: start flagstream serve again"):
        folder.check()
    path.rmdir()
    (tmp_path / "aside").rename(path)
    folder.check()


def test_drift_whose_file_goes_while_it_is_read_is_not_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    placed = PlacedAgent(Settings.load(tmp_path / "home", {}), SPEC)
    build_lake(placed)
    monkeypatch.setattr(system_figures, "kept_figures", lambda _: DriftFigures(0.1, {}, {}, 1, 1))
    assert lake_figures(placed, LakeReader.of(placed), None, DAY).drift is None
