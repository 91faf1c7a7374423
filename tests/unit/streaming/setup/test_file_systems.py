"""A folder's file system is that of the innermost mount, and state is not kept on a network's."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.errors import MachineError
from streaming.setup.file_systems import check_file_system, file_system_of
from streaming.setup.machine_checks import check_home

TABLE = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:30 / /mnt rw - tmpfs tmpfs rw
31 30 0:31 /export /mnt/team\\040share rw,relatime shared:7 master:1 - nfs4 server:/export rw,vers=4.2
32 22 0:32 / /data rw - nfs server:/data rw
33 32 0:33 / /data rw - xfs /dev/sdb1 rw
34 22 0:34 / /bucket rw - fuse.s3fs s3fs rw
torn
"""


@pytest.fixture
def mounts(tmp_path: Path) -> Path:
    table = tmp_path / "mountinfo"
    table.write_text(TABLE, encoding="utf-8")
    return table


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/home/agent", "ext4"),
        ("/mnt", "tmpfs"),
        ("/mnt/team share/var", "nfs4"),
        ("/mnt/team", "tmpfs"),
        ("/data/var", "xfs"),
        ("/bucket/var", "fuse.s3fs"),
    ],
)
def test_the_innermost_mount_counts_and_the_last_of_two(mounts: Path, folder: str, kind: str) -> None:
    assert file_system_of(Path(folder), mounts) == kind


def test_this_machine_tells_what_its_own_folders_lie_on() -> None:
    assert file_system_of(Path("/proc/self")) == "proc"


def test_without_a_table_nothing_is_known(tmp_path: Path) -> None:
    assert file_system_of(tmp_path, tmp_path / "absent") is None
    check_file_system(tmp_path, mounts=tmp_path / "absent")


@pytest.mark.parametrize(("folder", "kind"), [("/mnt/team share", "nfs4"), ("/bucket/var", "fuse.s3fs")])
def test_state_on_a_network_is_refused_by_name(mounts: Path, folder: str, kind: str) -> None:
    with pytest.raises(MachineError, match=f"{folder} lies on {kind}.*--home"):
        check_file_system(Path(folder), mounts=mounts)


def test_state_on_a_disk_is_not(mounts: Path) -> None:
    check_file_system(Path("/data/var"), mounts=mounts)


def test_a_link_to_a_network_is_refused_and_the_setting_named_that_leads_there(
    mounts: Path, tmp_path: Path
) -> None:
    (tmp_path / "lake").symlink_to("/bucket")
    with pytest.raises(MachineError, match=r"lake/agent lies on fuse\.s3fs.*with FLAGSTREAM_STORE"):
        check_file_system(tmp_path / "lake" / "agent", "FLAGSTREAM_STORE", mounts)
    assert not check_home(tmp_path / "lake", mounts).ok


def test_a_path_that_leads_elsewhere_is_no_home(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("home%41")
    for name in ("home%41", "link"):
        with pytest.raises(MachineError, match="home%41: a percent sign"):
            check_file_system(tmp_path / name)
    check_file_system(tmp_path / "100% home")
