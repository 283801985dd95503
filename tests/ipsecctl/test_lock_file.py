"""Whether an instance's lock is held."""

from pathlib import Path

import pytest

from ipsecctl.lock_file import look
from supervisor.lock import LOCK_NAME, Lock


def test_no_file_is_no_lock(tmp_path: Path) -> None:
    state = look(str(tmp_path))
    assert (state.exists, state.held, state.pid) == (False, False, 0)


def test_a_held_lock_is_seen_and_its_holder_named(tmp_path: Path) -> None:
    lock = Lock(str(tmp_path))
    lock.take()
    state = look(str(tmp_path))
    assert (state.exists, state.held, state.pid) == (True, True, lock.holder.pid)
    lock.release()
    assert not look(str(tmp_path)).exists


@pytest.mark.parametrize(("content", "pid"), [('{"pid": 7}', 7), ("", 0), ("[]", 0), ("null", 0), ("junk", 0)])
def test_a_file_that_nobody_locks_is_stale_whatever_it_says(tmp_path: Path, content: str, pid: int) -> None:
    (tmp_path / LOCK_NAME).write_text(content)
    state = look(str(tmp_path))
    assert (state.exists, state.held, state.pid) == (True, False, pid)


def test_looking_does_not_keep_the_lock(tmp_path: Path) -> None:
    (tmp_path / LOCK_NAME).write_text("")
    look(str(tmp_path))
    lock = Lock(str(tmp_path))
    lock.take()
    lock.release()
