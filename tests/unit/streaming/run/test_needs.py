"""What an agent needs is looked for before anything is claimed; what is wrong is said, and by status, too."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import yaml

from agent.model import local_llm
from agent.model.local_llm import LocalLlm
from agent.model.processes import Service, free_port
from schemas.contract import load_contract
from schemas.errors import ConfigurationError, MachineError
from schemas.spec import AgentSpec, DataSources
from streaming.delta import faults
from streaming.delta.faults import unusable, why_unusable
from streaming.delta.lake_reader import AgentLake
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.run.needs import Needs
from streaming.run.status import read_status
from streaming.service.health import Condition, Health
from streaming.store.place import Place
from streaming.testing.live_lake import agent
from streaming.versions import clients as clients_module
from streaming.versions.clients import Clients
from streaming.versions.registry_table import registry_place
from tests.registry_rows import activate
from tests.unit.streaming.delta.test_disk_faults import disk, fill, make_read_only  # noqa: F401 -- a fixture

SPEC = agent()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.load(tmp_path / "home", {})


def needs_of(settings: Settings, choice: str = "none", **changes: object) -> Needs:
    return Needs(
        PlacedAgent(settings, agent(**changes)), f"127.0.0.1:{free_port()}", Clients(settings, choice)
    )


def test_a_disk_is_unusable_while_it_is_full_read_only_or_gone(
    disk: Path,  # noqa: F811 -- the fixture
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(faults, "_LEAST_FREE_BYTES", 1 << 20)
    lake = disk / "lake" / "tester"
    assert unusable(lake) is None
    assert unusable(lake, known=True) == f"{lake} is gone"
    lake.mkdir(parents=True)
    assert unusable(lake, known=True) is None
    for harm, said in ((fill, "0 MiB free, 1 needed"), (make_read_only, "mounted read-only")):
        heal = harm(disk)
        assert unusable(lake) == why_unusable(lake)
        assert said.removesuffix(" needed") in str(unusable(lake))
        heal()
        assert unusable(lake) is None


def test_looking_leaves_nothing_behind_and_makes_no_folder(tmp_path: Path) -> None:
    assert unusable(tmp_path / "lake" / "tester") is None
    assert list(tmp_path.iterdir()) == []


def test_status_looks_at_the_disk_itself_where_the_agent_cannot_write_it_down(
    settings: Settings,
    disk: Path,  # noqa: F811 -- the fixture
) -> None:
    file, at = settings.health("tester"), AgentLake(Place.local(disk), SPEC)
    with closing(Health(file)):
        make_read_only(disk)
        found = read_status(at, None).with_health(file, at.lake)
    assert [(each.condition, each.cause) for each in found.conditions] == [
        (Condition.DISK_UNUSABLE, f"{disk}: mounted read-only")
    ]
    assert read_status(at, None).with_health(file, at.lake).conditions == (), "nobody runs it"


def test_a_registry_that_cannot_be_read_is_waited_for(settings: Settings) -> None:
    needs = needs_of(settings)
    assert needs.registry_fault() is None, "none is no fault"
    activate(settings, SPEC)
    assert needs.registry_fault() is None
    (rows,) = registry_place(PlacedAgent(settings, SPEC)).path.glob("*.parquet")
    aside = rows.rename(rows.with_suffix(".aside"))
    assert str(rows) in str(needs.registry_fault())
    aside.rename(rows)
    assert needs.registry_fault() is None


def test_what_a_power_cut_tore_of_the_registry_is_mended_before_it_is_read(settings: Settings) -> None:
    activate(settings, SPEC)
    log = registry_place(PlacedAgent(settings, SPEC)) / "_delta_log"
    newest = log / f"{len(list(log.path.glob('*.json'))):020d}.json"
    newest.path.write_bytes(b"")
    assert needs_of(settings).registry_fault() is None
    assert not newest.path.exists()


def test_a_broker_that_is_away_is_named_with_its_address(settings: Settings) -> None:
    assert "no broker answers at 127.0.0.1:" in str(needs_of(settings).broker_fault())


def test_a_local_model_that_does_not_come_up_is_waited_for(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: LocalLlm, __: object = None) -> str:
        raise MachineError("local-llm did not come up")

    needs = needs_of(settings, "auto", llm={})
    monkeypatch.setattr(LocalLlm, "start", fails)
    assert needs.model_fault() == "local-llm did not come up"
    monkeypatch.setattr("streaming.run.needs.weights_file", lambda: fails(LocalLlm(settings.home)))
    with pytest.raises(MachineError):
        needs.model_fault()


def test_ctrl_c_while_the_local_model_starts_gives_it_up(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, begin = threading.Event(), Service.start
    waits = [sys.executable, "-c", "import signal; signal.pause()"]

    def loaded(_: int) -> bool:
        stop.set()
        return False

    monkeypatch.setattr(
        Service, "start", lambda self, _, facts, ready, **more: begin(self, waits, facts, ready, **more)
    )
    monkeypatch.setattr(local_llm, "_loaded", loaded)
    for module in ("agent.model.local_llm", "streaming.run.needs"):
        monkeypatch.setattr(f"{module}.weights_file", lambda: Path("weights"))
    with Clients(settings, "local", stop.is_set) as clients:
        fault = Needs(PlacedAgent(settings, agent(llm={})), "127.0.0.1:1", clients).model_fault()
    assert "was ended while it started" in str(fault)
    assert LocalLlm(settings.home / "llm").status() is None


def test_an_endpoint_that_cannot_be_used_is_not_waited_for(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(*_: object) -> None:
        raise ConfigurationError("no such endpoint")

    monkeypatch.setattr(clients_module, "endpoint_client", wrong)
    with pytest.raises(ConfigurationError):
        needs_of(settings, "auto", llm={}).model_fault()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    made = Service("sleeper", tmp_path / "sleeper")
    yield made
    made.stop()


def test_a_child_that_died_is_told_from_one_that_was_stopped(service: Service) -> None:
    command = [sys.executable, "-c", "import sys; sys.stdin.read(); import time; time.sleep(600)"]
    facts = {"address": "here"}
    assert not service.has_died(facts), "it was never started"
    service.start(command, facts, lambda: True)
    assert not service.has_died(facts)
    record = (service.folder / "sleeper.json").read_text(encoding="utf-8")
    os.kill(int(record.split('"pid": ')[1].split(",")[0]), signal.SIGKILL)
    while service.facts() is not None:
        subprocess.run(["true"], check=True)
    assert service.has_died(facts)
    assert not service.has_died({"address": "another"})
    service.stop()
    assert not service.has_died(facts)


def test_a_child_keeps_its_port_while_nobody_else_has_it(service: Service) -> None:
    port = service.port()
    assert service.port() == port


def test_a_master_of_spark_that_is_away_is_waited_for_and_what_executors_cannot_do_is_refused(
    settings: Settings,
) -> None:
    port = free_port()
    cluster = {"execution": "cluster", "cluster": {"master": f"spark://127.0.0.1:{port}"}}
    spec = agent(**cluster)
    assert needs_of(settings).cluster_fault() is None, "none is used"
    assert f"answers at 127.0.0.1:{port}" in str(needs_of(settings.under(spec)).cluster_fault())
    spec = spec.model_copy(update={"data_sources": _by_registry(spec, settings.home)})
    needs = Needs(PlacedAgent(settings.under(spec), spec), "127.0.0.1:1", Clients(settings, "none"))
    with pytest.raises(ConfigurationError, match="reads by a schema registry"):
        needs.cluster_fault()


def _by_registry(spec: AgentSpec, folder: Path) -> DataSources:
    """The sources of a spec whose contract has no schema of its own."""
    content = load_contract("simulator").model_dump(mode="json", exclude_unset=True)
    file = folder / "registry.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump({**content, "format": {"avro": {"registry": True}}}), encoding="utf-8")
    transactions = spec.data_sources.transactions.model_copy(update={"contract": str(file)})
    return spec.data_sources.model_copy(update={"transactions": transactions})
