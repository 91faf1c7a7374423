from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from schemas.errors import MachineError
from streaming.setup.downloads import LOCK_FILE, Jar, _run_ivy, check_jars, digest, jar_paths, locked_jars


def a_jar(folder: Path, section: str, name: str) -> Jar:
    jar = Jar(section, "org.example", name, "1.0", hashlib.sha256(name.encode()).hexdigest())
    (folder / jar.file_name).write_bytes(name.encode())
    return jar


def test_missing_jars_tell_to_run_setup(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="run `make setup`"):
        jar_paths(tmp_path / "spark")


def test_check_jars_finds_a_missing_and_a_changed_file(tmp_path: Path) -> None:
    first, second = a_jar(tmp_path, "broker", "log"), a_jar(tmp_path, "spark", "table")
    check_jars(tmp_path, [first, second])
    (tmp_path / second.file_name).write_bytes(b"changed")
    changed = hashlib.sha256(b"changed").hexdigest()
    with pytest.raises(
        MachineError, match=f"table-1.0.jar .*expected sha256 {second.sha256}, found {changed}"
    ):
        check_jars(tmp_path, [first, second])
    (tmp_path / first.file_name).unlink()
    with pytest.raises(MachineError, match=r"log-1\.0\.jar is missing"):
        check_jars(tmp_path, [first, second])


def test_the_shipped_lock_pins_every_jar_once_with_a_checksum() -> None:
    lines = [line for line in LOCK_FILE.read_text().splitlines() if not line.startswith("#")]
    broker, spark, msk, bench = map(locked_jars, ("broker", "spark", "msk", "bench"))
    assert len(lines) == len(broker) + len(spark) + len(msk) + len(bench)
    for jars in (broker, spark, msk, bench):
        assert len({jar.file_name for jar in jars}) == len(jars)
        assert all(len(jar.sha256) == 64 and int(jar.sha256, 16) for jar in jars)
    assert {"kafka_2.13-4.4.0.jar", "log4j-slf4j-impl-2.25.5.jar"} <= {jar.file_name for jar in broker}
    assert [jar.file_name for jar in msk] == ["aws-msk-iam-auth-2.3.5-all.jar"]
    assert "delta-spark_4.2_2.13-4.4.0.jar" in {jar.file_name for jar in spark}


def test_jars_without_a_classifier_keep_the_stamp_of_their_folder(tmp_path: Path) -> None:
    jar = Jar("spark", "org.example", "table", "1.0", "0" * 64)
    shown = (
        f"Jar(section='spark', organisation='org.example', name='table', revision='1.0', sha256='{'0' * 64}')"
    )
    assert digest([jar]) == hashlib.sha256(shown.encode()).hexdigest()
    with pytest.raises(MachineError, match="run `flagstream fetch --msk`"):
        jar_paths(tmp_path / "msk")


def test_a_jar_that_is_named_twice_counts_once(tmp_path: Path) -> None:
    said: list[str] = []
    ivy = tmp_path / "ivy"
    lines = [
        "downloading a/b/log.jar ...",
        "\udcff",
        "downloading a/b/log.jar ...",
        "downloading",
        "downloading c/d.jar ...",
    ]
    (tmp_path / "lines").write_text("\n".join(lines) + "\n", "utf-8", "surrogateescape")
    ivy.write_text(f'#!/bin/sh\ncat "{tmp_path}/lines"\necho "ERROR no route"\nexit 3\n', encoding="utf-8")
    ivy.chmod(0o755)
    assert _run_ivy([str(ivy)], 2, said.append) == "Ivy ended with 3: ERROR no route"
    assert said == ["  1 of 2: log.jar", "  2 of 2: d.jar"]


def test_a_java_that_cannot_be_started_is_named(tmp_path: Path) -> None:
    java = tmp_path / "java"
    java.touch(0o600)
    with pytest.raises(MachineError, match=f"{java} cannot be run: Permission denied"):
        _run_ivy([str(java)], 1, lambda _: None)
