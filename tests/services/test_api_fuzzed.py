"""Schemathesis asks every endpoint what nobody expects: no answer is a fault of ours, or undescribed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.testing.small_lake import build_lake, spec_of
from streaming.tokens.bearer import draw
from streaming.tokens.token_table import TokenTable
from tests.served import served

SPEC = spec_of()
CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance",
    "response_schema_conformance", "response_headers_conformance", "unsupported_method", "ignored_auth",
)  # fmt: skip

# GET there is a version called rollback, which is described: another method is no other path.
LIKE_AN_ID = ("/v1/versions/rollback", "/v1/cases/claim-next", "/v1/cases/mass")
ENDLESS = "/v1/alerts/live"


@pytest.fixture(scope="session")
def schemathesis(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tool, installed by pip from its lock."""
    folder = tmp_path_factory.mktemp("schemathesis")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    lock = Path(__file__).parent / "schemathesis.lock"
    command = [str(folder / "bin" / "pip"), "install", "--quiet", "--require-hashes", "-r", str(lock)]
    subprocess.run(command, check=True, capture_output=True)
    return folder / "bin" / "schemathesis"


@pytest.mark.timeout(1_200)
def test_no_request_meets_a_fault_of_ours_or_an_answer_that_is_not_described(
    schemathesis: Path, tmp_path: Path
) -> None:
    settings = Settings.load(tmp_path / "home", {})
    build_lake(PlacedAgent(settings, SPEC))
    drawn = draw()
    TokenTable(PlacedAgent(settings, SPEC)).add(drawn, "fuzz", ["admin"], 1_000_000, None, "tests")
    bearer = f"Authorization: Bearer {drawn.text.get_secret_value()}"
    with served(settings.home, SPEC, "--score") as (address, _):
        command = [
            str(schemathesis), "run", f"{address}/openapi.json", "--header", bearer,
            "--checks", ",".join(CHECKS), "--max-examples", os.environ.get("API_EXAMPLES", "40"),
            "--seed", "7", "--phases", "examples,coverage,fuzzing", "--request-timeout", "30",
            "--suppress-health-check", "all",
        ]  # fmt: skip
        others = [word for path in (*LIKE_AN_ID, ENDLESS) for word in ("--exclude-path", path)]
        alike = [word for path in LIKE_AN_ID for word in ("--include-path", path)]
        for paths in (others, [*alike, "--exclude-checks", "unsupported_method"]):
            done = subprocess.run(
                [*command, *paths], capture_output=True, text=True, cwd=tmp_path, check=False
            )
            assert done.returncode == 0, done.stdout[-8_000:] + done.stderr[-2_000:]
