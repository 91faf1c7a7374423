"""The real MLflow: installed once by its hashes below the cache, served, and asked for its traces.

`python -m tests.mlflow_server` is the part of `make test-services` that installs it beforehand.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from agent.model.processes import one_at_a_time
from streaming.home.settings import Settings
from streaming.output.terminal import say_line
from streaming.testing.drivers import wait_until
from tests.ports import free_port

LOCK = Path(__file__).parent / "services" / "mlflow.lock"
_SECONDS = 180.0
# Run by MLflow's own library, which reads traces back as its pages do.
_ASK = """
import json, sys
from mlflow import MlflowClient
client = MlflowClient(sys.argv[1])
found = client.search_traces(locations=["0"], max_results=100, include_spans=True)
print(json.dumps([
    {
        "status": str(trace.info.state.value),
        "tokens": trace.info.token_usage,
        "spans": [
            {
                "name": span.name, "type": span.span_type, "status": span.status.status_code.value,
                "said": span.status.description, "parent": span.parent_id, "id": span.span_id,
                "attributes": span.attributes,
                "links": [each.trace_id for each in getattr(span, "links", ())],
            }
            for span in trace.data.spans
        ],
    }
    for trace in found
]))
"""


@dataclass(frozen=True)
class MlflowServer:
    """A server that runs, with one experiment, number 0."""

    url: str
    python: Path
    environ: Mapping[str, str]

    def traces(self) -> list[dict[str, Any]]:
        """Return all traces, as MLflow's library shows them: types, tokens and spans."""
        command = [str(self.python), "-c", _ASK, self.url]
        done = subprocess.run(command, env=self.environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3_000:]
        found: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
        return found

    def is_up(self) -> bool:
        """Whether it answers."""
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=10) as reply:
                return bool(reply.status == 200)
        except OSError:
            return False


def python_of(settings: Settings) -> Path:
    """Return a Python that has MLflow: it takes no pyarrow as new as the project's, so it has its own."""
    tests = settings.cache.absolute() / "tests"
    folder = tests / f"mlflow-{sha256(LOCK.read_bytes()).hexdigest()[:16]}"
    own = folder / "bin" / "python"
    with one_at_a_time(tests / "mlflow.guard"):
        if not (folder / "done").exists():
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
            command = [str(own), "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes"]
            subprocess.run([*command, "--only-binary", ":all:", "-r", str(LOCK)], check=True)
            (folder / "done").touch()
    return own


@contextmanager
def mlflow_server(settings: Settings, folder: Path) -> Iterator[MlflowServer]:
    """Serve MLflow for the length of a block, with its database in a folder."""
    port, python = free_port(), python_of(settings)
    named = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "MLFLOW_"))}
    environ = {**named, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    command = [
        str(python), "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port),
        "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--workers", "1",
        "--default-artifact-root", str(folder / "artifacts"),
    ]  # fmt: skip
    with (folder / "log").open("wb") as out:
        child = subprocess.Popen(command, stdout=out, stderr=out, env=environ, cwd=folder)
    server = MlflowServer(f"http://127.0.0.1:{port}", python, environ)

    def answers() -> bool:
        assert child.poll() is None, (folder / "log").read_text(encoding="utf-8")[-3_000:]
        return server.is_up()

    try:
        wait_until(answers, _SECONDS, "MLflow")
        yield server
    finally:
        child.terminate()
        with suppress(subprocess.TimeoutExpired):
            child.wait(_SECONDS)
        child.kill()
        child.wait()


def main() -> None:
    """Install it; where that cannot be, a line says why, and its tests fail."""
    try:
        python_of(Settings.load(Path("var"), os.environ))
    except subprocess.CalledProcessError as fault:
        say_line(f"MLflow could not be installed: {fault}")


if __name__ == "__main__":
    main()
