"""One supervisor for each instance."""

import json
import os
from pathlib import Path

import pytest

from ipc.process import process_start_time
from supervisor import lock
from supervisor.errors import AlreadyRunning, StartFailed
from supervisor.lock import LOCK_NAME, Lock


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "PAUSE_S", 0.001)


def test_the_lock_says_who_holds_it(tmp_path: Path) -> None:
    held = Lock(str(tmp_path))
    held.take()
    content = json.loads((tmp_path / LOCK_NAME).read_text())
    assert content["pid"] == os.getpid()
    assert content["start_time"] == process_start_time(os.getpid())
    assert content["boot_id"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    held.release()


def test_a_second_start_is_refused_and_told_the_pid(tmp_path: Path) -> None:
    held = Lock(str(tmp_path))
    held.take()
    with pytest.raises(AlreadyRunning, match=rf"ipsecd is already running \(pid {os.getpid()}\)"):
        Lock(str(tmp_path)).take()
    held.release()


@pytest.mark.parametrize("content", ["", "not json", "[]", '{"pid": 1, "start_time": 0.0, "boot_id": "old"}', "{}"])
def test_what_a_dead_supervisor_left_blocks_nobody(tmp_path: Path, content: str) -> None:
    (tmp_path / LOCK_NAME).write_text(content)
    held = Lock(str(tmp_path))
    held.take()
    assert json.loads((tmp_path / LOCK_NAME).read_text())["pid"] == os.getpid()
    held.release()


def test_release_removes_the_file_and_may_be_repeated(tmp_path: Path) -> None:
    held = Lock(str(tmp_path))
    held.take()
    held.release()
    held.release()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_on_a_file_that_was_removed_meanwhile_is_not_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / LOCK_NAME
    real_flock = lock.fcntl.flock
    removals = []

    def remove_first(descriptor: int, operation: int) -> None:
        real_flock(descriptor, operation)
        if not removals:
            removals.append(path.unlink())

    monkeypatch.setattr(lock.fcntl, "flock", remove_first)
    held = Lock(str(tmp_path))
    held.take()
    with pytest.raises(AlreadyRunning):
        Lock(str(tmp_path)).take()
    held.release()


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("precious")
    (tmp_path / LOCK_NAME).symlink_to(target)
    with pytest.raises(StartFailed, match="symbolic links"):
        Lock(str(tmp_path)).take()
    assert target.read_text() == "precious"


def test_o23_a_directory_in_place_of_the_lock_is_named(tmp_path: Path) -> None:
    (tmp_path / LOCK_NAME).mkdir()
    with pytest.raises(StartFailed, match=f"{LOCK_NAME}: Is a directory"):
        Lock(str(tmp_path)).take()


def test_o23_a_lock_that_was_removed_or_replaced_is_let_go_without_touching_the_other(tmp_path: Path) -> None:
    held = Lock(str(tmp_path))
    held.take()
    (tmp_path / LOCK_NAME).unlink()
    held.release()
    held.take()
    (tmp_path / LOCK_NAME).unlink()
    (tmp_path / LOCK_NAME).mkdir()
    held.release()
    assert (tmp_path / LOCK_NAME).is_dir()
