"""The bill of materials of an installation: packages of Python and of the system, and jars.

`python -m streaming.setup.sbom FILE` writes it, in CycloneDX; the image brings it along. It is read off what
is installed: the metadata of packages, the jars and their lock, Debian's list.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import sys
import uuid
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any
from urllib.parse import quote

from streaming.home.settings import Settings
from streaming.setup.downloads import Jar, locked_jars

Component = dict[str, Any]
_SCHEMA = "http://cyclonedx.org/schema/bom-1.6.schema.json"
_NAMED = re.compile(r"^(?P<name>.+?)-(?P<version>\d.*)$")
_LONGEST_LICENCE = 80
_DPKG = Path("/var/lib/dpkg/status")
_OURS = "flagstream"


def bill_of_materials(components: Iterable[Component], made_at: datetime | None = None) -> dict[str, Any]:
    """Return a document of CycloneDX 1.6; the same components give the same document.

    Args:
        components: in any order; of those with the same `bom-ref` the first counts.
        made_at: when what they describe was made, left out unless given.
    """
    by_reference: dict[str, Component] = {}
    for each in components:
        by_reference.setdefault(each["bom-ref"], each)
    ordered = [by_reference[name] for name in sorted(by_reference)]
    subject = next((each for each in ordered if each["name"] == _OURS), None)
    metadata: dict[str, Any] = {} if made_at is None else {"timestamp": made_at.isoformat()}
    if subject is not None:
        metadata["component"] = subject
    content = json.dumps(ordered, sort_keys=True)
    return {
        "$schema": _SCHEMA,
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, content)}",
        "version": 1,
        "metadata": metadata,
        "components": [each for each in ordered if each is not subject],
    }


def python_components(found: Iterable[Distribution]) -> Iterator[Component]:
    """Yield what Python has installed, with its licence where it says one."""
    for each in found:
        name = re.sub(r"[-_.]+", "-", each.metadata["Name"]).lower()
        yield {
            **_component(f"pkg:pypi/{name}@{_quoted(each.version)}", name, each.version),
            **_licences(each.metadata.get_all("License-Expression"), each.metadata.get_all("License")),
        }


def jar_components(files: Iterable[Path], lock: Iterable[Jar]) -> Iterator[Component]:
    """Yield jars, each with its digest, named by the lock, by what it says of itself, or else by its file."""
    locked = {each.file_name: each for each in lock}
    for file in files:
        jar = locked.get(file.name)
        group, name, version = (jar.organisation, jar.name, jar.revision) if jar else _coordinates(file)
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        yield {**_jar(group, name, version, digest), "hashes": [{"alg": "SHA-256", "content": digest}]}


def system_components(status: str) -> Iterator[Component]:
    """Yield the packages of a Debian, by the text of dpkg's list of them."""
    for paragraph in status.split("\n\n"):
        fields = dict(re.findall(r"^([A-Za-z-]+): (.*)$", paragraph, re.MULTILINE))
        if fields.get("Status") == "install ok installed":
            name, version, kind = fields["Package"], fields["Version"], fields["Architecture"]
            yield _component(f"pkg:deb/debian/{name}@{_quoted(version)}?arch={kind}", name, version)


def main(file: Path, environ: Mapping[str, str] = os.environ) -> None:
    """Write the bill of this installation to `file`."""
    settings, epoch = Settings.load(file.parent, environ), environ.get("SOURCE_DATE_EPOCH")
    found: list[Component] = list(python_components(distributions()))
    for section, folder in (("spark", settings.jars_spark), ("broker", settings.jars_broker)):
        found += jar_components(sorted(folder.glob("*.jar")), locked_jars(section))
    found += jar_components(_spark_jars(), ())
    with suppress(FileNotFoundError):
        found += system_components(_DPKG.read_text(encoding="utf-8"))
    made_at = datetime.fromtimestamp(int(epoch), UTC) if epoch else None
    file.write_text(json.dumps(bill_of_materials(found, made_at), indent=1) + "\n", encoding="utf-8")


def _spark_jars() -> list[Path]:
    """Jars within PySpark."""
    spark = importlib.util.find_spec("pyspark")
    places = (spark.submodule_search_locations or []) if spark else []
    return sorted(jar for place in places for jar in Path(place).glob("jars/*.jar"))


def _component(reference: str, name: str, version: str) -> Component:
    return {
        "type": "library", "bom-ref": reference, "name": name, "version": version, "purl": reference,
    }  # fmt: skip


def _jar(group: str, name: str, version: str, digest: str) -> Component:
    """A jar without a group has no address; its digest tells it from others."""
    if group:
        reference = f"pkg:maven/{_quoted(group)}/{_quoted(name)}@{_quoted(version)}"
        return {**_component(reference, name, version), "group": group}
    return {"type": "library", "bom-ref": f"sha256:{digest}", "name": name, "version": version}


def _coordinates(file: Path) -> tuple[str, str, str]:
    """Group, name and version of a jar, the group empty where it does not say."""
    for found in _described(file):
        if file.stem.startswith(f"{found.get('artifactId')}-{found.get('version')}"):
            return found.get("groupId", ""), found["artifactId"], found["version"]
    named = _NAMED.match(file.stem)
    return ("", named["name"], named["version"]) if named else ("", file.stem, "unknown")


def _described(file: Path) -> Iterator[dict[str, str]]:
    """What a jar, and those that were put into it, say of themselves."""
    with zipfile.ZipFile(file) as jar:
        for each in jar.namelist():
            if each.startswith("META-INF/maven/") and each.endswith("/pom.properties"):
                text = jar.read(each).decode("utf-8", "replace")
                yield dict(re.findall(r"^(\w+)=(.*?)\r?$", text, re.MULTILINE))


def _licences(expressions: Sequence[str] | None, texts: Sequence[str] | None) -> Component:
    """Whole texts of licences stay where they are; a name is short."""
    if expressions:
        return {"licenses": [{"expression": expressions[0]}]}
    if texts and texts[0].strip() and "\n" not in texts[0] and len(texts[0]) <= _LONGEST_LICENCE:
        return {"licenses": [{"license": {"name": texts[0].strip()}}]}
    return {}


def _quoted(text: str) -> str:
    return quote(text, safe="._~-")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
