"""The way back to whoever started ipsecd."""

import os
from pathlib import Path

import pytest

from supervisor.detach import Starter, relay, run_detached


def test_the_parent_prints_the_lines_and_returns_the_code(capfd: pytest.CaptureFixture[str]) -> None:
    def run(starter: Starter) -> int:
        starter.announce("ipsecd: started")
        starter.finished(0)
        return 5

    assert run_detached(run) == 0
    os.wait()
    assert capfd.readouterr().out == "ipsecd: started\n"


def test_a_failed_start_gives_its_code(capfd: pytest.CaptureFixture[str]) -> None:
    def run(starter: Starter) -> int:
        starter.announce("ipsecd: no")
        return 1

    assert run_detached(run) == 1
    os.wait()
    assert capfd.readouterr().out == "ipsecd: no\n"


def test_a_daemon_that_dies_without_a_word_is_a_failed_start(capfd: pytest.CaptureFixture[str]) -> None:
    read_end, write_end = os.pipe()
    os.write(write_end, b"half a line")
    os.close(write_end)
    assert relay(read_end) == 1
    assert "it died while it started" in capfd.readouterr().err


def test_a_detached_process_writes_to_its_log(tmp_path: Path) -> None:
    log = tmp_path / "log"

    def run(starter: Starter) -> int:
        starter.use_log(lambda: os.open(log, os.O_WRONLY | os.O_CREAT, 0o600))
        os.write(1, b"out\n")
        os.write(2, b"err\n")
        return 0

    assert run_detached(run) == 0
    os.wait()
    assert log.read_text() == "out\nerr\n"


def test_an_error_of_its_own_is_told_and_logged(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log"

    def run(starter: Starter) -> int:
        starter.use_log(lambda: os.open(log, os.O_WRONLY | os.O_CREAT, 0o600))
        raise RuntimeError("a bug")

    assert run_detached(run) == 1
    os.wait()
    assert capfd.readouterr().out == "ipsecd: failed: RuntimeError('a bug')\n"


def test_a_daemon_goes_on_when_nobody_waits_for_it_any_more() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    starter = Starter(write_end)
    starter.announce("ipsecd: started")
    starter.finished(0)
    starter.finished(0)
