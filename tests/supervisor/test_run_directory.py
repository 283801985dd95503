"""The run directory."""

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipc.links import CONTROL, socket_path
from supervisor.errors import StartFailed
from supervisor.run_directory import RunDirectory, SavedRole, SavedState

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: the directory must be root's")


@pytest.fixture
def base() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ipsecd-run-") as name:
        os.chmod(name, 0o711)
        yield Path(name)


def test_it_is_made_so_that_roles_pass_and_nobody_looks(base: Path) -> None:
    RunDirectory(str(base / "run")).prepare()
    assert (base / "run").stat().st_mode & 0o777 == 0o711
    assert (base / "run" / "links").stat().st_mode & 0o777 == 0o711
    RunDirectory(str(base / "run")).prepare()


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o731])
def test_one_that_others_may_write_to_is_refused(base: Path, mode: int) -> None:
    (base / "run").mkdir()
    (base / "run").chmod(mode)
    with pytest.raises(StartFailed, match="others than root may write there"):
        RunDirectory(str(base / "run")).prepare()


def test_one_that_belongs_to_somebody_else_is_refused(base: Path) -> None:
    (base / "run").mkdir()
    os.chown(base / "run", 60701, 60701)
    with pytest.raises(StartFailed, match="belongs to uid 60701"):
        RunDirectory(str(base / "run")).prepare()


def test_a_symbolic_link_is_refused(base: Path) -> None:
    (base / "real").mkdir()
    (base / "run").symlink_to(base / "real")
    with pytest.raises(StartFailed, match="not a directory"):
        RunDirectory(str(base / "run")).prepare()


def test_one_that_no_role_could_reach_is_refused(base: Path) -> None:
    base.chmod(0o700)
    with pytest.raises(StartFailed, match=r"other users may not pass \(mode lacks o\+x\)"):
        RunDirectory(str(base / "run")).prepare()


def test_a_name_too_long_for_a_socket_is_refused(base: Path) -> None:
    with pytest.raises(StartFailed, match=r"must be \d+ bytes shorter"):
        RunDirectory(str(base / ("x" * 90))).prepare()


def test_state_is_written_whole_and_removed(base: Path) -> None:
    directory = RunDirectory(str(base))
    role = SavedRole(role="ike_worker", pid=7, start_time=1.0)
    directory.write_state(
        SavedState(pid=5, start_time=0.5, boot_id="b", spd_path="/etc/ipsec.spd", data_path="userspace", roles=(role,))
    )
    assert [path.name for path in base.iterdir()] == ["state.json"]
    assert json.loads((base / "state.json").read_text())["roles"] == [
        {"role": "ike_worker", "pid": 7, "start_time": 1.0}
    ]
    assert (directory.remove_state(), directory.remove_state()) == (True, False)


def test_only_link_sockets_are_removed(base: Path) -> None:
    directory = RunDirectory(str(base))
    directory.prepare()
    Path(socket_path(str(base), CONTROL)).touch()
    (base / "links" / "other").touch()
    assert (directory.remove_sockets(), directory.remove_sockets()) == (1, 0)
    assert [path.name for path in (base / "links").iterdir()] == ["other"]
