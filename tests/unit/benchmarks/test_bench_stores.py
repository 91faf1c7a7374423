"""The store of a benchmark: what stands before it, and that its environment ends with it."""

from __future__ import annotations

import os
import re
import socket

import pytest
from typer.testing import CliRunner

from benchmarks import latency
from benchmarks.stores import bench_store
from schemas.errors import ConfigurationError
from streaming.cli.root import app


def test_a_lake_below_the_home_needs_nothing() -> None:
    before = dict(os.environ)
    with bench_store(None, 0.0) as kept:
        assert kept.uri is None and not kept.counted()
        assert dict(os.environ) == before


def test_a_store_behind_an_endpoint_is_reached_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with bench_store("s3://lake/bench", 0.02) as kept:
        assert kept.uri is not None
        assert re.fullmatch("s3://lake/bench/bench-[0-9a-f]{32}", kept.uri)
        assert kept.proxy is not None
        assert os.environ["AWS_ENDPOINT_URL"] == kept.proxy.address != endpoint
    assert os.environ["AWS_ENDPOINT_URL"] == endpoint


@pytest.mark.parametrize("endpoint", [None, "https://store.example"])
def test_what_no_proxy_can_stand_before_is_not_delayed(
    endpoint: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    if endpoint is not None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with bench_store("s3://lake/bench", 0.0) as kept:
        assert kept.proxy is None
    with pytest.raises(ConfigurationError, match="AWS_ENDPOINT_URL"), bench_store("s3://lake/bench", 0.02):
        pytest.fail("it was delayed by nothing")


def test_a_delay_needs_a_store() -> None:
    with pytest.raises(ConfigurationError, match="name one with --store"), bench_store(None, 0.02):
        pytest.fail("nothing was delayed")


def test_the_options_reach_the_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[object] = []
    monkeypatch.setattr(latency, "measure", lambda *words, as_json: given.extend((*words, as_json)))
    words = ["bench", "latency", "--seconds", "5", "--store", "gofakes3", "--request-delay", "0.02"]
    assert CliRunner().invoke(app, words).exit_code == 0
    assert given == [1_000, 60, 5, "gofakes3", 0.02, False]
    assert CliRunner().invoke(app, [*words, "--request-delay", "-1"]).exit_code == 2
