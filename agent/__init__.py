"""Reasoning about flagged transactions: triage, model client, prompts, policies. Never imports Spark."""

from __future__ import annotations

from pathlib import Path

SPECS = Path(__file__).parent / "specs"
