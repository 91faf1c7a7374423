"""Scripts for shells; tests/integration has a real bash use one."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from streaming.cli.options import shipped_specs
from streaming.cli.root import app


@pytest.mark.parametrize(
    ("shell", "said"),
    [
        ("bash", "complete -o default -F _flagstream_completion flagstream"),
        ("zsh", "#compdef flagstream"),
        ("fish", "complete --command flagstream"),
    ],
)
def test_each_shell_gets_a_script_of_its_own(shell: str, said: str) -> None:
    done = CliRunner().invoke(app, ["completion", shell])
    assert done.exit_code == 0
    assert said in done.stdout
    assert "_FLAGSTREAM_COMPLETE=complete_" in done.stdout


def test_another_shell_is_refused_by_name() -> None:
    done = CliRunner().invoke(app, ["completion", "tcsh"])
    assert done.exit_code == 2
    assert "tcsh" in done.output


def test_names_ofshipped_specs_are_completed() -> None:
    assert shipped_specs("card") == ["card-fraud"]
    assert shipped_specs("my-") == []
