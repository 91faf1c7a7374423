"""What Spark's configuration names of Spark's own, Spark has."""

from __future__ import annotations

from pathlib import Path
from zipfile import ZipFile

import pyspark

from streaming.setup.plan_rules import rules_left_out
from streaming.setup.spark_jvm import checkpoint_files_in


def classes_in(jar: str) -> set[str]:
    (found,) = (Path(pyspark.__file__).parent / "jars").glob(f"{jar}_*.jar")
    with ZipFile(found) as classes:
        return {name.removesuffix(".class").replace("/", ".") for name in classes.namelist()}


def test_each_rule_that_is_left_out_is_one_of_spark_s() -> None:
    known = classes_in("spark-catalyst")
    names = rules_left_out().split(",")
    assert len(names) == len(set(names)) > 50
    assert [name for name in names if name not in known] == []


def test_spark_has_the_class_that_writes_checkpoints() -> None:
    assert checkpoint_files_in(pyspark.__version__) in classes_in("spark-sql")
    moved = {
        version: ".checkpointing." in checkpoint_files_in(version) for version in ("4.0.1", "4.1.1", "4.2.0")
    }
    assert moved == {"4.0.1": False, "4.1.1": True, "4.2.0": True}
