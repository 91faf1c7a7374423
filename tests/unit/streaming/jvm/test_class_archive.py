"""An archive of classes belongs to one JDK and one class path, and is used only once it is whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from streaming.jvm.class_archive import ClassArchive


def jdk(folder: Path, version: str) -> Path:
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "java").touch(mode=0o755)
    (folder / "release").write_text(f'JAVA_VERSION="{version}"\n')
    return folder


@pytest.fixture
def jar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("JAVA_HOME", str(jdk(tmp_path / "17", "17.0.15")))
    made = tmp_path / "a.jar"
    made.write_bytes(b"one")
    return made


def test_another_jdk_and_another_jar_have_another_archive(
    tmp_path: Path, jar: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {ClassArchive.of(tmp_path, "spark", [jar]).file}
    assert names == {ClassArchive.of(tmp_path, "spark", [jar]).file}
    names.add(ClassArchive.of(tmp_path, "broker", [jar]).file)
    jar.write_bytes(b"another")
    names.add(ClassArchive.of(tmp_path, "spark", [jar]).file)
    monkeypatch.setenv("JAVA_HOME", str(jdk(tmp_path / "25", "25")))
    names.add(ClassArchive.of(tmp_path, "spark", [jar]).file)
    assert len(names) == 4


def test_it_is_used_once_it_is_made_and_takes_the_place_of_others(tmp_path: Path, jar: Path) -> None:
    folder = tmp_path / "classes"
    archive = ClassArchive.of(folder, "spark", [jar])
    assert archive.used() == ()
    assert not archive.keep(), "no JVM has made one"
    (making, *_) = archive.made()
    _, _, beside = making.partition("=")
    old, of_the_broker = folder / "spark-0123456789abcdef.jsa", folder / "broker-0123456789abcdef.jsa"
    for each in (Path(beside), old, of_the_broker):
        each.write_bytes(b"classes")
    assert archive.used() == (), "one that is being made is not used"
    assert archive.keep()
    assert f"-XX:SharedArchiveFile={archive.file}" in archive.used()
    assert sorted(folder.iterdir()) == sorted([archive.file, of_the_broker])
