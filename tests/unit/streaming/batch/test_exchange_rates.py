"""Exchange rates: amounts are converted once, when they are stored, and never again."""

from __future__ import annotations

import shutil
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
import yaml
from deltalake import write_deltalake
from hypothesis import given
from hypothesis import settings as properties
from hypothesis import strategies as st

from schemas.contract import CONTRACTS, load_contract
from schemas.errors import ConfigurationError
from schemas.references import ExchangeRates
from schemas.spec import AgentSpec, load_spec
from streaming.batch import conversion
from streaming.batch.references import References
from streaming.definition.agent_definition import AgentDefinition
from streaming.definition.contracts import contract_of
from streaming.delta.lake_reader import LakeReader
from streaming.history.decided import DecidedHistory
from streaming.history.replay_runs import ReplaySpan, run_replay
from streaming.history.snapshot_copy import create_snapshot
from streaming.home.placed_agent import PlacedAgent
from streaming.quarantine.lane import check_same_columns
from streaming.testing.live_lake import DAY, agent, events
from streaming.testing.trial import trial

CODES = ["EUR", "JPY", "KWD", "XTS"]


def at(hours: float) -> datetime:
    return DAY + timedelta(hours=hours)


def write_rates(path: Path, rows: list[tuple[str, float, float]]) -> Path:
    table = pa.table(
        {
            "currency": pa.array([row[0] for row in rows], pa.string()),
            "valid_from": pa.array([at(row[1]) for row in rows], pa.timestamp("us", "UTC")),
            "rate": pa.array([row[2] for row in rows], pa.float64()),
        }
    )
    if path.suffix == ".csv":
        pl.DataFrame(table).with_columns(pl.col("valid_from").dt.strftime("%Y-%m-%dT%H:%M:%SZ")).write_csv(
            path
        )
    else:
        write_deltalake(path, table, mode="overwrite")
    return path


def with_rates(path: Path, **changes: Any) -> AgentSpec:
    sources = {
        "transactions": {"contract": "simulator", "topic": "events"},
        "rates": {"path": str(path), "to": "EUR"},
    }
    profiles = {"block_rows": 64, "checkpoint_rows": 150, "currencies": "reference"}
    return agent(**{"data_sources": sources, "profiles": profiles, **changes})


def decoded(rows: list[tuple[str, float, float]]) -> pa.Table:
    return pa.table(
        {
            "event_time": pa.array([at(hour) for _, hour, _ in rows], pa.timestamp("us", "UTC")),
            "amount": pa.array([amount for _, _, amount in rows], pa.float64()),
            "currency": pa.array([code for code, _, _ in rows], pa.string()),
        }
    )


def joined(rates: ExchangeRates, events: pa.Table) -> list[float | None]:
    spec = with_rates(Path(rates.path))
    references = References(contract_of(spec), rates=rates)
    found: list[float | None] = references.join(events)["reference_amount"].to_pylist()
    return found


@properties(max_examples=40)
@given(
    rates=st.lists(
        st.tuples(
            st.sampled_from(CODES), st.integers(0, 48), st.sampled_from([0.0, -1.0, 0.5, 160.0, 1e300])
        ),
        unique_by=lambda row: row[:2],
    ),
    asked=st.lists(st.tuples(st.sampled_from(CODES), st.integers(0, 48), st.floats(0, 1e12)), max_size=20),
    inverse=st.booleans(),
)
def test_an_amount_is_converted_by_the_rate_of_its_own_time(
    tmp_path_factory: pytest.TempPathFactory,
    rates: list[tuple[str, float, float]],
    asked: list[tuple[str, float, float]],
    inverse: bool,
) -> None:
    path = write_rates(tmp_path_factory.mktemp("rates") / "rates.csv", rates)
    found = joined(ExchangeRates(path=str(path), to="EUR", inverse=inverse), decoded(asked))
    expected = []
    for code, hour, amount in asked:
        held = max(
            (row for row in rates if row[0] == code and row[1] <= hour), key=lambda r: r[1], default=None
        )
        rate = None if held is None or not 1e-30 < held[2] < 1e30 else 1 / held[2] if inverse else held[2]
        rate = 1.0 if code == "EUR" else rate
        expected.append(None if rate is None else pytest.approx(amount * rate))
    assert found == expected


def test_a_currency_without_a_rate_is_logged_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(conversion, "log", lambda _, message, **__: said.append(message))
    path = write_rates(tmp_path / "rates.csv", [("JPY", 5, 0.00625)])
    rates = ExchangeRates(path=str(path), to="EUR")
    references = References(contract_of(with_rates(path)), rates=rates)
    for _ in range(2):
        references.join(decoded([("XTS", 6, 1.0), ("XTS", 7, 1.0), ("EUR", 1, 1.0), ("JPY", 6, 1.0)]))
    assert len(said) == 1
    assert said[0].startswith("no rate from XTS to EUR at the time of a payment")


def payments(count: int) -> list[dict[str, Any]]:
    worth = {"EUR": 1.0, "JPY": 160.0, "KWD": 0.3, "XTS": 7.0}
    return [
        {**each, "currency": code, "amount": each["amount"] * worth[code]}
        for each, code in zip(events(count), CODES * count, strict=False)
    ]


RATES = [("JPY", -1, 1 / 160), ("JPY", 3, 1 / 150), ("KWD", 1, 1 / 0.3)]
RULE = {"name": "large", "when": "reference_amount > 250", "severity": "high", "reason": "large"}


@pytest.mark.long
def test_recovery_replay_and_snapshots_read_what_was_converted(tmp_path: Path) -> None:
    path = write_rates(tmp_path / "rates", RATES)
    spec = with_rates(path, rules=[RULE])
    made = payments(500)
    with trial(tmp_path / "home", spec) as tried:
        tried.send(made[:130])
        tried.send(made[130:300])
        pins = tried.stored("batches", "next_sequence")["pins"].to_pylist()
        raised = tried.alerts
    assert all('"rates": "version 0"' in each for each in pins)
    write_rates(path, [(code, hour, rate * 10) for code, hour, rate in RATES])
    with trial(tmp_path / "home", spec) as tried:
        tried.send(made[300:])
        settings, stored = tried.settings, tried.stored("transactions", "sequence")
        assert '"rates": "version 1"' in tried.stored("batches", "next_sequence")["pins"][-1].as_py()
        assert tried.alerts[: len(raised)] == raised
        assert any("large" in each["rules"] for each in tried.alerts)
    shutil.rmtree(path)
    assert run_replay(PlacedAgent(settings, spec), ReplaySpan()).differences == ()
    history = DecidedHistory(PlacedAgent(settings, spec))
    contract = history.contract(history.whole)
    assert contract is not None and contract.reference_currency == "EUR"
    create_snapshot(settings, AgentDefinition.pinned(spec, contract), "kept", history.whole)
    for each in settings.lake(spec.name).path.iterdir():
        if each.name != settings.snapshots(spec.name).name:
            shutil.rmtree(each)
    assert run_replay(PlacedAgent(settings, spec), ReplaySpan(snapshot="kept")).differences == ()
    found = dict(
        zip(stored["transaction_id"].to_pylist(), stored["reference_amount"].to_pylist(), strict=True)
    )
    assert [found[each["tx_id"]] for each in made if each["currency"] == "XTS"] == [None] * 125
    assert found["t00001"] == pytest.approx(made[1]["amount"] / 160)
    assert found["t00201"] == pytest.approx(made[201]["amount"] / 150)
    assert found["t00301"] == pytest.approx(made[301]["amount"] / 15)
    assert found["t00002"] is None


def test_a_lake_of_before_goes_on_with_rates(tmp_path: Path) -> None:
    path = write_rates(tmp_path / "rates.csv", RATES)
    made = payments(400)
    with trial(tmp_path / "home", agent()) as tried:
        tried.send(made[:200])
    with trial(tmp_path / "home", with_rates(path, version="1.1.0")) as tried:
        tried.send(made[200:])
        stored = tried.stored("transactions", "sequence")["reference_amount"]
        assert stored.slice(0, 200).null_count == 200
        assert stored.slice(200).null_count == 50
        assert tried.replay().differences == ()
    reader = LakeReader(tried.settings.lake("tester"), tried.spec.tables)
    assert reader.frame("alerts", ["sequence"]).height > 0


def test_amounts_of_one_lake_are_converted_to_one_currency(tmp_path: Path) -> None:
    path = write_rates(tmp_path / "rates.csv", RATES)
    with trial(tmp_path / "home", with_rates(path)) as tried:
        tried.send(payments(20))
    spec = with_rates(path).model_dump(mode="json")
    spec["data_sources"]["rates"]["to"] = "JPY"
    told = r"data_sources\.rates\.to: what is stored was converted to EUR"
    with (
        pytest.raises(ConfigurationError, match=told),
        trial(tmp_path / "home", AgentSpec.model_validate(spec)) as tried,
    ):
        tried.send(payments(40)[20:])


def test_rates_that_were_away_come_back_in_the_same_currency(tmp_path: Path) -> None:
    path = write_rates(tmp_path / "rates.csv", RATES)
    made = payments(80)
    with trial(tmp_path / "home", with_rates(path)) as tried:
        tried.send(made[:20])
    for version, sent in (("1.1.0", made[20:40]), ("1.2.0", [])):
        with trial(tmp_path / "home", agent(version=version)) as tried:
            tried.send(sent)
    spec = with_rates(path, version="1.3.0").model_dump(mode="json")
    spec["data_sources"]["rates"]["to"] = "JPY"
    with (
        pytest.raises(ConfigurationError, match="what is stored was converted to EUR"),
        trial(tmp_path / "home", AgentSpec.model_validate(spec)) as tried,
    ):
        tried.send(made[40:60])
    with trial(tmp_path / "home", with_rates(path, version="1.3.0")) as tried:
        tried.send(made[60:])
        assert tried.replay().differences == ()
        amounts = tried.stored("transactions", "sequence")["reference_amount"]
        assert amounts.slice(20, 20).null_count == 20
        assert amounts.slice(40).null_count == 5


def test_the_rates_path_starts_at_the_specs_folder_and_a_contract_file_names_no_currency(
    tmp_path: Path,
) -> None:
    content = with_rates(Path("rates.csv")).model_dump(mode="json")
    path = tmp_path / "agent.yaml"
    path.write_text(yaml.safe_dump(content), "utf-8")
    rates = load_spec(path).data_sources.rates
    assert rates is not None and rates.path == str((tmp_path / "rates.csv").resolve())
    contract = yaml.safe_load((CONTRACTS / "simulator.yaml").read_text("utf-8"))
    written = tmp_path / "contract.yaml"
    written.write_text(yaml.safe_dump({**contract, "reference_currency": "EUR"}), "utf-8")
    with pytest.raises(ConfigurationError, match="follows from the exchange rates of the spec"):
        load_contract(str(written))


def test_a_column_of_the_same_name_is_refused_and_a_corrected_contract_is_converted_alike(
    tmp_path: Path,
) -> None:
    spec = with_rates(tmp_path / "rates.csv")
    check_same_columns(contract_of(spec), contract_of(spec, "simulator"))
    contract = yaml.safe_load((CONTRACTS / "simulator.yaml").read_text("utf-8"))
    written = tmp_path / "contract.yaml"
    written.write_text(yaml.safe_dump({**contract, "extra": {"reference_amount": {"field": "x"}}}), "utf-8")
    with pytest.raises(ConfigurationError, match="'reference_amount' cannot name a column"):
        contract_of(spec, str(written))


@pytest.mark.parametrize(
    ("rates", "said"),
    [({"rate": "rates"}, "no column 'rates'"), ({"since": "since"}, "no column 'since'")],
)
def test_a_table_of_rates_that_lacks_a_column_is_refused_by_name(
    tmp_path: Path, rates: dict[str, Any], said: str
) -> None:
    path = write_rates(tmp_path / "rates.csv", RATES)
    wanted = ExchangeRates(path=str(path), to="EUR", **rates)
    with pytest.raises(ConfigurationError, match=said) as refused:
        References(contract_of(with_rates(path)), rates=wanted)
    assert refused.value.key == "data_sources.rates"
