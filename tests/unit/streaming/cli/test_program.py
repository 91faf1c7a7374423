"""The command line of a process: built once, however many commands it carries out."""

from __future__ import annotations

import pytest
import typer.main
from typer.testing import CliRunner

from streaming.cli.root import app, carried_out


def test_commands_of_one_process_go_by_one_command_line_and_leave_nothing_in_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def help_of_all() -> str:
        assert carried_out(["--help"]) == 0
        return capsys.readouterr().out

    def again(_: typer.Typer) -> None:
        raise AssertionError("built again")

    before = help_of_all()
    monkeypatch.setattr(typer.main, "get_command", again)
    assert carried_out(["spec", "validate", "--help"]) == 0
    assert carried_out(["nonsense"]) == 2
    capsys.readouterr()
    assert help_of_all() == before
    assert CliRunner().invoke(app, ["--help"]).exit_code == 0
