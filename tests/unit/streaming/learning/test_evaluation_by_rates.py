"""`evaluate` of payments in several currencies, compared in one by exchange rates."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
import yaml
from typer.testing import CliRunner

from schemas.contract import EventContract
from schemas.loading import parse_document
from schemas.spec import AgentSpec
from streaming.cli.root import app
from streaming.definition.contracts import contract_of
from streaming.learning.labelled_files import Labelled, read_labelled
from tests.unit.streaming.learning.test_evaluation import START, payments

RATES = {"EUR": 1.0, "JPY": 160.0, "KWD": 0.25}
WEEKS = ["2025-01-29", "2025-02-05"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same payments in euros and in three currencies; a yen doubles its worth after four weeks."""
    made, folder = payments(), tmp_path_factory.mktemp("rates")
    codes = np.random.default_rng(6).choice([*RATES], made.num_rows)
    at = np.array(made["at"].to_pylist())
    later = at >= (START + timedelta(days=28)).isoformat()
    units = np.array([RATES[code] for code in codes]) / np.where((codes == "JPY") & later, 2.0, 1.0)
    paid = made.set_column(2, "amount", pa.array(made["amount"].to_numpy() * units))
    for name, table, currency in (("euros", made, pa.array(["EUR"] * made.num_rows)), ("paid", paid, codes)):
        pa.csv.write_csv(table.append_column("currency", pa.array(currency)), folder / f"{name}.csv")
    rates = [("JPY", START, 1 / 160.0), ("JPY", START + timedelta(days=28), 2 / 160.0), ("KWD", START, 4.0)]
    lines = [f"{code},{since.isoformat()},{rate!r}" for code, since, rate in rates]
    (folder / "rates.csv").write_text("\n".join(["currency,valid_from,rate", *lines, ""]), "utf-8")
    (folder / "contract.yaml").write_text(yaml.safe_dump(CONTRACT), "utf-8")
    (folder / "plain.yaml").write_text(yaml.safe_dump(spec({})), "utf-8")
    by_rates = {"data_sources": {**spec({})["data_sources"], "rates": {"path": "rates.csv", "to": "EUR"}}}
    compared = {"horizons": ["1h", "1d", "7d"], "currencies": "reference"}
    (folder / "by_rates.yaml").write_text(yaml.safe_dump(spec({**by_rates, "profiles": compared})), "utf-8")
    return folder


CONTRACT: dict[str, Any] = {
    "name": "sample",
    "transaction_id": {"field": "id"},
    "event_time": {"field": "at"},
    "amount": {"field": "amount"},
    "currency": {"field": "currency"},
    "entities": {"customer": {"field": "customer"}, "terminal": {"field": "terminal"}},
    "label": {"field": "fraud", "kind": "kind"},
}


def spec(changes: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": "sample",
        "version": "1.0.0",
        "data_sources": {"transactions": {"contract": "contract.yaml", "topic": "transactions"}},
        "alerts": {"topic": "alerts"},
        "profiles": {"horizons": ["1h", "1d", "7d"]},
        **changes,
    }


def found(folder: Path, payments: str, agent: str) -> dict[str, Any]:
    given = ["evaluate", str(folder / payments), "--contract", str(folder / "contract.yaml")]
    given += ["--spec", str(folder / agent), "--label-delay", "3d", "--alerts-per-day", "10", "--json"]
    given += [part for week in WEEKS for part in ("--test-start", week)]
    result = CliRunner().invoke(app, [*given, "--mode", "delayed"])
    assert result.exit_code == 0, result.output
    summary: dict[str, Any] = json.loads(result.stdout)
    return summary


def test_payments_in_several_currencies_are_judged_as_those_in_one(folder: Path) -> None:
    in_euros = found(folder, "euros.csv", "plain.yaml")
    by_rates = found(folder, "paid.csv", "by_rates.yaml")
    assert by_rates["auc"] == pytest.approx(in_euros["auc"], abs=2e-3)
    assert by_rates["recall"] == pytest.approx(in_euros["recall"], abs=0.02)
    assert by_rates["frauds"] == in_euros["frauds"]
    as_they_stand = found(folder, "paid.csv", "plain.yaml")
    assert as_they_stand["auc"] < by_rates["auc"] - 0.004


def test_amounts_are_converted_as_of_their_own_time(folder: Path) -> None:
    agent = AgentSpec.model_validate(yaml.safe_load((folder / "by_rates.yaml").read_text("utf-8")))
    rates = agent.data_sources.rates
    assert rates is not None
    rates = rates.model_copy(update={"path": str(folder / "rates.csv")})
    meant = contract_of(agent, str(folder / "contract.yaml"))
    paid = read_labelled([folder / "paid.csv"], meant, rates=rates).transactions
    euros = labelled_in_euros(folder).transactions
    assert paid["reference_amount"].to_numpy() == pytest.approx(euros["amount"].to_numpy(), rel=1e-12)


def labelled_in_euros(folder: Path) -> Labelled:
    return read_labelled([folder / "euros.csv"], parse_document(CONTRACT, EventContract, where="sample"))
