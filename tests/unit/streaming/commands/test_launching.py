"""What a command brings about before it begins."""

from __future__ import annotations

from pathlib import Path

from streaming.commands.launching import demo_settings
from streaming.home.settings import Settings


def test_the_demo_keeps_to_a_folder_of_its_own_wherever_the_lake_of_others_lies(tmp_path: Path) -> None:
    environ = {
        "FLAGSTREAM_STORE": "s3://theirs/lake",
        "FLAGSTREAM_AUDIT_ANCHOR": "s3://apart/anchor",
        "FLAGSTREAM_AUDIT_ANCHOR_AWS_ACCESS_KEY_ID": "theirs",
    }
    own = demo_settings(Settings.load(tmp_path, environ))
    assert own.home == tmp_path / "demo"
    assert own.lake("card-fraud").path.is_relative_to(own.home)
    assert own.audit_anchor is own.anchor_access is None
