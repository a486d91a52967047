"""The folder of a run: gone at its end however that comes, and one that nobody can write is said in one line."""

from pathlib import Path

import pytest

from fan_identity.io.errors import BackendUnavailableError, UsageError
from fan_identity.io.work_folder import WorkFolder, remove_abandoned, work_folder


def test_what_is_written_is_read_and_all_is_gone_at_the_end(tmp_path: Path) -> None:
    with work_folder(str(tmp_path), "run") as work:
        assert work.is_local
        work.write("fans-01", b"\0data")
        work.write("fans-00", b"")
        work.mark("read")
        work.mark("read")
        assert work.names("fans-") == ["fans-00", "fans-01"]
        assert work.read("fans-01") == b"\0data"
        assert (work.marks("read"), work.marks("other")) == (2, 0)
        with pytest.raises(BackendUnavailableError, match="work folder"):
            work.read("none")
    assert list(tmp_path.iterdir()) == []


def test_folders_of_killed_runs_go_and_those_of_others_that_run_stay(tmp_path: Path) -> None:
    killed = tmp_path / "fan-identity-import-killed"
    (killed / "below").mkdir(parents=True)
    (killed / "fans-00").write_bytes(b"ids")
    (tmp_path / "fan-identity-import-killed-at-once").mkdir()
    not_ours = tmp_path / "another-programs"
    not_ours.mkdir()
    with work_folder(str(tmp_path), "first") as first:
        first.write("a", b"1")
        remove_abandoned(str(tmp_path))
        assert first.read("a") == b"1"
        assert not killed.exists()
    assert list(tmp_path.iterdir()) == [not_ours]
    remove_abandoned(str(tmp_path / "none"))
    remove_abandoned("s3://no-bucket/folder")


def test_a_folder_that_is_not_there_or_takes_nothing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no folder"), work_folder(str(tmp_path / "none"), "run"):
        pass
    with pytest.raises(BackendUnavailableError, match="no folder can be made"), work_folder("/proc", "run"):
        pass
    with pytest.raises(BackendUnavailableError, match="work folder"):
        WorkFolder(str(tmp_path / "gone")).write("a", b"")
    WorkFolder(str(tmp_path / "gone")).mark("of no consequence")
