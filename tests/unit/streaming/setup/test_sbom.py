"""What an installation holds is on its bill of materials, each thing once."""

from __future__ import annotations

import hashlib
import json
import zipfile
from datetime import UTC, datetime
from importlib.metadata import distributions, version
from pathlib import Path

from streaming.setup.downloads import Jar
from streaming.setup.sbom import (
    bill_of_materials,
    jar_components,
    main,
    python_components,
    system_components,
)

STATUS = """\
Package: tini
Status: install ok installed
Architecture: amd64
Version: 0.19.0-1+b3
Description: an init
 of one line: more

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1:2.0

Package: login
Status: install ok installed
Architecture: amd64
Version: 1:4.13+dfsg1-1
"""


def a_jar(folder: Path, name: str, described: str = "") -> Path:
    with zipfile.ZipFile(folder / name, "w") as jar:
        jar.writestr("a.class", name)
        if described:
            jar.writestr("META-INF/maven/g/a/pom.properties", described)
            jar.writestr("META-INF/maven/other/b/pom.properties", "groupId=x\nartifactId=y\nversion=9\n")
    return folder / name


def test_packages_of_python_are_named_as_the_index_names_them() -> None:
    found = {each["name"]: each for each in python_components(distributions())}
    assert found["pyspark"]["purl"] == f"pkg:pypi/pyspark@{version('pyspark')}"
    assert found["flagstream"]["licenses"] == [{"expression": "Apache-2.0"}]
    assert "prometheus-client" in found


def test_jars_are_named_by_the_lock_or_by_themselves_and_carry_their_digest(tmp_path: Path) -> None:
    locked = a_jar(tmp_path, "table-1.0-linux.jar")
    own = a_jar(tmp_path, "store_2.13-2.0.jar", "groupId=org.own\r\nartifactId=store_2.13\r\nversion=2.0\r\n")
    bare = a_jar(tmp_path, "old-stuff-1.1.jar")
    lock = [Jar("spark", "org.locked", "table", "1.0", "", "linux")]
    found = list(jar_components([locked, own, bare], lock))
    assert [each.get("purl") for each in found] == [
        "pkg:maven/org.locked/table@1.0",
        "pkg:maven/org.own/store_2.13@2.0",
        None,
    ]
    assert (found[2]["name"], found[2]["version"]) == ("old-stuff", "1.1")
    digest = hashlib.sha256(own.read_bytes()).hexdigest()
    assert found[1]["hashes"] == [{"alg": "SHA-256", "content": digest}]


def test_packages_of_the_system_are_those_that_are_installed() -> None:
    assert [each["purl"] for each in system_components(STATUS)] == [
        "pkg:deb/debian/tini@0.19.0-1%2Bb3?arch=amd64",
        "pkg:deb/debian/login@1%3A4.13%2Bdfsg1-1?arch=amd64",
    ]


def test_the_same_contents_are_the_same_document() -> None:
    parts = [*system_components(STATUS), *python_components(distributions())]
    at = datetime(2026, 1, 1, tzinfo=UTC)
    one, other = bill_of_materials(parts, at), bill_of_materials([*reversed(parts), *parts], at)
    assert one == other
    assert one["metadata"]["component"]["name"] == "flagstream"
    assert one["serialNumber"] != bill_of_materials(parts[1:], at)["serialNumber"]


def test_this_installation_has_a_bill(tmp_path: Path) -> None:
    file = tmp_path / "sbom.cdx.json"
    main(file, {"FLAGSTREAM_CACHE": str(tmp_path), "SOURCE_DATE_EPOCH": "1767225600"})
    found = json.loads(file.read_text(encoding="utf-8"))
    assert found["metadata"]["timestamp"] == "2026-01-01T00:00:00+00:00"
    names = {each["name"] for each in found["components"]}
    assert {"spark-core_2.13", "numba"} <= names
    references = [each["bom-ref"] for each in found["components"]]
    assert len(references) == len(set(references)) > 300
