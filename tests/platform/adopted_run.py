"""Runs an agent on a session that somebody else has begun, as on a platform; prints what came of it."""

from __future__ import annotations

import json
import os
import sys
from datetime import timedelta
from pathlib import Path
from threading import Event

from pyspark.sql import SparkSession

from schemas.spec import load_spec
from streaming.batch.runner import StreamRunner
from streaming.delta.lake_reader import AgentLake
from streaming.history.reconcile import reconcile
from streaming.history.replay_runs import ReplaySpan, run_replay
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.run.opening import open_agent
from streaming.run.status import read_status
from streaming.setup.session import start_session
from streaming.versions.clients import Clients


def begun(jars: list[str], folder: Path) -> SparkSession:
    """Return a session as a platform has it: with jars of its own, and nothing that flagstream sets."""
    builder = SparkSession.builder.master("local[2]").appName("platform")
    options = {
        "spark.jars": ",".join(jars),
        "spark.driver.host": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.sql.warehouse.dir": str(folder / "warehouse"),
    }
    for key, value in options.items():
        builder = builder.config(key, value)
    return builder.getOrCreate()


def main(spec_file: str, home: str, bootstrap: str, jars: list[str]) -> None:
    """Run the agent until its topic is read, and compare what is stored, published and replayed."""
    theirs = begun(jars, Path(home))
    settings, spec = Settings.load(Path(home), os.environ), load_spec(Path(spec_file))
    session = start_session([], work_dir=settings.spark)
    assert session is theirs, "the platform's session is adopted"
    with open_agent(PlacedAgent(settings, spec), bootstrap, Clients(settings, "none")) as agent:
        StreamRunner(session, agent.pipeline, agent.stream).run(Event(), until_idle=True)
    lake = settings.lake(spec.name)
    status = read_status(AgentLake(lake, spec), None)
    found = {
        "spark": session.version,
        "zone": session.conf.get("spark.sql.session.timeZone"),
        "totals": status.totals,
        "balanced": status.balanced,
        "differences": reconcile(AgentLake(lake, spec), bootstrap, timedelta(hours=1)).differences,
        "replay": len(run_replay(PlacedAgent(settings, spec), ReplaySpan()).differences),
    }
    session.stop()
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:4], sys.argv[4:])
