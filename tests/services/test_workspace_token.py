"""No token of a workspace reaches a file, a log, an error or a child, whatever becomes of a run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from streaming.testing.workspace import TOKEN, LoopbackWorkspace, loopback_workspace
from tests.unit.streaming.databricks.samples import GIVEN, written

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def workspace(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackWorkspace]:
    with loopback_workspace() as found:
        monkeypatch.setenv("DATABRICKS_HOST", found.url)
        monkeypatch.setenv("DATABRICKS_TOKEN", TOKEN)
        yield found


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return written(tmp_path / "bundle")


CHILD = """\
import os, sys
from pathlib import Path
with Path(os.environ["SEEN"]).open("a") as file:
    file.write(repr(dict(os.environ)) + repr(sys.argv))
sys.exit(1)
"""


@pytest.mark.parametrize("code", ["SUCCESS", "RUN_EXECUTION_ERROR"])
def test_no_token_reaches_a_file_a_log_or_a_child(
    code: str, bundle: Path, tmp_path: Path, workspace: LoopbackWorkspace
) -> None:
    workspace.runs.outcomes.append((code, f"token {TOKEN}"))
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("databricks", "az", "gcloud", "git", "python3"):
        tool = tools / name
        tool.write_text(f"#!{sys.executable}\n{CHILD}", encoding="utf-8")
        tool.chmod(0o755)
    words = ["deploy", "databricks", "--bundle", str(bundle), "--target", "prod", "--follow"]
    words += [word for name, value in GIVEN.items() for word in ("--var", f"{name}={value}")]
    seen = tmp_path / "seen"
    seen.touch()
    done = subprocess.run(
        [sys.executable, "-c", "from streaming.cli.root import main; main()", *words],
        env={
            **os.environ,
            "PATH": str(tools),
            "SEEN": str(seen),
            "HOME": str(tmp_path),
            "PYTHONPATH": str(ROOT),
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == (0 if code == "SUCCESS" else 1), done.stderr
    assert TOKEN not in done.stdout + done.stderr + seen.read_text(encoding="utf-8")
    for path in tmp_path.rglob("*"):
        if path.is_file() and path.parent != tools:
            assert TOKEN.encode() not in path.read_bytes(), path
    assert TOKEN not in json.dumps([each.body for each in workspace.asked])
    assert TOKEN not in json.dumps(workspace.files)
