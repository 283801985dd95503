"""The log file of a detached instance: children write into it through a pipe, and it can be reopened."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipc.loop import Loop
from supervisor.log_file import PIPE_BYTES, LogFile


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    """The file that stdout and stderr are turned to; afterwards they are what they were."""
    kept = [os.dup(number) for number in (1, 2)]
    yield tmp_path / "log"
    for number, copy in enumerate(kept, 1):
        os.dup2(copy, number)
        os.close(copy)


def opened(path: Path) -> LogFile:
    return LogFile(lambda: os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))


def test_what_children_write_is_copied_into_the_file(log: Path) -> None:
    file, loop = opened(log), Loop()
    file.copy_in(loop)
    os.write(2, b"ours\n")
    os.write(file.write_end, b"a child's\n")
    loop.run_once(0.1)
    assert log.read_text() == "ours\na child's\n"
    file.close()


def test_after_it_was_moved_away_and_reopened_everybody_writes_to_the_new_file(log: Path) -> None:
    file, loop = opened(log), Loop()
    file.copy_in(loop)
    os.write(file.write_end, b"old\n")
    loop.run_once(0.1)
    log.rename(log.with_name("log.1"))
    file.reopen()
    os.write(1, b"ours\n")
    os.write(file.write_end, b"a child's\n")
    loop.run_once(0.1)
    file.close()
    assert log.with_name("log.1").read_text() == "old\n"
    assert log.read_text() == "ours\na child's\n"


def test_a_child_never_waits_for_a_supervisor_that_stands_still(log: Path) -> None:
    file = opened(log)
    assert os.write(file.write_end, bytes(PIPE_BYTES)) == PIPE_BYTES
    with pytest.raises(BlockingIOError):
        os.write(file.write_end, b"more")
    file.close()


def test_what_is_left_in_the_pipe_at_the_end_is_copied(log: Path) -> None:
    file = opened(log)
    os.write(file.write_end, b"last words\n")
    file.close()
    assert log.read_text() == "last words\n"
