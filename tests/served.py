"""A server of the HTTP API in a process of its own, started by the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import httpx2
import yaml

from schemas.spec import AgentSpec
from streaming.testing.drivers import wait_until

_SECONDS = 60.0


@contextmanager
def served(home: Path, spec: AgentSpec, *options: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run `flagstream serve` on a free port; yield its address and its process, which ends afterwards."""
    path = home.parent / f"{spec.name}.yaml"
    path.write_text(yaml.safe_dump(spec.model_dump(mode="json")), encoding="utf-8")
    words = ["serve", "--spec", str(path), "--home", str(home), "--listen", "0", "--log-format", "json"]
    start = "from streaming.cli.root import main; main()"
    command = [sys.executable, "-c", start, *words, *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as child:
        try:
            address = _address(child)
            wait_until(lambda: httpx2.get(f"{address}/readyz").status_code == 200, _SECONDS, "it to be ready")
            yield address, child
        finally:
            child.terminate()
            child.wait(_SECONDS)


def _address(child: subprocess.Popen[str]) -> str:
    """Read the log until it says where the API is; go on reading, so that the child is never held up."""
    assert child.stderr is not None
    said = []
    for line in child.stderr:
        said.append(line)
        record = json.loads(line)
        if record["event"] == "serving":
            Thread(target=child.stderr.read, daemon=True).start()
            return str(record["url"])
    raise AssertionError("".join(said))
