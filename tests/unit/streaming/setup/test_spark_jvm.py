"""How Spark is set up for an agent."""

from __future__ import annotations

import re
from pathlib import Path

from streaming.setup.spark_jvm import configuration_of

_MILLISECONDS = {"ms": 1, "s": 1_000, "m": 60_000}


def milliseconds(setting: str) -> int:
    found = re.fullmatch(r"(\d+)(ms|s|m)", setting)
    assert found is not None
    return int(found[1]) * _MILLISECONDS[found[2]]


def test_what_was_polled_outlasts_the_next_small_batch_and_not_a_pause(tmp_path: Path) -> None:
    """Dropped at once, each small batch asks the broker anew; kept for minutes, it fills the heap."""
    settings = configuration_of(tmp_path)
    cache = "spark.kafka.consumer.fetchedData.cache"
    kept, looked = (settings[f"{cache}.{name}"] for name in ("timeout", "evictorThreadRunInterval"))
    assert 1_000 <= milliseconds(kept) <= 5_000
    assert milliseconds(looked) <= 1_000
