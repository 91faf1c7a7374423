"""Time zone, language and encoding of a machine change nothing that is stored: same records, same bits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow as pa
import pytest

from schemas.spec import load_spec
from streaming.home.settings import Settings
from streaming.kafka.topic_admin import ensure_topic
from streaming.testing.drivers import Drivers
from streaming.testing.streams import Stream, stored, write_spec

pytestmark = pytest.mark.timeout(600)

# The Turkish small letter of I has no dot, Kathmandu is 5:45 ahead; zone and language reach the JVM two ways.
MACHINES: Mapping[str, Mapping[str, str]] = {
    "utc": {"TZ": "UTC", "LC_ALL": "C.UTF-8"},
    "kathmandu, Turkish": {
        "TZ": "Asia/Kathmandu",
        "LC_ALL": "tr_TR.UTF-8",
        "LANG": "tr_TR.UTF-8",
        "JAVA_TOOL_OPTIONS": "-Duser.timezone=Asia/Kathmandu -Duser.language=tr -Duser.country=TR",
    },
    "plain C, half a day behind": {"TZ": "Etc/GMT+12", "LC_ALL": "C", "LANG": "C"},
}
OF_THE_RUN = {"transactions": ["query_id", "batch_id"], "alerts": ["query_id", "batch_id", "created_at"]}


def test_the_same_records_give_the_same_bits_everywhere(
    bootstrap: str, tmp_path: Path, topic: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = topic("events")
    ensure_topic(bootstrap, source, 2)
    stream = Stream(bootstrap, source)
    for _ in range(3):
        stream.send(300)
    found = {}
    for number, (name, machine) in enumerate(MACHINES.items()):
        with monkeypatch.context() as around:
            for variable, value in machine.items():
                around.setenv(variable, value)
            found[name] = decided(bootstrap, tmp_path / f"mäßig {number}", source, topic(f"alerts-{number}"))
    first = found["utc"]
    assert first["alerts"].num_rows > 10
    assert first["quarantine"].num_rows == stream.malformed
    for name, tables in found.items():
        for table, rows in tables.items():
            assert rows.equals(first[table]), f"{table} of a machine in {name}"


def decided(bootstrap: str, folder: Path, source: str, alerts: str) -> dict[str, pa.Table]:
    """Run an agent over the topic; return what it has stored, but for what names the run."""
    names = {"events": source, "alerts": alerts}
    spec_file = write_spec(folder, names.__getitem__)
    settings, spec = Settings.load(folder / "home", {}), load_spec(spec_file)
    drivers = Drivers(settings, bootstrap)
    assert drivers.run(spec_file) == 0, drivers.outputs[-1]
    lake = settings.lake(spec.name)
    orders = {"transactions": "sequence", "alerts": "outbox_seq", "quarantine": "offset"}
    tables = {name: stored(lake, name, order) for name, order in orders.items()}
    tables["quarantine"] = (
        tables["quarantine"]
        .select(["partition", "offset", "value", "reason", "detail"])
        .sort_by([("partition", "ascending"), ("offset", "ascending")])
    )
    return {name: rows.drop_columns(of(name, rows)).combine_chunks() for name, rows in tables.items()}


def of(table: str, rows: pa.Table) -> list[str]:
    return [name for name in OF_THE_RUN.get(table, []) if name in rows.column_names]
