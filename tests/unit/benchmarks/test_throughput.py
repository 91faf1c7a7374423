"""Throughput says where it falls short of what is promised."""

from __future__ import annotations

from benchmarks.throughput import below_promise


def test_shapes_below_the_promised_ratio_are_named() -> None:
    figures: dict[str, object] = {"ratio": 3.3, "nested_ratio": 1.999, "avro_ratio": 2.0}
    assert below_promise(figures) == ["nested 1.999"]
    assert below_promise({**figures, "nested_ratio": 2.1}) == []
    assert below_promise({**figures, "ratio": 0.5}) == ["flat 0.5", "nested 1.999"]
