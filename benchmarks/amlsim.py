"""Ranks AMLSim's accounts by what the live scorer said of their transfers, without any label."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from agent import SPECS
from benchmarks.baselines import amlsim_degree_auc
from schemas.contract import load_contract
from schemas.errors import ConfigurationError
from schemas.spec import AgentSpec, load_spec
from streaming.detection.scoring import Scorer
from streaming.learning import protocol
from streaming.learning.labelled_files import read_transactions

Floats = npt.NDArray[np.float64]

_SLICE_ROWS = 50_000
_PAIR = ("sender", "receiver")


def account_figures(folder: Path) -> dict[str, float]:
    """Return the ROC AUC over accounts of their degree and of flagstream's evidence.

    An account's score is the sum, or the largest, of the evidence (nats) of its transfers, sent or received;
    `without counterparties` is the same agent with that detector off.

    Args:
        folder: one `*_transactions.parquet` and its `*_nodes.parquet`, as AMLSim writes them.

    Raises:
        ConfigurationError: the folder does not hold exactly one of each.
    """
    nodes = pl.read_parquet(_only(folder, "*_nodes.parquet"))
    path = _only(folder, "*_transactions.parquet")
    contract, spec = load_contract("amlsim"), load_spec(SPECS / "amlsim.yaml")
    transfers = read_transactions([path], contract)
    scored = evidence_of(transfers, spec, contract.entity_names)
    plain = evidence_of(transfers, without_counterparties(spec), contract.entity_names)
    return {
        "degree": amlsim_degree_auc(nodes, pl.read_parquet(path)),
        "flagstream, summed evidence": account_auc(nodes, transfers, scored, np.add),
        "flagstream, largest evidence": account_auc(nodes, transfers, scored, np.maximum),
        "flagstream without counterparties, summed": account_auc(nodes, transfers, plain, np.add),
    }


def without_counterparties(spec: AgentSpec) -> AgentSpec:
    """Return the spec with the detector of counterparties off."""
    off = spec.detectors.counterparties.model_copy(update={"enabled": False})
    return spec.model_copy(update={"detectors": spec.detectors.model_copy(update={"counterparties": off})})


def evidence_of(transfers: pa.Table, spec: AgentSpec, entities: tuple[str, ...]) -> Floats:
    """Return each transfer's evidence, nats, float64[n], as the live scorer finds it row by row."""
    scorer, found = Scorer(spec.anew(), entities), []
    for start in range(0, len(transfers), _SLICE_ROWS):
        scored = scorer.score(transfers.slice(start, _SLICE_ROWS))
        scorer.commit(scored)
        found.append(scored.evidence.sum(axis=1))
    return np.concatenate(found)


def account_auc(nodes: pl.DataFrame, transfers: pa.Table, nats: Floats, gathered: np.ufunc) -> float:
    """Return the ROC AUC of an account's gathered nats; accounts without transfers have 0.

    Args:
        nodes: columns nodeid and isFraud.
        transfers: columns sender and receiver, ids as text.
        nats: float64[n].
        gathered: how an account's nats come together, such as numpy.add.
    """
    places = {str(node): place for place, node in enumerate(nodes["nodeid"].to_list())}
    totals = np.zeros(nodes.height)
    for role in _PAIR:
        gathered.at(totals, [places[account] for account in transfers[role].to_pylist()], nats)
    return protocol.roc_auc(nodes["isFraud"].cast(pl.Boolean).to_numpy(), totals)


def _only(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise ConfigurationError(f"expected one file {pattern}, found {len(found)}", where=str(folder))
    return found[0]
