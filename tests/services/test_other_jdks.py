"""The whole job on every JDK that this machine has beside the one it uses: broker and Spark alike."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from streaming.home.settings import find_java

FLAGSTREAM = (sys.executable, "-c", "from streaming.cli.root import main; main()")
OLDEST, NEWEST = 17, 25
# Where Debian, Red Hat and Temurin put JDKs.
PLACES = [Path("/usr/lib/jvm")]


def major(java: Path) -> int:
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    found = re.search(r'version "(\d+)', said)
    return 0 if found is None else int(found[1])


def others() -> dict[int, Path]:
    """Return the homes of JDKs of other versions, by version."""
    homes = {each.resolve() for place in PLACES for each in place.glob("*") if (each / "bin/java").is_file()}
    known = {major(home / "bin/java"): home for home in sorted(homes)}
    known.pop(major(Path(find_java())), None)
    return {version: home for version, home in known.items() if OLDEST <= version <= NEWEST}


@pytest.mark.timeout(600)
def test_the_whole_job_runs_on_every_jdk_that_is_here(tmp_path: Path) -> None:
    found = others()
    if not found:
        pytest.skip("no other JDK is installed")
    for version, home in found.items():
        state = tmp_path / str(version)
        length = ("--seconds", "20", "--rate", "400")
        ran = flagstream(home, "demo", *length, "--llm", "none", "--json", "--home", state)
        assert ran.returncode == 0, ran.stderr
        done = json.loads(ran.stdout.splitlines()[-1])["demo"]
        assert done["events"] == 8_000
        assert done["alerts"] > 0
        compared = flagstream(home, "reconcile", "--home", state / "demo", "--json")
        assert compared.returncode == 0, compared.stdout + compared.stderr
        checked = json.loads(flagstream(home, "doctor", "--json", "--home", state).stdout)
        (jdk,) = [each for each in checked if each["name"] == "JDK"]
        assert jdk["ok"] and str(version) in jdk["found"]


def flagstream(home: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    known = {name: value for name, value in os.environ.items() if name != "FLAGSTREAM_KAFKA"}
    command = [*FLAGSTREAM, *map(str, arguments)]
    return subprocess.run(
        command, env={**known, "JAVA_HOME": str(home)}, capture_output=True, text=True, check=False
    )
