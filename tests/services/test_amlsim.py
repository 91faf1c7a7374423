"""Ranking accounts by what the live scorer said of their transfers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from benchmarks import amlsim
from schemas.errors import ConfigurationError

FRAUDS = 20


def _payees(payers: Any, ringed: bool, random: np.random.Generator) -> Any:
    payees = random.permutation(len(payers))
    for fraud in range(FRAUDS if ringed else 0):
        place = np.flatnonzero(payers == fraud)[0]
        other = np.flatnonzero(payees == (fraud + 1) % FRAUDS)[0]
        payees[[place, other]] = payees[[other, place]]
    return payees


def made_files(folder: Path) -> None:
    """Each account pays and is paid once a day, by anyone; in the end twenty pay each other in a ring."""
    random = np.random.default_rng(0)
    accounts, days = 400, 20
    payers = np.concatenate([random.permutation(accounts) for _ in range(days)])
    payees = np.concatenate(
        [_payees(payers[day * accounts :][:accounts], day >= days // 2, random) for day in range(days)]
    )
    pl.DataFrame(
        {
            "tx_id": np.arange(len(payers)),
            "sourceNodeId": payers,
            "targetNodeId": payees,
            "value": 100.0 + random.random(len(payers)),
            "time": 1 + np.arange(len(payers)) // accounts,
        }
    ).write_parquet(folder / "made_transactions.parquet")
    nodes = pl.DataFrame({"nodeid": np.arange(accounts)})
    nodes.with_columns(isFraud=(pl.col("nodeid") < FRAUDS).cast(pl.Int64)).write_parquet(
        folder / "made_nodes.parquet"
    )


def test_accounts_that_pay_each_other_again_and_again_rank_first(tmp_path: Path) -> None:
    made_files(tmp_path)
    figures = amlsim.account_figures(tmp_path)
    assert figures["flagstream, summed evidence"] > 0.95
    assert figures["degree"] == 0.5
    assert figures["flagstream without counterparties, summed"] < 0.6


def test_an_account_gathers_what_it_sent_and_received() -> None:
    nodes = pl.DataFrame({"nodeid": [7, 8, 9], "isFraud": [1, 0, 0]})
    transfers = pa.table({"sender": ["7", "8"], "receiver": ["8", "7"]})
    nats = np.array([2.0, 1.0])
    # Both 7 and 8 have the same transfers, so they tie; 9 has none.
    assert amlsim.account_auc(nodes, transfers, nats, np.add) == 0.75
    assert amlsim.account_auc(nodes, transfers, nats, np.maximum) == 0.75
    apart = pa.table({"sender": ["7", "8"], "receiver": ["7", "9"]})
    assert amlsim.account_auc(nodes, apart, nats, np.add) == 1.0


def test_a_folder_without_accounts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="nodes"):
        amlsim.account_figures(tmp_path)
