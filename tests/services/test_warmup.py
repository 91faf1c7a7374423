"""Kernels are compiled before the first batch, whatever the contract's format, and nobody is asked for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from schemas.contract import CONTRACTS
from schemas.spec import load_spec
from streaming.batch.warmup import compile_kernels
from streaming.definition.agent_definition import AgentDefinition
from streaming.testing.streams import write_spec

RECORD = '{"type": "record", "name": "R", "fields": [{"name": "tx_id", "type": "string"}]}'
MESSAGE = 'syntax = "proto3"; message M { string tx_id = 1; }'


@pytest.mark.parametrize(
    "format_",
    [
        {"json": {"framing": "confluent"}},
        {"avro": {"registry": True}},
        {"avro": {"schema": RECORD}},
        {"protobuf": {"registry": True}},
        {"protobuf": {"schema": MESSAGE}},
    ],
    ids=str,
)
def test_every_format_is_warmed_without_a_registry(format_: dict[str, Any], tmp_path: Path) -> None:
    content = yaml.safe_load((CONTRACTS / "simulator.yaml").read_text())
    (tmp_path / "payments.yaml").write_text(yaml.safe_dump({**content, "format": format_}))
    source = {"contract": str(tmp_path / "payments.yaml"), "topic": "events"}
    spec = load_spec(write_spec(tmp_path, str, data_sources={"transactions": source}))
    compile_kernels(AgentDefinition.of(spec))
