"""Labelled triage cases from simulated payments: frauds of each kind, and the honest payments most like them.

The real detectors score the payments, so that a case has the reasons an alert would have. The simulator
knows which payments are frauds; what kind of unusual each is, people would have to say, so cases that are
made have a label and no classification.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

from agent import SPECS
from agent.triage.prompt_evaluation import CaseReason, TriageCase
from schemas.contract import load_contract
from schemas.spec import load_spec
from streaming.detection.scored import ScoredBatch
from streaming.detection.scoring import Scorer
from streaming.events.decode import decode
from streaming.events.record_table import record_table
from streaming.events.simulated_json import json_keys, json_lines
from streaming.events.simulator import Simulator, SimulatorSettings

_START = datetime(2026, 3, 2, tzinfo=UTC)
_BLOCKS, _ROWS, _DAYS = 8, 6_000, 24
_UNKNOWN_BLOCKS = 2  # scores say little before habits are known
_FLAGGED = 0.98
_FRAUD_SHARE = 0.02


@dataclass(frozen=True)
class _Flagged:
    case: TriageCase
    kind: str


def generated_cases(count: int, seed: int = 7) -> list[TriageCase]:
    """Return `count` cases, half of them frauds of all kinds in turn, half honest payments of high scores.

    The same count and seed give the same cases.

    Args:
        count: how many; fewer come where the simulated stream holds fewer frauds.
        seed: of the stream.
    """
    found = list(_flagged(seed))
    honest = sorted((each.case for each in found if not each.kind), key=lambda case: -case.score)
    frauds = _in_turn([each for each in found if each.kind], count // 2)
    return [*frauds, *honest[: count - len(frauds)]]


def _in_turn(frauds: list[_Flagged], most: int) -> list[TriageCase]:
    """Take of each kind by turns, so that a frequent one does not crowd out the others."""
    waiting = {
        kind: [each.case for each in frauds if each.kind == kind] for kind in sorted({f.kind for f in frauds})
    }
    taken: list[TriageCase] = []
    while len(taken) < most and any(waiting.values()):
        taken += [cases.pop(0) for cases in waiting.values() if cases][: most - len(taken)]
    return taken


def _flagged(seed: int) -> Iterator[_Flagged]:
    """Yield the payments with high scores, once habits are known."""
    spec, contract = load_spec(SPECS / "card-fraud.yaml").anew(), load_contract("simulator")
    scorer = Scorer.under(spec, contract)
    simulator = Simulator(SimulatorSettings(seed, customers=600, terminals=150, fraud_share=_FRAUD_SHARE))
    step = timedelta(days=_DAYS) / _BLOCKS
    for number in range(_BLOCKS):
        end = _START + step * (number + 1)
        block = simulator.block(_ROWS, end - step, end)
        records = record_table(json_keys(block), json_lines(block), topic="cases", first=0, sent_at=end)
        rows = decode(records, contract, end).valid
        rows = rows.append_column("sequence", np.arange(number * _ROWS, number * _ROWS + rows.num_rows)[None])
        scored = scorer.score(rows)
        if number >= _UNKNOWN_BLOCKS:
            yield from _cases(scored, rows["amount"].to_pylist(), block.labels["fraud_type"].to_pylist())
        scorer.commit(scored)


def _cases(scored: ScoredBatch, amounts: list[float], kinds: list[str | None]) -> Iterator[_Flagged]:
    positions = np.flatnonzero(scored.score >= _FLAGGED)
    for position, reasons in zip(positions.tolist(), scored.reasons_of(positions), strict=True):
        kind = kinds[position] or ""
        case = TriageCase(
            name=f"{kind.replace('_', ' ') or 'honest payment'} {scored.first_sequence + position}",
            amount=amounts[position],
            score=float(scored.score[position]),
            reasons=tuple(
                CaseReason(name=each.name, contribution=each.contribution, text=each.text) for each in reasons
            ),
            fraud=bool(kind),
        )
        yield _Flagged(case, kind)
