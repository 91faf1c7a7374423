"""Another class of processors, emulated by children that may not use what this one's has."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from schemas.spec import AgentSpec
from streaming.arrays.fingerprint import machine_fingerprint
from streaming.detection.scoring import Scorer
from streaming.history.replay_runs import ReplaySpan, run_replay
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.testing.live_lake import agent, events, run_live, without_broker
from tests.unit.scoring_samples import agent_spec, bits, run, stream

# The C library and NumPy choose their functions when a process starts; these take choices away. An older
# or a newer library passes over names that it does not know.
VARIANTS: Mapping[str, Mapping[str, str]] = {
    "as it is": {},
    "C library without FMA": {"GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA,-FMA4,-AVX2_Usable,-FMA_Usable"},
    "NumPy without AVX-512": {"NPY_DISABLE_CPU_FEATURES": "AVX512_SKX X86_V4 AVX512_ICL AVX512_SPR"},
    "NumPy of the least": {
        "NPY_DISABLE_CPU_FEATURES": "AVX512_SKX X86_V4 AVX512_ICL AVX512_SPR AVX2 FMA3 X86_V3"
    },
}
WITHOUT_FMA = VARIANTS["C library without FMA"]
LAKE = agent(threshold=0.3, rules=[])
ROWS, MORE = 2_400, 600
_SECONDS = 300


def has_fma() -> bool:
    """Whether this processor has what the variant without it lacks."""
    return " fma " in Path("/proc/cpuinfo").read_text(encoding="utf-8")


def on(variant: Mapping[str, str], *arguments: str) -> dict[str, Any]:
    """Return what a child says that runs as another class of processors."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.other_machine", *arguments],
        env={**os.environ, **variant},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
        timeout=_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {**said, "log": done.stderr}


def scored() -> dict[str, Any]:
    """Score a stream under every detector; return the fingerprint and a digest of all that was scored."""
    digest = hashlib.sha256()
    for part in bits(run(Scorer(_everything(), ("customer", "terminal")), _travelling(40_000), [10_000])):
        digest.update(part)
    return {"fingerprint": machine_fingerprint(), "bits": digest.hexdigest()}


def replayed(home: str) -> dict[str, Any]:
    """Replay the whole lake of a home."""
    return run_replay(placed(Path(home)), ReplaySpan()).facts()


def gone_on(home: str) -> dict[str, Any]:
    """Decide what follows in the lake of a home."""
    import pytest  # noqa: PLC0415 -- for children alone, to leave the broker out

    with pytest.MonkeyPatch.context() as patch:
        without_broker(patch)
        run_live(placed(Path(home)), events(ROWS + MORE)[ROWS:], first_batch=ROWS // 90 + 1)
    return {"fingerprint": machine_fingerprint()}


def placed(home: Path, spec: AgentSpec = LAKE) -> PlacedAgent:
    """Return the agent of a home."""
    return PlacedAgent(Settings.load(home, {}), spec)


def _everything() -> AgentSpec:
    return agent_spec(
        profiles={
            "block_rows": 256,
            "pairs": [["customer", "terminal"]],
            "windows": {"customer": {"horizons": ["1h", "1d"], "lateness": "1h"}},
        },
        detectors={
            "counterparties": {"enabled": True, "entities": ["customer", "terminal"]},
            "travel": {"enabled": True},
            "habit": {"enabled": True},
            "multivariate": {"enabled": True},
        },
        alerts_per_day=20,
    )


def _travelling(rows: int) -> pa.Table:
    random, found = np.random.default_rng(7), stream(rows, customers=800, terminals=200)
    for name, reach in (("latitude", 60.0), ("longitude", 180.0)):
        found = found.append_column(name, pa.array(random.uniform(-reach, reach, rows)))
    return found


if __name__ == "__main__":
    command, *homes = sys.argv[1:]
    said = {"replay": replayed, "go-on": gone_on}[command](homes[0]) if homes else scored()
    print(json.dumps(said, default=str))
