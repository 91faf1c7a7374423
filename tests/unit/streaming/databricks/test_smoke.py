"""What the first job of a new workspace checks: each thing by itself, and nothing is written."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import yaml
from pyspark.sql import SparkSession

from schemas.errors import MachineError
from streaming.commands.launching import launched_ahead
from streaming.databricks.smoke import checks
from streaming.home.settings import Settings
from streaming.run import session_keeper
from streaming.run.session_keeper import SessionKeeper
from streaming.setup.platform import adopt_session, check_spark
from streaming.setup.session import start_session
from streaming.setup.start_times import StartTimes
from tests.unit.streaming.databricks.samples import card_fraud, written


class Conf:
    def __init__(self) -> None:
        self.held = {"spark.sql.session.timeZone": "Europe/Berlin", "spark.driver.memory": "1g"}

    def isModifiable(self, key: str) -> bool:  # noqa: N802 -- Spark's name
        return key.startswith("spark.sql.")

    def set(self, key: str, value: str) -> None:
        self.held[key] = value


def session(version: str = "4.0.0", *, classic: bool = True) -> SparkSession:
    found: Any = SimpleNamespace(version=version, conf=Conf())
    if classic:
        found.sparkContext = SimpleNamespace(version=version)
    return cast("SparkSession", found)


def test_everything_is_checked_whatever_fails_and_nothing_is_written(tmp_path: Path) -> None:
    bundle = written(tmp_path / "bundle")
    before = sorted(tmp_path.rglob("*"))
    secret = "sk-not-for-the-page"
    environ = {
        "FLAGSTREAM_KAFKA": "127.0.0.1:1",
        "OPENAI_API_KEY": secret,
    }
    found = {
        each.name: each
        for each in checks(
            bundle / "agent" / "spec.yaml",
            tmp_path / "kept" / "prod",
            session("3.5.0"),
            environ=environ,
        )
    }
    assert [name for name, each in found.items() if each.passed] == ["Python", "definition"]
    assert "Spark 3.5.0 is too old" in found["Spark"].said
    assert "audit-key" in found["secrets"].said
    assert "is not set: name an external location" in found["store"].said
    assert "no broker answers" in found["brokers"].said
    assert secret not in repr(found)
    assert sorted(tmp_path.rglob("*")) == before


def test_brokers_are_reached_as_the_spec_says(tmp_path: Path) -> None:
    (tmp_path / "kafka.properties").write_text("ssl.truststore.certificates=${env:AUTHORITY}\n", "utf-8")
    content = {**card_fraud().model_dump(mode="json"), "kafka": "kafka.properties"}
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    given = {"FLAGSTREAM_KAFKA": "broker.example.org:9093", "AUTHORITY": "x"}
    found = {each.name: each.said for each in checks(tmp_path / "s.yaml", tmp_path, session(), environ=given)}
    assert "env:AUTHORITY would go to broker.example.org:9093" in found["brokers"]


@pytest.mark.parametrize("version", ["4.0.0", "4.0.1", "4.1.2", "5.0.0-preview"])
def test_a_spark_that_is_new_enough_is_taken(version: str) -> None:
    check_spark(version)


@pytest.mark.parametrize("version", ["3.5.9", "3.5.0+databricks", "two", "4"])
def test_a_spark_that_is_too_old_is_refused_by_what_it_lacks(version: str) -> None:
    with pytest.raises(MachineError, match=r"toArrow\) needs Spark 4\.0 or later"):
        check_spark(version)


def test_the_platform_s_session_gets_what_can_still_be_set() -> None:
    found: Any = adopt_session(session())
    assert found.conf.held["spark.sql.session.timeZone"] == "UTC"
    assert found.conf.held["spark.driver.memory"] == "1g"


def test_a_session_from_elsewhere_is_refused() -> None:
    with pytest.raises(MachineError, match="Spark Connect"):
        adopt_session(session(classic=False))


def on_platform(monkeypatch: pytest.MonkeyPatch, found: SparkSession) -> None:
    monkeypatch.setenv("DATABRICKS_RUNTIME_VERSION", "17.3")
    monkeypatch.setattr(SparkSession.Builder, "getOrCreate", lambda _: found)


def test_on_a_platform_no_jvm_is_started_and_its_session_outlives_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs: Any = session()
    stopped = list[str]()
    theirs.stop = lambda: stopped.append("stopped")
    theirs.sparkContext._jsc = SimpleNamespace(sc=lambda: SimpleNamespace(isStopped=lambda: False))
    on_platform(monkeypatch, theirs)
    monkeypatch.setattr(session_keeper, "compile_kernels", lambda _: None)
    settings = Settings.load(tmp_path / "home", {"FLAGSTREAM_CACHE": str(tmp_path / "no-jars")})
    with launched_ahead(settings) as jvm:
        assert jvm is None
    with ExitStack() as kept:
        keeper = SessionKeeper(settings, "broker:9092", None, StartTimes(), kept)
        assert keeper.session(card_fraud()) is theirs
        assert keeper.session(card_fraud()) is theirs
    assert start_session([], work_dir=tmp_path) is theirs
    assert stopped == []
