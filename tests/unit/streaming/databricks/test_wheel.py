"""The wheel for a workspace: what is in it, what it asks for, and that the same files give the same bytes."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from streaming.commands.databricks import write_wheel
from streaming.databricks.wheel import NAME, PlatformWheel, is_wheel_of_ours, pinned_requirements
from tests.unit.streaming.databricks.samples import wheel

ROOT = Path(__file__).resolve().parents[4]


def opened(found: PlatformWheel) -> zipfile.ZipFile:
    return zipfile.ZipFile(io.BytesIO(found.content))


def test_it_asks_for_no_spark_of_its_own() -> None:
    with opened(wheel()) as archive:
        text = archive.read(f"{NAME}-{wheel().version}.dist-info/METADATA").decode()
    needed = {Requirement(each).name for each in Parser().parsestr(text).get_all("Requires-Dist", [])}
    assert {"deltalake", "pyarrow", "confluent-kafka"} <= needed
    assert not needed & {"pyspark", "delta-spark", "py4j", "pytest"}
    assert not {"pyspark", "delta-spark", "py4j"} & {
        line.partition("==")[0] for line in pinned_requirements().splitlines()
    }


def test_every_line_of_its_requirements_is_pinned() -> None:
    lines = pinned_requirements().splitlines()
    assert len(lines) > 20
    for line in lines:
        (specifier,) = Requirement(line).specifier
        assert specifier.operator == "=="


def test_the_record_names_every_file_with_its_hash() -> None:
    with opened(wheel()) as archive:
        names = set(archive.namelist())
        record = f"{NAME}-{wheel().version}.dist-info/RECORD"
        rows = {row[0]: row[1] for row in csv.reader(archive.read(record).decode().splitlines())}
        assert set(rows) == names
        for name, noted in rows.items():
            if name != record:
                digest = hashlib.sha256(archive.read(name)).digest()
                assert noted == "sha256=" + base64.urlsafe_b64encode(digest).decode().rstrip("=")
    assert {"streaming/cli/job.py", "agent/specs/card-fraud.yaml", "streaming/setup/jars.lock"} <= names


def test_its_entry_points_are_those_of_the_project() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    with opened(wheel()) as archive:
        text = archive.read(f"{NAME}-{wheel().version}.dist-info/entry_points.txt").decode()
    assert dict(line.split(" = ") for line in text.splitlines()[1:]) == scripts


def test_the_same_files_give_the_same_bytes_and_others_another_version() -> None:
    again = PlatformWheel(wheel()._files, wheel()._metadata)
    assert again.content == wheel().content
    more = PlatformWheel({**wheel()._files, "more.py": b"x = 1\n"}, wheel()._metadata)
    assert more.version != wheel().version


def test_an_older_wheel_is_replaced_and_other_files_stay(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = tmp_path / "flagstream-0.0.9+0123456789ab-py3-none-any.whl"
    assert is_wheel_of_ours(old.name)
    for name in (old.name, "other-1.0-py3-none-any.whl"):
        (tmp_path / name).write_bytes(b"")
    write_wheel(tmp_path)
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted(
        [wheel().file_name, "other-1.0-py3-none-any.whl"]
    )
    assert wheel().file_name in capsys.readouterr().out
