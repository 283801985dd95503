"""The options of ipsecd, row by row as its manual has them (T2 to T14), and the backup of T39."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ipc import messages as m
from ipc import status_socket
from ipsecctl.client import ask
from supervisor import __main__ as ipsecd
from tests.lab.namespaces import Namespace
from tests.lab.stage import Stage
from tests.lab.waiting import wait_until

pytestmark = pytest.mark.root

GOOD_SPD = """\
[setup]
interfaces = ["lo"]
unmatched = "bypass"
"""


@pytest.fixture
def stage() -> Iterator[Stage]:
    with Namespace("options") as namespace, Stage(namespace) as made:
        yield made


def try_start(stage: Stage, *options: str) -> "subprocess.CompletedProcess[str]":
    arguments = ("-d", "--instance", str(stage.directory), "-f", str(stage.spd), *options)
    return stage.run("stand_ins.supervisor", *arguments)


def start(stage: Stage, *options: str) -> str:
    done = try_start(stage, *options)
    assert done.returncode == 0, done.stdout
    return done.stdout


def status(stage: Stage) -> Any:
    return json.loads(status_socket.ask(str(stage.directory), 20.0))


def codes(stage: Stage) -> list[str]:
    return [finding["code"] for finding in status(stage)["findings"]]


def log_of(stage: Stage) -> str:
    return (stage.directory / "ipsecd.log").read_text()


def backup(stage: Stage, text: str) -> Path:
    path = Path(f"{stage.spd}.bak")
    path.write_text(text)
    path.chmod(0o600)
    return path


def test_t2_t3_t4_b_reads_the_backup_over_f_and_a_later_reload_the_file_again(stage: Stage) -> None:
    path = backup(stage, "a b c d e")
    said = start(stage, "-b")
    assert f"running on backup policy {path}: the option -b asks for it" in said
    policy = status(stage)["policy"]
    assert (policy["path"], policy["rules"], codes(stage)) == (str(path), 5, ["on-backup-policy"])
    done = ask(str(stage.directory), m.ReloadCommand(), 30.0)
    assert done.exit_code == 0
    policy = status(stage)["policy"]
    assert (policy["path"], policy["rules"], codes(stage)) == (str(stage.spd), 2, [])


def test_t5_d_runs_as_a_daemon_away_from_the_terminal(stage: Stage) -> None:
    start(stage)
    pid = stage.supervisor
    assert os.getsid(pid) == pid != os.getsid(0)
    # The number of the terminal, and the parent: none, and not us.
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    assert int(after_name[4]) == 0
    assert int(after_name[1]) != os.getpid()
    assert [os.readlink(f"/proc/{pid}/fd/{number}") for number in range(3)] == [
        os.devnull,
        *[str(stage.directory / "ipsecd.log")] * 2,
    ]


def test_t6_e_is_accepted_warned_of_and_ignored(stage: Stage) -> None:
    said = start(stage, "-e")
    assert "ipsecd: warning: the option -e is reserved and does nothing" in said
    assert codes(stage) == []


def test_t7_f_names_the_policy_file(stage: Stage) -> None:
    stage.spd = stage.base / "another.spd"
    stage.spd.write_text("one two three")
    start(stage)
    assert (status(stage)["policy"]["path"], status(stage)["policy"]["rules"]) == (str(stage.spd), 3)


def test_t8_h_says_all_options_and_exits(stage: Stage) -> None:
    done = stage.run("supervisor", "-h")
    assert done.returncode == 0
    assert done.stdout.startswith("usage: ipsecd ")
    assert all(f"  -{option}" in done.stdout for option in "bdefhlmop")
    assert not stage.directory.exists()


@pytest.mark.parametrize(("options", "on"), [(("-l",), True), ((), False)])
def test_t9_l_has_unmatched_packets_logged(stage: Stage, options: tuple[str, ...], on: bool) -> None:
    start(stage, *options)
    wait_until("the agent is told", lambda: f"log unmatched: {on}" in log_of(stage))
    assert f"log unmatched: {not on}" not in log_of(stage)


@pytest.mark.parametrize(
    ("level", "has_info", "has_debug"),
    [
        pytest.param("0", False, False, id="t10_quiet"),
        pytest.param("1", True, False, id="t11_default"),
        pytest.param("2", True, True, id="t12_verbose"),
    ],
)
def test_t10_t11_t12_m_says_how_much_is_logged(stage: Stage, level: str, has_info: bool, has_debug: bool) -> None:
    start(stage, "-m", level)
    # What SIGUSR1 and its kind do is logged at info; a message that is not for this process at debug.
    os.kill(stage.supervisor, signal.SIGUSR1)
    os.kill(stage.supervisor, signal.SIGHUP)
    wait_until("the reload has ended", lambda: bool(status(stage)["policy"]["generation"] == 2))
    log = log_of(stage)
    assert (" INFO " in log) == has_info
    environment = Path(f"/proc/{status(stage)['roles'][0]['pid']}/environ").read_bytes().decode()
    assert ("=DEBUG\0" in environment + "\0") == has_debug


def test_t13_o_writes_the_log_to_a_file_that_sigusr1_opens_again(stage: Stage) -> None:
    output = stage.base / "debug.log"
    start(stage, "-o", str(output))
    assert (output.stat().st_mode & 0o777, "is up, pid" in output.read_text()) == (0o600, True)
    assert not (stage.directory / "ipsecd.log").exists()
    output.rename(stage.base / "debug.log.1")
    os.kill(stage.supervisor, signal.SIGUSR1)
    wait_until("the file is there again", lambda: output.exists() and "was reopened" in output.read_text())


def test_t13_o_works_in_the_foreground_and_the_terminal_hears_of_the_start(stage: Stage) -> None:
    output = stage.base / "debug.log"
    arguments = ("--instance", str(stage.directory), "-f", str(stage.spd), "-o", str(output))
    process = subprocess.Popen(
        stage.namespace.command(sys.executable, "-P", "-m", "stand_ins.supervisor", *arguments),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=stage.environment(),
    )
    try:
        wait_until("it runs", lambda: output.exists() and "started: 2 rules" in output.read_text(), timeout_s=30)
        process.terminate()
        said, _ = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert [line.split(":")[1] for line in said.splitlines()] == [" started", " started"]
    assert "is up, pid" in output.read_text()


@pytest.mark.parametrize("kind", ["fifo", "link"])
def test_t13_o_refuses_what_is_no_file(stage: Stage, kind: str) -> None:
    output = stage.base / "debug.log"
    if kind == "fifo":
        os.mkfifo(output)
    else:
        output.symlink_to(stage.spd)
    done = try_start(stage, "-o", str(output))
    assert done.returncode == 1
    assert f"the log can't be opened: [Errno {6 if kind == 'fifo' else 40}]" in done.stdout
    assert str(output) in done.stdout
    assert stage.spd.read_text() == "one two"


def test_t14_p_parses_says_all_that_is_wrong_and_exits(stage: Stage) -> None:
    stage.spd.write_text(GOOD_SPD)
    arguments = ("-p", "--instance", str(stage.directory), "-f", str(stage.spd))
    done = stage.run("supervisor", *arguments)
    assert (done.returncode, done.stdout) == (0, "")
    stage.spd.write_text(GOOD_SPD.replace("unmatched", "unmached") + 'data_path = "kernal"\n')
    done = stage.run("supervisor", *arguments)
    assert done.returncode == 1
    places = {f"{stage.spd}:{line}:1" for line in (3, 4)}
    assert places <= {":".join(line.split(":")[:3]) for line in done.stdout.splitlines()}
    done = stage.run("supervisor", *arguments, "-b")
    assert (done.returncode, f"{stage.spd}.bak" in done.stdout) == (6, True)
    assert not stage.directory.exists()


def test_a_wrong_option_is_a_usage_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        ipsecd.main(["-x"])
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("usage: ipsecd")


# ----------------------------------------------------------------- T39


def test_t39_an_invalid_file_at_start_gives_way_to_the_backup_and_status_says_so(stage: Stage) -> None:
    stage.spd.write_text("refuse")
    path = backup(stage, "a b c")
    said = start(stage)
    assert "ipsec.spd:1:1: refuse: this word is refused" in said
    assert f"running on backup policy {path}: {stage.spd} was refused: {stage.spd}:1:1" in said
    shown = stage.run("ipsecctl", "--instance", str(stage.directory), "status")
    assert shown.returncode == 1
    assert shown.stdout.splitlines()[2] == f"running on backup policy {path}"
    assert f"on-backup-policy: running on backup policy {path}" in shown.stdout
    assert status(stage)["policy"]["rules"] == 3
    stage.spd.write_text("one two")
    assert ask(str(stage.directory), m.ReloadCommand(), 30.0).exit_code == 0
    assert stage.run("ipsecctl", "--instance", str(stage.directory), "status").returncode == 0


def test_t39_an_invalid_backup_gives_way_to_the_policy_in_force_last(stage: Stage) -> None:
    start(stage)
    ask(str(stage.directory), m.StopCommand(), 30.0)
    wait_until("it is gone", lambda: not (stage.directory / "links/control").exists())
    stage.spd.write_text("refuse")
    backup(stage, "refuse too")
    wait_until("it may start again", lambda: try_start(stage).returncode == 0)
    assert status(stage)["policy"]["path"].startswith(f"{stage.spd}.generations/000001-")
    assert codes(stage) == ["on-backup-policy"]


def test_t39_with_nothing_good_the_start_fails_with_all_errors(stage: Stage) -> None:
    stage.spd.write_text("refuse")
    path = backup(stage, "refuse too")
    done = try_start(stage)
    assert done.returncode == 1
    assert f"{stage.spd}:2:1: and so is this line" in done.stdout
    assert f"{path}:1:1: refuse" in done.stdout


# ----------------------------------------------------------------- confirmation over a crash


def test_a_supervisor_killed_while_it_waits_for_confirmation_starts_with_the_policy_before(stage: Stage) -> None:
    start(stage)
    stage.spd.write_text("one two three")
    done = stage.run("ipsecctl", "--instance", str(stage.directory), "reload", "--confirm", "600")
    assert done.returncode == 0, done.stdout
    assert 0 < status(stage)["policy"]["confirm_within_s"] <= 600
    shown = stage.run("ipsecctl", "--instance", str(stage.directory), "status").stdout
    assert "to be confirmed within " in shown
    os.kill(stage.supervisor, signal.SIGKILL)
    wait_until("another can start", lambda: try_start(stage).returncode == 0, timeout_s=30)
    assert (status(stage)["policy"]["rules"], codes(stage)) == (2, ["on-backup-policy"])
    assert stage.run("ipsecctl", "--instance", str(stage.directory), "reload").returncode == 0
    assert (status(stage)["policy"]["rules"], codes(stage)) == (3, [])


def test_a_policy_that_nobody_confirms_goes_back_and_history_and_rollback_work(stage: Stage) -> None:
    start(stage)

    def ctl(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return stage.run("ipsecctl", "--instance", str(stage.directory), *arguments)

    stage.spd.write_text("one two three")
    assert "rules" in ctl("reload", "--dry-run").stdout
    assert status(stage)["policy"]["rules"] == 2
    assert ctl("confirm").returncode == 1
    assert ctl("reload", "--confirm", "1").returncode == 0
    wait_until("it has gone back", lambda: bool(status(stage)["policy"]["rules"] == 2))
    wait_until("status says why", lambda: codes(stage) == ["policy-refused"])
    ctl("reload", "--confirm", "600")
    assert ctl("confirm").returncode == 0
    listed = json.loads(ctl("policy", "history", "--json").stdout)
    assert [(one["number"], one["bytes"]) for one in listed] == [(1, 7), (2, 13)]
    assert listed[1]["same_as"] == [str(stage.spd)]
    assert len(ctl("policy", "history").stdout.splitlines()) == 3
    assert ctl("policy", "rollback").returncode == 2
    assert ctl("policy", "rollback", "9").returncode == 1
    assert ctl("policy", "rollback", "1").returncode == 0
    assert (stage.spd.read_text(), Path(f"{stage.spd}.bak").read_text()) == ("one two", "one two three")
    assert status(stage)["policy"]["rules"] == 2
